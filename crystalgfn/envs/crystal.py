"""The environment of crystals: number of elements, group, composition, lattice; one path to each crystal."""

from __future__ import annotations

from collections.abc import Iterator
from math import log

import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.envs import composition, space_group
from crystalgfn.envs.base import Discrete, Environment, Head, Observation, Options
from crystalgfn.envs.composition import CompositionMoves
from crystalgfn.envs.lattice import LatticeMoves
from crystalgfn.envs.observation import CrystalObservation
from crystalgfn.envs.space_group import GroupMoves
from crystalgfn.envs.state import CrystalState
from crystalgfn.space.space import CrystalSpace
from crystalgfn.typing import Floats, RowIndex

#: ln of the Jacobian from (u, v, ln V) to the free ln-lengths, for every kind of lattice.
LOG_JACOBIAN = log(3.0)


class CrystalEnvironment(Environment[CrystalState, Crystals]):
    """Moves in a `CrystalSpace`; all masks are look-ups in the space's tables.

    Args:
        space: what may be drawn.
        device: where the states live.
    """

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
        for name in space_group.NAMES:
            yield name, everyone
        for name in composition.turn_names(self.space.n_elements[1]):
            yield name, (state.n_elements >= composition.position(name) + 1).nonzero().flatten()
        for name in self.lattice.names:
            yield name, self.lattice.rows(state, name)

    def options(self, state: CrystalState, head: str, rows: RowIndex) -> Options:
        """What the rows may do."""
        if head in space_group.NAMES:
            return Discrete(self.groups.mask(state, head, rows))
        if head in self.composition.names:
            return self.composition.options(state, head, rows)
        return self.lattice.options(state, head, rows)

    def observe(self, state: CrystalState, head: str, rows: RowIndex) -> Observation:
        """The sparse features of the rows."""
        return self.observation(state, head, rows)

    def apply(self, state: CrystalState, head: str, rows: RowIndex, action: torch.Tensor) -> None:
        """Make the move in place."""
        if head in space_group.NAMES:
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
        if head in space_group.NAMES:
            return self.groups.forced(plan, head, rows)
        if head in self.composition.names:
            return self.composition.forced(plan, state, head, rows)
        return self.lattice.forced(plan, state, head, rows)

    def log_backward(self, state: CrystalState) -> Floats:
        """The Jacobian of the lattice draws: the one path to a crystal has P_B = 1.

        So ln P_F - ln P_B is ln q under the reference measure (ln-lengths), not under the drawn ratios and volumes.
        """
        return torch.full((len(state.n_elements),), -LOG_JACOBIAN, dtype=torch.float64, device=self.device)
