"""The orbits of a crystal's atoms."""

from __future__ import annotations

import numpy as np

from crystalgfn.structures.cells import Cell
from crystalgfn.structures.free_orbits import free_orbit
from crystalgfn.structures.orbits import Orbit, OrbitStructure
from crystalgfn.tables import groups

CLOSE = 2e-3
"""Fractional coordinates that differ by less are the same."""


def orbits_of(cell: Cell) -> OrbitStructure | None:
    """A standardised crystal as orbits; None where its atoms do not have the symmetry of its group."""
    positions = sorted(groups.WYCKOFF[cell.space_group - 1], key=lambda p: (p.primitive_multiplicity, p.n_free))
    left = np.ones(len(cell.numbers), dtype=bool)
    orbits: list[Orbit] = []
    for position in positions:
        taken = False
        for atom in range(len(left)):
            if not left[atom] or (taken and not position.free):
                continue
            parameters = _on(cell.space_group, position.letter, cell.points[atom])
            members = None if parameters is None else _members(cell, position.letter, parameters, left, atom)
            if members is not None:
                left[members] = False
                taken = True
                orbits.append(Orbit(position.letter, int(cell.numbers[atom]), tuple(parameters.tolist())))
    if left.any():
        return None
    return OrbitStructure(cell.space_group, tuple(map(float, cell.lattice)), tuple(orbits))


def _on(space_group: int, letter: str, point: np.ndarray) -> np.ndarray | None:
    """x, y, z of the representative that is the primitive ``point``; None where that is not on the position."""
    orbit = free_orbit(space_group, letter)
    inside = orbit.inverse @ (point - orbit.shift[0])
    off = inside[orbit.n_free :]
    if (np.abs(off - np.rint(off)) > CLOSE).any():
        return None
    inside[orbit.n_free :] = 0.0
    return orbit.to_parameters @ (inside % 1.0)


def _members(cell: Cell, letter: str, parameters: np.ndarray, left: np.ndarray, atom: int) -> np.ndarray | None:
    """Indices of the atoms of the orbit; None where one is missing, of another element, or taken."""
    orbit = free_orbit(cell.space_group, letter)
    points = orbit.linear @ (orbit.from_parameters @ parameters) + orbit.shift
    gaps = points[:, None] - cell.points[None]
    same = (np.abs(gaps - np.rint(gaps)) < CLOSE).all(axis=2) & left & (cell.numbers == cell.numbers[atom])
    members = same.argmax(axis=1)
    if not same.any(axis=1).all() or len(set(members.tolist())) != len(members):
        return None
    return members
