"""Whether a structure is the one looked for: pymatgen's StructureMatcher, as others compare predicted crystals."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from crystalgfn.crystallography import elements

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

    Attributes:
        rms: root mean square displacement over the cube root of the volume per atom; None where they do not match.
        valid: whether both are valid by the filtered protocol.
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
    valid = all(valid_structure(s) and valid_composition(s) for s in (structure, truth))
    return Match(None if found is None else float(found[0]), valid)


def valid_structure(structure: Structure) -> bool:
    """No pair closer than 0.5 Å and a volume of at least 0.1 Å3, as CDVAE and DiffCSP ask."""
    if structure.volume < SMALLEST:
        return False
    distances = structure.distance_matrix + np.diag(np.full(len(structure), SHORTEST + 10.0))
    return bool(distances.min() >= SHORTEST)


def valid_composition(structure: Structure) -> bool:
    """Neutral with one oxidation state an element and cations less electronegative than anions, or all metals.

    The rule of ``smact_validity`` in CDVAE's and DiffCSP's evaluation, with pymatgen's table of oxidation states in
    place of SMACT's own.
    """
    amounts = structure.composition.reduced_composition.get_el_amt_dict()
    return _neutral(tuple(sorted((elements.NUMBER[symbol], round(n)) for symbol, n in amounts.items())))


@cache
def _neutral(amounts: tuple[tuple[int, int], ...]) -> bool:
    numbers = [z for z, _ in amounts]
    if len(amounts) == 1 or all(elements.METAL[z - 1] for z in numbers):
        return True
    tables = [elements.OXIDATION_STATES["all"][z - 1] for z in numbers]
    for states in itertools.product(*tables):
        if sum(state * n for state, (_, n) in zip(states, amounts, strict=True)) == 0:
            chi = elements.ELECTRONEGATIVITY[np.array(numbers) - 1]
            positive = np.array(states) > 0
            if chi[positive].max() < chi[~positive].min():
                return True
    return False
