"""The shortest translations of a crystal's lattice: how near every atom is to its own images.

The lattice is the primitive one: the translations of the centring count. Every atom has images at these distances
whatever its coordinates are, so that a lattice whose shortest translation is below an atom's diameter has no room for
it, wherever it is placed.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
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
    table = _translations(lattice.device)
    kind = table.centring[space_group - 1]
    every = torch.arange(len(lattice), device=lattice.device)
    squares = (metric(lattice).flatten(1) @ table.products.to(lattice.dtype)).reshape(len(lattice), len(_POINTS), -1)
    squares = squares[every, kind]
    first = squares.where(~table.zero[kind], torch.inf).argmin(1)
    second = squares.where(~table.parallel[kind, first], torch.inf).argmin(1)
    third = squares.where(~table.planar[kind, first, second], torch.inf).argmin(1)
    return torch.stack([squares[every, place] for place in (first, second, third)], 1).clamp_min(0).sqrt()


@dataclass(frozen=True)
class _Table:
    """The translations of each centring, filled up with zeros to as many.

    Attributes:
        products: of the components of each, [9, centrings * n].
        zero: which are none, bool [centrings, n].
        parallel: to another, [centrings, n, n].
        planar: with two others, [centrings, n, n, n].
        centring: of each group, [230].
    """

    products: torch.Tensor
    zero: torch.Tensor
    parallel: torch.Tensor
    planar: torch.Tensor
    centring: torch.Tensor


@cache
def _translations(device: torch.device) -> _Table:
    tables = [_of_centring(name) for name in _POINTS]
    vectors = np.zeros((len(tables), max(map(len, tables)), 3))
    for row, table in zip(vectors, tables, strict=True):
        row[: len(table)] = table
    across = np.cross(vectors[:, :, None], vectors[:, None])
    arrays = (
        (vectors[..., :, None] * vectors[..., None, :]).reshape(-1, 9).T.copy(),
        ~vectors.any(2),
        np.abs(across).sum(3) < 0.01,
        np.abs(np.einsum("cijx,ckx->cijk", across, vectors)) < 0.01,
        np.array([list(_POINTS).index(symbol[0]) for symbol in groups.SYMBOL]),
    )
    return _Table(*(torch.from_numpy(array).to(device) for array in arrays))


def _of_centring(name: str) -> np.ndarray:
    """Translations of at most one cell along each axis, one of v and -v, [n, 3]."""
    found: set[tuple[int, ...]] = set()
    for point, cell in itertools.product([(0, 0, 0), *_POINTS[name]], itertools.product((-6, 0, 6), repeat=3)):
        vector = tuple(p + c for p, c in zip(point, cell, strict=True))
        if any(vector) and max(map(abs, vector)) <= 6 and tuple(-x for x in vector) not in found:
            found.add(vector)
    return np.array(sorted(found)) / 6
