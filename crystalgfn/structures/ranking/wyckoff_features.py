"""What a model of Wyckoff assignments sees: elements, positions, and the room that a cell leaves on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.assignments import Letters
from crystalgfn.crystallography.distances import Contacts
from crystalgfn.crystallography.lattice import KIND
from crystalgfn.crystallography.normalizer import same_place
from crystalgfn.crystallography.orbits import cell_matrix

N_ORBIT, N_CRYSTAL, N_ASSIGNMENT = 21, 14, 6
"""Lengths of the vectors below."""
OF_CELL = {"orbit": slice(17, 20), "crystal": slice(8, 14), "assignment": slice(3, 6)}
"""The parts of them that are zero where the cell is not known."""
DRAWS = 8
"""Random coordinates tried for the room on a position with free ones."""
LIKE = 0.6
"""Difference of electronegativity below which two elements rather avoid each other."""
LARGEST_RATIO = 2.0
VOLUME = 15.0
"""Å3 an atom; an element's volume is estimated from its radius, and this is the rest."""


@cache
def letter_offset(space_group: int) -> int:
    """Where the positions of a group begin in a list of those of all groups."""
    return sum(len(positions) for positions in space_groups.WYCKOFF[: space_group - 1])


N_LETTERS = letter_offset(230) + len(space_groups.WYCKOFF[229])
_TYPES = {
    (det, det * trace): i for i, (det, trace) in enumerate((d, t) for d in (1, -1) for t in (3, -1, 0, 1, 2))
}  # of the determinant and the trace


@cache
def site_symmetry(space_group: int) -> np.ndarray:
    """[letters, 10] how many operations of each type (1, 2, 3, 4, 6 and with inversion) keep a point there."""
    conventional = space_groups.WYCKOFF[space_group - 1][-1].operations
    found = np.zeros((len(space_groups.WYCKOFF[space_group - 1]), 10))
    _, chosen = np.unique(conventional[:, :, :3].reshape(-1, 9), axis=0, return_index=True)  # one of each rotation
    for k, position in enumerate(space_groups.WYCKOFF[space_group - 1]):
        point = position.operations[0] @ np.array([0.1234, 0.2871, 0.3917, 1.0])
        for operation in conventional[chosen]:
            if same_place(space_group, operation @ np.append(point, 1.0), point):
                rotation = operation[:, :3]
                found[k, _TYPES[round(np.linalg.det(rotation)), round(np.trace(rotation))]] += 1
    return found


@dataclass(frozen=True, eq=False)
class WyckoffSite:
    """One crystal: its group, its elements, and the cell where it is known.

    Attributes:
        space_group: 1-230.
        species: atomic numbers [S].
        counts: atoms of each per primitive cell [S].
        lattice: conventional cell [6], or None.
    """

    space_group: int
    species: tuple[int, ...]
    counts: tuple[int, ...]
    lattice: np.ndarray | None


