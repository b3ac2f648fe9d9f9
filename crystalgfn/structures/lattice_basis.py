"""Lattices as coefficients of a logarithmic metric, in the basis of Jiao et al. 2024 (DiffCSP++, "k-vector").

The metric of a conventional cell is G = exp(2 S) with S symmetric, so exp(S) is the cell in the frame where it is
symmetric. S = sum of k_i B_i, with orthonormal B_1..B_3 off the diagonal (xy, xz, yz), B_4 and B_5 the shape of the
diagonal and B_6 the volume: ln V = sqrt(3) k_6. A lattice system leaves some of the k free and fixes the others, and
any values of the free ones give a lattice of the system.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from crystalgfn.domain.lattice import HEXAGONAL, KIND
from crystalgfn.structures.orbits import cell_matrix
from crystalgfn.typing import Cells, Floats, Integers, LogMetrics

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
    rows = cells_of(restricted(space_group, log_metric.double())).cpu().numpy()
    lengths = np.linalg.norm(rows, axis=2)
    unit = rows / lengths[:, :, None]
    cosines = np.stack([(unit[:, i] * unit[:, j]).sum(1) for i, j in ((1, 2), (0, 2), (0, 1))], axis=1)
    lattices = np.concatenate([lengths, np.degrees(np.arccos(np.clip(cosines, -1, 1)))], axis=1)
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
