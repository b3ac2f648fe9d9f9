"""Fits `RelaxedEnergy` to draws that were relaxed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import DataError
from crystalgfn.properties.plausibility import CrystalPlausibility
from crystalgfn.properties.relaxed_energy import RelaxedEnergy
from crystalgfn.utils.files import data_folder
from crystalgfn.utils.provenance import versions, write_metrics

COLUMNS = ("formula", "space_group", "above_hull")
FEWEST = 100


@dataclass(frozen=True, kw_only=True)
class RelaxedEnergyFitConfig:
    """How it is fitted.

    Attributes:
        penalty: λ, what squared weights cost.
        lowest, highest: where energies above the hull are cut off, eV/atom; what lies beyond is as good, or as bad.
        folds: of the figures for what is held out.
        seed: of the folds.
    """

    penalty: float = 1000.0
    lowest: float = -0.2
    highest: float = 0.8
    folds: int = 5
    seed: int = 0


def fit_relaxed_energy(
    draws: str | Path, out: str | Path, plausibility: CrystalPlausibility | None = None, **hyperparameters: Any
) -> dict[str, Any]:
    """Fit it to a table of relaxed draws and write ``weights.safetensors`` and ``metrics.json`` into ``out``.

    Args:
        draws: CSV file with `COLUMNS`: formula (of the primitive cell or of one unit), ITA number, and energy above the
            hull after relaxation, eV/atom.
        out: folder.
        plausibility: whose features, and their standardisation, are used; None: the shipped one.
        **hyperparameters: see `RelaxedEnergyFitConfig`.

    Returns:
        What is written to ``metrics.json``; ``held_out`` is of predictions in folds by formula.

    Raises:
        DataError: a table without the columns, or with fewer than `FEWEST` rows.
    """
    config = RelaxedEnergyFitConfig(**hyperparameters)
    plausibility = plausibility or CrystalPlausibility.load(data_folder("proxies") / "plausibility")
    table = pd.read_csv(draws)
    if missing := set(COLUMNS) - set(table.columns):
        raise DataError(f"{draws} has no column {', '.join(sorted(missing))}")
    table = table.dropna(subset=["above_hull"])
    if len(table) < FEWEST:
        raise DataError(f"{draws} has {len(table)} rows with an energy; a fit needs at least {FEWEST}")
    model = RelaxedEnergy(kinds=len(plausibility.known))
    for name in ("known", "frequency", "shift", "scale"):
        getattr(model, name).copy_(getattr(plausibility, name))
    x = model.standardised(crystals_of_table(table)).double()
    y = torch.tensor(table.above_hull.tolist(), dtype=torch.float64).clamp(config.lowest, config.highest)
    fold = np.random.default_rng(config.seed).integers(config.folds, size=table.formula.nunique())
    own = torch.from_numpy(fold[pd.factorize(table.formula)[0]])
    held = torch.zeros_like(y)
    for k in range(config.folds):
        mean, weights, _ = _regression(x[own != k], y[own != k], config.penalty)
        held[own == k] = mean + x[own == k] @ weights
    noise = float((held - y).square().mean().sqrt())
    mean, weights, inverse = _regression(x, y, config.penalty)
    model.mean.fill_(float(mean))
    model.weights.copy_(weights)
    model.factor.copy_(noise * torch.linalg.cholesky(inverse))
    model.noise.fill_(noise)
    model.save(out)
    metrics = {
        "property": model.name,
        "unit": model.unit,
        "rows": len(table),
        "held_out": _figures(held, y),
        "settings": asdict(config),
        "versions": versions(),
    }
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


def crystals_of_table(table: pd.DataFrame) -> Crystals:
    """The crystals of a table's rows, without a lattice."""
    from pymatgen.core import Composition

    composition = torch.zeros(len(table), 118, dtype=torch.int64)
    for row, formula in zip(composition, table.formula, strict=True):
        for element, n in Composition(formula).items():
            row[element.Z - 1] = round(n)
    group = torch.tensor(table.space_group.tolist())
    return Crystals(group, composition, torch.full((len(table), 6), torch.nan))