class Room:
    """Distances that a cell leaves between atoms on the positions of its group, over sums of radii."""

    def __init__(self, site: WyckoffSite, letters: Sequence[str]) -> None:
        """For positions that may be used; ``site.lattice`` must be known."""
        self.at = {letter: i for i, letter in enumerate(letters)}
        contacts = Contacts(site.space_group, site.lattice.tolist(), letters, [1] * len(letters))
        draws = np.random.default_rng(0).random((DRAWS, len(letters), 3))
        distances = contacts.between(draws).max(axis=0)
        positions = {p.letter: p for p in space_groups.WYCKOFF[site.space_group - 1]}
        fixed = np.array([not positions[letter].free for letter in letters])
        # two orbits of which one may move can always be apart, so only their own images count
        distances[~(fixed[:, None] & fixed[None]) & ~np.eye(len(letters), dtype=bool)] = np.inf
        self.fixed = fixed
        radius = elements.RADIUS[np.array(site.species) - 1]
        chi = elements.ELECTRONEGATIVITY[np.array(site.species) - 1]
        touching = radius[:, None] + radius[None]
        ratios = distances[None, :, None, :] / touching[:, None, :, None]  # element, letter, element, letter
        self.ratios = np.minimum(ratios, LARGEST_RATIO)
        self.like = np.abs(chi[:, None] - chi[None]) < LIKE

    def own(self, element: int, letter: str) -> float:
        """Of one orbit with its own images."""
        i = self.at[letter]
        return float(self.ratios[element, i, element, i])

    def assignment(self, letters: Letters) -> tuple[float, float, float]:
        """The smallest of all pairs, of pairs of like elements, of pairs of unlike ones."""
        where = [(e, self.at[f]) for e, element in enumerate(letters) for f in dict.fromkeys(element)]
        e, at = (np.array(column) for column in zip(*where, strict=True))
        ratios = self.ratios[e[:, None], at[:, None], e[None], at[None]]
        like = self.like[e[:, None], e[None]]
        return (
            float(ratios.min()),
            float(np.where(like, ratios, LARGEST_RATIO).min()),
            float(np.where(like, LARGEST_RATIO, ratios).min()),
        )


def usable_letters(site: WyckoffSite) -> list[str]:
    """Letters of the positions that are small enough for some element."""
    most = max(site.counts)
    return [p.letter for p in space_groups.WYCKOFF[site.space_group - 1] if p.primitive_multiplicity <= most]


def crystal_features(site: WyckoffSite) -> np.ndarray:
    """[N_CRYSTAL] kind of lattice, size, and volume and shape of the cell where it is known."""
    found = np.zeros(N_CRYSTAL)
    found[KIND[site.space_group - 1]] = 1
    n = sum(site.counts)
    found[6:8] = np.log(n) / 2, len(site.counts) / 3
    if site.lattice is not None:
        volume = (
            abs(np.linalg.det(cell_matrix(site.lattice.tolist()))) / space_groups.CENTRING[site.space_group - 1] / n
        )
        radii = elements.RADIUS[np.array(site.species) - 1]
        expected = float((radii**3 * np.array(site.counts)).sum() / n) * 4 + VOLUME / 2
        logs = np.log(site.lattice[:3])
        found[8:] = 1.0, np.log(volume / expected), *(logs - logs.mean()), np.radians(site.lattice[4]) - np.pi / 2
    return found


def orbit_features(site: WyckoffSite, element: int, letter: str, room: Room | None) -> np.ndarray:
    """[N_ORBIT] an orbit of an element on a position: sizes, freedom, site symmetry, room with its own images."""
    positions = space_groups.WYCKOFF[site.space_group - 1]
    at = next(i for i, p in enumerate(positions) if p.letter == letter)
    position, n = positions[at], sum(site.counts)
    types = site_symmetry(site.space_group)[at]
    m, count = position.primitive_multiplicity, site.counts[element]
    ratio = 0.0 if room is None else room.own(element, letter)
    sizes = [m / count, m / n, count / n, np.log(m) / 2, np.log(types.sum()) / 2, position.n_free / 3]
    crowding = [float(room is not None), ratio, min(ratio, 1.0) ** 2, at / 27]
    return np.array([*sizes, float(position.free), *(types / types.sum()), *crowding])


def assignment_features(site: WyckoffSite, letters: Letters, room: Room | None) -> np.ndarray:
    """[N_ASSIGNMENT] numbers of orbits and free coordinates, and the smallest distances between fixed atoms."""
    free = {p.letter: p.n_free for p in space_groups.WYCKOFF[site.space_group - 1]}
    all_letters = [f for element in letters for f in element]
    n = sum(site.counts)
    freedom = sum(free[f] for f in all_letters)
    counts = [len(all_letters) / n, freedom / (3 * n), np.log1p(freedom) / 3]
    return np.array([*counts, *(room.assignment(letters) if room is not None else (0.0, 0.0, 0.0))])
