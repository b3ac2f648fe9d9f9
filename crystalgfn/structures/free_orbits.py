"""What symmetry leaves free of an orbit, as coordinates on a torus of period 1.

A Wyckoff position leaves its representative a point, a line, a plane or all of space. Its free coordinates u count
along a basis of the lattice translations inside that flat (integers, since primitive coordinates are used), so every
one of them has period 1 and every atom of the orbit is an integer matrix times u plus a shift.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np

from crystalgfn.structures.orbits import wyckoff_position
from crystalgfn.tables import groups
from crystalgfn.tables.exactness import primitive_basis, primitive_orbits

_SMALL = np.array([t for t in itertools.product(range(-3, 4), repeat=3) if any(t)])


@dataclass(frozen=True, eq=False)
class FreeOrbit:
    """The map from free coordinates u to the atoms of an orbit, in primitive coordinates; the representative first.

    Attributes:
        n_free: how many of the three entries of u matter; the columns of the others are zero.
        linear: integers [M, 3, 3]; atom i lies at ``linear[i] @ u + shift[i]``.
        shift: [M, 3].
        inverse: unimodular integers [3, 3]: of ``inverse @ (x - shift[0])`` for a representative x the first ``n_free``
            entries are u, the others 0 modulo 1.
        to_parameters: [3, 3] from u to x, y, z of `Orbit.parameters`.
        from_parameters: [3, 3], back.
    """

    n_free: int
    linear: np.ndarray
    shift: np.ndarray
    inverse: np.ndarray
    to_parameters: np.ndarray
    from_parameters: np.ndarray


@cache
def free_orbit(space_group: int, letter: str) -> FreeOrbit:
    """The free coordinates of a Wyckoff position; PlacementError for a letter that the group does not have."""
    n = wyckoff_position(space_group, letter).n_free
    operations = primitive_orbits(space_group)[letter]
    matrix = operations[0, :, :3]
    columns = np.flatnonzero(np.abs(matrix).max(axis=0) > 1e-9)  # x, y, z that matter
    basis = _inside(matrix[:, columns])
    inverse = np.rint(np.linalg.inv(_completed(basis))).astype(np.int64)
    to_parameters = np.zeros((3, 3))
    to_parameters[columns, :n] = np.linalg.pinv(matrix[:, columns]) @ basis
    linear = operations[:, :, :3] @ to_parameters
    from_parameters = inverse @ matrix
    from_parameters[n:] = 0.0
    return FreeOrbit(
        n, np.rint(linear).astype(np.int64), operations[:, :, 3], inverse, to_parameters, from_parameters
    )  # fmt: skip


def _inside(flat: np.ndarray) -> np.ndarray:
    """[3, n] integer columns: the shortest basis of all integer vectors in the span of the columns of ``flat``."""
    n = flat.shape[1]
    if n == 3:
        return np.eye(3)
    if n == 0:
        return np.zeros((3, 0))
    steps = _SMALL @ np.linalg.pinv(flat).T
    inside = np.abs(steps @ flat.T - _SMALL).max(axis=1) < 1e-9
    vectors, lengths = _SMALL[inside], np.linalg.norm(steps[inside], axis=1)
    # shortest first; of a vector and its negative the one whose first entry is positive
    order = sorted(range(len(vectors)), key=lambda i: (round(lengths[i], 6), *(-vectors[i])))
    vectors = vectors[order]
    if n == 1:
        return vectors[:1].T.astype(float)
    pairs = itertools.combinations(range(min(len(vectors), 24)), 2)
    for i, j in sorted(pairs, key=lambda pair: sum(pair)):
        if np.gcd.reduce(np.cross(vectors[i], vectors[j])) == 1:
            return vectors[[i, j]].T.astype(float)
    raise ValueError(f"no lattice basis in the span of {flat.tolist()}")


def _completed(basis: np.ndarray) -> np.ndarray:
    """[3, 3] unimodular matrix whose first columns are a basis [3, n]."""
    missing = 3 - basis.shape[1]
    for rest in itertools.combinations(_SMALL[np.argsort(np.abs(_SMALL).sum(axis=1), kind="stable")], missing):
        square = np.column_stack([basis, *rest])
        if abs(abs(np.linalg.det(square)) - 1) < 1e-9:
            return square
    raise ValueError(f"{basis.tolist()} cannot be completed to a unimodular matrix")


@cache
def polar_directions(space_group: int) -> np.ndarray:
    """[3, k] directions (primitive coordinates) in which a group leaves the origin free; k = 0 if it is not polar."""
    rotations = groups.WYCKOFF[space_group - 1][-1].operations[:, :, :3]
    left, sizes, _ = np.linalg.svd(rotations.mean(axis=0))
    fixed = left[:, sizes > 0.5]
    return np.linalg.inv(primitive_basis(space_group)).T @ fixed
