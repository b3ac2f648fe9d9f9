r"""Descriptions of one crystal: changes of basis and origin that keep the operations of a space group.

A change (P, p) takes the basis (a, b, c) to (a, b, c) P and the origin to p, so a point x becomes P^-1 (x - p). Those
that carry the operations of the group onto themselves are its affine normaliser. Here are as many of them as a crystal
needs to reach the fundamental domain of lattices (``crystalgfn.crystallography.lattice``) and to see which letters are
equivalent: origins on a grid (twelfths and eighths), for monoclinic and triclinic groups bases with small integers.
Enantiomorphic changes (of negative determinant) count too: they lead to the mirror image.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.lattice import HEXAGONAL, KIND, MONOCLINIC, ORTHORHOMBIC, TRICLINIC
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure, cell_matrix, cell_parameters, wyckoff_position
from crystalgfn.crystallography.site_assignment import images, locate_sites
from crystalgfn.crystallography.supergroups import holohedry, primitive_basis
from crystalgfn.errors import PlacementError

UNIT = space_groups.TRANSLATION_UNIT
TOLERANCE = 2e-3
"""Relative, and in radians, by which a lattice may miss the one that is looked for."""


@dataclass(frozen=True, eq=False)
class Change:
    """A change of basis (columns, integer [3, 3]) and origin (fractions of the old cell, [3])."""

    basis: np.ndarray
    origin: np.ndarray

    def points(self, points: np.ndarray) -> np.ndarray:
        """Fractions [n, 3] after the change."""
        return (points - self.origin) @ np.linalg.inv(self.basis).T


@cache
def _operations(space_group: int) -> tuple[np.ndarray, np.ndarray]:
    """Integer rotations [n, 3, 3] and translations [n, 3] in 1 / 24, those of the centring included."""
    general = space_groups.WYCKOFF[space_group - 1][-1].operations
    return np.rint(general[:, :, :3]).astype(np.int64), np.rint(general[:, :, 3] * UNIT).astype(np.int64)


@cache
def _grid(space_group: int) -> np.ndarray:
    """[n, 3] origins to try, in 1 / 24."""
    if KIND[space_group - 1] == HEXAGONAL:
        steps = (range(0, 24, 4), range(0, 24, 4), range(0, 24, 2))
    else:
        steps = (range(0, 24, 3),) * 3
    return np.array(sorted(itertools.product(*steps), key=lambda s: (sum(x != 0 for x in s), s)), dtype=np.int64)


def origin_shifts(space_group: int, basis: np.ndarray) -> np.ndarray:
    """[n, 3] origins on the grid with which a change of basis keeps the group, none where it does not."""
    rotations, translations = _operations(space_group)
    inverse = np.rint(np.linalg.inv(basis)).astype(np.int64)
    moved = inverse @ rotations @ basis
    targets: dict[bytes, list[np.ndarray]] = {}
    for rotation, translation in zip(rotations, translations, strict=True):
        targets.setdefault(rotation.tobytes(), []).append(translation)
    keys = [np.ascontiguousarray(r).tobytes() for r in moved]
    if any(key not in targets for key in keys):
        return np.zeros((0, 3))
    shifts = _grid(space_group)
    for rotation, translation, key in zip(rotations, translations, keys, strict=True):
        new = (translation + shifts @ (rotation - np.eye(3, dtype=np.int64)).T) @ inverse.T
        same = [((new - target) % UNIT == 0).all(axis=1) for target in targets[key]]
        shifts = shifts[np.any(same, axis=0)]
        if not len(shifts):
            break
    return shifts / UNIT


def _bases(space_group: int) -> list[np.ndarray]:
    """Changes of basis that may change the lattice parameters, the identity first."""
    kind = KIND[space_group - 1]
    found = [np.eye(3, dtype=np.int64)]
    if kind == ORTHORHOMBIC:
        for permutation in itertools.permutations(range(3)):
            for signs in sorted(itertools.product((1, -1), repeat=3), key=lambda s: s.count(-1)):
                basis = np.zeros((3, 3), dtype=np.int64)
                basis[list(permutation), range(3)] = signs
                if round(np.linalg.det(basis)) == 1:
                    found.append(basis)
    elif kind == MONOCLINIC:
        for aa, ac, ca, cc in sorted(itertools.product(range(-2, 3), repeat=4), key=lambda m: sum(map(abs, m))):
            determinant = aa * cc - ac * ca
            if abs(determinant) == 1:
                found.append(np.array([[aa, 0, ca], [0, determinant, 0], [ac, 0, cc]]))
    elif kind == TRICLINIC:
        rows = np.array(sorted(itertools.product((0, 1, -1), repeat=9), key=lambda m: sum(map(abs, m))))
        matrices = rows.reshape(-1, 3, 3)
        found += list(matrices[np.rint(np.linalg.det(matrices)).astype(int) == 1])
    return found


@cache
def _settings(space_group: int) -> tuple[np.ndarray, np.ndarray]:
    """Bases [n, 3, 3] and origins [n, 3] that keep the group and may change the lattice, the identity first."""
    if KIND[space_group - 1] == TRICLINIC:
        bases = np.array(_bases(space_group))
        return bases, np.zeros((len(bases), 3))
    kept, seen = [], set()
    for basis in _bases(space_group):
        mark = np.abs(basis).tobytes() if KIND[space_group - 1] == ORTHORHOMBIC else basis.tobytes()
        shifts = origin_shifts(space_group, basis) if mark not in seen else np.zeros((0, 3))
        if len(shifts):
            seen.add(mark)
            kept.append((basis, shifts[0]))
    return np.array([b for b, _ in kept]), np.array([o for _, o in kept])


def changed_lattices(space_group: int, lattice: np.ndarray) -> np.ndarray:
    """[n, 6] the lattice in every setting that keeps the group, in the order of the settings."""
    bases = _settings(space_group)[0]
    moved = cell_parameters(bases.transpose(0, 2, 1) @ cell_matrix(list(lattice)))
    moved[:, 3:][np.abs(moved[:, 3:] - 90) < 1e-9] = 90.0
    return moved


def setting(space_group: int, index: int) -> Change:
    """One of the settings of ``changed_lattices``."""
    bases, origins = _settings(space_group)
    return Change(bases[index], origins[index])


def apply(change: Change, structure: OrbitStructure, lattice: np.ndarray) -> OrbitStructure:
    """The same crystal after a change that keeps its group, described in a lattice [6] that goes with it.

    Raises:
        PlacementError: the change does not keep the group.
    """
    number = structure.space_group
    orbits = []
    for orbit in structure.orbits:
        representative = wyckoff_position(number, orbit.letter).operations[0] @ np.array([*orbit.parameters, 1.0])
        found = _locate_point(number, change.points(representative[None])[0])
        if found is None:
            raise PlacementError(f"a change of basis that does not keep space group {number}")
        orbits.append(Orbit(found[0], orbit.species, found[1], orbit.occupancy))
    return OrbitStructure(number, tuple(map(float, lattice)), tuple(orbits))


def _locate_point(space_group: int, point: np.ndarray) -> tuple[str, tuple[float, float, float]] | None:
    basis = primitive_basis(space_group)
    moved = images(space_group, point)
    kept: list[np.ndarray] = []
    for image in moved:
        if not any(np.abs(g - np.rint(g)).max() < 1e-6 for g in (image - other for other in kept)):
            kept.append(image)
    return locate_sites(space_group, np.array(kept) @ basis, 1e-5)


def same_place(space_group: int, one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two points (conventional fractions) differ by a vector of the lattice, that of the centring included."""
    gap = (one - other) @ np.linalg.inv(primitive_basis(space_group))
    return bool(np.abs(gap - np.rint(gap)).max() < 1e-6)


