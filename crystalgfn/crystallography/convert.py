"""Real crystals as orbits, in the package's setting and the fundamental domain of lattices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crystalgfn.crystallography import normalizer
from crystalgfn.crystallography.atoms import Atoms, reduced_formula
from crystalgfn.crystallography.crystals import Crystals, row_of_counts
from crystalgfn.crystallography.distances import SHORTEST, contacts_of, shortest_distance
from crystalgfn.crystallography.lattice import canonical_lattice
from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.crystallography.site_assignment import orbits_of
from crystalgfn.crystallography.standardize import Cell, standardise
from crystalgfn.crystallography.supergroups import primitive_orbits
from crystalgfn.errors import PlacementError

NEIGHBOURS = 6
"""Distances of a fingerprint for each pair of elements."""


def fingerprint(structure: OrbitStructure) -> np.ndarray:
    """Mean distances in Å [S, S, 6] from the atoms of each element to the nearest of each, elements by number.

    Equal for structures that differ by an isometry.
    """
    contacts, parameters = contacts_of(structure)
    return contacts.fingerprint(parameters[0], NEIGHBOURS)


def formula_of(structure: OrbitStructure) -> str:
    """Reduced, elements in alphabetical order, every count written."""
    return reduced_formula(structure.counts)


def orbit_structure(atoms: Atoms, symprec: float = 0.1) -> OrbitStructure:
    """A crystal as orbits, in the package's setting and the fundamental domain of lattices.

    Raises:
        PlacementError: spglib finds no group, atoms too close.
    """
    cell = standardise(atoms.lattice, atoms.points, atoms.numbers, symprec)
    if cell is None:
        raise PlacementError(f"spglib finds no space group at symprec {symprec}")
    structure = normalizer.canonical(orbits_of(cell), cell.canonical)
    if structure is None:
        raise PlacementError(f"no setting of group {cell.space_group} leads to its canonical lattice")
    shortest = shortest_distance(structure)
    if shortest < SHORTEST:
        raise PlacementError(f"two atoms are {shortest:.2f} Å apart; at least {SHORTEST} Å are asked for")
    return structure


def cell_of(structure: OrbitStructure) -> Cell:
    """The atoms of orbits as a primitive cell, orbit by orbit."""
    own = [(primitive_orbits(structure.space_group)[orbit.letter], orbit) for orbit in structure.orbits]
    points = np.concatenate([operations @ [*orbit.parameters, 1.0] for operations, orbit in own])
    numbers = np.repeat([orbit.species for _, orbit in own], [len(operations) for operations, _ in own])
    return Cell(structure.space_group, np.array(structure.lattice), points % 1.0, numbers)


def crystals_of_orbits(structures: Sequence[OrbitStructure], canonical: bool = False) -> Crystals:
    """Group, composition and cell of each structure, [B]; cells as they are, or in the fundamental domain."""
    cells = [np.array(one.lattice) for one in structures]
    if canonical:
        cells = [canonical_lattice(one.space_group, cell) for one, cell in zip(structures, cells, strict=True)]
    compositions = [row_of_counts(one.composition) for one in structures]
    return Crystals.of_rows([one.space_group for one in structures], compositions, cells)
