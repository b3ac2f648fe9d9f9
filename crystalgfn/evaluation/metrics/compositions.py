"""Compositions of structures, and whether one can be neutral by the rule of CDVAE's and DiffCSP's evaluation.

That rule (``smact_validity`` in their code): one oxidation state an element, charges that sum to zero, cations less
electronegative than anions; pure elements and all metals pass. Its states are SMACT's own (the list of 2014) where the
library SMACT is installed, else pymatgen's, of which fewer compositions pass; `rules` says which it was.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from crystalgfn.crystallography import elements

if TYPE_CHECKING:
    from pymatgen.core import Structure

AtomCounts = tuple[tuple[int, int], ...]
"""(Z, whole number of atoms) pairs."""
MOST_UNITS = 100
"""A disordered composition is made whole with so many formula units at most."""
ORIGINAL = "smact14"
"""The name of the oxidation states that CDVAE's and DiffCSP's evaluation had of SMACT."""


def amounts(structure: Structure) -> dict[int, float]:
    """Atomic number -> atoms in the cell; fractions where sites are partially occupied."""
    found: dict[int, float] = {}
    for element, amount in structure.composition.items():
        found[int(element.Z)] = found.get(int(element.Z), 0.0) + float(amount)
    return dict(sorted(found.items()))


def composition_row(amounts: Iterable[tuple[int, float]]) -> torch.Tensor:
    """(Z, atoms) pairs as a row of atoms by element, float64 [118]."""
    row = torch.zeros(118, dtype=torch.float64)
    for z, n in amounts:
        row[z - 1] = n
    return row


def whole(occupied: Mapping[int, float]) -> AtomCounts | None:
    """(Z, atoms) pairs of the smallest multiple with whole numbers; None where that is not small."""
    values = np.array(list(occupied.values()))
    for units in range(1, MOST_UNITS + 1):
        near = np.rint(units * values)
        if (np.abs(near - units * values) < 0.01).all() and (near > 0).all():
            return tuple(zip(occupied, near.astype(int).tolist(), strict=True))
    return None


def valid_composition(counts: AtomCounts | None) -> bool:
    """Whether a composition passes CDVAE's rule; None, a composition without a small formula unit, does not."""
    if counts is None:
        return False
    judged = smact_valid(counts, ORIGINAL)
    return _neutral(_reduced(counts)) if judged is None and not smact_installed() else bool(judged)


def rules() -> dict[str, str]:
    """Check of a composition -> the rule and the tables behind it, in words."""
    if not smact_installed():
        return {"valid_composition": "CDVAE's rule with pymatgen's oxidation states, since SMACT is not installed"}
    library = f"SMACT {version('smact')}"
    return {
        "valid_composition": f"CDVAE's and DiffCSP's rule: smact_validity of {library} with its states of 2014",
        "smact": f"smact_validity of {library} with its default states",
    }


@cache
def smact_valid(counts: AtomCounts, states: str | None = None) -> bool | None:
    """``smact_validity`` by SMACT's list ``states`` (None: its default); None without SMACT or data on an element."""
    judge = _smact_validity()
    if judge is None:
        return None
    formula = "".join(f"{elements.SYMBOLS[z - 1]}{n}" for z, n in _reduced(counts))
    try:
        return bool(judge(formula, oxidation_states_set=states))
    except KeyError:  # an element beyond lawrencium
        return None


@cache
def smact_installed() -> bool:
    """Whether the library SMACT is there."""
    return _smact_validity() is not None


@cache
def _smact_validity() -> Any | None:
    try:
        from smact.screening import smact_validity
    except ImportError:
        return None
    return smact_validity


def _reduced(counts: AtomCounts) -> AtomCounts:
    divisor = gcd(*(n for _, n in counts))
    return tuple((z, n // divisor) for z, n in counts)


@cache
def _neutral(counts: AtomCounts) -> bool:
    """The rule with pymatgen's oxidation states and the package's own metals and electronegativities."""
    numbers = [z for z, _ in counts]
    if len(counts) == 1 or all(elements.METAL[z - 1] for z in numbers):
        return True
    chi = elements.ELECTRONEGATIVITY[np.array(numbers) - 1]
    for states in itertools.product(*(elements.OXIDATION_STATES["all"][z - 1] for z in numbers)):
        if sum(state * n for state, (_, n) in zip(states, counts, strict=True)) == 0:
            positive = np.array(states) > 0
            if chi[positive].max() < chi[~positive].min():
                return True
    return False
