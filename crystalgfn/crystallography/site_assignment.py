"""Atoms as orbits: which Wyckoff position of a group each atom is on, and with which free parameters."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.crystallography.standardize import Cell
from crystalgfn.crystallography.supergroups import primitive_basis, primitive_orbits
from crystalgfn.errors import PlacementError

TOLERANCE = 5e-3
"""Fraction of a cell by which an atom may miss its position; standardised atoms miss theirs by far less."""


@dataclass(frozen=True, kw_only=True)
class _Position:
    """A letter with what it takes to see whether a point is on its representative."""

    letter: str
    multiplicity: int
    inverse: np.ndarray  # [3, 3] from a point to parameters
    miss: np.ndarray  # [3, 3] from a point to what the position cannot give
    shift: np.ndarray  # [3]


@cache
def _positions(space_group: int) -> tuple[_Position, ...]:
    found = []
    for position in space_groups.WYCKOFF[space_group - 1]:
        linear, shift = position.operations[0, :, :3], position.operations[0, :, 3]
        inverse = np.linalg.pinv(linear)
        found.append(
            _Position(
                letter=position.letter,
                multiplicity=position.primitive_multiplicity,
                inverse=inverse,
                miss=np.eye(3) - linear @ inverse,
                shift=shift.copy(),
            )
        )
    return tuple(found)


@cache
def _translations(space_group: int) -> np.ndarray:
    """[n, 3] lattice vectors of the conventional cell's neighbourhood, those of the centring included."""
    basis = primitive_basis(space_group)
    small = np.array(list(itertools.product(range(-2, 3), repeat=3))) @ basis
    inside = small[((small > -1e-9) & (small < 1 - 1e-9)).all(axis=1)]
    whole = np.array(sorted(itertools.product((-1, 0, 1), repeat=3), key=lambda s: sum(map(abs, s))))
    return (whole[:, None] + inside[None]).reshape(-1, 3)


def images(space_group: int, point: np.ndarray) -> np.ndarray:
    """[order of the point group, 3] images of a point [3] (conventional fractions), in primitive fractions."""
    general = primitive_orbits(space_group)[space_groups.WYCKOFF[space_group - 1][-1].letter]
    return general @ np.append(point, 1.0)


def locate_sites(
    space_group: int, members: np.ndarray, tolerance: float = TOLERANCE
) -> tuple[str, tuple[float, float, float]] | None:
    """Letter and free parameters of an orbit; None where no position of the group has it.

    ``members`` are the orbit's points in one primitive cell, in conventional fractions [n, 3].
    """
    inside = members - np.floor(members + 1e-9)
    shifted = (inside[:, None] + _translations(space_group)[None]).reshape(-1, 3)
    best, answer = tolerance, None
    for position in _positions(space_group):
        if position.multiplicity != len(members):
            continue
        misses = np.abs((shifted - position.shift) @ position.miss.T).max(axis=1)
        at = int(np.argmin(misses))
        if misses[at] < best - 1e-9:  # a position listed earlier stays where both have the point
            parameters = position.inverse @ (shifted[at] - position.shift)
            best, answer = misses[at], (position.letter, tuple((parameters % 1.0).tolist()))
        if answer is not None and best < 1e-7:
            break
    return answer


def orbits_of(cell: Cell) -> OrbitStructure:
    """The orbits of a crystal in the package's setting; exactly symmetric, so atoms may move by the tolerance.

    Raises:
        PlacementError: the atoms do not have the symmetry of the cell's group.
    """
    basis = primitive_basis(cell.space_group)
    points, free, orbits = cell.points, np.ones(len(cell.points), dtype=bool), []
    for i in range(len(points)):
        if not free[i]:
            continue
        moved = images(cell.space_group, points[i] @ basis)
        gaps = moved[:, None] - points[None]
        near = (np.abs(gaps - np.rint(gaps)).max(axis=2) < TOLERANCE) & (cell.numbers == cell.numbers[i]) & free
        members = np.flatnonzero(near.any(axis=0))
        if not near.any(axis=1).all():
            raise _asymmetric(cell, i)
        found = locate_sites(cell.space_group, points[members] @ basis)
        if found is None:
            raise _asymmetric(cell, i)
        free[members] = False
        orbits.append(Orbit(found[0], int(cell.numbers[i]), found[1]))
    rank = {p.letter: k for k, p in enumerate(space_groups.WYCKOFF[cell.space_group - 1])}
    orbits.sort(key=lambda orbit: (orbit.species, rank[orbit.letter], orbit.parameters))
    return OrbitStructure(cell.space_group, tuple(map(float, cell.lattice)), tuple(orbits))


def _asymmetric(cell: Cell, i: int) -> PlacementError:
    return PlacementError(
        f"the atom {np.round(cell.points[i], 4).tolist()} of {cell.formula} is on no orbit of "
        f"{space_groups.words_for(cell.space_group)}; standardise the crystal first"
    )
