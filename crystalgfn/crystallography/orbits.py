"""Crystals as orbits: a Wyckoff letter, a species and free parameters each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.supergroups import primitive_basis, primitive_orbits
from crystalgfn.errors import PlacementError
from crystalgfn.utils.plain import Plain

if TYPE_CHECKING:
    from pymatgen.core import Structure


@cache
def wyckoff_position(space_group: int, letter: str) -> space_groups.WyckoffPosition:
    """The position of a group by its letter; PlacementError names the letters that there are."""
    for position in space_groups.WYCKOFF[space_group - 1]:
        if position.letter == letter:
            return position
    known = ", ".join(p.letter for p in space_groups.WYCKOFF[space_group - 1])
    name = space_groups.words_for(space_group)
    raise PlacementError(f"{name} has no Wyckoff position {letter!r}; it has {known}")


@dataclass(frozen=True)
class Orbit(Plain):
    """One orbit of atoms.

    Attributes:
        letter: of its Wyckoff position.
        species: atomic number.
        parameters: x, y, z that the operations of the position act on; those that are not free do not matter.
        occupancy: share of the points that hold an atom; 1 in all that this version makes.
    """

    letter: str
    species: int
    parameters: tuple[float, float, float] = (0.0, 0.0, 0.0)
    occupancy: float = 1.0


@dataclass(frozen=True)
class OrbitStructure(Plain):
    """Orbits in a space group and a conventional cell (a, b, c in Å, alpha, beta, gamma in degrees).

    Raises:
        PlacementError: a letter that the group does not have, or a position without a free parameter used twice.
    """

    space_group: int
    lattice: tuple[float, ...]
    orbits: tuple[Orbit, ...]

    def __post_init__(self) -> None:
        check_letters(self.space_group, [orbit.letter for orbit in self.orbits])

    @staticmethod
    def of_letters(
        space_group: int,
        lattice: tuple[float, ...],
        letters: Mapping[str, Sequence[str]],
        parameters: np.ndarray | None = None,
    ) -> OrbitStructure:
        """The structure of element symbol -> letters of its orbits; ``parameters`` [O, 3] of each, None: zeros."""
        pairs = [(letter, elements.NUMBER[symbol]) for symbol, own in letters.items() for letter in own]
        rows = (np.zeros((len(pairs), 3)) if parameters is None else parameters % 1.0).tolist()
        orbits = tuple(Orbit(*pair, (x, y, z)) for pair, (x, y, z) in zip(pairs, rows, strict=True))
        return OrbitStructure(space_group, lattice, orbits)

    @property
    def composition(self) -> dict[int, int]:
        """Atomic number -> points per primitive cell."""
        counts: dict[int, int] = {}
        for orbit in self.orbits:
            points = wyckoff_position(self.space_group, orbit.letter).primitive_multiplicity
            counts[orbit.species] = counts.get(orbit.species, 0) + points
        return counts

    @property
    def counts(self) -> dict[str, int]:
        """Element symbol -> points per primitive cell."""
        return {elements.SYMBOLS[z - 1]: n for z, n in self.composition.items()}

    @property
    def volume_per_atom(self) -> float:
        """Å3."""
        return primitive_volume(self.space_group, self.lattice) / sum(self.composition.values())

    def wyckoff(self) -> dict[str, list[str]]:
        """Element symbol -> letters of its orbits."""
        letters: dict[str, list[str]] = {}
        for orbit in self.orbits:
            letters.setdefault(elements.SYMBOLS[orbit.species - 1], []).append(orbit.letter)
        return letters

    def sites(self) -> tuple[np.ndarray, np.ndarray]:
        """Fractional coordinates [N, 3] in [0, 1) and atomic numbers [N] of the conventional cell, orbit by orbit."""
        points = [
            wyckoff_position(self.space_group, orbit.letter).operations @ np.array([*orbit.parameters, 1.0])
            for orbit in self.orbits
        ]
        species = np.repeat([orbit.species for orbit in self.orbits], [len(p) for p in points])
        wrapped = np.concatenate(points) % 1.0
        wrapped[wrapped > 1 - 1e-12] = 0.0
        return wrapped, species

    def to_structure(self) -> Structure:
        """The conventional cell as a pymatgen Structure."""
        from pymatgen.core import Lattice, Structure

        points, species = self.sites()
        counts = [wyckoff_position(self.space_group, orbit.letter).multiplicity for orbit in self.orbits]
        occupancy = np.repeat([orbit.occupancy for orbit in self.orbits], counts)
        names = [
            elements.SYMBOLS[z - 1] if share == 1 else {elements.SYMBOLS[z - 1]: float(share)}
            for z, share in zip(species, occupancy, strict=True)
        ]
        return Structure(Lattice.from_parameters(*self.lattice), names, points)


def check_letters(space_group: int, letters: Sequence[str]) -> None:
    """PlacementError where a letter is unknown, or one without a free parameter comes twice."""
    for letter in letters:
        if not wyckoff_position(space_group, letter).free and letters.count(letter) > 1:
            raise PlacementError(
                f"Wyckoff position {letter} of {space_groups.words_for(space_group)} has no free parameter, so only "
                f"one orbit can be there, not {letters.count(letter)}"
            )


def cell_matrix(lattice: Sequence[float]) -> np.ndarray:
    """[3, 3] rows a, b, c in Å of a cell given as a, b, c, alpha, beta, gamma (degrees)."""
    a, b, c, *angles = (float(value) for value in lattice)
    cosines = np.cos(np.radians(angles))
    cosines[np.abs(cosines) < 1e-15] = 0.0
    ca, cb, cg = cosines
    sg = np.sqrt(1 - cg * cg)
    x, y = cb, (ca - cb * cg) / sg
    z = np.sqrt(max(1 - x * x - y * y, 0.0))
    return np.array([[a, 0, 0], [b * cg, b * sg, 0], [c * x, c * y, c * z]])


def primitive_volume(space_group: int, lattice: Sequence[float]) -> float:
    """Å3 of the primitive cell of a conventional one."""
    return float(abs(np.linalg.det(cell_matrix(lattice))) / int(space_groups.CENTRING[space_group - 1]))


def cell_parameters(rows: np.ndarray) -> np.ndarray:
    """a, b, c and alpha, beta, gamma (degrees) of cells given as rows in Å, [n, 3, 3] -> [n, 6]."""
    lengths = np.linalg.norm(rows, axis=2)
    unit = rows / lengths[:, :, None]
    cosines = np.stack([(unit[:, i] * unit[:, j]).sum(axis=1) for i, j in ((1, 2), (0, 2), (0, 1))], axis=1)
    return np.concatenate([lengths, np.degrees(np.arccos(np.clip(cosines, -1, 1)))], axis=1)


_SMALL = np.array([t for t in itertools.product(range(-3, 4), repeat=3) if any(t)])


@dataclass(frozen=True, eq=False, kw_only=True)
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
        n_free=n,
        linear=np.rint(linear).astype(np.int64),
        shift=operations[:, :, 3],
        inverse=inverse,
        to_parameters=to_parameters,
        from_parameters=from_parameters,
    )


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
    rotations = space_groups.WYCKOFF[space_group - 1][-1].operations[:, :, :3]
    left, sizes, _ = np.linalg.svd(rotations.mean(axis=0))
    fixed = left[:, sizes > 0.5]
    return np.linalg.inv(primitive_basis(space_group)).T @ fixed
