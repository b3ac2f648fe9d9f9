"""Fitting a proxy on real crystals, with strained copies of them where the property is an energy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.data.labelled import COLUMNS, Rows, bags, exclude, read, split, together
from crystalgfn.errors import CheckpointError, DataError, TrainingError
from crystalgfn.fitting.labels import (
    FIT,
    HELD,
    HIGH,
    SOURCES,
    VALUE,
    Labels,
    OffEquilibriumLabels,
    absolute,
    read_labels,
)
from crystalgfn.fitting.perturbations import CEILING, strained
from crystalgfn.properties.ensemble import LEVELS, EnsembleProxy
from crystalgfn.properties.registry import load_proxy
from crystalgfn.typing import FeatureRows, Floats, MemberValues
from crystalgfn.utils.files import write_aside
from crystalgfn.utils.progress import Bar
from crystalgfn.utils.provenance import versions, write_metrics

CHECKPOINT = "fit.pt"
ENOUGH = 100  # rows to calibrate intervals on
#: In what units a proxy's networks see features and give labels.
SCALES = ("shift", "scale", "label_mean", "label_std")
#: Settings that are a proxy's shape.
SHAPE = ("members", "width", "depth", "rank", "residual", "translations", "wyckoff")
#: Labels that mean "this or less": a metal's gap, so that a network may say how far from opening one it is.
CENSORED = {"band_gap": 0.0}


@dataclass(frozen=True)
class Settings:
    """How a proxy is fitted.

    Attributes:
        property: a key of ``crystalgfn.data.labelled.COLUMNS``.
        seed: of the split, the initial weights and the order of the rows.
        epochs: passes over the training rows.
        batch: rows a step.
        lr: largest learning rate (AdamW; warm-up for one epoch, then a cosine to 0).
        weight_decay: of AdamW.
        members: networks in the ensemble.
        width: units a hidden layer.
        depth: hidden layers.
        rank: of the term that is bilinear in the elements' fractions.
        residual: whether hidden layers add to what they are given.
        translations: whether it sees the shortest translations of the lattice.
        wyckoff: whether it sees what each element may do on the group's Wyckoff positions.
        holdout: share of the training formulas that choose the epoch and the standard error's factor, and fit nothing.
        left_out: share of the formulas that each member does not see.
        labels_left_out: share of the labels' formulas that each member does not see; more of it makes members differ
            where only labels tell.
        strained: weight of the strained copies against the real rows; 0 for none. For energies only.
        labelled: weight of labels off equilibrium against the real rows; 0 for none. For energies only.
        balance: share of the labels in a step that are no strained real crystals, but swapped, placed and proposed.
        jitter: by which cells of labels are moved each time that they are seen (ln lengths, radians); 0 for not.
        begin: folder of a proxy of the same shape, or name of a shipped one, whose weights to begin with; none: random
            ones. Fitted on the same rows with the same seed, so that what was held out stays so.

    Raises:
        DataError: a share or a number outside its limits.
    """

    property: str = "formation_energy"
    seed: int = 0
    epochs: int = 48
    batch: int = 128
    lr: float = 3e-3
    weight_decay: float = 0.1
    members: int = 6
    width: int = 256
    depth: int = 4
    rank: int = 64
    residual: bool = True
    translations: bool = True
    wyckoff: bool = False
    holdout: float = 0.03
    left_out: float = 0.02
    labels_left_out: float = 0.02
    strained: float = 0.15
    labelled: float = 0.1
    balance: float = 0.5
    jitter: float = 0.0
    begin: str = ""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "members", "width", "depth", "lr"):
            if not getattr(self, name) > 0:
                raise DataError(f"settings.{name}={getattr(self, name)}: give a number above 0")
        for name in ("holdout", "left_out", "labels_left_out"):
            if not 0 <= getattr(self, name) < 1:
                raise DataError(f"{name}={getattr(self, name)}: give a share from 0 to below 1")
        if not 0 <= self.balance <= 1:
            raise DataError(f"balance={self.balance}: give a share from 0 to 1")
        for name in ("jitter", "strained", "labelled", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise DataError(f"{name}={getattr(self, name)}: give a number of at least 0")
        if self.property != "formation_energy":
            for name in ("strained", "labelled"):
                object.__setattr__(self, name, 0.0)


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
    **settings: Any,
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
        cache: see :func:`crystalgfn.data.labelled.read`.
        progress: whether to show a progress bar.
        labels: formation energies off equilibrium; None: those that come with the package.
        column: see :func:`crystalgfn.data.labelled.read`, as the next two; for all files.
        setting: in which setting cells without positions are, in all files or in each of those to fit on (the one to
            report on is then read as the first).
        skip_bad: go on without the rows that cannot be read.
        **settings: see :class:`Settings`.

    Returns:
        What is written to ``metrics.json``.

    Raises:
        DataError: data that cannot be used, or not as many settings as files.
        CheckpointError: ``out/fit.pt`` is of another run.
    """
    settings = Settings(**settings)
    paths = [train_path] if isinstance(train_path, str | Path) else list(train_path)
    ways = [setting] * len(paths) if isinstance(setting, str) else list(setting)
    if len(ways) != len(paths):
        raise DataError(f"{len(ways)} settings for {len(paths)} files; give one for all, or one for each")
    how = {"column": column, "skip_bad": skip_bad}
    val = read(val_path, settings.property, cache, progress, setting=ways[0], **how)
    parts = [
        read(path, settings.property, cache, progress, setting=way, **how)
        for path, way in zip(paths, ways, strict=True)
    ]
    known = together(parts)
    rows = exclude(known, val)
    first = len(exclude(parts[0], val))
    if len(rows) < 100:
        raise DataError(
            f"{', '.join(map(str, paths))} has {len(rows)} rows that are not in {val_path}; a proxy needs at least 100"
        )
    labels = read_labels(high=True) if labels is None and settings.labelled else labels
    proxy, seconds = fit_proxy(rows, settings, out, progress, labels, first)
    proxy.save(out)
    errors = (proxy(val.crystals) - val.labels).abs()
    std = proxy.std(val.crystals)
    metrics = {
        "property": proxy.name,
        "unit": proxy.unit,
        "val_mae": float(errors.mean()),
        "val_rmse": float(errors.square().mean().sqrt()),
        "val_median_error": float(errors.median()),
        "val_within_std": float((errors <= std).double().mean()),
        "val_median_std": float(std.median()),
        "val_reliability": reliability(proxy, val),
        "train_mae": float((proxy(rows.crystals) - rows.labels).abs().mean()),
        "rows_train": len(rows),
        "rows_left_out_as_in_val": len(known) - len(rows),
        "rows_val": len(val),
        "seconds": round(seconds, 1),
        "settings": asdict(settings),
        "command": _command(paths, val_path, out, settings, setting, skip_bad),
        "versions": versions(),
    }
    if settings.property == "formation_energy":
        metrics["volume_scan"] = volume_scan(proxy, val.crystals[:: max(1, len(val) // 500)][:500])
    if settings.labelled:
        metrics["off_equilibrium"] = off_equilibrium(proxy, labels)
    write_metrics(out, metrics)
    (Path(out) / CHECKPOINT).unlink(missing_ok=True)
    return metrics


def fit_proxy(
    rows: Rows,
    settings: Settings,
    out: str | Path,
    progress: bool = True,
    labels: Labels | None = None,
    first: int | None = None,
) -> tuple[EnsembleProxy, float]:
    """Fit on ``rows`` and ``labels``, holding a part of the formulas back; the proxy, and the seconds that it took.

    Standard errors and intervals are calibrated on what is held back of the ``first`` rows; None, or where that is
    fewer than a hundred: of all.
    """
    train, held = split(rows, settings.holdout, settings.seed)
    calibration = held if first is None else split(rows[np.arange(first)], settings.holdout, settings.seed)[1]
    calibration = held if len(calibration) < ENOUGH else calibration
    if labels is not None and settings.labelled:
        train = unmeasured(train, labels)
    torch.manual_seed(settings.seed)
    size = {name: getattr(settings, name) for name in SHAPE}
    proxy = EnsembleProxy(settings.property, COLUMNS[settings.property][1], **size)
    with torch.no_grad():
        features = proxy.features(train.crystals)
    proxy.standardise(features, train.crystals, train.labels)
    if settings.strained:
        proxy.high += CEILING
    if settings.begin:
        _begin(proxy, settings.begin)
    seen = bags(train, settings.members, settings.left_out, settings.seed)
    off = None
    if labels is not None and settings.labelled:
        off = OffEquilibriumLabels.of(
            proxy, labels, settings.balance, settings.labels_left_out, settings.seed, settings.jitter
        )
    steps = -(-len(train) // settings.batch)
    total = settings.epochs * steps
    optimiser = torch.optim.AdamW(proxy.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps, total))
    state = {"epoch": 0, "best": float("inf"), "best_state": None, "seconds": 0.0}
    checkpoint = Path(out) / CHECKPOINT
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    if checkpoint.is_file():
        state = _resume(checkpoint, settings, proxy, optimiser, schedule)
    bar = Bar(range(state["epoch"], settings.epochs), shown=progress, description=settings.property, unit="epoch")
    for epoch in bar:
        start = time.monotonic()
        # Seeded by the epoch, so that a resumed fit sees the same batches as an uninterrupted one.
        generator = torch.Generator().manual_seed(settings.seed * 100_003 + epoch)
        for chosen in torch.randperm(len(train), generator=generator).split(settings.batch):
            loss = _loss(proxy, train, features, chosen, seen, settings, generator)
            if off is not None:
                loss = loss + settings.labelled * off.loss(proxy, generator)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
        held_error = float((proxy(held.crystals) - held.labels).abs().mean())
        if not np.isfinite(held_error):
            raise TrainingError(
                f"{settings.property}: the fit went astray in epoch {epoch + 1} (its error is {held_error}); start it "
                f"again with a lower lr than {settings.lr:g}"
            )
        if held_error < state["best"]:
            state["best"] = held_error
            state["best_state"] = {k: v.detach().clone() for k, v in proxy.state_dict().items()}
        state["epoch"] = epoch + 1
        state["seconds"] += time.monotonic() - start
        bar.note(f"held out {held_error:.4f}, best {state['best']:.4f}")
        _save_progress(checkpoint, state, settings, proxy, optimiser, schedule)
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
            figures["spearman"] = spearmanr(predicted, value).statistic
        found[name] = {"crystals": len(part)} | {key: float(figure) for key, figure in figures.items()}
    return found


def _command(
    train: list[str | Path],
    val_path: str | Path,
    out: str | Path,
    settings: Settings,
    setting: str | Sequence[str],
    skip_bad: bool,
) -> str:
    """The call that repeats this fit, with the last two parts of each path."""
    *first, val, folder = ("/".join(Path(path).parts[-2:]) for path in (*train, val_path, out))
    paths = [repr(first[0] if len(first) == 1 else first), repr(val), repr(folder)]
    changed = [f"{k}={v!r}" for k, v in asdict(settings).items() if v != getattr(Settings, k)]
    changed += [] if setting == "unknown" else [f"setting={setting!r}"]
    changed += ["skip_bad=True"] if skip_bad else []
    return f"crystalgfn.fitting.proxy.fit({', '.join(paths + changed)})"


def _loss(
    proxy: EnsembleProxy,
    train: Rows,
    features: FeatureRows,
    chosen: torch.Tensor,
    seen: torch.Tensor,
    settings: Settings,
    generator: torch.Generator,
) -> torch.Tensor:
    """Mean absolute error of every member on the rows that it may see, and the same for strained copies."""
    crystals, labels = train.crystals[chosen], train.labels[chosen]
    weight = seen[:, chosen].float()
    weight = weight / weight.sum(1, keepdim=True).clamp_min(1)  # a member may see none of a short last batch
    loss = (weight * _errors(proxy, features[chosen], crystals, labels, settings)).sum()
    if settings.strained:
        copies, cost = strained(crystals, generator)
        with torch.no_grad():
            seen_of_copies = proxy.features(copies)
        errors = _errors(proxy, seen_of_copies, copies, labels + cost, settings)
        loss = loss + settings.strained * (weight * errors).sum()
    return loss


def _errors(
    proxy: EnsembleProxy,
    features: FeatureRows,
    crystals: Crystals,
    labels: Floats,
    settings: Settings,
) -> MemberValues:
    """Absolute errors in standardised labels; below a censored label nothing is wrong."""
    target = ((labels - proxy.label_mean) / proxy.label_std).float()
    error = proxy.network(features, crystals.space_group) - target
    censored = CENSORED.get(settings.property)
    size = absolute(error)
    return size if censored is None else torch.where((labels <= censored) & (error < 0), 0.0, size)


def _rate(step: int, warm_up: int, total: int) -> float:
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * (step - warm_up) / max(1, total - warm_up)))))


def _save_progress(path: Path, state: dict, settings: Settings, proxy: Any, optimiser: Any, schedule: Any) -> None:
    parts = {"proxy": proxy.state_dict(), "optimiser": optimiser.state_dict(), "schedule": schedule.state_dict()}
    write_aside(path, lambda aside: torch.save({"settings": asdict(settings), **state, **parts}, aside))


def _resume(path: Path, settings: Settings, proxy: Any, optimiser: Any, schedule: Any) -> dict[str, Any]:
    try:
        saved = torch.load(path, weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path} is damaged ({error}); delete it to start the fit again") from error
    if saved.pop("settings") != asdict(settings):
        raise CheckpointError(f"{path} is of a fit with other settings; delete it or choose another folder")
    proxy.load_state_dict(saved.pop("proxy"))
    optimiser.load_state_dict(saved.pop("optimiser"))
    schedule.load_state_dict(saved.pop("schedule"))
    return saved
