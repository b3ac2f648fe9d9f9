"""High density that stays physical: a wall where atoms would have to overlap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from crystalgfn.domain.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.rewards.properties import Density
from crystalgfn.tables import elements
from crystalgfn.typing import Floats

#: Spheres of the tabulated radii fill 0.64 to 0.71 of the densest crystals of MP-20 (Os, Ir3Os, ReIr3).
MAX_PACKING = 0.70


def packing_fraction(crystals: Crystals) -> Floats:
    """Volume of spheres of the elements' tabulated radii over the volume of the cell, [B]."""
    spheres = torch.tensor(elements.SPHERE_VOLUME).to(crystals.lattice)
    filled = crystals.composition.to(spheres.dtype) @ spheres / crystals.n_atoms
    return filled / crystals.volume_per_atom


@dataclass(frozen=True, eq=False)
class Dense:
    """``log R = beta * density - max(0, (packing - max_packing) / width)² / 2``.

    The limits on volume alone allow 4 Å3 an atom to any element, 80 g/cm3 for heavy ones. The wall depends on the
    composition: where spheres of the elements' radii would fill more than ``max_packing`` of the cell, the reward falls
    as a Gaussian of ``width``.

    Attributes:
        beta: per g/cm3, > 0.
        max_packing: where the wall begins, > 0.
        width: of the wall, > 0.
    """

    beta: float
    max_packing: float = MAX_PACKING
    width: float = 0.01
    direction: str = "maximise"

    def __post_init__(self) -> None:
        for name in ("beta", "max_packing", "width"):
            if not 0 < getattr(self, name) < float("inf"):
                raise RewardError(f"dense: {name} must be a finite number greater than 0, not {getattr(self, name)!r}.")

    @property
    def prop(self) -> Density:
        """The density, for tables."""
        return Density()

    def __call__(self, crystals: Crystals) -> Floats:
        """Log R of each crystal."""
        beyond = ((packing_fraction(crystals) - self.max_packing) / self.width).clamp_min(0)
        return self.beta * crystals.density - beyond.square() / 2

    def with_beta(self, beta: float) -> Dense:
        """The same reward at another inverse temperature; the wall stays."""
        return replace(self, beta=beta)

    def to(self, device: torch.device | str) -> Dense:
        """Itself: it holds no tensors and computes where the crystals are."""
        return self

    def config(self) -> dict[str, Any]:
        """What hydra rebuilds it from."""
        return {
            "_target_": "crystalgfn.rewards.dense", "beta": self.beta, "max_packing": self.max_packing,
            "width": self.width,
        }  # fmt: skip


def dense(beta: float, max_packing: float = MAX_PACKING, width: float = 0.01) -> Dense:
    """High density up to close packing; see :class:`Dense`."""
    return Dense(beta, max_packing, width)
