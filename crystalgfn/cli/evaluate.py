"""What ``crystalgfn evaluate`` does: read, judge, compare, relax where asked for; table and figures into a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from crystalgfn.calculators.energy_references import references_of
from crystalgfn.calculators.registry import load_calculator
from crystalgfn.cli.console import note, tell
from crystalgfn.cli.options.compose import OptionError
from crystalgfn.cli.options.objects import listed, plain_config
from crystalgfn.crystallography.atoms import SkippedRecord
from crystalgfn.data.reader import crystals
from crystalgfn.errors import DataError, NotAvailable
from crystalgfn.evaluation.metrics.base import Selection
from crystalgfn.evaluation.metrics.novelty import Tolerances
from crystalgfn.evaluation.plan import EvaluationPlan
from crystalgfn.evaluation.reference import Reference
from crystalgfn.evaluation.relaxation_job import RelaxationJob, relax_job
from crystalgfn.evaluation.report import page
from crystalgfn.evaluation.run import EvaluationRun
from crystalgfn.evaluation.summary import Evaluation
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.utils import provenance
from crystalgfn.utils.files import write_aside
from crystalgfn.utils.run_folder import RunFolder

TABLE, SUMMARY = "structures.parquet", "summary"
LISTED = 50
"""Crystals that could not be read are named on stderr, so many at most; ``summary.json`` names them all."""


def run(
    config: DictConfig, command: str, folder: RunFolder, job: Callable[[RelaxationJob], dict[str, Any]] = relax_job
) -> dict[str, Any]:
    """Evaluate a set of crystals; the folder of an evaluation that was interrupted goes on.

    Raises:
        OptionError: values that cannot be, or no samples named.
        DataError: a source that cannot be read, or nothing in it that can be judged.
        NotAvailable: relaxing without the calculator's package, or extended XYZ without ase.
    """
    plan, out = _plan(config), folder.path
    if config.relax and job is relax_job:
        references_of(load_calculator(plan.calculator), plan.energy_references)  # better found out before the work
    samples = list(crystals(listed(config.samples)))
    reference = None if config.reference is None else Reference.read(plain_config(config.reference))
    if reference is not None:
        _say_errors("left out of the reference", reference.errors)
    hull = reference.hull(plan.energy, plan.scale) if config.relax and reference is not None else None
    names = {"samples": str(config.samples), "reference": reference and reference.name}
    work = EvaluationRun(folder, samples, reference, plan, names, config.n_jobs, config.progress)
    if work.done:
        tell(f"{out} holds {work.done} of {len(work.items)} crystals described: going on.")
    try:
        return _report(work, hull, config, command, job)
    except KeyboardInterrupt:
        note(f"\nWhat is done is kept; go on with the same command and out={out}")
        raise


def _plan(config: DictConfig) -> EvaluationPlan:
    if config.samples is None:
        raise OptionError("samples is missing; give samples=<run, folder of CIFs, .parquet, .csv or .extxyz file>.")
    if config.relax and config.reference is None:
        raise OptionError("relax=true needs a reference with formation energies for the hull: reference=<file>.")
    own = {
        "symprecs": tuple(float(value) for value in config.symprecs),
        "tolerances": Tolerances(config.ltol, config.stol, config.angle_tol),
        "n": config.limit,
    }
    return EvaluationPlan(
        **{one.name: config[one.name] for one in fields(EvaluationPlan) if one.name not in own}, **own
    )


def _report(
    work: EvaluationRun,
    hull: ExactHull | None,
    config: DictConfig,
    command: str,
    job: Callable[[RelaxationJob], dict[str, Any]],
) -> dict[str, Any]:
    work.describe()
    if not work.indices:
        first = work.errors[0]
        work.discard()
        raise DataError(
            f"none of the {len(work.errors)} crystals of {config.samples} can be judged; the first: {first}"
        )
    best = None if config.best is None else Selection(config.best, config.best_n, config.largest_first)
    found = work.evaluation(hull, best, config.dask, job)
    files = _write(found, config, command, work.out)
    _say_errors("not judged", work.errors, f", in {work.out / SUMMARY}.json")
    return {
        "counts": {"given": len(work.chosen), "judged": len(work.indices), "skipped": len(work.errors)},
        "files": files,
    }


def _write(found: Evaluation, config: DictConfig, command: str, out: Path) -> list[str]:
    machine = provenance.machine()
    report = f"{provenance.heading(machine, command)}\n\n{found.text()}"
    tell(report)
    write_aside(out / TABLE, lambda path: found.samples.frame.to_parquet(path, index=False))
    settings: dict[str, Any] = plain_config(config)
    said = {"command": command, "machine": machine, "settings": settings, **found.to_dict()}
    said["report"] = _html(found, said, out)
    # The figures come last: where they are, all is there.
    provenance.write_report(out, SUMMARY, report, said)
    tell(f"\nEvery crystal: {out / TABLE}; the figures: {out / SUMMARY}.json")
    if said["report"] == page.REPORT:
        tell(f"To read: {out / page.REPORT}")
    return [TABLE, f"{SUMMARY}.json", f"{SUMMARY}.md", *[page.REPORT] * (said["report"] == page.REPORT)]


def _html(found: Evaluation, said: dict[str, Any], out: Path) -> str:
    """The name of the page that was written, or why there is none."""
    if not said["settings"]["report"]:
        return "not asked for (report=false)"
    try:
        page.write_page(out / page.REPORT, found, said)
    except NotAvailable as error:
        note(error)
        return str(error)
    return page.REPORT


def _say_errors(words: str, errors: Sequence[SkippedRecord], where: str = "") -> None:
    for error in errors[:LISTED]:
        note(f"{words}: {error}")
    if len(errors) > LISTED:
        note(f"and {len(errors) - LISTED} more{where}")
