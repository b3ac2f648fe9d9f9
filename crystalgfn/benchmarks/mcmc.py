"""Moves from crystal to crystal that leave a tempered distribution as it is (Metropolis and Hastings).

The distribution is pi_t(x) ~ q0(x)^(1 - t) R(x)^t under the reference measure, q0 a policy. Five kernels:

* ``regenerate``: a cut among the named moves, drawn without looking at the crystal; the moves before it stay, q0 draws
  the rest. The new part comes from q0's own conditional, so with f = ln R - ln q0 the ratio is exp(t (f' - f)).
* ``lattice``: Gaussian steps of the free ln-lengths and angles / 60 degrees, the coordinates of the reference measure.
* ``elements``: one of the crystal's elements and one of the space's change places (a replacement, or a swap of counts).
* ``counts``: one count up or down, atoms from one element to another, all counts doubled or halved.
* ``group``: another space group with the same kind of lattice.

The last four are symmetric: the reverse is proposed with the same probability. Where lengths follow (with the number of
atoms or the size of elements), ln-lengths move by a difference of a function of the discrete part, which keeps the
measure and is undone by the reverse. What leaves the space has ln q0 = -inf and is refused.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from crystalgfn.crystallography import elements, lattice
from crystalgfn.crystallography import space_groups as groups
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.envs.base import Observation, Options
from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.envs.lattice import ANGLE_UNIT
from crystalgfn.gfn.rollout import policy_choice, rollout, unroll
from crystalgfn.gfn.scoring import log_forward
from crystalgfn.policy.network import PolicyNetwork
from crystalgfn.space.space import CrystalSpace
from crystalgfn.typing import Booleans, Compositions, Floats, Integers, Lattices

KERNELS = ("regenerate", "lattice", "elements", "counts", "group")
BATCH = 4096  # crystals walked at a time
REACH = 6  # places in the order of electronegativity that a nearby element is away, at most
MOST_ATOMS = 3  # by which a count goes up or down, at most
SAME = 1e-7  # relative: a cell that a forced walk moved by more was outside the space


class Base:
    """A policy (copied) in an environment, in float64, as the exactly known distribution q0.

    ``strata``: ln weights [K + 1] of the number of elements instead of the policy's own.
    """

    def __init__(self, env: CrystalEnvironment, network: PolicyNetwork, strata: torch.Tensor | None = None) -> None:
        self.env = env
        self.network = copy.deepcopy(network).double()
        self.strata = None if strata is None else strata.to(env.device)
        self.order = {name: i for i, name in enumerate(env.heads)}

    @property
    def n_moves(self) -> int:
        """Named moves; a cut of this size keeps all of them."""
        return len(self.order)

    @torch.no_grad()
    def draw(self, n: int, generator: torch.Generator) -> tuple[Crystals, Floats]:
        """``n`` crystals of q0 and their ln q0, float64."""
        crystals, log_q = [], []
        for start in range(0, n, BATCH):
            size = min(BATCH, n - start)
            walked = rollout(self.env, self.network, size, 0.0, self.strata, generator)
            crystals.append(walked.objects)
            log_q.append(log_forward(self.env, self.network, walked, self.strata) - walked.log_backward)
        return Crystals.cat(crystals), torch.cat(log_q)

    @torch.no_grad()
    def complete(self, crystals: Crystals, cut: Integers, generator: torch.Generator) -> tuple[Crystals, Floats]:
        """Keep the first ``cut`` [B] moves of each crystal, in the order of the heads; q0 draws the others.

        Returns:
            The crystals [B] and their ln q0, float64 [B]; -inf where the kept moves are not in the space.
        """
        done, log_q = [], []
        for start in range(0, len(crystals), BATCH):
            part = slice(start, start + BATCH)
            one, value = self._complete(crystals[part], cut[part], generator)
            done.append(one)
            log_q.append(value)
        return Crystals.cat(done), torch.cat(log_q)

    def _complete(self, crystals: Crystals, cut: torch.Tensor, generator: torch.Generator) -> tuple[Crystals, Any]:
        env = self.env
        plan = env.replay(crystals)
        draw = policy_choice(env, self.network, 0.0, self.strata, generator)

        def choose(
            state: Any, head: str, rows: torch.Tensor, observation: Observation | None, options: Options
        ) -> torch.Tensor:
            action = env.forced(plan, state, head, rows)
            open_ = (cut[rows] <= self.order[head]).nonzero().flatten()
            if not len(open_):
                return action
            some = rows[open_]
            drawn = draw(state, head, some, env.observe(state, head, some), options.select(open_))
            return action.index_copy(0, open_, drawn.to(action.dtype))

        walked = unroll(env, len(crystals), choose, forced=True)
        log_q = log_forward(env, self.network, walked, self.strata) - walked.log_backward
        # a forced walk pulls cells just outside the space onto its edge; as a proposal that would not be reversible
        moved = (walked.objects.lattice / crystals.lattice - 1).abs().amax(1) > SAME
        return walked.objects, torch.where(moved & (cut >= self.n_moves), -torch.inf, log_q)


class MoveProposals:
    """What the kernels propose in a space, for a whole batch at a time; a cut is drawn uniformly below ``n_moves``."""

    def __init__(self, space: CrystalSpace, n_moves: int, device: torch.device) -> None:
        def put(values: Any) -> torch.Tensor:
            return torch.tensor(np.asarray(values), device=device)

        self.n_moves, self.device = n_moves, device
        self.kind = put(lattice.KIND)
        self.follows, self.free_angles = put(lattice.FOLLOWS), put(lattice.FREE_ANGLES).double()
        self.zs = put(space.element_numbers)
        self.place = torch.full((118,), -1, device=device)
        self.place[self.zs - 1] = torch.arange(len(self.zs), device=device)
        self.atom_volume = put(elements.RADIUS**3)
        self.centring = put(groups.CENTRING).double()
        same_kind = [np.flatnonzero(space.rules.groups & (lattice.KIND == k)) for k in range(len(lattice.KINDS))]
        self.n_same = put([max(len(x), 1) for x in same_kind])
        self.same_kind = torch.zeros(len(same_kind), int(self.n_same.max()), dtype=torch.int64, device=device)
        for k, numbers in enumerate(same_kind):
            self.same_kind[k, : len(numbers)] = put(numbers)

    def __call__(
        self, crystals: Crystals, kernel: Integers, step: float, generator: torch.Generator
    ) -> tuple[Crystals, Integers, Booleans]:
        """Propose by kernel number (a place in `KERNELS`) [B] for each crystal [B] inside the space.

        Lattice steps are of the scale ``step``, in the units of the reference measure.

        Returns:
            The proposed crystals [B], the number of their moves to keep (the rest is q0's to draw) [B], and False
            where there is nothing to propose [B].
        """
        group, composition = crystals.space_group.clone(), crystals.composition.clone()
        cells = crystals.lattice.double().clone()
        cut = torch.full_like(kernel, self.n_moves)
        possible = torch.ones_like(kernel, dtype=torch.bool)

        def rows_of(name: str) -> torch.Tensor:
            return (kernel == KERNELS.index(name)).nonzero().flatten()

        rows = rows_of("regenerate")
        cut[rows] = torch.randint(self.n_moves, (len(rows),), device=self.device, generator=generator)
        rows = rows_of("lattice")
        cells[rows], possible[rows] = self.cells(group[rows], cells[rows], step, generator)
        for name, discrete in (("elements", self.elements), ("counts", self.counts)):
            rows = rows_of(name)
            composition[rows], shift, possible[rows] = discrete(composition[rows], generator)
            cells[rows, :3] *= shift.exp()[:, None]
        rows = rows_of("group")
        group[rows], shift = self.groups(group[rows], generator)
        cells[rows, :3] *= shift.exp()[:, None]
        return Crystals(group, composition, cells), cut, possible

    def cells(
        self, group: Integers, cells: Lattices, step: float, generator: torch.Generator
    ) -> tuple[Lattices, Booleans]:
        """Gaussian steps of the free parameters, half of them of the volume alone; False for impossible angles."""
        n = len(group)
        kind = self.kind[group - 1]
        noise = self._normal((n, 6), generator)
        scale = step * self._normal((n, 1), generator).exp()  # small and large steps, drawn without looking
        volume_only = self._coin(n, generator)[:, None]
        lengths = torch.where(volume_only, noise[:, :1], noise[:, :3].gather(1, self.follows[kind]))
        angles = torch.where(volume_only, 0.0, noise[:, 3:] * self.free_angles[kind])
        moved = cells[:, 3:] + ANGLE_UNIT * scale * angles
        possible = ((moved > 1) & (moved < 179)).all(1)
        return torch.cat([cells[:, :3] * (scale * lengths).exp(), moved], 1), possible

    def elements(
        self, composition: Compositions, generator: torch.Generator
    ) -> tuple[Compositions, torch.Tensor, Booleans]:
        """Two columns change places: an element of the crystal, and one of the space or one close by in its order.

        Half of the moves scale the cell with the elements' volumes: shift of the ln-lengths, [B].
        """
        n = len(composition)
        old = self._present(composition, generator)
        anywhere = torch.randint(len(self.zs), (n,), device=self.device, generator=generator)
        away = torch.randint(1, REACH + 1, (n,), device=self.device, generator=generator)
        away = torch.where(self._coin(n, generator), away, -away)
        place = torch.where(self._coin(n, generator), anywhere, self.place[old] + away)
        possible = (place >= 0) & (place < len(self.zs))
        new = self.zs[place.clamp(0, len(self.zs) - 1)] - 1
        out = composition.clone()
        out.scatter_(1, old[:, None], composition.gather(1, new[:, None]))
        out.scatter_(1, new[:, None], composition.gather(1, old[:, None]))
        shift = torch.log((out.double() @ self.atom_volume) / (composition.double() @ self.atom_volume)) / 3
        return out, torch.where(self._coin(n, generator), shift, 0.0), possible

    def counts(
        self, composition: Compositions, generator: torch.Generator
    ) -> tuple[Compositions, torch.Tensor, Booleans]:
        """One count up or down; atoms from one element to another; all counts doubled or halved. Same atoms' volume."""
        n = len(composition)
        way = torch.randint(3, (n,), device=self.device, generator=generator)[:, None]
        one, other = self._present(composition, generator), self._present(composition, generator)
        atoms = torch.randint(1, MOST_ATOMS + 1, (n,), device=self.device, generator=generator)
        atoms = torch.where(self._coin(n, generator), atoms, -atoms)[:, None]
        more = composition.scatter_add(1, one[:, None], atoms)
        transfer = more.scatter_add(1, other[:, None], -atoms)
        twice = self._coin(n, generator)[:, None]
        multiple = torch.where(twice, 2 * composition, composition // 2)
        out = torch.where(way == 0, more, torch.where(way == 1, transfer, multiple))
        whole = (twice | (composition % 2 == 0)).all(1) | (way[:, 0] < 2)
        possible = whole & ((out > 0) == (composition > 0)).all(1) & (out >= 0).all(1)
        out = torch.where(possible[:, None], out, composition)
        return out, torch.log(out.sum(1).double() / composition.sum(1)) / 3, possible

    def groups(self, group: Integers, generator: torch.Generator) -> tuple[Integers, torch.Tensor]:
        """A group of the space with the same kind of lattice; ln-lengths follow the centring, [B]."""
        kind = self.kind[group - 1]
        draw = torch.rand(len(group), dtype=torch.float64, device=self.device, generator=generator)
        choice = (draw * self.n_same[kind]).long().clamp_max(self.n_same[kind] - 1)
        new = self.same_kind[kind, choice]
        return new + 1, torch.log(self.centring[new] / self.centring[group - 1]) / 3

    def _present(self, composition: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """A column of each row, uniform among those that are not zero."""
        draw = torch.rand(composition.shape, device=self.device, generator=generator) + 1
        return torch.where(composition > 0, draw, 0.0).argmax(1)

    def _coin(self, n: int, generator: torch.Generator) -> torch.Tensor:
        return torch.rand(n, device=self.device, generator=generator) < 0.5

    def _normal(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.float64, device=self.device, generator=generator)
