"""An ensemble fitted on rows of data and on labels off equilibrium: how, and the fit itself."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.data.labelled import COLUMNS, Rows, bags, split_by_formula
from crystalgfn.errors import CheckpointError, DataError, TrainingError
from crystalgfn.fitting.labels import (
    HELD,
    HIGH,
    Labels,
    OffEquilibriumLabels,
    absolute,
)
from crystalgfn.fitting.perturbations import CEILING, strained
from crystalgfn.properties.ensemble import EnsembleProxy
from crystalgfn.properties.registry import load_proxy
from crystalgfn.typing import FeatureRows, Floats, MemberValues
from crystalgfn.utils.files import path_of, write_aside
from crystalgfn.utils.progress import Bar


@dataclass(frozen=True, kw_only=True)
class FitConfig:
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
        if self.members < 2:
            raise DataError(f"members={self.members}: give at least 2; their disagreement is the standard error")
        if self.property != "formation_energy":
            for name in ("strained", "labelled"):
                object.__setattr__(self, name, 0.0)


CHECKPOINT = "fit.pt"
ENOUGH = 100  # rows to calibrate intervals on
FEWEST = 3  # held-out rows to calibrate anything on
#: In what units a proxy's networks see features and give labels.
SCALES = ("shift", "scale", "label_mean", "label_std")
#: Fields that are a proxy's shape.
SHAPE = ("members", "width", "depth", "rank", "residual", "translations", "wyckoff")
#: Labels that mean "this or less": a metal's gap, so that a network may say how far from opening one it is.
CENSORED = {"band_gap": 0.0}


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
    train, held, calibration = _split(rows, config, first)
    if not config.labelled:
        labels = None
    if labels is not None:
        train = unmeasured(train, labels)
    proxy, features = _begun(train, config)
    seen = bags(train, config.members, config.left_out, config.seed)
    off = None
    if labels is not None:
        off = OffEquilibriumLabels.of(proxy, labels, config.balance, config.labels_left_out, config.seed, config.jitter)
    steps = -(-len(train) // config.batch)
    total = config.epochs * steps
    optimiser = torch.optim.AdamW(proxy.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps, total))
    state: dict[str, Any] = {"epoch": 0, "best": float("inf"), "best_state": None, "seconds": 0.0}
    checkpoint = path_of(out, "out") / CHECKPOINT
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
        held_error = _keep_best(proxy, held, config, state, epoch)
        state["epoch"] = epoch + 1
        state["seconds"] += time.monotonic() - start
        bar.note(f"held out {held_error:.4f}, best {state['best']:.4f}")
        _save_progress(checkpoint, state, config, proxy, optimiser, schedule)
    proxy.load_state_dict(state["best_state"])
    proxy.eval().requires_grad_(False)
    mean, std = proxy.moments(calibration.crystals)
    proxy.calibrate((mean - calibration.labels).abs(), std)
    return proxy, state["seconds"]


def _split(rows: Rows, config: FitConfig, first: int | None) -> tuple[Rows, Rows, Rows]:
    """Rows to fit on, to choose the epoch by, and to calibrate on.

    Raises:
        DataError: too few are held out.
    """
    train, held = split_by_formula(rows, config.holdout, config.seed)
    calibration = held if first is None else split_by_formula(rows[np.arange(first)], config.holdout, config.seed)[1]
    if len(held) < FEWEST:
        raise DataError(
            f"{len(held)} of {len(rows)} rows are held out to choose the epoch and to calibrate on (holdout="
            f"{config.holdout} of the formulas); at least {FEWEST} are needed: give more data, or a larger holdout"
        )
    return train, held, held if len(calibration) < ENOUGH else calibration


def _begun(train: Rows, config: FitConfig) -> tuple[EnsembleProxy, torch.Tensor]:
    """An ensemble at its beginning, and the features of the rows that it is fitted on."""
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
    return proxy, features


def _keep_best(proxy: EnsembleProxy, held: Rows, config: FitConfig, state: dict[str, Any], epoch: int) -> float:
    """The error on held-out rows after an epoch; the best networks are kept.

    Raises:
        TrainingError: it is no number.
    """
    error = float((proxy(held.crystals) - held.labels).abs().mean())
    if not np.isfinite(error):
        raise TrainingError(
            f"{config.property}: the fit went astray in epoch {epoch + 1} (its error is {error}); start it "
            f"again with a lower lr than {config.lr:g}"
        )
    if error < state["best"]:
        state["best"] = error
        state["best_state"] = {k: v.detach().clone() for k, v in proxy.state_dict().items()}
    return error


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
