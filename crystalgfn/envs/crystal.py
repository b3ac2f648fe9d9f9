"""The environment of crystals: number of elements, group, composition, lattice; one path to each crystal."""

from __future__ import annotations

from collections.abc import Iterator
from math import log

import numpy as np
import torch

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.lattice import cosine_of
from crystalgfn.crystallography.lattice_vectors import successive_minima
from crystalgfn.envs.base import Discrete, Environment, Head, Observation, Options
from crystalgfn.envs.discrete import GROUP_MOVES, CompositionMoves, CrystalState, GroupMoves, position, turn_names
from crystalgfn.envs.lattice import LatticeMoves, cells
from crystalgfn.space.charge_lookahead import ChargeSets
from crystalgfn.space.space import CrystalSpace
from crystalgfn.typing import Floats, RowIndex

#: ln of the Jacobian from (u, v, ln V) to the free ln-lengths, for every kind of lattice.
LOG_JACOBIAN = log(3.0)


class CrystalEnvironment(Environment[CrystalState, Crystals]):
    """Moves in a `CrystalSpace`; all masks are look-ups in the space's tables."""

    object_type = Crystals

    def __init__(self, space: CrystalSpace, device: torch.device | str = "cpu") -> None:
        self.space = space
        self.device = torch.device(device)
        self.groups = GroupMoves(space, self.device)
        self.composition = CompositionMoves(space, self.device)
        self.lattice = LatticeMoves(space, self.device)
        self.observation = CrystalObservation(space, self.device)
        self.vocabulary = self.observation.size
        self.heads: dict[str, Head] = {
            head.name: head for head in (*self.groups.heads, *self.composition.heads, *self.lattice.heads)
        }

    def initial(self, n: int) -> CrystalState:
        """``n`` empty crystals."""
        k = self.space.n_elements[1]

        def whole(*shape: int, value: int = 0) -> torch.Tensor:
            return torch.full((n, *shape), value, dtype=torch.int64, device=self.device)

        def real(*shape: int, value: float = 0.0) -> torch.Tensor:
            return torch.full((n, *shape), value, dtype=torch.float64, device=self.device)

        return CrystalState(
            n_elements=whole(), system=whole(value=-1), symmetry=whole(value=-1), group=whole(value=-1),
            node=whole(), counts=whole(k), left=whole(value=-1),
            charge=self.composition.initial_charge.expand(n, -1, -1).clone(),
            element=whole(k, value=-1), amount=whole(k), volume_sums=real(len(self.space.rules.volumes)),
            typical_volume=real(),
            angles=real(3, value=90.0), u=real(), v=real(), log_volume=real(),
        )  # fmt: skip

    def turns(self, state: CrystalState) -> Iterator[tuple[str, RowIndex]]:
        """The moves in order; each row takes part where it has something to decide."""
        everyone = torch.arange(len(state.n_elements), device=self.device)
        for name in GROUP_MOVES:
            yield name, everyone
        for name in turn_names(self.space.n_elements[1]):
            yield name, (state.n_elements >= position(name) + 1).nonzero().flatten()
        for name in self.lattice.names:
            yield name, self.lattice.rows(state, name)

    def options(self, state: CrystalState, head: str, rows: RowIndex) -> Options:
        """What the rows may do."""
        if head in GROUP_MOVES:
            return Discrete(self.groups.mask(state, head, rows))
        if head in self.composition.names:
            return self.composition.options(state, head, rows)
        return self.lattice.options(state, head, rows)

    def observe(self, state: CrystalState, head: str, rows: RowIndex) -> Observation:
        """The sparse features of the rows."""
        return self.observation(state, head, rows)

    def apply(self, state: CrystalState, head: str, rows: RowIndex, action: torch.Tensor) -> None:
        """Make the move in place."""
        if head in GROUP_MOVES:
            self.groups.apply(state, head, rows, action)
            if head == "group":
                self.lattice.start(state, rows)
        elif head in self.composition.names:
            self.composition.apply(state, head, rows, action)
        else:
            self.lattice.apply(state, head, rows, action)

    def objects(self, state: CrystalState) -> Crystals:
        """The finished crystals, lattice in float64."""
        return Crystals(state.group + 1, self.composition.compositions(state), self.lattice.lattices(state))

    def replay(self, objects: Crystals) -> CrystalState:
        """The finished state of given crystals; decisions that the space cannot make are -1 or NaN."""
        plan = self.initial(len(objects))
        plan.n_elements = objects.n_elements
        self.groups.read(plan, objects)
        self.composition.read(plan, objects)
        self.lattice.read(plan, objects)
        return plan

    def forced(self, plan: CrystalState, state: CrystalState, head: str, rows: RowIndex) -> torch.Tensor:
        """The action on the one path to the planned crystals; -1 or NaN where the space has none."""
        if head in GROUP_MOVES:
            return self.groups.forced(plan, head, rows)
        if head in self.composition.names:
            return self.composition.forced(plan, state, head, rows)
        return self.lattice.forced(plan, state, head, rows)

    def log_backward(self, state: CrystalState) -> Floats:
        """The Jacobian of the lattice draws: the one path to a crystal has P_B = 1.

        So ln P_F - ln P_B is ln q under the reference measure (ln-lengths), not under the drawn ratios and volumes.
        """
        return torch.full((len(state.n_elements),), -LOG_JACOBIAN, dtype=torch.float64, device=self.device)


