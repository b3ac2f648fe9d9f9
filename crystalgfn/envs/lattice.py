r"""Moves that choose the lattice: angles, then axis ratios, then the volume; each on the set that is left open.

Let p, q, r be the absolute cosines of alpha, beta, gamma, w = V / (abc), u = ln(a/b), v = ln(b/c), t = u + v and
sigma = ln(abc). With limits l0 <= a, b, c <= l1 and V0 <= V <= V1, a cell exists at given u, v iff every one of
e = (2u + v, v - u, -u - 2v) is in [-A, B], with A = ln V1 - ln w - 3 ln l0, B = 3 ln l1 - ln V0 + ln w, and |u|, |v|,
|t| <= ln(l1/l0). With the bounds of the fundamental domain on u, v and t that is a polygon, projected on u by
Fourier-Motzkin elimination. Equal axes leave most room, so angles only have to leave a cell with the axes as equal as
the domain allows: conditions on w alone (and, beyond beta = 120, on the ratio that beta enforces). They are monotone
between known break points, where bisection finds the ends of the open set.
"""

from __future__ import annotations

from math import log

import numpy as np
import torch

from crystalgfn.crystallography import lattice, space_groups
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.lattice import TRICLINIC, cosine_of, volume_factor
from crystalgfn.envs.base import Continuous, Head
from crystalgfn.envs.discrete import CrystalState
from crystalgfn.envs.open_sets import SMALLEST, Function, interval, keep_open, open_set
from crystalgfn.space.space import CrystalSpace
from crystalgfn.typing import Lattices, RowIndex

ANGLE_UNIT = 60.0  # degrees: the unit of angles in the reference measure
# what `CrystalSpace.contains` tolerates, in the units of the draws: 0.01 degrees; 0.1 % on each of two lengths
ANGLE_SLACK = 0.011 / ANGLE_UNIT
LENGTH_SLACK = 3e-3
ANGLES = ("alpha", "beta", "gamma")


