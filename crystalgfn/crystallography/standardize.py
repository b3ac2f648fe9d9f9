"""Atoms in the conventional cell of their space group, which may be strained, and their primitive cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.atoms import reduced_formula, symbols_of
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.lattice import canonical_lattice
from crystalgfn.crystallography.orbits import cell_matrix
from crystalgfn.crystallography.supergroups import primitive_basis
from crystalgfn.crystallography.symmetry import standard_lattice, standard_symmetry

if TYPE_CHECKING:
    from pymatgen.core import Structure


SAME = 1e-3
"""Fractional coordinates that differ by less are those of one atom, once per lattice point of the cell."""


@dataclass(frozen=True)
class Cell:
    """A crystal with its atoms, in the package's setting of its space group."""

    space_group: int  # 1-230
    lattice: np.ndarray  # conventional a, b, c in Å, alpha, beta, gamma in degrees, [6]
    points: np.ndarray  # fractional coordinates in the primitive cell, [N, 3]
    numbers: np.ndarray  # atomic numbers, [N]

    @cached_property
    def composition(self) -> np.ndarray:
        """Atoms by element, [118]."""
        return np.bincount(self.numbers, minlength=119)[1:119]

    @cached_property
    def formula(self) -> str:
        """Reduced, elements in alphabetical order, every count written: the key that splits go by."""
        return reduced_formula(symbols_of(self.numbers))

    @cached_property
    def canonical(self) -> np.ndarray:
        """The lattice in the fundamental domain of the group, [6]."""
        return canonical_lattice(self.space_group, self.lattice)

    @property
    def matrix(self) -> np.ndarray:
        """Rows of the primitive cell in Å, [3, 3]."""
        return primitive_basis(self.space_group) @ cell_matrix(self.lattice.tolist())

    @property
    def volume_per_atom(self) -> float:
        """Å3."""
        return float(abs(np.linalg.det(self.matrix)) / len(self.numbers))

    def with_lattice(self, lattice: np.ndarray) -> Cell:
        """The same fractions in another cell, which must be one of the group's lattice system."""
        return replace(self, lattice=lattice)

    def with_numbers(self, numbers: np.ndarray) -> Cell:
        """Other elements on the same points."""
        return replace(self, numbers=numbers)

    def structure(self) -> Structure:
        """The primitive cell."""
        from pymatgen.core import Lattice, Structure

        return Structure(Lattice(self.matrix), [elements.SYMBOLS[z - 1] for z in self.numbers], self.points)


def standardise(
    lattice: Sequence[float] | np.ndarray, points: np.ndarray, numbers: np.ndarray, symprec: float = 0.1
) -> Cell | None:
    """Any cell's atoms in the package's setting; None where spglib finds no group at ``symprec`` (Å).

    The lattice is a, b, c in Å, alpha, beta, gamma in degrees; points are fractional [N, 3], with atomic numbers [N].
    """
    cell = (cell_matrix([float(x) for x in lattice]), np.asarray(points, dtype=np.float64), np.asarray(numbers))
    data = standard_symmetry(cell, symprec)
    if not data:
        return None
    return conventional(int(data.number), standard_lattice(data), data.std_positions, data.std_types)


def conventional(space_group: int, lattice: np.ndarray, points: np.ndarray, numbers: np.ndarray) -> Cell | None:
    """A `Cell` of the atoms of a conventional cell; None where they are not those of one with the group's centring."""
    inside = np.asarray(points) @ np.linalg.inv(primitive_basis(space_group))
    inside = inside - np.floor(inside)
    kept: list[int] = []
    for i, point in enumerate(inside):
        gaps = inside[kept] - point
        same = (np.abs(gaps - np.rint(gaps)) < SAME).all(axis=1) if kept else np.zeros(0, dtype=bool)
        if not (same & (np.asarray(numbers)[kept] == numbers[i])).any():
            kept.append(i)
    if len(kept) * int(space_groups.CENTRING[space_group - 1]) != len(inside):
        return None
    return Cell(space_group, np.asarray(lattice, dtype=np.float64), inside[kept], np.asarray(numbers)[kept])


def nearest_ratio(structure: Structure) -> float:
    """The smallest distance over the sum of radii, among pairs (own images included) closer than 4 Å."""
    first, second, _, distances = structure.get_neighbor_list(4.0)
    radius = elements.RADIUS[np.array([site.specie.Z for site in structure]) - 1]
    return float((distances / (radius[first] + radius[second])).min(initial=np.inf))


def crystals_of(cells: Sequence[Cell]) -> Crystals:
    """Space groups, compositions and canonical lattices of cells, [B]."""
    compositions, lattices = [cell.composition for cell in cells], [cell.canonical for cell in cells]
    return Crystals.of_rows([cell.space_group for cell in cells], compositions, lattices)