MAX_COUNT = 80
MAX_ELEMENTS = 10
STAGES = (*GROUP_MOVES, "count", "element", *LatticeMoves.names)

SCALARS = (
    "n_atoms",
    "ln_n_atoms",
    "charge_low",
    "charge_high",
    "alpha",
    "beta",
    "gamma",
    "u",
    "v",
    "u2",
    "v2",
    "ln_typical_volume",
)

ROOM = ("mean size", "shortest", "next", "last", "shortest to the largest atom")
"""Lengths of the lattice so far at its typical volume, in units of an atom's size: the cube root of a cell's volume,
the successive minima, and the first of these in units of the size of the largest atom."""

KNOTS = torch.linspace(-1.2, 2.4, 19, dtype=torch.float64)
"""Of the hat functions of their logarithms."""


def _layout() -> tuple[dict[str, int], int]:
    sizes = {
        "nothing": 1,
        "stage": len(STAGES),
        "position": MAX_ELEMENTS,
        "n_elements": MAX_ELEMENTS + 1,
        "system": 8,
        "symmetry": 5,
        "group": 230,
        "count": MAX_COUNT + 1,
        "left": MAX_COUNT + 1,
        "element": 119,
        "fraction": 119,
        "last": 119,
        "scalar": len(SCALARS),
        "room": len(ROOM) * len(KNOTS),  # networks without it are older
    }
    offsets, total = {}, 0
    for name, size in sizes.items():
        offsets[name] = total
        total += size
    return offsets, total


OFFSET, VOCABULARY = _layout()


