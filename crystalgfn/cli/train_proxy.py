"""What ``crystalgfn train-proxy`` does: fit a proxy on files, or in a loop of fitting, sampling and labelling."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from crystalgfn.calculators.energy_references import references_of
from crystalgfn.calculators.registry import load_calculator
from crystalgfn.cli.console import note, tell
from crystalgfn.cli.options.compose import OptionError
from crystalgfn.cli.options.objects import build_part, listed, plain_config, space_arguments, strata_of
from crystalgfn.data.labelled import COLUMNS, read_labelled
from crystalgfn.data.standard_cells import Parents
from crystalgfn.fitting.active_learning import (
    CalculatorLabels,
    Label,
    SamplerDraws,
    active_learning_loop,
    concat_labels,
    hull_of,
)
from crystalgfn.fitting.ensemble_fit import CHECKPOINT, FitConfig
from crystalgfn.fitting.labels import Labels, read_labels
from crystalgfn.fitting.proxy import fit, validation_rows
from crystalgfn.fitting.template_cells import TemplateCells
from crystalgfn.space.space import CrystalSpace
from crystalgfn.utils.provenance import METRICS
from crystalgfn.utils.run_folder import CONFIG, RunFolder

#: May differ between the calls that a fit or a loop is made in.
FREE = ("out", "progress", "rounds", "json")


def run(config: DictConfig, command: str, folder: RunFolder, label: Label | None = None) -> dict[str, Any]:
    """Fit; the folder of a fit or loop that was interrupted goes on.

    Raises:
        OptionError: values that cannot be, or a proxy that is there already.
        DataError: data that cannot be used.
        NotAvailable: a loop without the calculator's package.
    """
    out = folder.path
    settings = {"property": config.property, "seed": config.seed, **plain_config(config.settings)}
    reading = {"column": config.column, "setting": plain_config(config.setting), "skip_bad": config.skip_bad}
    FitConfig(**settings)  # refuses before the work
    _check(config, folder)
    folder.agree(plain_config(config), FREE)
    labels = _labels(config)
    if config.active and label is None:
        references_of(load_calculator(config.calculator), config.energy_references)  # better found out before the work
    try:
        if labels is not None and config.active:
            _loop(config, folder, labels, settings, reading, label)
            return {"files": ["gaps.csv", "labels.npz", "metrics.json", "weights.safetensors"]}
        if (out / METRICS).exists():  # the command was killed after its fit
            metrics = json.loads((out / METRICS).read_text(encoding="utf-8"))
        else:
            sources = (listed(config.train), listed(config.val))
            metrics = fit(*sources, out, None, config.progress, labels, **reading, **settings)
        _say(metrics, config)
        return {
            "files": ["metrics.json", "weights.safetensors"],
            "counts": {name: metrics[name] for name in ("rows_train", "rows_val")},
        }
    except KeyboardInterrupt:
        if _kept(out):
            note(f"\nWhat is done is kept; go on with the same command and out={out}")
        raise


def _loop(
    config: DictConfig, run: RunFolder, labels: Labels, settings: dict, reading: dict, label: Label | None
) -> None:  # fmt: skip
    space = CrystalSpace(**space_arguments(config.space))
    policy, trainer = build_part(config.policy, "policy"), build_part(config.trainer, "trainer")
    trainer = replace(trainer, progress=trainer.progress and config.progress)
    draw = SamplerDraws(
        space=space,
        n=config.draws,
        beta=config.beta,
        policy=policy,
        trainer=trainer,
        strata=strata_of(config),
        seed=config.seed,
    )
    val = validation_rows(listed(config.val), progress=config.progress)
    taken = frozenset().union(*val.keys)
    if label is None:
        first = listed(config.train)[0]
        files = listed(config.templates)
        templates = TemplateCells(Parents.read(files, taken)).cells if files else None
        label = CalculatorLabels(
            hull=hull_of(read_labelled(first, progress=config.progress), val),
            templates=templates,
            seed=config.seed,
            calculator=config.calculator,
            references=references_of(load_calculator(config.calculator), config.energy_references),
        )

    def refit(folder: Path, known: Labels) -> None:
        fit(listed(config.train), listed(config.val), folder, None, config.progress, known, **reading, **settings)

    table = active_learning_loop(run, config.rounds, labels, refit, draw, label, taken, config.progress)
    tell("Predictions of each proxy and labels of its own sampler's crystals, eV/atom:")
    tell(table.to_string(index=False, float_format="%.3f"))
    tell(f"The last proxy and all labels are in {run.path}")


def _say(metrics: dict[str, Any], config: DictConfig) -> None:
    """What came out, in a few lines."""
    unit = metrics["unit"]
    tell(
        f"{metrics['property']}: MAE {metrics['val_mae']:.4f} {unit} on the {metrics['rows_val']} crystals of "
        f"{config.val}, median error {metrics['val_median_error']:.4f}, {metrics['val_within_std']:.0%} within the "
        f"predicted standard error; fitted on {metrics['rows_train']} crystals in {metrics['seconds']:.0f} s"
    )
    known = metrics.get("off_equilibrium", {}).get("all")
    if known:
        tell(
            f"off equilibrium, {known['crystals']} crystals of compositions held out: MAE {known['mae']:.3f} {unit}, "
            f"Spearman {known['spearman']:.2f}"
        )
    tell(f"The proxy is in {config.out}: crystalgfn.load_proxy({str(config.out)!r})")


def _check(config: DictConfig, folder: RunFolder) -> None:
    """Refuse what cannot be, before the work."""
    for name in ("train", "val"):
        if config[name] is None:
            raise OptionError(f"{name} has no default; give {name}=<file>.")
    if config.property not in COLUMNS:
        raise OptionError(f"There is no data for the property {config.property!r}; there are {', '.join(COLUMNS)}.")
    if config.property != "formation_energy" and (config.active or config.labels):
        raise OptionError(f"labels and active are for formation_energy; leave them away for {config.property}.")
    theirs = folder.ended or not (folder.path / CONFIG).exists()
    if theirs and (folder.path / METRICS).exists() and not config.active:
        raise OptionError(f"{folder.path} already holds a proxy; choose another out=<folder>, or delete it.")


def _labels(config: DictConfig) -> Labels | None:
    """The labels of the file that is named; those that come with the package for a loop, which adds to them."""
    if config.labels is not None:
        return concat_labels([read_labels(one) for one in listed(config.labels)])
    return read_labels() if config.active else None


def _kept(out: Path) -> bool:
    """Whether a fit or a loop can go on from what is there."""
    return any((out / name).exists() for name in (CHECKPOINT, METRICS)) or any(out.glob("round_*/*"))