class LatticeMoves:
    """The draws of the lattice parameters and the sets on which they are made, float64."""

    names = ("gamma", "beta", "alpha", "u", "v", "volume")

    def __init__(self, space: CrystalSpace, device: torch.device) -> None:
        def put(array: np.ndarray) -> torch.Tensor:
            return torch.tensor(np.asarray(array), device=device)

        self.space = space
        limits, rules = space.rules.cell, space.rules
        self.volume_per_atom, self.volumes = rules.volume_per_atom, rules.volumes
        self.low, self.high = log(rules.lengths[0]), log(rules.lengths[1])
        self.acute, self.obtuse = put(np.array(limits.acute())), put(np.array(limits.obtuse()))
        self.kind = put(lattice.KIND)
        self.centring = put(space_groups.CENTRING).double()
        self.reduction = put(space_groups.MONOCLINIC_REDUCTION).long()
        self.monoclinic = put(np.array([(0.0, 0.0), *(limits.monoclinic(i) for i in (1, 2, 3))]))
        self.order = put(lattice.ORDER_BOUNDS)
        self.order[self.kind == TRICLINIC] = 0.0
        typical = {
            "gamma": (1.5, 0.3),
            "beta": (1.7, 0.25),
            "alpha": (1.5, 0.3),
            "u": (-0.3, 0.5),
            "v": (-0.2, 0.7),
            "volume": (0.05, 0.35),
        }
        slack = {name: ANGLE_SLACK if name in ANGLES else LENGTH_SLACK for name in self.names}
        self.heads = tuple(
            Head(name=name, size=0, centre=typical[name][0], width=typical[name][1], slack=slack[name])
            for name in self.names
        )

    def start(self, state: CrystalState, rows: RowIndex) -> None:
        """Write the fixed angles of the group."""
        hexagonal = self.kind[state.group[rows]] == lattice.HEXAGONAL
        state.angles[rows, 2] = torch.where(hexagonal, 120.0, 90.0).to(state.angles.dtype)

    def rows(self, state: CrystalState, name: str) -> RowIndex:
        """The crystals that have this parameter free."""
        kind = self.kind[state.group]
        last = {"gamma": 0, "alpha": 0, "beta": 1, "u": 2, "v": 4, "volume": 5}[name]
        return (kind <= last).nonzero().flatten()

    def options(self, state: CrystalState, name: str, rows: RowIndex) -> Continuous:
        """The open set of the draw, [rows, pieces, 2]; angles in units of 60 degrees, ratios and volumes as ln."""
        low, high = self.log_volumes(state, rows)
        if name == "gamma":
            pieces = [self._triclinic(name, state, rows, low, high, s) for s in (1.0, -1.0)]
            pieces = torch.cat(pieces, 1)
        elif name == "alpha":
            pieces = self._triclinic(name, state, rows, low, high, None)
        elif name == "beta":
            triclinic = self.kind[state.group[rows]] == TRICLINIC
            pieces = torch.zeros(len(rows), 3, 2, dtype=torch.float64, device=rows.device)
            pieces[:, :, 0] = 1.0  # empty
            where = triclinic.nonzero().flatten()
            if len(where):
                pieces[where] = self._triclinic(name, state, rows[where], low[where], high[where], None)
            where = (~triclinic).nonzero().flatten()
            pieces[where, :2] = self._monoclinic(state, rows[where], low[where], high[where])
        else:
            pieces = self._lengths(state, name, rows, low, high)[:, None]
        return Continuous(keep_open(pieces))

    def apply(self, state: CrystalState, name: str, rows: RowIndex, action: torch.Tensor) -> None:
        """Write a parameter."""
        if name in ANGLES:
            state.angles[rows, ANGLES.index(name)] = action * ANGLE_UNIT
        elif name == "volume":
            state.log_volume[rows] = action + self._log_typical(state, rows)
        else:
            getattr(state, name)[rows] = action

    def lattices(self, state: CrystalState) -> Lattices:
        """a, b, c, alpha, beta, gamma of finished crystals, float64 [B, 6]."""
        log_volume = state.log_volume + torch.log(self._atoms(state, slice(None)))
        return cells(log_volume, state.u, state.v, state.angles)

    def read(self, plan: CrystalState, crystals: Crystals) -> None:
        """The parameters of given crystals; NaN for cells outside the limits or the fundamental domain."""
        cell = crystals.lattice.double()
        a, b, c = torch.log(cell[:, :3]).unbind(1)
        kind = self.kind[plan.group]
        plan.angles = cell[:, 3:].clone()
        plan.u = torch.where(kind <= 2, a - b, 0.0)
        plan.v = torch.where(kind <= 2, b - c, torch.where(kind <= 4, (a + b) / 2 - c, 0.0))
        log_volume = torch.log(crystals.volume_per_atom.double())
        plan.log_volume = torch.where(self.space.cell_inside(crystals), log_volume, torch.nan)

    def forced(self, plan: CrystalState, state: CrystalState, name: str, rows: RowIndex) -> torch.Tensor:
        """The planned value in the units of `options`."""
        if name in ANGLES:
            return plan.angles[rows, ANGLES.index(name)] / ANGLE_UNIT
        if name == "volume":
            return plan.log_volume[rows] - self._log_typical(state, rows)
        return getattr(plan, name)[rows]

    def log_volumes(self, state: CrystalState, rows: RowIndex) -> tuple[torch.Tensor, torch.Tensor]:
        """ln of the lowest and highest conventional cell volume, by volume per atom, density and relative volume."""
        atoms = self._atoms(state, rows)
        low, high = atoms * self.volume_per_atom[0], atoms * self.volume_per_atom[1]
        for i, limit in enumerate(self.volumes):
            least, greatest = limit.volumes(state.volume_sums[rows, i], self.centring[state.group[rows]])
            low, high = torch.maximum(low, least), torch.minimum(high, greatest)
        return low.log(), high.log()

    def _atoms(self, state: CrystalState, rows: RowIndex | slice) -> torch.Tensor:
        """Atoms in the conventional cell."""
        return state.amount[rows].sum(1) * self.centring[state.group[rows]]

    def _log_typical(self, state: CrystalState, rows: RowIndex) -> torch.Tensor:
        """ln of the typical volume per atom."""
        return state.typical_volume[rows].log() - state.amount[rows].sum(1).log()

    def _factor(self, state: CrystalState, rows: RowIndex | slice) -> torch.Tensor:
        return volume_factor(cosine_of(state.angles[rows]))

    # ---- angles -------------------------------------------------------------------------------------------------

    def _triclinic(
        self,
        name: str,
        state: CrystalState,
        rows: RowIndex,
        log_low: torch.Tensor,
        log_high: torch.Tensor,
        sign: float | None,
    ) -> torch.Tensor:
        """Open set of an angle of a Niggli cell of type I (sign 1) or II (-1, also None: as gamma says)."""
        # w² must be able to reach a value in [floor, ceiling]
        floor, ceiling = (2 * (log_low - 3 * self.high)).exp(), (2 * (log_high - 3 * self.low)).exp()
        gamma = state.angles[rows, 2]
        s = torch.where(gamma < 90, 1.0, -1.0).double() if sign is None else torch.full_like(gamma, sign)
        lo, hi = torch.where((s > 0)[:, None], self.acute, self.obtuse).unbind(1)
        r, q = cosine_of(gamma).abs(), cosine_of(state.angles[rows, 1]).abs()
        two = s < 0

        def factor(p: torch.Tensor, q: torch.Tensor, r: torch.Tensor, s: torch.Tensor = s) -> torch.Tensor:
            return 1 - p * p - q * q - r * r + 2 * s * p * q * r

        def room(used: torch.Tensor, spare: torch.Tensor | float) -> torch.Tensor:
            """The largest next cosine: in type II they add up to at most 1."""
            return torch.where(two, torch.minimum(hi, 1 - used - spare), hi)

        if name == "gamma":
            end = room(lo, lo)
            breaks = [
                torch.where(two, 1 - 2 * hi, hi * hi),
                torch.where(two, (1 - hi) / 2, hi),
                torch.where(two, 1 - hi - lo, hi),
                torch.where(two, (1 - lo) / 2, hi),
            ]

            def smallest(x: torch.Tensor) -> torch.Tensor:
                second = room(x, lo)
                return factor(room(x + second, 0.0), second, x)

            def largest(x: torch.Tensor) -> torch.Tensor:
                return factor(lo, lo, x)
        elif name == "beta":
            end = room(r, lo)
            breaks = [torch.where(two, 1 - r - hi, r * hi), torch.where(two, (1 - r) / 2, hi)]

            def smallest(x: torch.Tensor) -> torch.Tensor:
                return factor(room(r + x, 0.0), x, r)

            def largest(x: torch.Tensor) -> torch.Tensor:
                return factor(torch.where(two, lo, torch.maximum(lo, x * r)), x, r)
        else:
            end = room(q + r, 0.0)
            breaks = [torch.where(two, hi, q * r)]

            def smallest(x: torch.Tensor) -> torch.Tensor:
                return factor(x, q, r)

            largest = smallest
        pieces = open_set([lo, *breaks, end], smallest, ceiling, largest, floor)
        angle = torch.rad2deg(torch.arccos(pieces.clamp(-1, 1)))
        angle = torch.where(pieces == 0.5, 60.0, torch.where(pieces == 0, 90.0, angle)).to(pieces.dtype)
        acute = angle.flip(-1)
        return torch.where(two[:, None, None], 180 - angle, acute) / ANGLE_UNIT

    def _monoclinic(
        self, state: CrystalState, rows: RowIndex, log_low: torch.Tensor, log_high: torch.Tensor
    ) -> torch.Tensor:
        """Open set of beta: w with the ratio of axes that beta enforces must leave a volume."""
        lo, hi = self.monoclinic[self.reduction[state.group[rows]]].unbind(1)

        def sine(k: torch.Tensor) -> torch.Tensor:
            return torch.log(1 - k * k) / 2

        def stretch(k: torch.Tensor) -> torch.Tensor:
            return torch.log(2 * k.clamp_min(0.5))

        half = torch.full_like(lo, 0.5)
        pieces = open_set(
            [lo, half, hi],
            lambda k: sine(k) + stretch(k), log_high - 3 * self.low,
            lambda k: sine(k) - stretch(k), log_low - 3 * self.high,
        )  # fmt: skip
        return (180 - torch.rad2deg(torch.arccos(pieces.clamp(0, 1)))) / ANGLE_UNIT

    # ---- lengths ------------------------------------------------------------------------------------------------

    def _lengths(
        self, state: CrystalState, name: str, rows: RowIndex, log_low: torch.Tensor, log_high: torch.Tensor
    ) -> torch.Tensor:
        """Open interval of u, v or ln(relative volume), [rows, 2]."""
        log_factor = self._factor(state, rows).log()
        u, v = state.u[rows], state.v[rows]
        if name == "volume":
            e = torch.stack([2 * u + v, v - u, -u - 2 * v], 1)
            shift = log_factor - self._atoms(state, rows).log() - self._log_typical(state, rows)
            low = torch.maximum(log_low - log_factor, 3 * self.low - e.amin(1)) + shift
            high = torch.minimum(log_high - log_factor, 3 * self.high - e.amax(1)) + shift
            return interval(low, high)
        lower, upper, u_low, u_high, extra = self._polygon(state, rows, log_low, log_high, log_factor)
        slopes = torch.tensor([-2.0, 1.0, -0.5, 0.0, -1.0], dtype=torch.float64, device=rows.device)
        if name == "v":
            low = (slopes * u[:, None] + lower).amax(1)
            high = (slopes * u[:, None] + upper).amin(1)
            return interval(torch.maximum(low, extra(u)), high)
        # v between two lines exists iff (slope_i - slope_j) u <= upper_j - lower_i for all pairs
        difference = slopes[:, None] - slopes[None, :]
        gap = upper[:, None, :] - lower[:, :, None]
        bound = gap / torch.where(difference == 0, 1.0, difference)
        low = torch.where(difference < 0, bound, -torch.inf).amax((1, 2))
        high = torch.where(difference > 0, bound, torch.inf).amin((1, 2))
        return interval(torch.maximum(low, u_low), torch.minimum(high, u_high))

    def _polygon(
        self,
        state: CrystalState,
        rows: RowIndex,
        log_low: torch.Tensor,
        log_high: torch.Tensor,
        log_factor: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, Function]:
        """Lines below and above v (intercepts for slopes -2, 1, -1/2, 0, -1), bounds on u, and a last bound on v."""
        a = log_high - log_factor - 3 * self.low
        b = 3 * self.high - log_low + log_factor
        d = torch.full_like(a, self.high - self.low)
        group = state.group[rows]
        kind = self.kind[group]
        order = torch.minimum(self.order[group], d[:, None])
        u_low, v_low, t_low = -d, -d, -d
        u_high, v_high, t_high = order.unbind(1)
        p, q, r = cosine_of(state.angles[rows]).abs().unbind(1)
        low, high = lattice.monoclinic_ratio_bounds(q, self.reduction[group])
        monoclinic, triclinic = kind == lattice.MONOCLINIC, kind == TRICLINIC
        t_low = torch.where(monoclinic, torch.maximum(t_low, low), t_low)
        t_high = torch.where(monoclinic, torch.minimum(t_high, high), t_high)
        # Niggli: 2r <= a/b, 2q <= a/c, 2p <= b/c
        u_low = torch.where(triclinic, torch.maximum(u_low, torch.log(2 * torch.maximum(q, r))), u_low)
        v_low = torch.where(triclinic, torch.maximum(v_low, torch.log(2 * p)), v_low)
        t_low = torch.where(triclinic, torch.maximum(t_low, torch.log(2 * q)), t_low)
        two = triclinic & (state.angles[rows, 2] >= 90)
        # type II: 2 bc p + 2 ac q + 2 ab r <= a² + b²; with x = a/b the room for v is 0 at the larger root
        root = q + r + ((q + r) ** 2 - (1 - 2 * p)).clamp_min(0).sqrt()
        real = (q + r) ** 2 >= 1 - 2 * p
        u_low = torch.where(two & real, torch.maximum(u_low, root.clamp_max(1).log()), u_low)

        def extra(u: torch.Tensor) -> torch.Tensor:
            x = u.exp()
            ratio = 2 * (p + x * q) / (1 + x * x - 2 * x * r).clamp_min(SMALLEST)
            return torch.where(two, ratio.log().clamp_max(0), -torch.inf)

        lower = torch.stack([-a, -a, -b / 2, v_low, t_low], 1)
        upper = torch.stack([b, b, a / 2, v_high, t_high], 1)
        return lower, upper, u_low, u_high, extra


def cells(log_volume: torch.Tensor, u: torch.Tensor, v: torch.Tensor, angles: torch.Tensor) -> Lattices:
    """a, b, c, alpha, beta, gamma [B, 6] of cells with ln V [B], ln(a/b), ln(b/c) and angles [B, 3]."""
    sigma = log_volume - volume_factor(cosine_of(angles)).log()
    lengths = torch.stack([sigma + 2 * u + v, sigma - u + v, sigma - u - 2 * v], 1) / 3
    return torch.cat([lengths.exp(), angles], 1)
