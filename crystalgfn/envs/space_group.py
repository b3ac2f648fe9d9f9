"""Moves that choose the number of elements, the crystal-lattice system, the point symmetry and the space group."""

from __future__ import annotations

import numpy as np
import torch

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.envs.base import Head
from crystalgfn.envs.state import CrystalState
from crystalgfn.space.space import CrystalSpace
from crystalgfn.typing import Mask, RowIndex

NAMES = ("n_elements", "system", "symmetry", "group")


class GroupMoves:
    """Look-up masks from the number of count patterns that each group admits."""

    def __init__(self, space: CrystalSpace, device: torch.device) -> None:
        table = space.tables
        k_max = space.n_elements[1]
        n_elements = table.composition.n_elements
        admits = np.stack([table.allowed[:, n_elements == k].any(1) for k in range(k_max + 1)])  # [K + 1, 230]
        member = np.zeros((8, 5, 230), dtype=bool)
        member[space_groups.CRYSTAL_LATTICE_SYSTEM, space_groups.POINT_SYMMETRY, np.arange(230)] = True
        group = admits[:, None, None, :] & member  # [K + 1, 8, 5, 230]
        self.group = torch.from_numpy(group).to(device)
        self.symmetry = self.group.any(3)
        self.system = self.symmetry.any(2)
        self.n_elements = self.system.any(1)
        self.system_of = torch.tensor(np.asarray(space_groups.CRYSTAL_LATTICE_SYSTEM), device=device).long()
        self.symmetry_of = torch.tensor(np.asarray(space_groups.POINT_SYMMETRY), device=device).long()
        self.heads = (
            Head(name="n_elements", size=k_max + 1),
            Head(name="system", size=8),
            Head(name="symmetry", size=5),
            Head(name="group", size=230),
        )

    def mask(self, state: CrystalState, head: str, rows: RowIndex) -> Mask:
        """What the rows may choose, bool [rows, actions]."""
        k = state.n_elements[rows]
        if head == "n_elements":
            return self.n_elements.expand(len(rows), -1)
        if head == "system":
            return self.system[k]
        if head == "symmetry":
            return self.symmetry[k, state.system[rows]]
        return self.group[k, state.system[rows], state.symmetry[rows]]

    def apply(self, state: CrystalState, head: str, rows: RowIndex, action: torch.Tensor) -> None:
        """Write the choice."""
        getattr(state, head)[rows] = action

    def read(self, plan: CrystalState, crystals: Crystals) -> None:
        """The choices that lead to given crystals."""
        known = (crystals.space_group >= 1) & (crystals.space_group <= 230)
        index = (crystals.space_group - 1).clamp(0, 229)
        plan.group = torch.where(known, index, -1)
        plan.system, plan.symmetry = self.system_of[index], self.symmetry_of[index]
        size = self.n_elements.shape[0]
        plan.n_elements = torch.where(plan.n_elements < size, plan.n_elements, -1)

    def forced(self, plan: CrystalState, head: str, rows: RowIndex) -> torch.Tensor:
        """The planned choice."""
        return getattr(plan, head)[rows]