def canonical(structure: OrbitStructure, target: np.ndarray) -> OrbitStructure | None:
    """The same crystal in the setting whose lattice is ``target`` [6], in the domain; None where none reaches it."""
    moved = changed_lattices(structure.space_group, np.array(structure.lattice))
    gaps = np.concatenate([np.abs(np.log(moved[:, :3] / target[:3])), np.radians(np.abs(moved[:, 3:] - target[3:]))], 1)
    worst = gaps.max(axis=1)
    at = int(np.argmax(worst <= TOLERANCE))  # the first, which is the simplest
    if worst[at] > TOLERANCE:
        return None
    return apply(setting(structure.space_group, at), structure, target)


@cache
def letter_permutations(space_group: int) -> tuple[dict[str, str], ...]:
    """The ways to rename letters that another origin or axes of the same lattice give; the identity among them.

    Only changes that keep every lattice of the group's system: two assignments that differ by one of them describe the
    same crystals.
    """
    columns = primitive_basis(space_group).T
    rotations = np.rint(columns @ holohedry(space_group) @ np.linalg.inv(columns)).astype(np.int64)
    own = np.unique(_operations(space_group)[0], axis=0)
    cosets: list[np.ndarray] = []
    covered: set[bytes] = set()
    for rotation in sorted(rotations, key=lambda r: -int(np.trace(r))):
        if rotation.tobytes() not in covered:
            cosets.append(rotation)
            covered |= {np.ascontiguousarray(moved).tobytes() for moved in rotation @ own}
    points = {
        p.letter: p.operations[0] @ np.array([0.1234, 0.2871, 0.3917, 1.0])
        for p in space_groups.WYCKOFF[space_group - 1]
    }
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for rotation in cosets:
        for shift in origin_shifts(space_group, rotation):
            change = Change(rotation, shift)
            renamed = {}
            for letter, point in points.items():
                place = _locate_point(space_group, change.points(point[None])[0])
                renamed[letter] = place[0] if place else letter
            found.setdefault(tuple(renamed.values()), renamed)
    return tuple(found.values())
