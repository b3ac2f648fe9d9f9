"""Crystals with partial occupancies, for fitting on real materials; samplers draw ordered ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torchtyping import TensorType

from crystalgfn.domain.crystals import Crystals
from crystalgfn.errors import InvalidCrystal


@dataclass(frozen=True)
class Disordered(Crystals):
    """Crystals whose amounts need not be whole: atoms per primitive cell, float64 [B, 118].

    The features of a proxy are computed from it as from ordered crystals.

    Raises:
        InvalidCrystal: shapes or dtypes that do not go together.
    """

    def __post_init__(self) -> None:
        n = self.space_group.shape[0] if self.space_group.ndim == 1 else -1
        if n < 0 or self.composition.shape != (n, 118) or self.lattice.shape != (n, 6):
            raise InvalidCrystal(
                "crystals need space_group [B], composition [B, 118] and lattice [B, 6], got "
                f"{list(self.space_group.shape)}, {list(self.composition.shape)} and {list(self.lattice.shape)}"
            )
        if self.space_group.dtype != torch.int64 or not self.composition.dtype.is_floating_point:
            raise InvalidCrystal(
                "disordered crystals need whole group numbers and floating-point amounts, got "
                f"{self.space_group.dtype} and {self.composition.dtype}"
            )

    def __getitem__(self, index: slice | torch.Tensor) -> Disordered:
        """The crystals at ``index`` (a slice, positions or a mask)."""
        return Disordered(self.space_group[index], self.composition[index], self.lattice[index])

    @property
    def n_atoms(self) -> TensorType["batch", torch.float64]:
        """Atoms per primitive cell, vacancies not counted, [B]."""
        return self.composition.sum(1)
