"""The space group of a structure at several tolerances, its primitive cell and its prototype."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.crystallography.distances import symmetry
from crystalgfn.crystallography.normalizer import letter_permutations

if TYPE_CHECKING:
    from pymatgen.core import Structure

SYMPRECS = (0.01, 0.1, 0.3)
"""Å."""
MAIN = 0.1
"""Å; of groups and prototypes that are counted. That of the Materials Project's own records and of MP-20."""


@dataclass(frozen=True)
class Symmetry:
    """What spglib finds in one structure.

    Attributes:
        groups: tolerance in Å -> number of the space group, 0 where spglib finds none.
        primitive: the primitive cell at the tightest tolerance; the cell as it is where there is no group.
        prototype: anonymous formula, group and Wyckoff letters at the main tolerance, equal for all choices of origin;
            None where there is no group.
        point_group: its symbol at the main tolerance; None where there is no group.
    """

    groups: dict[float, int]
    primitive: Structure
    prototype: str | None
    point_group: str | None


def symmetry_of(structure: Structure, symprecs: Sequence[float] = SYMPRECS, main: float = MAIN) -> Symmetry:
    """Groups at the tolerances and at the main one, which is added where it is missing; sites may be disordered."""
    kinds = site_kinds(structure)
    cell = (structure.lattice.matrix, structure.frac_coords, kinds)
    found: dict[float, Any] = {}
    primitive = structure
    for symprec in sorted({*symprecs, main}):
        found[symprec] = symmetry(cell, symprec)
        if symprec == min({*symprecs, main}) and found[symprec] is not None:
            primitive = _primitive(structure, found[symprec])
    label = None if found[main] is None else _prototype(found[main], kinds)
    groups = {s: 0 if one is None else int(one.number) for s, one in found.items()}
    return Symmetry(groups, primitive, label, None if found[main] is None else str(found[main].pointgroup))


def site_kinds(structure: Structure) -> np.ndarray:
    """A whole number a site: the atomic number, or one of its own for each mixture of atoms, [N]."""
    mixtures: dict[str, int] = {}
    kinds = []
    for site in structure:
        if site.is_ordered:
            kinds.append(site.specie.Z)
        else:
            kinds.append(mixtures.setdefault(site.species.formula, 200 + len(mixtures)))
    return np.array(kinds)


def _primitive(structure: Structure, found: Any) -> Structure:
    from pymatgen.core import Lattice, Structure

    _, first = np.unique(found.mapping_to_primitive, return_index=True)
    if len(first) == len(structure):
        return structure
    lattice = Lattice(found.primitive_lattice)
    if abs(lattice.volume * len(structure) / len(first) / structure.volume - 1) > 1e-3:
        return structure
    first = np.sort(first)
    sites = [structure[int(i)] for i in first]
    return Structure(
        lattice,
        [site.species for site in sites],
        [site.coords for site in sites],
        coords_are_cartesian=True,
        to_unit_cell=True,
    )


def _prototype(found: Any, kinds: np.ndarray) -> str:
    """Anonymous formula, group, letters of each kind of site; kinds with the fewest atoms first.

    Of one crystal in all choices of origin it is the same. Crystals of one prototype whose lengths order their axes
    otherwise, as orthorhombic ones may, count as two.
    """
    letters: dict[int, list[str]] = defaultdict(list)
    orbits, first = np.unique(found.crystallographic_orbits, return_index=True)
    for _, i in zip(orbits, first, strict=True):
        letters[int(kinds[i])].append(found.wyckoffs[i])
    counts = {kind: int((kinds == kind).sum()) for kind in letters}
    divisor = gcd(*counts.values())
    formula = "".join(f"{chr(65 + i)}{n // divisor}" for i, n in enumerate(sorted(counts.values())))
    label = min(
        sorted((counts[kind], "".join(sorted(map(new.get, own)))) for kind, own in letters.items())
        for new in letter_permutations(int(found.number))
    )
    return f"{re.sub(r'(?<=[A-Z])1(?![0-9])', '', formula)}_{found.number}_{'_'.join(own for _, own in label)}"
