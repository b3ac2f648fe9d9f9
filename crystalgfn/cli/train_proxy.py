"""What ``crystalgfn-train-proxy`` does: fit a proxy on files, or in a loop of fitting, sampling and labelling."""

from __future__ import annotations

import difflib
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from crystalgfn.calculators.chgnet import chgnet
from crystalgfn.cli import options
from crystalgfn.cli.options import KINDS, OptionError, build
from crystalgfn.data.labelled import COLUMNS, read
from crystalgfn.data.parents import Parents
from crystalgfn.fitting.active_learning import ChgnetLabels, Label, SamplerDraws, active, hull_of
from crystalgfn.fitting.labels import Labels, read_labels
from crystalgfn.fitting.proposals import Templates
from crystalgfn.fitting.proxy import CHECKPOINT, Settings, fit
from crystalgfn.sampling import table as results
from crystalgfn.space.space import CrystalSpace
from crystalgfn.utils.files import write_aside
from crystalgfn.utils.provenance import METRICS
from crystalgfn.utils.run_folder import CONFIG, begun

#: May differ between the calls that a fit or a loop is made in.
FREE = ("progress", "rounds")


def run(config: DictConfig, label: Label | None = None) -> None:
    """Fit; the folder of a fit or loop that was interrupted goes on.

    Args:
        config: ``config/train_proxy.yaml`` under the user's options.
        label: what labels crystals, instead of CHGNet.

    Raises:
        OptionError: values that cannot be, or a proxy that is there already.
        DataError: data that cannot be used.
        NotAvailable: a loop without CHGNet.
    """
    out = Path(config.out)
    settings, reading = _settings(config), _reading(config)
    _check(config, out)
    labels = _labels(config)
    if config.active and label is None:
        chgnet()
    with begun(out, lambda: _kept(out)):
        results.make_folder(out)
        write_aside(out / CONFIG, lambda path: OmegaConf.save(config, path, resolve=True))
        try:
            if config.active:
                _loop(config, out, labels, settings, reading, label)
            else:
                _say(fit(_train(config), config.val, out, None, config.progress, labels, **reading, **settings), config)
        except KeyboardInterrupt:
            if _kept(out):
                print(f"\nWhat is done is kept; go on with the same command and out={out}", file=sys.stderr)
            raise


def _loop(
    config: DictConfig, out: Path, labels: Labels, settings: dict, reading: dict, label: Label | None
) -> None:  # fmt: skip
    space = CrystalSpace(**options.space_arguments(config.space))
    strata = options.strata(config)
    policy, trainer = build(config.policy, "policy"), build(config.trainer, "trainer")
    trainer = replace(trainer, progress=trainer.progress and config.progress)
    draw = SamplerDraws(space, config.draws, config.beta, policy, trainer, strata, config.seed)
    val = read(config.val, progress=config.progress)
    taken = frozenset().union(*val.keys)
    if label is None:
        first = _train(config)[0]
        templates = None if config.templates is None else Templates(Parents.read(config.templates, taken)).cells
        label = ChgnetLabels(hull_of(read(first, progress=config.progress), val), templates, config.seed)

    def refit(folder: Path, known: Labels) -> None:
        fit(_train(config), config.val, folder, None, config.progress, known, **reading, **settings)

    table = active(out, config.rounds, labels, refit, draw, label, taken, config.progress)
    print("Claims of each proxy against labels of what its own sampler draws, eV/atom:")
    print(table.to_string(index=False, float_format="%.3f"))
    print(f"The last proxy and all labels are in {out}")


