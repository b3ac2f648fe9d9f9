"""Real crystals whose positions others may take: same group, same counts, elements and cells as near as can be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from crystalgfn.crystallography import elements, normalizer, space_groups
from crystalgfn.crystallography.assignments import Letters
from crystalgfn.crystallography.convert import fingerprint
from crystalgfn.crystallography.distances import fault
from crystalgfn.crystallography.enumeration import representative
from crystalgfn.crystallography.orbits import OrbitStructure, cell_matrix
from crystalgfn.data.structure_index import Key, Prototypes
from crystalgfn.structures.sources.template_distance import Ranking, permutations_of, shape_vector

DISTINCT = 0.03
"""Largest difference of fingerprints of two candidates of which one is left out."""

SETTINGS_OF = 100
"""Of the templates, so many of the best are compared with the cell in every setting."""

NEAR = 0.1
"""Settings whose cells are so much farther than the nearest make candidates of their own."""

FARTHEST = 0.5
"""Difference of shapes above which a template's setting is not tried."""


@dataclass(frozen=True)
class Template:
    """A crystal's atoms on the positions of a real one.

    Attributes:
        structure: the crystal's elements in the crystal's cell, or in the template's own, scaled, where none is known.
        probability: of this structure among those that the templates offer: of all templates that have it, or, for
            those that only offer other coordinates for it, of the one.
        row: of the template in the index.
    """

    structure: OrbitStructure
    probability: float
    row: int


