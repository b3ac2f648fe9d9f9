"""What can be said of one structure without energies: distances, volume, charge."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.distances import IMAGES, reduced_basis
from crystalgfn.evaluation.metrics.compositions import amounts, smact_valid, valid_composition, whole
from crystalgfn.evaluation.metrics.matching import SHORTEST, SMALLEST
from crystalgfn.space.charge import ChargeRule
from crystalgfn.structures.ground_state import CLOSEST

if TYPE_CHECKING:
    from pymatgen.core import Structure

TABLES = tuple(elements.OXIDATION_STATES)
"""Of oxidation states that charges are balanced by."""
VOLUMES = (0.65, 3.0)
"""Limits of the relative volume, those that the shipped samplers draw within (``config/space``)."""
FULL = 1 + 1e-3
"""Sites that hold at most one atom together are alternatives, so their distance says nothing."""
ROWS = 64
"""Atoms whose distances to all others are held in memory at once."""


@dataclass(frozen=True)
class Validity:
    """One structure.

    Attributes:
        shortest: the smallest distance between two atoms in Å, own images included; of alternatives none counts.
        ratio: the smallest ratio of a distance to the sum of the two radii.
        volume_per_atom: Å3.
        relative_volume: of the cell to what its atoms typically take up in known crystals.
        longest_edge: Å, of the reduced cell.
        neutral_icsd: neutral by this table of oxidation states, one element split over two neighbouring states at most;
            a pure element counts as neutral. None where a disordered composition has no small formula unit.
        neutral_common: the same by the common states.
        neutral_all: the same by all states.
        valid_structure: no pair closer than 0.5 Å, own images included, and at least 0.1 Å3.
        valid_composition: by CDVAE's rule (`compositions.valid_composition`).
        smact: by ``smact_validity`` of the library SMACT; None where it is not installed or has no data on an element.
        apart: no pair closer than 0.7 of its sum of radii.
        usual_volume: the relative volume lies within `VOLUMES`.
    """

    shortest: float
    ratio: float
    volume_per_atom: float
    relative_volume: float
    longest_edge: float
    neutral_icsd: bool | None
    neutral_common: bool | None
    neutral_all: bool | None
    valid_structure: bool
    valid_composition: bool
    smact: bool | None
    apart: bool
    usual_volume: bool


def validity(structure: Structure) -> Validity:
    """Judge a structure; a primitive cell is cheapest."""
    occupied = amounts(structure)
    atoms = sum(occupied.values())
    shortest, ratio = nearest(structure)
    typical = sum(elements.VOLUME[z - 1] * n for z, n in occupied.items())
    relative = structure.volume / typical
    counts = whole(occupied)
    balanced = [None if counts is None else _neutral(table, counts) for table in TABLES]
    neutral = dict(zip((f"neutral_{table}" for table in TABLES), balanced, strict=True))
    return Validity(
        shortest=shortest,
        ratio=ratio,
        volume_per_atom=structure.volume / atoms,
        relative_volume=relative,
        longest_edge=float(np.linalg.norm(reduced_basis(structure.lattice.matrix), axis=1).max()),
        valid_structure=shortest >= SHORTEST and structure.volume >= SMALLEST,
        valid_composition=valid_composition(counts),
        smact=None if counts is None else smact_valid(counts),
        apart=ratio >= CLOSEST,
        usual_volume=VOLUMES[0] <= relative <= VOLUMES[1],
        **neutral,
    )


def nearest(structure: Structure) -> tuple[float, float]:
    """The smallest distance (Å) and the smallest ratio of a distance to the sum of radii, own images included."""
    basis = reduced_basis(structure.lattice.matrix)
    points = structure.frac_coords @ structure.lattice.matrix @ np.linalg.inv(basis)
    images = IMAGES @ basis
    radius, filled = np.array([_site(site) for site in structure]).T
    squares = (images**2).sum(axis=1)
    shortest = ratio = np.inf
    for start in range(0, len(points), ROWS):
        rows = np.arange(start, min(start + ROWS, len(points)))
        gaps = points[rows, None] - points[None]
        vectors = (gaps - np.rint(gaps)) @ basis
        distances = (vectors**2).sum(axis=-1)[..., None] + 2 * vectors @ images.T + squares
        distances[rows - start, rows, 0] = np.inf  # an atom and itself
        found = np.sqrt(np.maximum(distances.min(axis=-1), 0.0))
        alternatives = filled[rows, None] + filled[None] <= FULL
        alternatives[rows - start, rows] = False  # a half-filled site still has its own images
        found[alternatives] = np.inf
        shortest = min(shortest, float(found.min()))
        ratio = min(ratio, float((found / (radius[rows, None] + radius[None])).min()))
    return shortest, ratio


def _site(site: Any) -> tuple[float, float]:
    """Mean radius of the atoms of a site, and how many they are."""
    parts = [(elements.RADIUS[element.Z - 1], float(amount)) for element, amount in site.species.items()]
    filled = sum(amount for _, amount in parts)
    return sum(r * amount for r, amount in parts) / filled, filled


@cache
def _rule(table: str) -> ChargeRule:
    return ChargeRule(elements.OXIDATION_STATES[table], "adjacent", False)


@cache
def _neutral(table: str, counts: tuple[tuple[int, int], ...]) -> bool:
    return _rule(table).neutral(dict(counts))
