"""Which Wyckoff letters each element takes: realisable assignments scored by a small model learned from real crystals.

The score of an assignment is a sum over its orbits (what an element makes of a position) plus a term for the whole.
Probabilities are the softmax over all assignments of the crystal, equivalent ones once. The sum alone says which are
looked at where there are too many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from torch import nn

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.assignments import Letters
from crystalgfn.crystallography.distances import Contacts
from crystalgfn.crystallography.enumeration import CAP, assignments
from crystalgfn.crystallography.lattice import KIND
from crystalgfn.crystallography.normalizer import same_place
from crystalgfn.crystallography.orbits import primitive_volume
from crystalgfn.typing import RowFloats, RowVectors
from crystalgfn.utils import files
from crystalgfn.utils.weight_files import StoredModel

WEIGHTS = files.SHIPPED / "rankers" / "wyckoff.safetensors"

ELEMENT, LETTER, HIDDEN, POOLED = 16, 8, 64, 32


@dataclass(frozen=True, kw_only=True)
class AssignmentBatch:
    """Assignments of several crystals, flat.

    ``orbit_*``: the different (crystal, element, letter); ``member_*``: orbits of assignments; ``owner``: the crystal
    of each assignment.
    """

    orbit_features: torch.Tensor  # [R, N_ORBIT]
    orbit_element: torch.Tensor  # [R] atomic number - 1
    orbit_letter: torch.Tensor  # [R] place among the letters of all groups
    orbit_crystal: torch.Tensor  # [R]
    member_orbit: torch.Tensor  # [Q]
    member_assignment: torch.Tensor  # [Q]
    assignment_features: torch.Tensor  # [M, N_ASSIGNMENT]
    owner: torch.Tensor  # [M]
    crystal_features: torch.Tensor  # [B, N_CRYSTAL]


class WyckoffModel(StoredModel):
    """Scores of assignments."""

    what = "model of Wyckoff letters"

    def __init__(self) -> None:
        super().__init__()
        self.element = nn.Embedding(118, ELEMENT)
        self.letter = nn.Embedding(N_LETTERS, LETTER)
        nn.init.zeros_(self.letter.weight)
        self.element.weight.data[:, :5] = torch.tensor(elements.chemistry(), dtype=torch.float32)
        self.element.weight.data[:, 5:] *= 0.1
        inputs = N_ORBIT + ELEMENT + LETTER + N_CRYSTAL
        self.orbit = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU())
        self.alone = nn.Linear(HIDDEN, 1)
        self.pool = nn.Linear(HIDDEN, POOLED)
        self.whole = nn.Sequential(
            nn.Linear(POOLED + N_ASSIGNMENT + N_CRYSTAL, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 1)
        )

    def orbits(self, batch: AssignmentBatch) -> tuple[RowFloats, RowVectors]:
        """Score of each different orbit by itself [R], and what it adds to the whole [R, POOLED]."""
        parts = (
            batch.orbit_features,
            self.element(batch.orbit_element),
            self.letter(batch.orbit_letter),
            batch.crystal_features[batch.orbit_crystal],
        )
        hidden = self.orbit(torch.cat(parts, 1))
        return self.alone(hidden).squeeze(1), self.pool(hidden)

    def forward(self, batch: AssignmentBatch) -> tuple[RowFloats, RowFloats]:
        """Scores of all assignments [M], and the part of them that is a sum over orbits."""
        alone, pooled = self.orbits(batch)
        n = len(batch.owner)
        summed = torch.zeros(n, dtype=alone.dtype).index_add(0, batch.member_assignment, alone[batch.member_orbit])
        together = torch.zeros(n, POOLED, dtype=alone.dtype)
        together = together.index_add(0, batch.member_assignment, pooled[batch.member_orbit])
        context = torch.cat([torch.tanh(together), batch.assignment_features, batch.crystal_features[batch.owner]], 1)
        return summed + self.whole(context).squeeze(1), summed

    @torch.no_grad()
    def rank(
        self,
        space_group: int,
        counts: Mapping[str, int],
        lattice: Sequence[float] | np.ndarray | None = None,
        n: int = 20,
        cap: int = CAP,
    ) -> list[tuple[dict[str, tuple[str, ...]], float]]:
        """At most ``n`` different assignments with their probabilities, the most probable first.

        ``counts`` are element symbol -> atoms per primitive cell; the lattice is the conventional cell [6] in the
        fundamental domain of the group, or None where it is not known. The probabilities are among the ``cap``
        assignments that are looked at.
        """
        # the order of elements decides which of equivalent choices is looked at, so it is that of the examples
        symbols = sorted((s for s, count in counts.items() if count), key=lambda s: (counts[s], elements.NUMBER[s]))
        site = WyckoffSite(
            space_group,
            tuple(elements.NUMBER[s] for s in symbols),
            tuple(int(counts[s]) for s in symbols),
            None if lattice is None else np.asarray(lattice, dtype=np.float64),
        )
        alone = self._alone(site)
        found, _ = assignments(space_group, site.counts, cap, lambda e, f: alone[e, f])
        if not found:
            return []
        scores = self(collate_assignments([(site, found)]))[0].double()
        chances = torch.softmax(scores, 0).numpy()
        best = np.argsort(-chances, kind="stable")[:n]
        return [(dict(zip(symbols, found[i], strict=True)), float(chances[i])) for i in best]

    def _alone(self, site: WyckoffSite) -> dict[tuple[int, str], float]:
        """Score of each element's orbit on each position by itself."""
        size = {p.letter: p.primitive_multiplicity for p in space_groups.WYCKOFF[site.space_group - 1]}
        every = [(e, f) for e, count in enumerate(site.counts) for f in site.letters if size[f] <= count]
        single = [
            tuple((letter,) if e == element else () for e in range(len(site.counts))) for element, letter in every
        ]
        batch = collate_assignments([(site, single)], whole=False)
        values = self.orbits(batch)[0].tolist()
        return dict(zip(every, values, strict=True))

    @staticmethod
    @cache
    def shipped() -> WyckoffModel:
        """The model that comes with the package."""
        return WyckoffModel.load(WEIGHTS)


