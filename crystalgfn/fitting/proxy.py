"""Fitting a proxy on real crystals, with strained copies of them where the property is an energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.data.labelled import Rows, exclude, read_labelled, together
from crystalgfn.data.reader import Source
from crystalgfn.errors import DataError
from crystalgfn.fitting.ensemble_fit import CHECKPOINT, FitConfig, fit_proxy
from crystalgfn.fitting.labels import (
    FIT,
    HELD,
    HIGH,
    SOURCES,
    VALUE,
    Labels,
    read_labels,
)
from crystalgfn.properties.ensemble import LEVELS, EnsembleProxy
from crystalgfn.utils.files import path_of
from crystalgfn.utils.provenance import versions, write_metrics


def fit(
    train_path: str | Path | Sequence[str | Path],
    val_path: Source,
    out: str | Path,
    cache: str | Path | None = None,
    progress: bool = True,
    labels: Labels | None = None,
    column: str | None = None,
    setting: str | Sequence[str] = "unknown",
    skip_bad: bool = False,
    **hyperparameters: Any,
) -> dict[str, Any]:
    """Fit a proxy and write ``weights.safetensors`` and ``metrics.json`` into ``out``.

    No row that shares (reduced formula, space group) with the validation file is fitted on, and that file chooses
    nothing: it is evaluated once, at the end. Progress is kept in ``out/fit.pt`` after every epoch, from which the same
    call goes on after an interruption.

    Args:
        train_path: file of crystals to fit on, or several: what an earlier one holds is left out of the later ones. The
            first holds what the proxy is for: standard errors and intervals are calibrated on rows held out of it.
        val_path: file of crystals to report on, or several.
        out: folder of the proxy.
        cache: see :func:`crystalgfn.data.labelled.read_labelled`.
        progress: whether to show a progress bar.
        labels: formation energies off equilibrium; None: those that come with the package.
        column: see :func:`crystalgfn.data.labelled.read_labelled`, as the next two; for all files.
        setting: in which setting cells without positions are, in all files or in each of those to fit on (the one to
            report on is then read as the first).
        skip_bad: go on without the rows that cannot be read.
        **hyperparameters: see `FitConfig`.

    Returns:
        What is written to ``metrics.json``.

    Raises:
        DataError: data that cannot be used, or not as many settings as files.
        CheckpointError: ``out/fit.pt`` is of another run.
    """
    config = FitConfig(**hyperparameters)
    paths = [train_path] if isinstance(train_path, str | Path) else list(train_path)
    ways = [setting] * len(paths) if isinstance(setting, str) else list(setting)
    if len(ways) != len(paths):
        raise DataError(f"{len(ways)} settings for {len(paths)} files; give one for all, or one for each")
    how = {"column": column, "skip_bad": skip_bad}
    val = validation_rows(val_path, config.property, cache, progress, setting=ways[0], **how)
    parts = [
        read_labelled(path, config.property, cache, progress, setting=way, **how)
        for path, way in zip(paths, ways, strict=True)
    ]
    known = together(parts)
    rows = exclude(known, val)
    first = len(exclude(parts[0], val))
    if len(rows) < 100:
        raise DataError(
            f"{', '.join(map(str, paths))} has {len(rows)} rows that are not in {val_path}; a proxy needs at least 100"
        )
    labels = read_labels(high=True) if labels is None and config.labelled else labels
    proxy, seconds = fit_proxy(rows, config, out, progress, labels, first)
    proxy.save(out)
    metrics = {
        "property": proxy.name,
        "unit": proxy.unit,
        **validation_errors(proxy, val),
        "train_mae": float((proxy(rows.crystals) - rows.labels).abs().mean()),
        "rows_train": len(rows),
        "rows_left_out_as_in_val": len(known) - len(rows),
        "rows_val": len(val),
        "seconds": round(seconds, 1),
        "settings": asdict(config),
        "command": _command(paths, val_path, out, config, setting, skip_bad),
        "versions": versions(),
    }
    if config.property == "formation_energy":
        metrics["volume_scan"] = volume_scan(proxy, val.crystals[:: max(1, len(val) // 500)][:500])
    if config.labelled and labels is not None:
        metrics["off_equilibrium"] = off_equilibrium(proxy, labels)
    write_metrics(out, metrics)
    (path_of(out, "out") / CHECKPOINT).unlink(missing_ok=True)
    return metrics


def validation_rows(val_path: Source, property: str = "formation_energy", *args: Any, **how: Any) -> Rows:
    """The rows to report on: of one source, or of several without what an earlier one holds; see `read_labelled`."""
    paths = [val_path] if isinstance(val_path, str | Path) else val_path
    return together([read_labelled(path, property, *args, **how) for path in paths])


def _command(
    train: list[str | Path],
    val_path: Source,
    out: str | Path,
    config: FitConfig,
    setting: str | Sequence[str],
    skip_bad: bool,
) -> str:
    """The call that repeats this fit, with the last two parts of each path."""
    sources = [[one] if isinstance(one, str | Path) else one for one in (train, val_path, out)]
    short = [["/".join(path_of(path).parts[-2:]) for path in one] for one in sources]
    paths = [repr(one[0] if len(one) == 1 else one) for one in short]
    changed = [f"{k}={v!r}" for k, v in asdict(config).items() if v != getattr(FitConfig, k)]
    changed += [] if setting == "unknown" else [f"setting={setting!r}"]
    changed += ["skip_bad=True"] if skip_bad else []
    return f"crystalgfn.fitting.proxy.fit({', '.join(paths + changed)})"


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
