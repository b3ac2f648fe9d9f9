"""What every structure must pass before it is returned: its group at a tight tolerance, no atoms too close."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np

from crystalgfn.structures.contacts import Contacts
from crystalgfn.structures.orbits import OrbitStructure, cell_matrix

SYMPREC = 0.01
"""Å; spglib must find the group of a crystal at this tolerance."""
SHORTEST = 0.5
"""Å; no two atoms may be closer, periodic images included."""


def symmetry(cell: tuple[np.ndarray, np.ndarray, np.ndarray], symprec: float) -> Any | None:
    """spglib's dataset of (lattice rows, fractional coordinates, numbers), None where it gives up."""
    os.environ.setdefault("SPGLIB_WARNING", "OFF")  # what spglib could not do is the answer, no news for the terminal
    import spglib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # spglib announces its coming error handling at each call
        try:
            return spglib.get_symmetry_dataset(cell, symprec=symprec)
        except spglib.SpglibError:  # what later versions do instead of None
            return None


def contacts_of(structure: OrbitStructure) -> tuple[Contacts, np.ndarray]:
    """Distances of a structure, and its parameters as a batch of one [1, O, 3]."""
    letters, species = [o.letter for o in structure.orbits], [o.species for o in structure.orbits]
    contacts = Contacts(structure.space_group, structure.lattice, letters, species)
    return contacts, np.array([[o.parameters for o in structure.orbits]])


def shortest_distance(structure: OrbitStructure) -> float:
    """The smallest distance between two atoms, own images included, Å."""
    contacts, parameters = contacts_of(structure)
    return float(contacts.nearest(parameters)[1][0])


def group_fault(structure: OrbitStructure, symprec: float = SYMPREC) -> str | None:
    """What spglib finds instead of the structure's group and primitive cell; None where it finds these."""
    points, species = structure.sites()
    found = symmetry((cell_matrix(structure.lattice), points, species), symprec)
    if found is None or found.number != structure.space_group:
        return f"spglib (symprec {symprec}) finds {f'group {found.number}' if found is not None else 'no group'}"
    atoms = len(np.unique(found.mapping_to_primitive))
    if atoms != sum(structure.composition.values()):
        return f"spglib (symprec {symprec}) finds a primitive cell of {atoms} atoms"
    return None


def fault(structure: OrbitStructure) -> str | None:
    """Why a structure cannot be returned, None where it can."""
    if shortest_distance(structure) < SHORTEST:
        return f"atoms are closer than {SHORTEST} Å"
    return group_fault(structure)
