"""The shortest translations of a crystal's lattice: how near every atom is to its own images.

The lattice is the primitive one: the translations of the centring count. Every atom has images at these distances
whatever its coordinates are, so that a lattice whose shortest translation is below an atom's diameter has no room for
it, wherever it is placed.
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import torch
from torchtyping import TensorType

from crystalgfn.domain.lattice import metric
from crystalgfn.tables import groups
from crystalgfn.typing import Integers, Lattices

_POINTS = {
    "P": [],
    "A": [(0, 3, 3)],
    "C": [(3, 3, 0)],
    "I": [(3, 3, 3)],
    "F": [(3, 3, 0), (3, 0, 3), (0, 3, 3)],
    "R": [(4, 2, 2), (2, 4, 4)],
}
"""Of each centring the lattice points within the cell, in sixths."""


def successive_minima(space_group: Integers, lattice: Lattices) -> TensorType["batch", 3]:
    """Lengths in Å of the shortest translation, of the next not parallel to it, and of the next outside their plane.

    These are Minkowski's successive minima of the primitive lattice, exact for cells of the fundamental domain (checked
    against enumeration in the tests): among translations of at most one conventional cell along each axis.

    Args:
        space_group: ITA numbers, [B].
        lattice: conventional cells a, b, c, alpha, beta, gamma in Å and degrees, [B, 6].
    """
    vectors, pairs, kinds = _translations(lattice.device)
    kind = kinds[space_group - 1]
    squares = (pairs.to(lattice.dtype)[kind] @ metric(lattice).flatten(1)[:, :, None]).squeeze(2)
    squares = squares.where(pairs.any(2)[kind], torch.inf)
    vectors = vectors.to(lattice.dtype)
    mine = vectors[kind]
    every = torch.arange(len(lattice), device=lattice.device)
    first = squares.argmin(1)
    across = torch.linalg.cross(mine[every, first][:, None].expand_as(mine), mine)
    beside = squares.where(across.abs().sum(2) > 0.01, torch.inf)
    second = beside.argmin(1)
    volume = (across[every, second][:, None] * mine).sum(2)
    third = squares.where(volume.abs() > 0.01, torch.inf).argmin(1)
    return torch.stack([squares[every, place] for place in (first, second, third)], 1).clamp_min(0).sqrt()


@cache
def _translations(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Translations of each centring, filled up with zeros [6, n, 3]; their products [6, n, 9]; centrings [230]."""
    tables = [_of_centring(name) for name in _POINTS]
    vectors = np.zeros((len(tables), max(map(len, tables)), 3))
    for row, table in zip(vectors, tables, strict=True):
        row[: len(table)] = table
    pairs = (vectors[..., :, None] * vectors[..., None, :]).reshape(*vectors.shape[:2], 9)
    kinds = torch.tensor([list(_POINTS).index(symbol[0]) for symbol in groups.SYMBOL])
    return torch.from_numpy(vectors).to(device), torch.from_numpy(pairs).to(device), kinds.to(device)


def _of_centring(name: str) -> np.ndarray:
    """Translations of at most one cell along each axis, one of v and -v, [n, 3]."""
    found: set[tuple[int, ...]] = set()
    for point, cell in itertools.product([(0, 0, 0), *_POINTS[name]], itertools.product((-6, 0, 6), repeat=3)):
        vector = tuple(p + c for p, c in zip(point, cell, strict=True))
        if any(vector) and max(map(abs, vector)) <= 6 and tuple(-x for x in vector) not in found:
            found.add(vector)
    return np.array(sorted(found)) / 6
