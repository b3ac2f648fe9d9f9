"""Random cells of a space group, of about the right volume."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from crystalgfn.domain.lattice import HEXAGONAL, KIND, KINDS, MONOCLINIC, TETRAGONAL, TRICLINIC, canonical_lattice
from crystalgfn.structures.orbits import cell_matrix
from crystalgfn.tables import elements, groups

VOLUME_OF_SPHERES = 0.55
"""Share of the cell that spheres of the elements' radii fill in the median of real crystals."""


def random_cell(space_group: int, counts: Mapping[str, int], rng: np.random.Generator) -> np.ndarray:
    """A random conventional cell of about the right volume, in the group's domain, [6]."""
    kind = KIND[space_group - 1]
    volume = sum(elements.SPHERE_VOLUME[elements.NUMBER[s] - 1] * n for s, n in counts.items()) / VOLUME_OF_SPHERES
    lengths = np.exp(rng.uniform(-0.5, 0.5, 3))
    angles = np.full(3, 90.0)
    if kind == TRICLINIC:
        angles = rng.uniform(65, 90, 3)
    elif kind == MONOCLINIC:
        angles[1] = rng.uniform(90, 120)
    elif kind == HEXAGONAL:
        angles[2] = 120.0
    if kind in (TETRAGONAL, HEXAGONAL):
        lengths[1] = lengths[0]
    elif kind == KINDS.index("cubic"):
        lengths[:] = 1.0
    unit = abs(np.linalg.det(cell_matrix([*lengths, *angles])))
    lengths *= (volume * int(groups.CENTRING[space_group - 1]) / unit) ** (1 / 3)
    return canonical_lattice(space_group, np.concatenate([lengths, angles]))