class Templates:
    """Ranks the crystals of an index as templates for others."""

    def __init__(self, index: Prototypes, ranking: Ranking | None = None) -> None:
        """Templates of an index; ``ranking`` None: the weights that come with the package."""
        self.index = index
        self.ranking = Ranking.shipped() if ranking is None else ranking
        self._families: dict[tuple[int, tuple[int, ...]], Family | None] = {}

    def family(self, space_group: int, counts: tuple[int, ...]) -> Family | None:
        """The crystals with this group and these ascending counts (kept)."""
        key = (space_group, counts)
        if key not in self._families:
            self._families[key] = family(self.index, *key)
        return self._families[key]

    def find(
        self,
        space_group: int,
        counts: Mapping[str, int],
        lattice: np.ndarray | None = None,
        n: int = 1,
        without: Collection[Key] = (),
        letters: Mapping[str, Sequence[str]] | None = None,
    ) -> list[Template]:
        """At most ``n`` different structures, the most probable first; none where no real crystal has these counts.

        Where there are fewer than ``n``, further templates of the same structures follow. Each has exactly the group at
        symprec 0.01 and no atoms closer than 0.5 Å.

        Args:
            space_group: 1-230.
            counts: element symbol -> atoms per primitive cell.
            lattice: the conventional cell [6] to use; None: that of each template, with the volume scaled.
            n: how many, at most.
            without: pairs (reduced formula, group) that no template may have.
            letters: element symbol -> letters of its orbits, where they are known; equivalent choices count as these.
        """
        pairs = sorted((count, elements.NUMBER[symbol]) for symbol, count in counts.items() if count)
        target = np.array([z for _, z in pairs])
        members = self.family(space_group, tuple(count for count, _ in pairs))
        if members is None:
            return []
        cell = None if lattice is None else np.asarray(lattice, dtype=np.float64)
        scores = self.scores(members, target, space_group, cell)
        if without:
            taken = [bool(key & set(without)) for key in self._keys(members)]
            scores[np.array(taken)] = -np.inf
        if not np.isfinite(scores).any():
            return []
        asked = None if letters is None else _choice_of(space_group, letters)
        found: list[Template] = []
        prints: list[tuple[np.ndarray, np.ndarray]] = []

        def take(templates: list[Template]) -> bool:
            """Keep those that are asked for and not there yet; whether there were any."""
            for template in templates:
                if asked is not None and _choice_of(space_group, template.structure.wyckoff()) != asked:
                    continue
                mark = _normalised(template.structure), shape_vector(np.array(template.structure.lattice))
                if not any(_near(mark, other) for other in prints):
                    prints.append(mark)
                    found.append(template)
            return bool(templates)

        others: list[TemplateMatch] = []
        for choices in told_apart(members, scores):
            if len(found) >= n:
                break
            probability = sum(choice.weight for choice in choices)
            used = next(
                (i for i, c in enumerate(choices[:3]) if take(self._placed(members, c, target, cell, probability))), 2
            )
            others += choices[used + 1 :]
        found.sort(key=lambda t: -t.probability)
        for choice in sorted(others, key=lambda c: -c.weight)[: 2 * n]:  # the same structures with other coordinates
            if len(found) >= n:
                break
            take(self._placed(members, choice, target, cell, choice.weight))
        return found[:n]

    def scores(self, members: Family, target: np.ndarray, space_group: int, lattice: np.ndarray | None) -> np.ndarray:
        """Scores [R, P] of the templates of a family with each exchange of elements with equal counts.

        Args:
            members: the family.
            target: atomic numbers [S] by ascending count.
            space_group: 1-230.
            lattice: the cell [6], or None.
        """
        shares = np.array(members.counts) / sum(members.counts)
        moved = members.species[:, members.permutations]
        distances = self.ranking.distance[moved - 1, target - 1]
        scores = self.ranking.elements(distances, shares, lattice is not None)
        if lattice is None:
            return scores
        gaps = np.linalg.norm(members.shapes - shape_vector(lattice), axis=-1)
        if len(normalizer.changed_lattices(space_group, lattice)) > 1:
            best = np.argsort(-scores.max(axis=1), kind="stable")[:SETTINGS_OF]
            for i in best[gaps[best] > 0.02].tolist():
                gaps[i] = _setting_gaps(space_group, members.lattices[i], lattice).min()
        surplus = np.log(_volume_per_atom(space_group, lattice, members.counts))
        surplus -= np.log(self.index.volumes[target - 1] @ shares)
        return scores + self.ranking.cells(gaps, members.surplus - surplus)[:, None]

    def _placed(
        self, members: Family, choice: TemplateMatch, target: np.ndarray, lattice: np.ndarray | None, probability: float
    ) -> list[Template]:
        """A template with the target's elements in each setting that suits the cell, where that passes the checks."""
        row = int(members.rows[choice.at])
        old = members.species[choice.at][members.permutations[choice.permutation]]
        change = dict(zip(old.tolist(), target.tolist(), strict=True))
        source = self.index[row]
        mapped = replace(source, orbits=tuple(replace(orbit, species=change[orbit.species]) for orbit in source.orbits))
        if lattice is None:
            expected = self.index.volumes[target - 1] @ np.array(members.counts) / sum(members.counts)
            factor = (expected * np.exp(members.surplus[choice.at]) / self.index.volume_per_atom[row]) ** (1 / 3)
            cell = np.array(source.lattice) * ([factor] * 3 + [1.0] * 3)
            placed = [(replace(mapped, lattice=tuple(cell.tolist())), 1.0)]
        else:
            placed = self._settings(mapped, lattice, members.space_group)
        return [Template(s, probability * share, row) for s, share in placed if fault(s) is None]

    def _settings(
        self, structure: OrbitStructure, lattice: np.ndarray, space_group: int
    ) -> list[tuple[OrbitStructure, float]]:
        """The structure in the cell, described in each setting whose own cell is near it, and the share of each."""
        gaps = _setting_gaps(space_group, np.array(structure.lattice), lattice)
        limit = min(gaps.min() + NEAR, max(FARTHEST, gaps.min()))
        moved = np.round(normalizer.changed_lattices(space_group, np.array(structure.lattice)), 4)
        chosen: dict[bytes, int] = {}
        for i in np.argsort(gaps, kind="stable")[:24].tolist():
            if gaps[i] <= limit:
                chosen.setdefault(moved[i].tobytes(), i)
        indices = list(chosen.values())[:4]
        weights = np.exp(self.ranking.cells(gaps[indices], np.zeros(len(indices))))
        return [
            (normalizer.apply(normalizer.setting(space_group, i), structure, lattice), float(w))
            for i, w in zip(indices, weights / weights.sum(), strict=True)
        ]

    def _keys(self, members: Family) -> list[frozenset[Key]]:
        return [self._all_keys[i] for i in members.rows.tolist()]

    @cached_property
    def _all_keys(self) -> list[frozenset[Key]]:
        return self.index.keys()


