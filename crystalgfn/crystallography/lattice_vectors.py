"""Vectors of a lattice: shortest translations, and the log-metric basis of each lattice system."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.lattice import HEXAGONAL, KIND, metric
from crystalgfn.crystallography.orbits import cell_matrix, cell_parameters
from crystalgfn.typing import Cells, Floats, Integers, Lattices, LogMetrics, Vectors

_POINTS = {
    "P": [],
    "A": [(0, 3, 3)],
    "C": [(3, 3, 0)],
    "I": [(3, 3, 3)],
    "F": [(3, 3, 0), (3, 0, 3), (0, 3, 3)],
    "R": [(4, 2, 2), (2, 4, 4)],
}
"""Of each centring the lattice points within the cell, in sixths."""


def successive_minima(space_group: Integers, lattice: Lattices) -> Vectors:
    """Lengths in Å of the shortest translation, of the next not parallel to it, and of the next outside their plane.

    These are Minkowski's successive minima of the primitive lattice, exact for cells of the fundamental domain (checked
    against enumeration in the tests): among translations of at most one conventional cell [B, 6] along each axis.
    """
    table = _translations(lattice.device)
    kind = table.centring[space_group - 1]
    every = torch.arange(len(lattice), device=lattice.device)
    squares = (metric(lattice).flatten(1) @ table.products.to(lattice.dtype)).unflatten(1, (len(_POINTS), -1))
    squares = squares[every, kind]
    first = squares.where(~table.zero[kind], torch.inf).argmin(1)
    second = squares.where(~table.parallel[kind, first], torch.inf).argmin(1)
    third = squares.where(~table.planar[kind, first, second], torch.inf).argmin(1)
    return torch.stack([squares[every, place] for place in (first, second, third)], 1).clamp_min(0).sqrt()


@dataclass(frozen=True, kw_only=True)
class _Table:
    """The translations of each centring, filled up with zeros to as many."""

    products: torch.Tensor  # of the components of each, [9, centrings * n]
    zero: torch.Tensor  # which are none, bool [centrings, n]
    parallel: torch.Tensor  # to another, [centrings, n, n]
    planar: torch.Tensor  # with two others, [centrings, n, n, n]
    centring: torch.Tensor  # of each group, [230]


@cache
def _translations(device: torch.device) -> _Table:
    tables = [_of_centring(name) for name in _POINTS]
    vectors = np.zeros((len(tables), max(map(len, tables)), 3))
    for row, table in zip(vectors, tables, strict=True):
        row[: len(table)] = table
    across = np.cross(vectors[:, :, None], vectors[:, None])
    arrays = {
        "products": (vectors[..., :, None] * vectors[..., None, :]).reshape(-1, 9).T.copy(),
        "zero": ~vectors.any(2),
        "parallel": np.abs(across).sum(3) < 0.01,
        "planar": np.abs(np.einsum("cijx,ckx->cijk", across, vectors)) < 0.01,
        "centring": np.array([list(_POINTS).index(symbol[0]) for symbol in space_groups.SYMBOL]),
    }
    return _Table(**{name: torch.from_numpy(array).to(device) for name, array in arrays.items()})


def _of_centring(name: str) -> np.ndarray:
    """Translations of at most one cell along each axis, one of v and -v, [n, 3]."""
    found: set[tuple[int, ...]] = set()
    for point, cell in itertools.product([(0, 0, 0), *_POINTS[name]], itertools.product((-6, 0, 6), repeat=3)):
        vector = tuple(p + c for p, c in zip(point, cell, strict=True))
        if any(vector) and max(map(abs, vector)) <= 6 and tuple(-x for x in vector) not in found:
            found.add(vector)
    return np.array(sorted(found)) / 6


_H, _T, _S = 1 / math.sqrt(2), 1 / math.sqrt(3), 1 / math.sqrt(6)

BASIS = torch.tensor(
    [
        [[0, _H, 0], [_H, 0, 0], [0, 0, 0]],
        [[0, 0, _H], [0, 0, 0], [_H, 0, 0]],
        [[0, 0, 0], [0, 0, _H], [0, _H, 0]],
        [[_H, 0, 0], [0, -_H, 0], [0, 0, 0]],
        [[_S, 0, 0], [0, _S, 0], [0, 0, -2 * _S]],
        [[_T, 0, 0], [0, _T, 0], [0, 0, _T]],
    ],
    dtype=torch.float64,
)
"""[6, 3, 3] B_1..B_6."""
#: Which k each lattice kind of `domain.lattice.KINDS` leaves free.
_FREE = torch.tensor(
    [[1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1], [0] * 5 + [1]]
).bool()

_HEXAGONAL_XY = -math.sqrt(2) * math.log(3) / 4
"""k_1 of a cell with gamma = 120 degrees and a = b."""


def free_of(space_group: Integers) -> torch.Tensor:
    """Which of the six coefficients the lattice system of each group leaves free, bool [B, 6]."""
    return _FREE.to(space_group.device)[_kind(space_group)]


def _kind(space_group: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(KIND, device=space_group.device)[space_group - 1]


def restricted(space_group: Integers, log_metric: LogMetrics) -> LogMetrics:
    """Coefficients with those that the lattice system fixes at their values."""
    fixed = torch.zeros_like(log_metric)
    fixed[:, 0] = _HEXAGONAL_XY * (_kind(space_group) == HEXAGONAL).to(fixed)
    return torch.where(free_of(space_group), log_metric, fixed)


def log_metric_of(lattices: np.ndarray) -> np.ndarray:
    """Coefficients k of cells a, b, c (Å), alpha, beta, gamma (degrees), float64 [B, 6] -> [B, 6]."""
    rows = np.array([cell_matrix(lattice) for lattice in np.asarray(lattices).tolist()]).reshape(-1, 3, 3)
    values, vectors = np.linalg.eigh(rows @ rows.transpose(0, 2, 1))
    logarithm = np.einsum("bij,bj,bkj->bik", vectors, 0.5 * np.log(values), vectors)
    return np.einsum("bij,kij->bk", logarithm, BASIS.numpy())


def cells_of(log_metric: LogMetrics) -> Cells:
    """Symmetric rows a, b, c in Å of the conventional cells, [B, 3, 3]."""
    return torch.linalg.matrix_exp(torch.einsum("bk,kij->bij", log_metric, BASIS.to(log_metric)))


def lattices_of(space_group: Integers, log_metric: LogMetrics) -> np.ndarray:
    """Cells a, b, c, alpha, beta, gamma in float64, [B, 6]; what the lattice system fixes is exact."""
    lattices = cell_parameters(cells_of(restricted(space_group, log_metric.double())).cpu().numpy())
    kinds = KIND[space_group.cpu().numpy() - 1]
    for name, kind in enumerate(((), (3, 5), (3, 4, 5), (3, 4, 5), (3, 4, 5), (3, 4, 5))):
        own = kinds == name
        lattices[np.ix_(own, kind)] = 90.0
        if name == HEXAGONAL:
            lattices[own, 5] = 120.0
        if name >= HEXAGONAL - 1:  # tetragonal and hexagonal: a = b; cubic: all three
            alike = slice(0, 3 if name == HEXAGONAL + 1 else 2)
            lattices[own, alike] = lattices[own, alike].mean(axis=1, keepdims=True)
    return lattices


def bounded(log_metric: LogMetrics, around: LogMetrics, max_strain: Floats | float) -> LogMetrics:
    """Coefficients drawn towards ``around`` until no principal logarithmic strain exceeds ``max_strain``."""
    strain = torch.einsum("bk,kij->bij", log_metric - around, BASIS.to(log_metric))
    largest = torch.linalg.eigvalsh(strain).abs().amax(1, keepdim=True)
    return around + (log_metric - around) * (max_strain / largest.clamp_min(1e-12)).clamp_max(1.0)
