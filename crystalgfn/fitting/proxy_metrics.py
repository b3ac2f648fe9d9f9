"""What is reported of a fitted proxy: errors on validation rows, calibration, volumes, energies off equilibrium."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.data.labelled import Rows
from crystalgfn.fitting.labels import FIT, HELD, HIGH, SOURCES, VALUE, Labels
from crystalgfn.properties.ensemble import LEVELS, EnsembleProxy


def validation_errors(proxy: EnsembleProxy, val: Rows) -> dict[str, Any]:
    """Errors on rows that nothing was fitted on, in the property's unit, and how well standard errors describe them."""
    errors = (proxy(val.crystals) - val.labels).abs()
    std = proxy.std(val.crystals)
    return {
        "val_mae": float(errors.mean()),
        "val_rmse": float(errors.square().mean().sqrt()),
        "val_median_error": float(errors.median()),
        "val_within_std": float((errors <= std).double().mean()),
        "val_median_std": float(std.median()),
        "val_reliability": reliability(proxy, val),
    }


def reliability(proxy: EnsembleProxy, rows: Rows) -> dict[str, float]:
    """Which share of the labels lies in the interval of each nominal share."""
    found = {}
    for share in LEVELS:
        low, high = proxy.interval(rows.crystals, share)
        # labels are float64, ends come from float32 networks
        inside = (rows.labels >= low - 1e-6) & (rows.labels <= high + 1e-6)
        found[f"{share:.2f}"] = round(float(inside.double().mean()), 4)
    return found


def volume_scan(proxy: EnsembleProxy, crystals: Crystals, low: float = 0.7, high: float = 1.5) -> dict[str, Any]:
    """Where the bound (mean + std) of each crystal is lowest as its cell is scaled; factor 1 is the real volume."""
    factors = torch.linspace(low, high, 81, dtype=torch.float64)
    scans = []
    for factor in factors:
        lattice = torch.cat([crystals.lattice[:, :3] * factor ** (1 / 3), crystals.lattice[:, 3:]], 1)
        scans.append(proxy.confidence_bound(Crystals(crystals.space_group, crystals.composition, lattice), 1.0))
    best = factors[torch.stack(scans).argmin(0)]
    return {
        "crystals": len(crystals),
        "factors": [low, high],
        "within_6_percent": float(((best - 1).abs() < 0.0601).double().mean()),
        "within_10_percent": float(((best - 1).abs() <= 0.10).double().mean()),
        "median": float(best.median()),
        "at_an_end": float(((best == factors[0]) | (best == factors[-1])).double().mean()),
    }


def off_equilibrium(proxy: EnsembleProxy, labels: Labels) -> dict[str, Any]:
    """Errors on known energies off equilibrium of compositions that nothing was fitted on, in all and by source.

    Besides, apart from these: "drawn", what samplers drew and the refiner placed, upper bounds (which are tight there)
    counted as the energy; and "high", of which all that is known is that they lie above the end of labels.
    """
    known = labels[(labels.kind == VALUE) & (labels.split != FIT)]
    proposed = labels.source == SOURCES.index("proposed")
    parts = {"all": known} | {name: known[known.source == i] for i, name in enumerate(SOURCES)}
    parts["drawn"] = labels[(labels.split == HELD) & proposed & labels.refined & (labels.kind != HIGH)]
    parts["high"] = labels[(labels.split == HELD) & (labels.kind == HIGH)]
    found: dict[str, Any] = {}
    for name, part in parts.items():
        if len(part) < 5:
            continue
        predicted, value = proxy(part.crystals).numpy(), part.value.numpy()
        errors = predicted - value
        size = np.abs(errors)
        figures = {
            "mae": size.mean(),
            "bias": errors.mean(),
            "median": np.median(errors),
            "median_size": np.median(size),
        }
        if name != "high":  # all of these have one value above the hull
            figures["spearman"] = spearmanr(predicted, value)[0]
        found[name] = {"crystals": len(part)} | {key: float(figure) for key, figure in figures.items()}
    return found
