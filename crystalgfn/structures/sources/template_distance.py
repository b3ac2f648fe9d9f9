"""How near a real crystal is to one whose atoms are looked for: learned distances of elements, cells and volumes.

The score of a template is minus a sum over its elements of a distance to the element that takes their place, minus
terms for the shape of the cell and for the volume. Scores are fitted so that their softmax over all templates of a
crystal gives the most probability to those that have its structure (neighbourhood components analysis). Templates with
one space group and the same counts are a family, in which those that are one structure are found.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from pathlib import Path

import numpy as np

from crystalgfn.crystallography.assignments import Letters
from crystalgfn.crystallography.enumeration import representative
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.errors import CheckpointError
from crystalgfn.utils import files
from crystalgfn.utils.files import path_of

WEIGHTS = files.SHIPPED / "rankers" / "templates.safetensors"

REMEDY = "fit them, or use the shipped ones"
NAMES = ("embedding", "element", "shape", "volume")


@dataclass(frozen=True, eq=False)
class Ranking:
    """The weights."""

    embedding: np.ndarray  # of the elements, [118, D]
    element: np.ndarray  # [4] with and without a known lattice: weight of a distance, and of that times its share
    shape: np.ndarray  # [2] weight and scale of the distance of shapes
    volume: np.ndarray  # [2] weight and scale of the distance of volumes

    @staticmethod
    @cache
    def shipped() -> Ranking:
        """The weights that come with the package.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        return Ranking.load(WEIGHTS)

    @staticmethod
    def load(path: str | Path) -> Ranking:
        """The weights in a file of `save`.

        Raises:
            CheckpointError: the file is missing or of another kind.
        """
        from crystalgfn.utils.weight_files import read_tensors

        tensors, _ = read_tensors(path_of(path), "weights of templates", REMEDY)
        if missing := [name for name in NAMES if name not in tensors]:
            raise CheckpointError(f"{path} holds no weights of templates ({missing[0]} is missing); {REMEDY}")
        return Ranking(*(tensors[name].double().numpy() for name in NAMES))

    @cached_property
    def distance(self) -> np.ndarray:
        """Of elements, [118, 118]."""
        gaps = self.embedding[:, None] - self.embedding[None]
        return np.sqrt((gaps**2).sum(-1) + 1e-6) - 1e-3

    def elements(
        self, species: np.ndarray, counts: tuple[int, ...], target: np.ndarray, with_lattice: bool
    ) -> np.ndarray:
        """Scores [R, P] of the target's elements [S] in place of those of templates [R, S], in each exchange.

        ``counts`` of atoms ascend; elements with equal counts are exchanged. ``with_lattice``: cells are compared too.
        """
        shares = np.array(counts) / sum(counts)
        distances = self.distance[species[:, exchanges(counts)] - 1, target - 1]
        even, by_share = self.element[:2] if with_lattice else self.element[2:]
        return -(distances * (even / len(shares) + by_share * shares)).sum(-1)

    def cells(self, shape: np.ndarray, volume: np.ndarray) -> np.ndarray:
        """Scores of cells whose shapes (``shape_vector``) and ln volumes per atom are so far apart."""
        return -_robust(shape, *self.shape) - _robust(np.abs(volume), *self.volume)


def _robust(distance: np.ndarray, weight: float, scale: float) -> np.ndarray:
    """Quadratic below the scale, logarithmic above."""
    return weight * np.log1p((distance / scale) ** 2)


Fingerprint = tuple[np.ndarray, np.ndarray]
"""Mean neighbour distances over the cube root of the volume per atom, and shape of the cell."""


def alike(one: Fingerprint, other: Fingerprint, gap: float, shape_gap: float) -> bool:
    """Whether the largest difference of distances and that of the shapes are below limits."""
    return bool(np.abs(one[0] - other[0]).max() < gap and np.linalg.norm(one[1] - other[1]) < shape_gap)


def shape_vector(lattices: np.ndarray) -> np.ndarray:
    """Shapes of cells whatever their volume: ln lengths about their mean, angles in radians; [..., 6] -> [..., 6]."""
    logs = np.log(lattices[..., :3])
    return np.concatenate([logs - logs.mean(-1, keepdims=True), np.radians(lattices[..., 3:])], axis=-1)


@lru_cache(maxsize=1024)
def exchanges(counts: tuple[int, ...]) -> np.ndarray:
    """Permutations of positions that keep ascending counts, [P, S]: of elements with equal counts among themselves."""
    blocks: list[list[int]] = []
    for at, count in enumerate(counts):
        if blocks and counts[blocks[-1][0]] == count:
            blocks[-1].append(at)
        else:
            blocks.append([at])
    every = itertools.product(*(itertools.permutations(block) for block in blocks))
    found = np.array([[at for part in parts for at in part] for parts in every])
    found.flags.writeable = False
    return found


def ordered_elements(composition: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the elements present in [118] counts by number: their order by ascending count, and their numbers in it."""
    present = np.flatnonzero(composition)
    order = np.argsort(composition[present], kind="stable")
    return order, present[order] + 1


SAME, SAME_SHAPE = 0.3, 0.25
"""Largest difference of two fingerprints, in units of the cube root of the volume per atom, and of the shapes of two
cells, of one structure; the letters must be equivalent too."""
LOOKED_AT = 256
"""Of the templates and permutations of a crystal, so many of the best are told apart."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Family:
    """All crystals of an index with the same group and counts; elements by ascending count, then number."""

    rows: np.ndarray  # positions in the index [R]
    counts: tuple[int, ...]  # atoms of each element [S], ascending
    species: np.ndarray  # atomic numbers [R, S]
    fingerprints: np.ndarray  # [R, S, S, 6], in units of the cube root of the volume per atom
    lattices: np.ndarray  # [R, 6]
    surplus: np.ndarray  # ln of the volume over the sum of its elements' volumes [R]
    space_group: int  # 1-230
    letters: tuple[Letters, ...]  # of each element of each member
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

    @property
    def permutations(self) -> np.ndarray:
        """Ways to exchange elements with equal counts, [P, S]."""
        return exchanges(self.counts)


def family(index: Prototypes, space_group: int, counts: tuple[int, ...]) -> Family | None:
    """The crystals of an index with a group and ascending counts; None where there are none."""
    rows = index.by_counts.get((space_group, counts))
    if rows is None:
        return None
    species, prints, letters = [], [], []
    for i in rows.tolist():
        order, own = ordered_elements(index.composition[i])
        species.append(own)
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
