"""Fits the ionic conductivity: ``python -m scripts.maintain.fit_conductivity obelix/train.csv OUT``."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from crystalgfn.data.databases import Measurements, read_obelix
from crystalgfn.errors import DataError
from crystalgfn.properties.ensemble import EnsembleProxy, std_factor
from crystalgfn.properties.training_distance import NearestCentre
from crystalgfn.typing import Values
from crystalgfn.utils.progress import Bar
from crystalgfn.utils.provenance import versions, write_metrics
from scripts.maintain.program import run

NAME, UNIT = "ionic_conductivity", "log10 S/cm"

FOLDS = 5

#: Columns of the features that tell the size of the cell: ln atoms, 1 / atoms, ln a, b, c, ln atoms of the conventional
#: cell. Measured materials are told apart by it, with up to hundreds of atoms; what samplers draw has few.
SIZE = (141, 142, 153, 154, 155, -1)


@dataclass(frozen=True, kw_only=True)
class ConductivityFitConfig:
    """How the conductivity is fitted.

    Attributes:
        seed: of the folds, the initial weights and the order of the rows.
        epochs: passes over the rows.
        batch: rows a step.
        lr: largest learning rate (AdamW; a short warm-up, then a cosine to 0).
        weight_decay: of AdamW.
        members: networks in the ensemble.
        width: units a hidden layer.
        left_out: share of the materials that each member does not see.
        noise: deviation of Gaussian noise on the standardised features.
        sigma: scale of the likelihood, in deviations of the values.
        centres: clusters of compositions, from which the distance to the data is taken.
    """

    seed: int = 0
    epochs: int = 300
    batch: int = 64
    lr: float = 1e-2
    weight_decay: float = 0.1
    members: int = 8
    width: int = 128
    left_out: float = 0.1
    noise: float = 0.05
    sigma: float = 0.2
    centres: int = 32


def fit_conductivity(
    path: str | Path, out: str | Path, progress: bool = True, **hyperparameters: Any
) -> dict[str, Any]:
    """Fit on all rows and write the proxy, the centres of the data and ``metrics.json`` with five-fold errors.

    Args:
        path: OBELiX's CSV file.
        out: folder of the proxy.
        progress: whether to show a progress bar.
        **hyperparameters: see `ConductivityFitConfig`.

    Returns:
        What is written to ``metrics.json``.

    Raises:
        DataError: rows that cannot be used, or too few.
    """
    config = ConductivityFitConfig(**hyperparameters)
    rows = read_obelix(path)
    fold = folds(rows, config.seed)
    mean, std = cross_validate(rows, fold, config, progress)
    error = misses(mean, rows)
    within = torch.cat(
        [error[fold == f] <= std[fold == f] * std_factor(error[fold != f], std[fold != f]) for f in range(FOLDS)]
    )
    proxy = learn(rows, config, progress)
    proxy.calibrate(error, std)
    centres = NearestCentre.fit(rows.crystals.composition, config.centres, config.seed)
    metrics = {
        "property": NAME,
        "unit": UNIT,
        "rows": len(rows),
        "censored": int(rows.censored.sum()),
        "materials": int(rows.material.max()) + 1,
        "five_folds": scores(mean, rows) | {"within_std": round(float(within.double().mean()), 3)},
        "settings": asdict(config),
        "versions": versions(),
    }
    proxy.save(out)
    centres.save(out)
    write_metrics(out, metrics)
    return metrics


def folds(rows: Measurements, seed: int) -> Values:
    """Which of five folds a row is in, [B]; rows of one composition stay together.

    Raises:
        DataError: fewer than 50 rows.
    """
    if len(rows) < 50:
        raise DataError(f"there are {len(rows)} rows; five folds need at least 50")
    order = torch.randperm(int(rows.material.max()) + 1, generator=torch.Generator().manual_seed(seed))
    return (order % FOLDS)[rows.material]


def cross_validate(
    rows: Measurements, fold: Values, config: ConductivityFitConfig, progress: bool = True
) -> tuple[Values, Values]:
    """Mean and standard error (before its factor) of each row from a proxy that has not seen its composition."""
    mean, std = torch.zeros(len(rows)).double(), torch.zeros(len(rows)).double()
    for f in Bar(range(FOLDS), description="folds", shown=progress):
        proxy = learn(rows[fold != f], config, progress=False)
        held = rows[fold == f].crystals
        mean[fold == f], std[fold == f] = proxy(held), proxy.std(held)
    return mean, std


def misses(mean: Values, rows: Measurements) -> Values:
    """How far each prediction is off, in decades: of a bound only by how much it is above."""
    error = mean - rows.values
    return torch.where(rows.censored, error.clamp_min(0), error.abs())


def scores(mean: Values, rows: Measurements) -> dict[str, float]:
    """Mean absolute error, in decades, and Spearman's correlation, with bounds at their value."""
    error = misses(mean, rows)
    return {
        "mae": round(float(error.mean()), 4),
        "mae_of_values": round(float(error[~rows.censored].mean()), 4),
        "spearman": round(spearman(mean, rows.values), 4),
        "spearman_of_values": round(spearman(mean[~rows.censored], rows.values[~rows.censored]), 4),
    }