def _say(metrics: dict[str, Any], config: DictConfig) -> None:
    """What came out, in a few lines."""
    unit = metrics["unit"]
    print(
        f"{metrics['property']}: MAE {metrics['val_mae']:.4f} {unit} on the {metrics['rows_val']} crystals of "
        f"{config.val}, median error {metrics['val_median_error']:.4f}, {metrics['val_within_std']:.0%} within the "
        f"spread; fitted on {metrics['rows_train']} crystals in {metrics['seconds']:.0f} s"
    )
    known = metrics.get("off_equilibrium", {}).get("all")
    if known:
        print(
            f"off equilibrium, {known['crystals']} crystals of compositions held out: MAE {known['mae']:.3f} {unit}, "
            f"Spearman {known['spearman']:.2f}"
        )
    print(f"The proxy is in {config.out}: crystalgfn.load_proxy({str(config.out)!r})")


def _settings(config: DictConfig) -> dict[str, Any]:
    """What ``settings.*`` sets of `Settings`, with the property and the seed."""
    if not OmegaConf.is_dict(config.settings):
        raise OptionError(f"settings={config.settings}: give settings.<name>=<value>, such as settings.epochs=50.")
    given = OmegaConf.to_container(config.settings, resolve=True)
    known = {one.name: one.default for one in fields(Settings) if one.name not in ("property", "seed")}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean settings.{near[0]}? There" if near else "there"
            raise OptionError(f"There is no option settings.{name}; {hint} are {', '.join(known)}.")
        kind = KINDS.get(type(known[name]), object)
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, kind):
            words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[type(known[name])]
            raise OptionError(f"settings.{name} must be {words}, not {value!r}.")
    for name in ("epochs", "batch", "members", "width", "depth", "lr"):
        if name in given and not given[name] > 0:
            raise OptionError(f"settings.{name} must be above 0, not {given[name]}.")
    return {"property": config.property, "seed": config.seed, **given}


def _reading(config: DictConfig) -> dict[str, Any]:
    """How rows are read."""
    setting = list(config.setting) if OmegaConf.is_list(config.setting) else config.setting
    return {"column": config.column, "setting": setting, "skip_bad": config.skip_bad}


def _check(config: DictConfig, out: Path) -> None:
    """Refuse what cannot be, before the work."""
    for name in ("train", "val"):
        if config[name] is None:
            raise OptionError(f"{name} has no default; give {name}=<file>.")
    if config.property not in COLUMNS:
        raise OptionError(f"There is no data for the property {config.property!r}; there are {', '.join(COLUMNS)}.")
    if config.property != "formation_energy" and (config.active or config.labels):
        raise OptionError(f"labels and active are for formation_energy; leave them away for {config.property}.")
    if config.active and (config.rounds < 1 or config.draws < 1 or config.beta <= 0):
        raise OptionError(
            f"rounds={config.rounds}, draws={config.draws}, beta={config.beta}: give numbers above 0 for all three."
        )
    if (out / METRICS).exists() and not config.active:
        raise OptionError(f"{out} already holds a proxy; choose another out=<folder>, or delete it.")
    if (out / CONFIG).exists():
        _same_run(config, out)


def _same_run(config: DictConfig, out: Path) -> None:
    known = OmegaConf.to_container(OmegaConf.load(out / CONFIG))
    given = OmegaConf.to_container(config, resolve=True)
    other = [name for name in given if name not in (*FREE, "out") and known.get(name) != given[name]]
    if other:
        name = other[0]
        raise OptionError(
            f"{out} holds a fit with {name}={known.get(name)}, not {given[name]}; "
            "give what it was begun with, or choose another out=<folder>."
        )


def _labels(config: DictConfig) -> Labels | None:
    """The labels of the file that is named; those that come with the package for a loop, which adds to them."""
    if config.labels is not None:
        return read_labels(config.labels)
    return read_labels() if config.active else None


def _train(config: DictConfig) -> list[str]:
    return list(config.train) if OmegaConf.is_list(config.train) else [config.train]


def _kept(out: Path) -> bool:
    """Whether a fit or a loop can go on from what is there."""
    return any((out / name).exists() for name in (CHECKPOINT, METRICS)) or any(out.glob("round_*/*"))
