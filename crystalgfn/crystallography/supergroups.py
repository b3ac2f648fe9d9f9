"""Whether orbits on given Wyckoff positions have exactly their group at generic coordinates, and not a supergroup.

The operations of one primitive cell at random coordinates, in a lattice with the metric of the lattice system and
nothing more, are counted against the order of the point group. An inexact assignment is inexact at every draw; an exact
one is exact at almost every draw, so a few draws settle it. spglib counts the same (a test shows it), but takes up to
20 ms.
"""

from __future__ import annotations

import itertools
from functools import cache, lru_cache

import numpy as np

from crystalgfn.crystallography import space_groups

TOLERANCE = 1e-7
"""Fraction of a cell; random coordinates are many orders further from symmetric ones."""
DRAWS = 2
"""Random coordinates tried before an assignment is called inexact."""
_H = 0.5
_T = 1 / 3
_PRIMITIVE = {
    "P": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "A": ((1, 0, 0), (0, _H, -_H), (0, _H, _H)),
    "C": ((_H, -_H, 0), (_H, _H, 0), (0, 0, 1)),
    "I": ((-_H, _H, _H), (_H, -_H, _H), (_H, _H, -_H)),
    "F": ((0, _H, _H), (_H, 0, _H), (_H, _H, 0)),
    "R": ((2 * _T, _T, _T), (-_T, _T, _T), (-_T, -2 * _T, _T)),
}


def primitive_basis(space_group: int) -> np.ndarray:
    """[3, 3] primitive vectors as rows, in units of the conventional ones (R: obverse)."""
    return np.array(_PRIMITIVE[space_groups.SYMBOL[space_group - 1][0]], dtype=np.float64)


@cache
def primitive_orbits(space_group: int) -> dict[str, np.ndarray]:
    """Letter -> operations [primitive multiplicity, 3, 4] from conventional x, y, z to primitive coordinates."""
    to_primitive = np.linalg.inv(primitive_basis(space_group)).T
    orbits = {}
    for position in space_groups.WYCKOFF[space_group - 1]:
        moved = to_primitive @ position.operations
        kept: list[np.ndarray] = []
        for operation in moved:
            gaps = [operation - other for other in kept]
            if not any(np.abs(g[:, :3]).max() < 1e-9 and np.abs(g - np.rint(g)).max() < 1e-6 for g in gaps):
                kept.append(operation)
        if len(kept) != position.primitive_multiplicity:
            raise ValueError(f"group {space_group}, position {position.letter}: {len(kept)} points a primitive cell")
        orbits[position.letter] = np.array(kept)
    return orbits


@cache
def _lattice_rotations(system: int) -> np.ndarray:
    """[n, 3, 3] rotations of a generic conventional lattice of the crystal-lattice system (R: hexagonal axes)."""
    oblique = -0.5 if system in (4, 5, 6) else 0.0
    metric = [
        np.array([[1.0, 0.13, 0.21], [0.13, 1.7, 0.37], [0.21, 0.37, 2.9]]),
        np.array([[1.0, 0.0, 0.21], [0.0, 1.7, 0.0], [0.21, 0.0, 2.9]]),
        np.diag([1.0, 1.7, 2.9]),
        np.array([[1.0, oblique, 0.0], [oblique, 1.0, 0.0], [0.0, 0.0, 2.9]]),
        np.eye(3),
    ][(0, 1, 2, 3, 3, 3, 3, 4)[system]]
    candidates = np.array(list(itertools.product((-1, 0, 1), repeat=9))).reshape(-1, 3, 3)
    moved = candidates.transpose(0, 2, 1) @ metric @ candidates
    return candidates[np.abs(moved - metric).max(axis=(1, 2)) < 1e-9]


@cache
def holohedry(space_group: int) -> np.ndarray:
    """[n, 3, 3] integer rotations of the group's lattice at a generic metric, in primitive coordinates."""
    basis = primitive_basis(space_group).T
    rotations = _lattice_rotations(int(space_groups.CRYSTAL_LATTICE_SYSTEM[space_group - 1]))
    moved = np.linalg.inv(basis) @ rotations @ basis
    return moved[np.abs(moved - np.rint(moved)).max(axis=(1, 2)) < 1e-9].round()


def generic_points(
    space_group: int, letters: tuple[tuple[str, ...], ...], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Primitive coordinates [N, 3] and element numbers [N] of orbits at random free parameters."""
    orbits = primitive_orbits(space_group)
    points, species = [], []
    for number, element in enumerate(letters):
        for letter in element:
            orbit = orbits[letter] @ np.append(rng.random(3), 1.0)
            points.append(orbit)
            species += [number] * len(orbit)
    return np.concatenate(points), np.array(species)


def count_operations(rotations: np.ndarray, points: np.ndarray, species: np.ndarray) -> int:
    """How many operations of a cell keep these atoms: pairs of a rotation of the lattice [n, 3, 3] and a translation.

    ``points`` [N, 3] are fractional, ``species`` [N] integers.
    """
    sizes = np.bincount(species)
    rarest = int(np.argmin(np.where(sizes > 0, sizes, len(points) + 1)))
    order = np.argsort(species != rarest, kind="stable")
    points, species = points[order], species[order]
    moved = points @ rotations.transpose(0, 2, 1)
    shifts = points[None, : sizes[rarest]] - moved[:, :1]
    which = np.repeat(np.arange(len(rotations)), sizes[rarest])
    shift = shifts.reshape(-1, 3)
    for i in range(1, len(points)):  # the pairs left shrink fast, so atom by atom is quick
        gaps = (moved[which, i] + shift)[:, None] - points[species == species[i]][None]
        alive = (np.abs(gaps - np.rint(gaps)).max(axis=2) < TOLERANCE).any(axis=1)
        which, shift = which[alive], shift[alive]
    return len(which)


@lru_cache(maxsize=1_000_000)
def is_exact(space_group: int, letters: tuple[tuple[str, ...], ...]) -> bool:
    """Whether the letters of each element (in any order) give exactly this group at generic coordinates.

    Example: ``is_exact(225, (("a",), ("b",)))`` is True (NaCl), ``is_exact(195, (("a",),))`` is False (Pm-3m).
    """
    # what keeps all atoms keeps those of each element, so one or two elements that give the group by themselves decide
    for n in range(1, min(len(letters), 3)):
        if any(is_exact(space_group, tuple(sorted(part))) for part in itertools.combinations(letters, n)):
            return True
    rng = np.random.default_rng(12345)
    rotations, order = holohedry(space_group), int(space_groups.POINT_GROUP_ORDER[space_group - 1])
    return any(count_operations(rotations, *generic_points(space_group, letters, rng)) == order for _ in range(DRAWS))