def _choice_of(space_group: int, letters: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The representative of equivalent choices of letters."""
    symbols = sorted(letters)
    return dict(zip(symbols, representative(space_group, [letters[symbol] for symbol in symbols]), strict=True))


def _setting_gaps(space_group: int, lattice: np.ndarray, target: np.ndarray) -> np.ndarray:
    """How far the shape of a cell is from the target in every setting, [n]."""
    moved = normalizer.changed_lattices(space_group, lattice)
    return np.linalg.norm(shape_vector(moved) - shape_vector(target), axis=-1)


def _volume_per_atom(space_group: int, lattice: np.ndarray, counts: tuple[int, ...]) -> float:
    return abs(np.linalg.det(cell_matrix(lattice.tolist()))) / int(space_groups.CENTRING[space_group - 1]) / sum(counts)


def _normalised(structure: OrbitStructure) -> np.ndarray:
    counts = tuple(structure.composition.values())
    return fingerprint(structure) / _volume_per_atom(structure.space_group, np.array(structure.lattice), counts) ** (
        1 / 3
    )


def _near(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether two structures (fingerprint, shape of the cell) are one, whatever their letters."""
    return bool(np.abs(one[0] - other[0]).max() < DISTINCT and np.linalg.norm(one[1] - other[1]) < SAME_SHAPE)


SAME, SAME_SHAPE = 0.3, 0.25
"""Largest difference of two fingerprints, in units of the cube root of the volume per atom, and of the shapes of two
cells, of one structure; the letters must be equivalent too."""

LOOKED_AT = 256
"""Of the templates and permutations of a crystal, so many of the best are told apart."""


@dataclass(frozen=True, eq=False)
class Family:
    """All crystals of an index with the same group and counts; elements by ascending count, then number.

    Attributes:
        rows: positions in the index [R].
        counts: atoms of each element [S], ascending.
        species: atomic numbers [R, S].
        fingerprints: [R, S, S, 6], in units of the cube root of the volume per atom.
        lattices: [R, 6].
        surplus: ln of the volume over the sum of its elements' volumes [R].
        space_group: 1-230.
        letters: of each element of each member.
    """

    rows: np.ndarray
    counts: tuple[int, ...]
    species: np.ndarray
    fingerprints: np.ndarray
    lattices: np.ndarray
    surplus: np.ndarray
    space_group: int
    letters: tuple[Letters, ...]
    _choices: dict[tuple[int, int], Letters] = field(default_factory=dict, repr=False)

    def choice(self, at: int, permutation: int) -> Letters:
        """The letters of a member with its elements exchanged, as the representative of equivalent choices (kept)."""
        key = (at, permutation)
        if key not in self._choices:
            own = self.letters[at]
            moved = [own[i] for i in self.permutations[permutation].tolist()]
            self._choices[key] = representative(self.space_group, moved)
        return self._choices[key]

    @cached_property
    def shapes(self) -> np.ndarray:
        """[R, 6]."""
        return shape_vector(self.lattices)

    @cached_property
    def permutations(self) -> np.ndarray:
        """Ways to exchange elements with equal counts, [P, S]."""
        return np.array(list(permutations_of(self.counts)))


def family(index: Prototypes, space_group: int, counts: tuple[int, ...]) -> Family | None:
    """The crystals of an index with a group and ascending counts; None where there are none."""
    rows = index.by_counts.get((space_group, counts))
    if rows is None:
        return None
    species, prints, letters = [], [], []
    for i in rows.tolist():
        present = np.flatnonzero(index.composition[i])
        order = np.argsort(index.composition[i][present], kind="stable")
        species.append(present[order] + 1)
        prints.append(index.fingerprint(i)[np.ix_(order, order)])
        letters.append(index.letters_of(i, species[-1].tolist()))
    volumes = index.volumes[np.array(species) - 1] @ np.array(counts) / sum(counts)
    surplus = np.log(index.volume_per_atom[rows] / volumes)
    lattices = index.lattice[rows]
    return Family(rows, counts, np.array(species), np.array(prints), lattices, surplus, space_group, tuple(letters))


@dataclass(frozen=True)
class TemplateMatch:
    """A template with an exchange of its elements, by their places in the family, and its probability."""

    at: int
    permutation: int
    weight: float


def told_apart(members: Family, scores: np.ndarray) -> list[list[TemplateMatch]]:
    """Clusters of equal structures, the most probable first, in each the nearest template first."""
    flat = scores.ravel()
    weights = np.exp(flat - flat.max())
    weights /= weights.sum()
    order = np.argsort(-flat, kind="stable")[:LOOKED_AT]
    order = order[weights[order] > 0]
    at, permutation = np.unravel_index(order, scores.shape)
    exchange = members.permutations[permutation]
    prints = members.fingerprints[at[:, None, None], exchange[:, :, None], exchange[:, None, :]].reshape(len(order), -1)
    marks: dict[Letters, int] = {}
    choices = [members.choice(a, p) for a, p in zip(at.tolist(), permutation.tolist(), strict=True)]
    letters = np.array([marks.setdefault(choice, len(marks)) for choice in choices])
    shapes = members.shapes[at]
    left = np.ones(len(order), dtype=bool)
    clusters = []
    for i in range(len(order)):
        if not left[i]:
            continue
        same = left & (letters == letters[i]) & (np.abs(prints - prints[i]).max(axis=1) < SAME)
        same &= np.linalg.norm(shapes - shapes[i], axis=1) < SAME_SHAPE
        left &= ~same
        clusters.append(
            [TemplateMatch(int(at[j]), int(permutation[j]), float(weights[order[j]])) for j in np.flatnonzero(same)]
        )
    return sorted(clusters, key=lambda cluster: -sum(choice.weight for choice in cluster))