def collate_assignments(
    entries: Sequence[tuple[WyckoffSite, Sequence[Letters]]], whole: bool = True
) -> AssignmentBatch:
    """One batch of crystals with their assignments; ``whole`` False leaves the features of assignments at zero."""
    features, numbers, places, crystals = [], [], [], []
    member_orbit, member_assignment, about, owner = [], [], [], []
    for b, (site, found) in enumerate(entries):
        offset = letter_offset(site.space_group)
        rank = {p.letter: i for i, p in enumerate(space_groups.WYCKOFF[site.space_group - 1])}
        seen: dict[tuple[int, str], int] = {}
        for letters in found:
            for e, element in enumerate(letters):
                for letter in element:
                    if (e, letter) not in seen:
                        seen[e, letter] = len(features)
                        features.append(orbit_features(site, e, letter))
                        numbers.append(site.species[e] - 1)
                        places.append(offset + rank[letter])
                        crystals.append(b)
                    member_orbit.append(seen[e, letter])
                    member_assignment.append(len(owner))
            about.append(assignment_features(site, letters) if whole else np.zeros(N_ASSIGNMENT))
            owner.append(b)
    return AssignmentBatch(
        orbit_features=torch.tensor(np.array(features), dtype=torch.float32),
        orbit_element=torch.tensor(numbers),
        orbit_letter=torch.tensor(places),
        orbit_crystal=torch.tensor(crystals),
        member_orbit=torch.tensor(member_orbit),
        member_assignment=torch.tensor(member_assignment),
        assignment_features=torch.tensor(np.array(about), dtype=torch.float32),
        owner=torch.tensor(owner),
        crystal_features=torch.tensor(np.array([crystal_features(site) for site, _ in entries]), dtype=torch.float32),
    )


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
    """One crystal: its group, its elements, and the cell where it is known."""

    space_group: int  # 1-230
    species: tuple[int, ...]  # atomic numbers [S]
    counts: tuple[int, ...]  # atoms of each per primitive cell [S]
    lattice: np.ndarray | None  # conventional cell [6], or None

    @cached_property
    def letters(self) -> list[str]:
        """Those of the positions that are small enough for some element."""
        most = max(self.counts)
        return [p.letter for p in space_groups.WYCKOFF[self.space_group - 1] if p.primitive_multiplicity <= most]

    @cached_property
    def room(self) -> Room | None:
        """That of these positions; None where the cell is not known."""
        return None if self.lattice is None else Room(self, self.lattice)


class Room:
    """Distances that a cell leaves between atoms on the positions of its group, over sums of radii."""

    def __init__(self, site: WyckoffSite, lattice: np.ndarray) -> None:
        """For positions that may be used."""
        letters = site.letters
        self.at = {letter: i for i, letter in enumerate(letters)}
        contacts = Contacts(site.space_group, lattice.tolist(), letters, [1] * len(letters))
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


def crystal_features(site: WyckoffSite) -> np.ndarray:
    """[N_CRYSTAL] kind of lattice, size, and volume and shape of the cell where it is known."""
    found = np.zeros(N_CRYSTAL)
    found[KIND[site.space_group - 1]] = 1
    n = sum(site.counts)
    found[6:8] = np.log(n) / 2, len(site.counts) / 3
    if site.lattice is not None:
        volume = primitive_volume(site.space_group, site.lattice.tolist()) / n
        radii = elements.RADIUS[np.array(site.species) - 1]
        expected = float((radii**3 * np.array(site.counts)).sum() / n) * 4 + VOLUME / 2
        logs = np.log(site.lattice[:3])
        found[8:] = 1.0, np.log(volume / expected), *(logs - logs.mean()), np.radians(site.lattice[4]) - np.pi / 2
    return found


def orbit_features(site: WyckoffSite, element: int, letter: str) -> np.ndarray:
    """[N_ORBIT] an orbit of an element on a position: sizes, freedom, site symmetry, room with its own images."""
    positions = space_groups.WYCKOFF[site.space_group - 1]
    at = next(i for i, p in enumerate(positions) if p.letter == letter)
    position, n = positions[at], sum(site.counts)
    types = site_symmetry(site.space_group)[at]
    m, count = position.primitive_multiplicity, site.counts[element]
    ratio = 0.0 if site.room is None else site.room.own(element, letter)
    sizes = [m / count, m / n, count / n, np.log(m) / 2, np.log(types.sum()) / 2, position.n_free / 3]
    crowding = [float(site.room is not None), ratio, min(ratio, 1.0) ** 2, at / 27]
    return np.array([*sizes, float(position.free), *(types / types.sum()), *crowding])


def assignment_features(site: WyckoffSite, letters: Letters) -> np.ndarray:
    """[N_ASSIGNMENT] numbers of orbits and free coordinates, and the smallest distances between fixed atoms."""
    free = {p.letter: p.n_free for p in space_groups.WYCKOFF[site.space_group - 1]}
    all_letters = [f for element in letters for f in element]
    n = sum(site.counts)
    freedom = sum(free[f] for f in all_letters)
    counts = [len(all_letters) / n, freedom / (3 * n), np.log1p(freedom) / 3]
    return np.array([*counts, *(site.room.assignment(letters) if site.room is not None else (0.0, 0.0, 0.0))])
