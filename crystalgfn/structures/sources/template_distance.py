"""How near a real crystal is to one whose atoms are looked for: learned distances of elements, cells and volumes.

The score of a template is minus a sum over its elements of a distance to the element that takes their place, minus
terms for the shape of the cell and for the volume. Scores are fitted so that their softmax over all templates of a
crystal gives the most probability to those that have its structure (neighbourhood components analysis).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.errors import CheckpointError
from crystalgfn.utils import files

WEIGHTS = files.SHIPPED / "rankers" / "templates.safetensors"
NAMES = ("embedding", "element", "shape", "volume")


@dataclass(frozen=True, eq=False)
class Ranking:
    """The weights.

    Attributes:
        embedding: of the elements, [118, D].
        element: [4] with and without a known lattice: weight of an element's distance, and of that times its share.
        shape: [2] weight and scale of the distance of shapes.
        volume: [2] weight and scale of the distance of volumes.
    """

    embedding: np.ndarray
    element: np.ndarray
    shape: np.ndarray
    volume: np.ndarray

    @staticmethod
    def unfitted() -> Ranking:
        """Electronegativities, radii and places in the periodic table; what fitting starts from."""
        columns = np.stack(
            [2 * elements.ELECTRONEGATIVITY, 2 * elements.RADIUS, elements.GROUP / 8, elements.ROW / 4, elements.METAL],
            axis=1,
        )
        embedding = np.concatenate([columns - columns.mean(0), np.zeros((118, 3))], axis=1)
        return Ranking(embedding, np.array([1.0, 1.0, 1.0, 1.0]), np.array([4.0, 0.2]), np.array([1.0, 0.2]))

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
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            arrays = load_file(path)
            return Ranking(*(arrays[name].astype(np.float64) for name in NAMES))
        except (OSError, KeyError, SafetensorError) as error:
            raise CheckpointError(f"{path} holds no weights of templates; fit them, or use the shipped ones") from error

    @cached_property
    def distance(self) -> np.ndarray:
        """Of elements, [118, 118]."""
        gaps = self.embedding[:, None] - self.embedding[None]
        return np.sqrt((gaps**2).sum(-1) + 1e-6) - 1e-3

    def elements(self, distances: np.ndarray, shares: np.ndarray, with_lattice: bool) -> np.ndarray:
        """Scores [...] of elements put in the place of others.

        Args:
            distances: of each pair of elements [..., S].
            shares: of the atoms that each element has [S].
            with_lattice: whether cells will be compared too.
        """
        even, by_share = self.element[:2] if with_lattice else self.element[2:]
        return -(distances * (even / len(shares) + by_share * shares)).sum(-1)

    def cells(self, shape: np.ndarray, volume: np.ndarray) -> np.ndarray:
        """Scores of cells whose shapes (``shape_vector``) and ln volumes per atom are so far apart."""
        return -_robust(shape, *self.shape) - _robust(np.abs(volume), *self.volume)


def _robust(distance: np.ndarray, weight: float, scale: float) -> np.ndarray:
    """Quadratic below the scale, logarithmic above."""
    return weight * np.log1p((distance / scale) ** 2)


def shape_vector(lattices: np.ndarray) -> np.ndarray:
    """Shapes of cells whatever their volume: ln lengths about their mean, angles in radians; [..., 6] -> [..., 6]."""
    logs = np.log(lattices[..., :3])
    return np.concatenate([logs - logs.mean(-1, keepdims=True), np.radians(lattices[..., 3:])], axis=-1)


def permutations_of(counts: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The permutations of positions that keep ascending counts: of elements with equal counts among themselves."""
    blocks: list[list[int]] = []
    for at, count in enumerate(counts):
        if blocks and counts[blocks[-1][0]] == count:
            blocks[-1].append(at)
        else:
            blocks.append([at])
    for parts in itertools.product(*(itertools.permutations(block) for block in blocks)):
        yield tuple(at for part in parts for at in part)
