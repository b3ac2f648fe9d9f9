"""Fits `RelaxedEnergy` to draws that were relaxed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import DataError
from crystalgfn.properties.plausibility import CrystalPlausibility
from crystalgfn.properties.relaxed_energy import RelaxedEnergy
from crystalgfn.utils.provenance import versions, write_metrics

COLUMNS = ("formula", "space_group", "above_hull")
LOWEST, HIGHEST = -0.2, 0.8
"""Where energies above the hull are cut off, eV/atom: what lies beyond is as good, or as bad."""
FOLDS = 5
PENALTY = 1000.0
FEWEST = 100


def fit_relaxed_energy(
    draws: str | Path, out: str | Path, plausibility: CrystalPlausibility, penalty: float = PENALTY, seed: int = 0
) -> dict[str, Any]:
    """Fit it to a table of relaxed draws and write ``weights.safetensors`` and ``metrics.json`` into ``out``.

    Args:
        draws: CSV file with `COLUMNS`: formula (of the primitive cell or of one unit), ITA number, and energy above the
            hull after relaxation, eV/atom.
        out: folder.
        plausibility: whose features, and their standardisation, are used.
        penalty: λ, what squared weights cost; chosen by the error in the folds.
        seed: of the folds, by formula.

    Returns:
        What is written to ``metrics.json``; ``held_out`` is of `FOLDS`-fold prediction.

    Raises:
        DataError: a table without the columns, or with fewer than `FEWEST` rows.
    """
    table = pd.read_csv(draws)
    if missing := set(COLUMNS) - set(table.columns):
        raise DataError(f"{draws} has no column {', '.join(sorted(missing))}")
    table = table[np.isfinite(table.above_hull)]
    if len(table) < FEWEST:
        raise DataError(f"{draws} has {len(table)} rows with an energy; a fit needs at least {FEWEST}")
    model = RelaxedEnergy(kinds=len(plausibility.known))
    for name in ("known", "frequency", "shift", "scale"):
        getattr(model, name).copy_(getattr(plausibility, name))
    x = model.standardised(_crystals(table)).double()
    y = torch.from_numpy(table.above_hull.to_numpy(float)).clamp(LOWEST, HIGHEST)
    fold = np.random.default_rng(seed).integers(FOLDS, size=table.formula.nunique())
    own = torch.from_numpy(fold[pd.factorize(table.formula)[0]])
    held = torch.zeros_like(y)
    for k in range(FOLDS):
        mean, weights, _ = _regression(x[own != k], y[own != k], penalty)
        held[own == k] = mean + x[own == k] @ weights
    noise = float((held - y).square().mean().sqrt())
    mean, weights, inverse = _regression(x, y, penalty)
    model.mean.fill_(float(mean))
    model.weights.copy_(weights)
    model.factor.copy_(noise * torch.linalg.cholesky(inverse))
    model.noise.fill_(noise)
    model.save(out)
    metrics = {"rows": len(table), "penalty": penalty, "held_out": _figures(held, y), "versions": versions()}
    write_metrics(out, metrics)
    return metrics


def _regression(x: torch.Tensor, y: torch.Tensor, penalty: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """m, w and (XᵀX + λ 1)⁻¹."""
    inverse = torch.linalg.inv(x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype))
    mean = y.mean()
    return mean, inverse @ (x.T @ (y - mean)), (inverse + inverse.T) / 2


def _figures(held: torch.Tensor, y: torch.Tensor, near: float = 0.1) -> dict[str, Any]:
    order = held.argsort().argsort()
    quarters = (4 * order) // len(order)
    ranks = torch.stack([order, y.argsort().argsort()]).double()
    return {
        "mae": float((held - y).abs().mean()),
        "rmse": float((held - y).square().mean().sqrt()),
        "mae_of_the_mean": float((y - y.mean()).abs().mean()),
        "rank_correlation": float(torch.corrcoef(ranks)[0, 1]),
        "within_0.1_by_quarters": [float((y[quarters == k] <= near).double().mean()) for k in range(4)],
    }


def _crystals(table: pd.DataFrame) -> Crystals:
    from pymatgen.core import Composition

    composition = torch.zeros(len(table), 118, dtype=torch.int64)
    for row, formula in zip(composition, table.formula, strict=True):
        for element, n in Composition(formula).items():
            row[element.Z - 1] = round(n)
    group = torch.from_numpy(table.space_group.to_numpy(np.int64))
    return Crystals(group, composition, torch.full((len(table), 6), torch.nan))
