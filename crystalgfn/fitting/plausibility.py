"""Fitting a classifier of known crystals against draws of samplers, by noise-contrastive estimation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import DataError
from crystalgfn.properties.features import scales
from crystalgfn.properties.plausibility import CrystalPlausibility, formula_units, stoichiometry_keys
from crystalgfn.typing import Booleans, Values
from crystalgfn.utils.progress import Bar
from crystalgfn.utils.provenance import versions, write_metrics

FEWEST = 100  # crystals of each kind


@dataclass(frozen=True, kw_only=True)
class PlausibilityConfig:
    """How the classifier is fitted.

    Attributes:
        seed: of the initial weights and the order of the rows.
        held: share of the formulas of each kind that measure and fit nothing.
        epochs: over all rows, with a cosine to 0.
        batch: crystals a step, half of each kind.
        lr: largest learning rate of AdamW.
        decay: its weight decay.
        dropped: share of the features that a step does not see.
        members: networks in the ensemble.
        width: units a hidden layer.
    """

    seed: int = 0
    held: float = 0.1
    epochs: int = 6
    batch: int = 1024
    lr: float = 2e-3
    decay: float = 0.05
    dropped: float = 0.1
    members: int = 3
    width: int = 192


def fit_plausibility(
    known: Crystals,
    drawn: Crystals,
    out: str | Path,
    name: str = "plausibility",
    what: str = "probability of being known rather than drawn",
    reports: dict[str, tuple[Crystals, Crystals]] | None = None,
    progress: bool = True,
    **hyperparameters: Any,
) -> dict[str, Any]:
    """Fit p(known | crystal) with both kinds weighing the same, and write it and ``metrics.json`` into ``out``.

    A tenth of the formulas is held out of both kinds and measures.

    Args:
        known: crystals that are; only group and composition count.
        drawn: crystals that need not be.
        out: folder.
        name: what it is called in tables.
        what: what it says of a crystal, in words.
        reports: further (known, drawn) crystals to measure on, by name.
        progress: whether to show a bar.
        **hyperparameters: see `PlausibilityConfig`.

    Raises:
        DataError: fewer than 100 crystals of a kind.
    """
    config = PlausibilityConfig(**hyperparameters)
    for kind, crystals in (("known", known), ("drawn", drawn)):
        if len(crystals) < FEWEST:
            raise DataError(
                f"{len(crystals)} {kind} crystals are too few to fit a classifier on; give {FEWEST} or more"
            )
    torch.manual_seed(config.seed)
    held = [_held(crystals, config) for crystals in (known, drawn)]
    keys, counts = _stoichiometries(known[~held[0]])
    model = CrystalPlausibility(config.members, config.width, name, kinds=len(keys))
    model.known.copy_(keys)
    model.frequency.copy_(counts)
    features = [_features(model, crystals[~out_]) for crystals, out_ in zip((known, drawn), held, strict=True)]
    shift, scale = scales(torch.cat([part[:50_000] for part in features]))
    model.shift.copy_(shift)
    model.scale.copy_(scale)
    _learn(model, features, config, progress)
    model.eval().requires_grad_(False)
    reports = {"held out": (known[held[0]], drawn[held[1]])} | (reports or {})
    metrics = {
        "property": what,
        "unit": "",
        "known": len(known),
        "drawn": len(drawn),
        "stoichiometries": len(keys),
        "checks": {which: classifier_scores(model, *pair) for which, pair in reports.items()},
        "settings": asdict(config),
        "versions": versions(),
    }
    model.save(out)
    write_metrics(out, metrics)
    return metrics


def classifier_scores(model: CrystalPlausibility, known: Crystals, drawn: Crystals) -> dict[str, float]:
    """AUC; share of the drawn that pass where 90 % of the known do; calibration error; both kinds weigh the same."""
    good, bad = model(known).double(), model(drawn).double()
    p = torch.cat([good, bad])
    weight = torch.cat([torch.full_like(good, 0.5 / len(good)), torch.full_like(bad, 0.5 / len(bad))])
    truth = torch.cat([torch.ones_like(good), torch.zeros_like(bad)])
    bins = (p * 10).long().clamp_max(9)
    off = sum(
        float(((p - truth) * weight)[bins == b].sum().abs()) for b in range(10)
    )  # expected calibration error over ten bins
    return {
        "auc": round(area_under_roc(p, truth > 0), 4),
        "threshold_90": round(float(good.quantile(0.1)), 4),
        "drawn_above_it": round(float((bad >= good.quantile(0.1)).double().mean()), 4),
        "calibration_error": round(off, 4),
    }


def area_under_roc(score: Values, positive: Booleans) -> float:
    """Chance that a positive has a higher score than a negative, ties counted half; NaN with only one kind."""
    high, low = score[positive], score[~positive].sort().values
    wins = torch.searchsorted(low, high, right=False) + torch.searchsorted(low, high, right=True)
    return float(wins.double().mean() / (2 * len(low))) if len(high) and len(low) else float("nan")


def _stoichiometries(known: Crystals) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys of the stoichiometries of different formulas, ascending, and ln(1 + formulas) of each."""
    formulas = torch.unique(formula_units(known.composition), dim=0)
    keys, counts = stoichiometry_keys(formulas).unique(return_counts=True)
    kept = counts > 1  # one formula alone would say of itself that it is known
    return keys[kept], counts[kept].float().log1p()


def _held(crystals: Crystals, config: PlausibilityConfig) -> torch.Tensor:
    """Which crystals are held out, by formula, bool [B]."""
    weights = torch.rand(118, dtype=torch.float64, generator=torch.Generator().manual_seed(config.seed))
    return ((formula_units(crystals.composition).double() @ weights * 1e6).long() % 1009) < config.held * 1009


def _features(model: CrystalPlausibility, crystals: Crystals) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model.features(crystals[i : i + 8192]) for i in range(0, len(crystals), 8192)])


def _learn(
    model: CrystalPlausibility, features: list[torch.Tensor], config: PlausibilityConfig, progress: bool
) -> None:
    half = config.batch // 2
    steps = config.epochs * (max(map(len, features)) // half + 1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    truth = torch.cat([torch.ones(half), torch.zeros(half)]).expand(config.members, -1)
    for _ in Bar(range(steps), shown=progress, description="plausibility", unit="step"):
        rows = torch.cat([part[torch.randint(len(part), (half,))] for part in features])
        rows = torch.where(torch.rand(1, rows.shape[1]) < config.dropped, model.shift, rows)
        loss = _loss(model.network(rows), truth)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()


def _loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cross-entropy summed over members, so that each learns as if it were alone."""
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, truth) * len(logits)
