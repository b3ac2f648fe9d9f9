"""Limits on the volume of a cell that depend on its composition, and what they leave of the compositions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from crystalgfn.domain.cell import MARGIN
from crystalgfn.domain.crystals import Crystals
from crystalgfn.domain.units import DENSITY_UNIT
from crystalgfn.tables import elements, groups
from crystalgfn.typing import Floats

if TYPE_CHECKING:
    from crystalgfn.domain.space import CrystalSpace


def relative_volume(crystals: Crystals, volumes: np.ndarray = elements.VOLUME) -> Floats:
    """Volume of each cell over what its atoms take up in known crystals, or by other volumes of elements [118], [B]."""
    volumes = torch.tensor(volumes).to(crystals.lattice)
    return crystals.volume_per_atom * crystals.n_atoms / (crystals.composition.to(volumes.dtype) @ volumes)


@dataclass(frozen=True)
class SumLimits:
    """Ranges in which sums over the atoms of a primitive cell must end, so that a cell is left.

    Attributes:
        weights: what an atom of each element adds to each sum, [J, 118].
        ranges: lowest and highest sums for each group and number of atoms, [230, n_atoms + 1, J, 2].
    """

    weights: np.ndarray
    ranges: np.ndarray


def sum_limits(space: CrystalSpace, cases: np.ndarray) -> SumLimits | None:
    """The sums that the limits on density and relative volume bound; None where every composition obeys.

    With M the mass and T the typical volume of the atoms, the volume V of the primitive cell has the lower bounds L (of
    volume per atom and of the lengths), M / d1 and r0 T, and the upper bounds H, M / d0 and r1 T. Some V is left iff
    every lower bound is below every upper one: conditions on M, on T, and on M and T together.

    Args:
        space: whose limits.
        cases: groups and numbers of atoms that occur, bool [230, n_atoms + 1].
    """
    low, high = _volumes(space)
    own = np.array(space.element_numbers) - 1
    weights, ranges = [], []

    def bound(weight: np.ndarray, least: np.ndarray | float, greatest: np.ndarray | float) -> None:
        """Keep a sum that some composition could have out of its range."""
        limits = np.stack(np.broadcast_arrays(np.full(low.shape, least), np.full(low.shape, greatest)), axis=-1)
        atoms = np.arange(low.shape[1])
        smallest, largest = atoms * weight[own].min(), atoms * weight[own].max()
        if ((limits[..., 0] > smallest) | (limits[..., 1] < largest))[cases].any():
            weights.append(weight)
            ranges.append(limits)

    mass, typical = elements.MASS * DENSITY_UNIT, elements.VOLUME
    widened = 1 + MARGIN
    if space.density is not None:
        bound(mass, space.density[0] * low * widened, space.density[1] * high / widened)
    if space.relative_volume is not None:
        r0, r1 = space.relative_volume
        bound(typical, low * widened / r1, high / widened / r0 if r0 > 0 else np.inf)
    if space.density is not None and space.relative_volume is not None:
        d0, d1 = space.density
        bound(mass - d0 * r0 * widened * typical, 0.0, np.inf)
        bound(d1 * r1 * typical - widened * mass, 0.0, np.inf)
    return SumLimits(np.stack(weights), np.stack(ranges, axis=2)) if weights else None


def _volumes(space: CrystalSpace) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest primitive cells by volume per atom and lengths, Å3, [230, n_atoms + 1] each."""
    atoms = np.arange(space.n_atoms[1] + 1)
    ends = np.array([space.cell_limits.volumes(group + 1) for group in range(230)]) / groups.CENTRING[:, None]
    low = np.maximum(atoms * space.volume_per_atom[0], ends[:, :1])
    high = np.minimum(atoms * space.volume_per_atom[1], ends[:, 1:])
    return low, high
