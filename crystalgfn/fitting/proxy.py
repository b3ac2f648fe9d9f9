"""Fitting a proxy on real crystals, with strained copies of them where the property is an energy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.data.labelled import COLUMNS, Rows, bags, exclude, read_labelled, split_by_formula, together
from crystalgfn.errors import CheckpointError, DataError, TrainingError
from crystalgfn.fitting.labels import (
    HELD,
    HIGH,
    Labels,
    OffEquilibriumLabels,
    absolute,
    read_labels,
)
from crystalgfn.fitting.perturbations import CEILING, strained
from crystalgfn.fitting.proxy_config import FitConfig
from crystalgfn.fitting.proxy_metrics import off_equilibrium, validation_errors, volume_scan
from crystalgfn.properties.ensemble import EnsembleProxy
from crystalgfn.properties.registry import load_proxy
from crystalgfn.typing import FeatureRows, Floats, MemberValues
from crystalgfn.utils.files import write_aside
from crystalgfn.utils.progress import Bar
from crystalgfn.utils.provenance import versions, write_metrics

CHECKPOINT = "fit.pt"
ENOUGH = 100  # rows to calibrate intervals on
FEWEST = 3  # held-out rows to calibrate anything on
#: In what units a proxy's networks see features and give labels.
SCALES = ("shift", "scale", "label_mean", "label_std")
#: Fields that are a proxy's shape.
SHAPE = ("members", "width", "depth", "rank", "residual", "translations", "wyckoff")
#: Labels that mean "this or less": a metal's gap, so that a network may say how far from opening one it is.
CENSORED = {"band_gap": 0.0}


def fit(
    train_path: str | Path | Sequence[str | Path],
    val_path: str | Path,
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
        val_path: file of crystals to report on.
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
    val = read_labelled(val_path, config.property, cache, progress, setting=ways[0], **how)
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
    (Path(out) / CHECKPOINT).unlink(missing_ok=True)
    return metrics


def fit_proxy(
    rows: Rows,
    config: FitConfig,
    out: str | Path,
    progress: bool = True,
    labels: Labels | None = None,
    first: int | None = None,
) -> tuple[EnsembleProxy, float]:
    """Fit on ``rows`` and ``labels``, holding a part of the formulas back; the proxy, and the seconds that it took.

    Standard errors and intervals are calibrated on what is held back of the ``first`` rows; None, or where that is
    fewer than a hundred: of all.
    """
    train, held = split_by_formula(rows, config.holdout, config.seed)
    calibration = held if first is None else split_by_formula(rows[np.arange(first)], config.holdout, config.seed)[1]
    calibration = held if len(calibration) < ENOUGH else calibration
    if len(held) < FEWEST:
        raise DataError(
            f"{len(held)} of {len(rows)} rows are held out to choose the epoch and to calibrate on (holdout="
            f"{config.holdout} of the formulas); at least {FEWEST} are needed: give more data, or a larger holdout"
        )
    if labels is not None and config.labelled:
        train = unmeasured(train, labels)
    torch.manual_seed(config.seed)
    size = {name: getattr(config, name) for name in SHAPE}
    proxy = EnsembleProxy(config.property, COLUMNS.get(config.property, ("", ""))[1], **size)
    with torch.no_grad():
        features = proxy.features(train.crystals)
    proxy.standardise(features, train.crystals, train.labels)
    if config.strained:
        proxy.high += CEILING
    if config.begin:
        _begin(proxy, config.begin)
    seen = bags(train, config.members, config.left_out, config.seed)
    off = None
    if labels is not None and config.labelled:
        off = OffEquilibriumLabels.of(proxy, labels, config.balance, config.labels_left_out, config.seed, config.jitter)
    steps = -(-len(train) // config.batch)
    total = config.epochs * steps
    optimiser = torch.optim.AdamW(proxy.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps, total))
    state = {"epoch": 0, "best": float("inf"), "best_state": None, "seconds": 0.0}
    checkpoint = Path(out) / CHECKPOINT
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    if checkpoint.is_file():
        state = _resume(checkpoint, config, proxy, optimiser, schedule)
    bar = Bar(range(state["epoch"], config.epochs), shown=progress, description=config.property, unit="epoch")
    for epoch in bar:
        start = time.monotonic()
        # Seeded by the epoch, so that a resumed fit sees the same batches as an uninterrupted one.
        generator = torch.Generator().manual_seed(config.seed * 100_003 + epoch)
        for chosen in torch.randperm(len(train), generator=generator).split(config.batch):
            loss = _loss(proxy, train, features, chosen, seen, config, generator)
            if off is not None:
                loss = loss + config.labelled * off.loss(proxy, generator)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
        held_error = float((proxy(held.crystals) - held.labels).abs().mean())
        if not np.isfinite(held_error):
            raise TrainingError(
                f"{config.property}: the fit went astray in epoch {epoch + 1} (its error is {held_error}); start it "
                f"again with a lower lr than {config.lr:g}"
            )
        if held_error < state["best"]:
            state["best"] = held_error
            state["best_state"] = {k: v.detach().clone() for k, v in proxy.state_dict().items()}
        state["epoch"] = epoch + 1
        state["seconds"] += time.monotonic() - start
        bar.note(f"held out {held_error:.4f}, best {state['best']:.4f}")
        _save_progress(checkpoint, state, config, proxy, optimiser, schedule)
    proxy.load_state_dict(state["best_state"])
    proxy.eval().requires_grad_(False)
    mean, std = proxy.moments(calibration.crystals)
    proxy.calibrate((mean - calibration.labels).abs(), std)
    return proxy, state["seconds"]


def _begin(proxy: EnsembleProxy, folder: str) -> None:
    """Take over the networks of another proxy and the scales in which they think.

    One that does not see Wyckoff positions begins one that does: what is new weighs nothing at first.

    Raises:
        CheckpointError: one of another property or shape.
    """
    other = load_proxy(folder)
    if not isinstance(other, EnsembleProxy) or other.name != proxy.name:
        raise CheckpointError(f"begin={folder} is no ensemble that predicts {proxy.name}; choose another folder")
    for name, own in proxy.shape.items():
        if other.shape[name] != own and (name, own) != ("wyckoff", True):
            raise CheckpointError(
                f"begin={folder} has {name}={other.shape[name]}, this fit {own}; set {name} to what that one has"
            )
    known = {**dict(other.named_parameters()), **{n: value for n, value in other.named_buffers() if n in SCALES}}
    more = proxy.features.size - other.features.size
    if more:
        first = known["first"]
        known["first"] = torch.cat([first, first.new_zeros(more, first.shape[1])])
        for name in ("shift", "scale"):
            known[name] = torch.cat([known[name], getattr(proxy, name)[-more:]])
    proxy.load_state_dict({**proxy.state_dict(), **known})


def unmeasured(rows: Rows, labels: Labels) -> Rows:
    """The rows of other formulas than those whose labels are held out to measure a fit."""
    measured = {formula for key in labels[(labels.split == HELD) & (labels.kind != HIGH)].keys() for formula, _ in key}
    return rows[np.array([measured.isdisjoint(formula for formula, _ in key) for key in rows.keys])]


def _command(
    train: list[str | Path],
    val_path: str | Path,
    out: str | Path,
    config: FitConfig,
    setting: str | Sequence[str],
    skip_bad: bool,
) -> str:
    """The call that repeats this fit, with the last two parts of each path."""
    *first, val, folder = ("/".join(Path(path).parts[-2:]) for path in (*train, val_path, out))
    paths = [repr(first[0] if len(first) == 1 else first), repr(val), repr(folder)]
    changed = [f"{k}={v!r}" for k, v in asdict(config).items() if v != getattr(FitConfig, k)]
    changed += [] if setting == "unknown" else [f"setting={setting!r}"]
    changed += ["skip_bad=True"] if skip_bad else []
    return f"crystalgfn.fitting.proxy.fit({', '.join(paths + changed)})"


def _loss(
    proxy: EnsembleProxy,
    train: Rows,
    features: FeatureRows,
    chosen: torch.Tensor,
    seen: torch.Tensor,
    config: FitConfig,
    generator: torch.Generator,
) -> torch.Tensor:
    """Mean absolute error of every member on the rows that it may see, and the same for strained copies."""
    crystals, labels = train.crystals[chosen], train.labels[chosen]
    weight = seen[:, chosen].float()
    weight = weight / weight.sum(1, keepdim=True).clamp_min(1)  # a member may see none of a short last batch
    loss = (weight * _errors(proxy, features[chosen], crystals, labels, config)).sum()
    if config.strained:
        copies, cost = strained(crystals, generator)
        with torch.no_grad():
            seen_of_copies = proxy.features(copies)
        errors = _errors(proxy, seen_of_copies, copies, labels + cost, config)
        loss = loss + config.strained * (weight * errors).sum()
    return loss


def _errors(
    proxy: EnsembleProxy,
    features: FeatureRows,
    crystals: Crystals,
    labels: Floats,
    config: FitConfig,
) -> MemberValues:
    """Absolute errors in standardised labels; below a censored label nothing is wrong."""
    target = ((labels - proxy.label_mean) / proxy.label_std).float()
    error = proxy.network(features, crystals.space_group) - target
    censored = CENSORED.get(config.property)
    size = absolute(error)
    return size if censored is None else torch.where((labels <= censored) & (error < 0), 0.0, size)


def _rate(step: int, warm_up: int, total: int) -> float:
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * (step - warm_up) / max(1, total - warm_up)))))


def _save_progress(path: Path, state: dict, config: FitConfig, proxy: Any, optimiser: Any, schedule: Any) -> None:
    parts = {"proxy": proxy.state_dict(), "optimiser": optimiser.state_dict(), "schedule": schedule.state_dict()}
    write_aside(path, lambda aside: torch.save({"settings": asdict(config), **state, **parts}, aside))


def _resume(path: Path, config: FitConfig, proxy: Any, optimiser: Any, schedule: Any) -> dict[str, Any]:
    try:
        saved = torch.load(path, weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path} is damaged ({error}); delete it to start the fit again") from error
    if saved.pop("settings") != asdict(config):
        raise CheckpointError(f"{path} is of a fit with other settings; delete it or choose another folder")
    proxy.load_state_dict(saved.pop("proxy"))
    optimiser.load_state_dict(saved.pop("optimiser"))
    schedule.load_state_dict(saved.pop("schedule"))
    return saved
