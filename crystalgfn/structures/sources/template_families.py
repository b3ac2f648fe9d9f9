"""Real crystals with one space group and the same counts, and which of them are one structure."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from crystalgfn.crystallography.assignments import Letters
from crystalgfn.crystallography.enumeration import representative
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.structures.sources.template_distance import permutations_of, shape_vector

SAME, SAME_SHAPE = 0.3, 0.25
"""Largest difference of two fingerprints, in units of the cube root of the volume per atom, and of the shapes of two
cells, of one structure; the letters must be equivalent too."""

LOOKED_AT = 256
"""Of the templates and permutations of a crystal, so many of the best are told apart."""


@dataclass(frozen=True, eq=False, kw_only=True)
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
    return Family(
        rows=rows,
        counts=counts,
        species=np.array(species),
        fingerprints=np.array(prints),
        lattices=lattices,
        surplus=surplus,
        space_group=space_group,
        letters=tuple(letters),
    )


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
