"""Whether a structure is the one looked for: pymatgen's StructureMatcher, as others compare predicted crystals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from crystalgfn.evaluation.metrics.compositions import amounts, valid_composition, whole

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

TOLERANCES = {"stol": 0.5, "angle_tol": 10, "ltol": 0.3}
"""Of CDVAE, DiffCSP and those after them."""
SHORTEST, SMALLEST = 0.5, 0.1
"""Å and Å3: closest pair and smallest volume of a structure that is valid by DiffCSP's protocol."""


@dataclass(frozen=True)
class Match:
    """One structure beside the one looked for.

    ``rms`` is the root mean square displacement over the cube root of the volume per atom, None where they do not
    match; ``valid``: whether both are valid by the filtered protocol.
    """

    rms: float | None
    valid: bool


@cache
def matcher() -> StructureMatcher:
    """The matcher with the usual tolerances."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(**TOLERANCES)


def match(structure: Structure, truth: Structure) -> Match:
    """Compare a structure with the one looked for."""
    found = matcher().get_rms_dist(structure, truth)
    valid = all(valid_structure(s) and valid_composition(whole(amounts(s))) for s in (structure, truth))
    return Match(None if found is None else float(found[0]), valid)


def valid_structure(structure: Structure) -> bool:
    """No pair closer than 0.5 Å and a volume of at least 0.1 Å3, as CDVAE and DiffCSP ask."""
    if structure.volume < SMALLEST:
        return False
    distances = structure.distance_matrix + np.diag(np.full(len(structure), SHORTEST + 10.0))
    return bool(distances.min() >= SHORTEST)
