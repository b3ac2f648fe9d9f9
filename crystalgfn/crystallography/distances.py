"""Distances between the atoms of many trial structures at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.orbits import OrbitStructure, cell_matrix
from crystalgfn.crystallography.supergroups import primitive_basis, primitive_orbits
from crystalgfn.crystallography.symmetry import MAX_MATRIX, symmetry
from crystalgfn.errors import InvalidCrystal

CHUNK = 1_500_000
"""Distances held in memory at once."""

IMAGES = np.array(sorted(itertools.product((-1, 0, 1), repeat=3), key=lambda s: sum(map(abs, s))), dtype=np.float64)

MAX_REDUCTIONS = 100
"""Each shortens vectors as Euclid's algorithm does numbers: of 12,000 oblique cells none needed more than 17."""


def reduced_basis(cell: np.ndarray) -> np.ndarray:
    """A Minkowski-reduced basis of the lattice spanned by the rows of ``cell`` [3, 3].

    In such a basis the nearest image of a point wrapped to [-1/2, 1/2] lies among the 27 nearest cells.
    """
    basis = np.array(cell, dtype=np.float64)
    if not (np.isfinite(basis).all() and np.abs(basis).max() < MAX_MATRIX and abs(np.linalg.det(basis)) > 0):
        raise InvalidCrystal(f"the lattice vectors {basis.tolist()} span no cell; give finite ones with a volume")
    for _ in range(MAX_REDUCTIONS):
        basis = basis[np.argsort((basis**2).sum(axis=1), kind="stable")]
        before = (basis**2).sum()
        basis[1] -= np.rint(basis[1] @ basis[0] / (basis[0] @ basis[0])) * basis[0]
        plane = basis[:2]
        try:
            near = np.rint(np.linalg.solve(plane @ plane.T, plane @ basis[2]))
        except np.linalg.LinAlgError:  # parallel as far as floats tell
            break
        choices = [basis[2] - (near + d) @ plane for d in itertools.product((-1, 0, 1), repeat=2)]
        basis[2] = min(choices, key=lambda v: v @ v)
        if (basis**2).sum() > before * (1 - 1e-9):
            return basis
    raise InvalidCrystal(f"the lattice vectors {np.asarray(cell).tolist()} cannot be reduced; give less oblique ones")


class Contacts:
    """Trial structures of one assignment of letters in one cell, as free parameters [M, O, 3] of its O orbits.

    Works on one primitive cell and, because of the symmetry, on the surroundings of one atom of each orbit only.
    """

    def __init__(
        self, space_group: int, lattice: Sequence[float], letters: Sequence[str], species: Sequence[int]
    ) -> None:
        """One letter and one atomic number for each orbit; the cell as a, b, c, alpha, beta, gamma."""
        primitive = primitive_basis(space_group) @ cell_matrix(lattice)
        self.cell = reduced_basis(primitive)
        change = np.rint(primitive @ np.linalg.inv(self.cell)).T  # primitive coordinates -> reduced ones
        operations = [change @ primitive_orbits(space_group)[letter] for letter in letters]
        sizes = [len(o) for o in operations]
        self.first = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        self.orbit = np.repeat(np.arange(len(letters)), sizes)
        stacked = np.concatenate(operations)
        self.linear, self.shift = stacked[:, :, :3], stacked[:, :, 3]
        self.species = np.asarray(species)[self.orbit]
        radius = elements.RADIUS[self.species - 1]
        self.touching = radius[self.first][:, None] + radius[None]  # [O, N] sums of radii
        self.images = IMAGES @ self.cell
        jacobian = self.cell.T @ self.linear[self.first]
        self.free = bool(np.abs(jacobian).max() > 1e-9)

    def points(self, parameters: np.ndarray) -> np.ndarray:
        """Coordinates [M, N, 3] of all atoms in the reduced primitive cell."""
        return np.einsum("nij,mnj->mni", self.linear, parameters[:, self.orbit]) + self.shift

    def _squares(self, parameters: np.ndarray) -> np.ndarray:
        """Squared distances [M, O, N, 27] from an atom of each orbit to the images of all atoms."""
        points = self.points(parameters)
        gaps = points[:, None] - points[:, self.first][:, :, None]
        vectors = (gaps - np.rint(gaps)) @ self.cell
        squares = (
            (vectors**2).sum(axis=-1)[..., None]
            + 2 * vectors @ self.images.T
            + (self.images**2).sum(axis=1)
        )  # fmt: skip
        own = np.arange(len(self.first))
        squares[:, own, self.first, 0] = np.inf  # an atom and itself
        return np.maximum(squares, 0.0)

    def _chunks(self, n: int) -> list[slice]:
        step = max(1, CHUNK // (len(self.first) * len(self.orbit) * len(IMAGES)))
        return [slice(i, i + step) for i in range(0, n, step)]

    def nearest(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each structure the smallest ratio of a distance to the sum of radii, and the smallest distance in Å, [M].

        All pairs count, and each atom with its own images.
        """
        ratios, shortest = np.empty(len(parameters)), np.empty(len(parameters))
        for part in self._chunks(len(parameters)):
            distances = np.sqrt(self._squares(parameters[part]).min(axis=-1))
            ratios[part] = (distances / self.touching).min(axis=(1, 2))
            shortest[part] = distances.min(axis=(1, 2))
        return ratios, shortest

    def between(self, parameters: np.ndarray) -> np.ndarray:
        """The smallest distance between atoms of any two orbits, of one orbit on the diagonal, Å, [M, O, O]."""
        nearest = np.empty((len(parameters), len(self.first), len(self.first)))
        for part in self._chunks(len(parameters)):
            distances = np.sqrt(self._squares(parameters[part]).min(axis=-1))
            nearest[part] = np.minimum.reduceat(distances, self.first, axis=2)
        return nearest

    def fingerprint(self, parameters: np.ndarray, neighbours: int = 6) -> np.ndarray:
        """Mean distances in Å [S, S, neighbours] from each element's atoms to the nearest atoms of each element.

        Equal for structures that differ by an isometry, whatever their letters and origin.
        """
        distances = np.sqrt(self._squares(parameters[None])[0])
        kinds = np.unique(self.species)
        sizes = np.bincount(self.orbit)
        result = np.zeros((len(kinds), len(kinds), neighbours))
        for j, kind in enumerate(kinds):
            near = np.sort(distances[:, self.species == kind].reshape(len(self.first), -1), axis=1)[:, :neighbours]
            for i, other in enumerate(kinds):
                rows = np.flatnonzero(self.species[self.first] == other)
                result[i, j] = np.average(near[rows], axis=0, weights=sizes[rows])
        return result


SYMPREC = 0.01
"""Å; spglib must find the group of a crystal at this tolerance."""

SHORTEST = 0.5
"""Å; no two atoms may be closer, periodic images included."""


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


CLOSEST = 0.7
"""Of the sum of radii; structures with a closer pair are thrown away."""