class CrystalObservation:
    """Turns partial crystals into sparse features."""

    size = VOCABULARY

    def __init__(self, space: CrystalSpace, device: torch.device) -> None:
        table = space.tables.composition
        self.slot_count = torch.from_numpy(table.slot_count).to(device)
        zs = np.array(space.element_numbers, dtype=np.int64)
        self.zs = torch.from_numpy(zs).to(device)
        self.volumes = torch.from_numpy(elements.VOLUME[zs - 1]).to(device)
        self.sets = ChargeSets(table, space.alloys, device)
        self.knots = KNOTS.to(device)
        self.centring = torch.tensor(space_groups.CENTRING, dtype=torch.float64, device=device)
        self.scalar_index = OFFSET["scalar"] + torch.arange(len(SCALARS), device=device)

    def __call__(self, state: CrystalState, head: str, rows: RowIndex) -> Observation:
        """The features of the rows before the move ``head``; up to the group, few are distinct."""
        if head not in GROUP_MOVES:
            return self._features(state, head, rows)
        key = (state.n_elements[rows] * 9 + state.system[rows] + 1) * 6 + state.symmetry[rows] + 1
        distinct, inverse = key.unique(return_inverse=True)
        first = torch.empty_like(distinct).scatter_(0, inverse, rows)  # any row of each kind
        seen = self._features(state, head, first)
        return Observation(seen.index, seen.weight, inverse)

    def _features(self, state: CrystalState, head: str, rows: RowIndex) -> Observation:
        n, device = len(rows), rows.device
        name = head.rstrip("0123456789")
        position = int(head[len(name) :] or 0)
        index: list[torch.Tensor] = []
        weight: list[torch.Tensor] = []

        def add(kind: str, value: torch.Tensor, amount: torch.Tensor | None = None) -> None:
            """Features ``kind``/``value``; negative values are absent."""
            value = value[:, None] if value.ndim == 1 else value
            index.append(torch.where(value >= 0, value + OFFSET[kind], 0))
            present = (value >= 0).to(torch.float32)
            weight.append(present if amount is None else present * amount.to(torch.float32))

        add("stage", torch.full((n,), STAGES.index(name), device=device))
        add("position", torch.full((n,), position, device=device))
        if name != "n_elements":
            add("n_elements", state.n_elements[rows])
            add("system", state.system[rows])
            add("symmetry", state.symmetry[rows])
            add("group", state.group[rows])
        if name == "count" or name not in GROUP_MOVES:
            counts = state.counts[rows]
            add("count", torch.where(counts > 0, counts.clamp_max(MAX_COUNT), -1))
            scalars = torch.zeros(n, len(SCALARS), dtype=torch.float64, device=device)
            atoms = counts.sum(1).double()
            scalars[:, 0] = atoms / 20
            scalars[:, 1] = atoms.clamp_min(1).log()
            if name != "count":
                self._composition(state, name, position, rows, atoms, scalars, add)
            index.append(self.scalar_index.expand(n, -1))
            weight.append(scalars.to(torch.float32))
        return Observation(torch.cat(index, 1), torch.cat(weight, 1))

    def _composition(self, state, name, position, rows, atoms, scalars, add) -> None:  # noqa: ANN001
        element, amount = state.element[rows], state.amount[rows]
        z = torch.where(element >= 0, self.zs[element.clamp_min(0)], -1)
        fraction = amount / atoms[:, None]
        add("element", z)
        add("fraction", z, fraction)
        volume = torch.where(element >= 0, self.volumes[element.clamp_min(0)], 0.0)
        scalars[:, 11] = (fraction * volume).sum(1).clamp_min(1).log()
        if name == "element":
            left = self.slot_count[state.left[rows]]
            add("left", torch.where(left > 0, left.clamp_max(MAX_COUNT), -1))
            if position > 0:
                add("last", z[:, position - 1])
                scalars[:, 2:4] = self._charges(state.charge[rows])
            return
        self._shape(state, rows, volume.amax(1), scalars, add)

    def _shape(self, state, rows, largest, scalars, add) -> None:  # noqa: ANN001
        """The lattice as far as it is decided (else right angles, equal axes) and the room that it leaves."""
        angles = state.angles[rows]
        scalars[:, 4:7] = 2 * cosine_of(angles)
        u, v = state.u[rows], state.v[rows]
        scalars[:, 7:11] = torch.stack([u, v, u * u, v * v], 1)
        lattice = cells((state.typical_volume[rows] * self.centring[state.group[rows]]).log(), u, v, angles)
        minima = successive_minima(state.group[rows] + 1, lattice).log()
        mean = lattice[:, :3].log().mean(1, keepdim=True)
        size, widest = scalars[:, 11:] / 3, largest.log()[:, None] / 3  # of an atom, and of the largest
        for place, amount in _hats(torch.cat([mean - size, minima - size, minima[:, :1] - widest], 1), self.knots):
            add("room", place, amount)

    def _charges(self, charge: torch.Tensor) -> torch.Tensor:
        """GroundState and highest charge reached so far, in units of 10, [rows, 2]."""
        bits = self.sets.unpack(charge[:, 0] | charge[:, 1])[:, :-1]
        half = self.sets.half_width
        value = torch.arange(-half, half + 1, device=charge.device, dtype=torch.float64)
        any_ = bits.any(1, keepdim=True)
        low = torch.where(bits, value, torch.inf).amin(1, keepdim=True)
        high = torch.where(bits, value, -torch.inf).amax(1, keepdim=True)
        return torch.where(any_, torch.cat([low, high], 1), 0.0) / 10


def _hats(value: torch.Tensor, knots: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The two hat functions at the even knots on either side of values [rows, kinds]: positions and weights."""
    place = ((value - knots[0]) / (knots[1] - knots[0])).clamp(0, len(knots) - 1)
    low = place.floor().clamp_max(len(knots) - 2)
    first = low.long() + len(knots) * torch.arange(value.shape[1], device=value.device)
    yield first, 1 - (place - low)
    yield first + 1, place - low
