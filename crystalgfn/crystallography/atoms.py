"""The atoms of one crystal as its source has them, or the record that had to be skipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crystalgfn.crystallography import elements

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True)
class Atoms:
    """The atoms of one crystal as its source has them.

    Attributes:
        where: where it stands in its source: "row 4", a file's name.
        lattice: a, b, c in Å, alpha, beta, gamma in degrees, [6].
        points: fractional coordinates [N, 3].
        numbers: atomic numbers [N].
        space_group: the group that the source names, 0 where it names none.
    """

    where: str
    lattice: np.ndarray
    points: np.ndarray
    numbers: np.ndarray
    space_group: int = 0


@dataclass(frozen=True)
class SkippedRecord:
    """A row that cannot be used, and why."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def structure_of(atoms: Atoms) -> Structure:
    """The pymatgen structure of plain atoms."""
    from pymatgen.core import Lattice, Structure

    names = [elements.SYMBOLS[z - 1] for z in atoms.numbers]
    return Structure(Lattice.from_parameters(*atoms.lattice), names, atoms.points)


def atoms_of(where: str, structure: Structure, space_group: int = 0) -> Atoms | SkippedRecord:
    """The atoms of a structure; disordered ones cannot be used."""
    if not structure.is_ordered:
        return SkippedRecord(
            where, f"{structure.composition.reduced_formula} is disordered; order it first, or leave it out"
        )
    numbers = np.array([site.specie.Z for site in structure])
    return Atoms(where, np.array(structure.lattice.parameters), structure.frac_coords % 1.0, numbers, space_group)