def spearman(one: Values, other: Values) -> float:
    """Rank correlation; ties have their mean rank."""
    return float(np.asarray(spearmanr(one.numpy(), other.numpy()))[0])


def learn(rows: Measurements, config: ConductivityFitConfig, progress: bool = True) -> EnsembleProxy:
    """An ensemble fitted on all of ``rows``."""
    torch.manual_seed(config.seed)
    proxy = EnsembleProxy(NAME, UNIT, config.members, config.width)
    with torch.no_grad():
        features = proxy.features(rows.crystals)
    proxy.standardise(features, rows.crystals, rows.values)
    proxy.scale[list(SIZE)] = 0
    targets = ((rows.values - proxy.label_mean) / proxy.label_std).float()
    n_materials = int(rows.material.max()) + 1
    seen = (torch.rand(config.members, n_materials) >= config.left_out)[:, rows.material].float()
    steps = config.epochs * -(-len(rows) // config.batch)
    optimiser = torch.optim.AdamW(proxy.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
    for _ in Bar(range(steps), description=NAME, shown=progress, unit="step"):
        chosen = torch.randint(len(rows), (config.batch,))
        # Noise in units of the standardised features; columns that are left out have scale 0 and stay so.
        noise = config.noise * torch.randn(config.batch, features.shape[1]) / proxy.scale.clamp_min(1e-6)
        said = proxy.network(features[chosen] + noise * (proxy.scale > 0), rows.crystals.space_group[chosen])
        weight = seen[:, chosen]
        loss = (weight * _surprise(said, targets[chosen], rows.censored[chosen], config.sigma)).sum()
        optimiser.zero_grad(set_to_none=True)
        (loss / config.batch).backward()
        optimiser.step()
        schedule.step()
    return proxy.eval().requires_grad_(False)


def _surprise(said: torch.Tensor, target: torch.Tensor, censored: torch.Tensor, sigma: float) -> torch.Tensor:
    """Minus the log likelihood, times sigma so that a known value counts as in an absolute error.

    Around a known value it is Gaussian with linear tails (Huber); of a bound it is the chance to lie below (Tobit).
    """
    z = (said - target) / sigma
    known = torch.nn.functional.huber_loss(z, torch.zeros_like(z), reduction="none")
    return sigma * torch.where(censored, -torch.special.log_ndtr(-z.clamp_max(10)) + (z - 10).clamp_min(0) * 10, known)


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))


def main(arguments: list[str] | None = None) -> None:
    """The command: fits with the default config and prints the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.maintain.fit_conductivity", description="Fit the ionic conductivity."
    )
    parser.add_argument("data", help="OBELiX's CSV file, such as obelix/train.csv")
    parser.add_argument("out", help="folder to write to")
    given = parser.parse_args(arguments)
    print(json.dumps(fit_conductivity(given.data, given.out), indent=2))


if __name__ == "__main__":
    run(main)
