"""What ``crystalgfn check`` does: draw, check, print; table, figures and picture into a folder that survives a kill."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from crystalgfn.calculators.energy_references import references_of
from crystalgfn.calculators.registry import load_calculator
from crystalgfn.cli.console import note, tell
from crystalgfn.cli.options.compose import OptionError
from crystalgfn.cli.options.objects import listed, plain_config, sampler_space, space_arguments
from crystalgfn.data.standard_cells import Parents
from crystalgfn.evaluation.proxy_check import report as check_report
from crystalgfn.evaluation.proxy_check.check import (
    ProxyCheck,
    ProxyCheckPlan,
    ReferenceMaker,
    formation_energy,
    reference_energies,
)
from crystalgfn.fitting.template_cells import TemplateCells
from crystalgfn.properties.scaled_hull import ScaledHull
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.sampling.sampler_files import full_name
from crystalgfn.sampling.sharded import run_fingerprint
from crystalgfn.utils import provenance
from crystalgfn.utils.files import write_aside
from crystalgfn.utils.run_folder import RunFolder

FIGURES = "check"


def run(
    config: DictConfig, command: str, folder: RunFolder, check: ReferenceMaker = reference_energies
) -> dict[str, Any]:
    """Check the predictions of a sampler's proxy; the folder of a check that was interrupted goes on.

    Raises:
        OptionError: values that cannot be, or figures that are there already.
        NotAvailable: the calculator's package is not installed.
        RewardError: the sampler's reward holds no formation energy.
    """
    out = folder.path
    if folder.ended and (out / f"{FIGURES}.json").exists():
        raise OptionError(f"{out} already holds {FIGURES}.json; choose another out=<folder>, or delete it.")
    plan = ProxyCheckPlan(**{one.name: config[one.name] for one in fields(ProxyCheckPlan)})
    if check is reference_energies:
        references_of(load_calculator(plan.calculator), plan.energy_references)  # better found out before the work
    sampler = Sampler.load(config.sampler, trust=config.trust)
    formation_energy(sampler.reward)
    space = sampler_space(sampler, config)
    sampler.level(config.beta)
    hull = None if config.hull is None else ScaledHull.from_entries(listed(config.hull), skip=True, scale=config.scale)
    templates = None if config.templates is None else TemplateCells(Parents.read(listed(config.templates))).cells
    of = {"sampler": str(config.sampler), "space": space_arguments(config.get("space"))}
    of["templates"] = plain_config(config.templates)
    job = ProxyCheck(folder, sampler, plan, space, config.beta, of)
    if job.done:
        tell(f"{out} holds {job.done} of {plan.n} crystals checked: {'going on' if job.todo else 'all'}.")
    try:
        job.work(templates, n_jobs=config.n_jobs, progress=config.progress, check=check)
    except KeyboardInterrupt:
        note(f"\n{job.done} of {plan.n} crystals are checked and kept; go on with the same command and out={out}")
        raise
    frame = job.table(hull)
    _report(frame, config, command, out)
    return {
        "sampler": {"name": full_name(config.sampler), "hash": run_fingerprint(sampler)},
        "counts": {"crystals": len(frame)},
        "files": [f"{FIGURES}.{kind}" for kind in ("json", "md", "parquet", "csv", *["png"] * config.picture)],
    }


def _report(frame: pd.DataFrame, config: DictConfig, command: str, out: Path) -> None:
    figures = check_report.summary(frame)
    machine = provenance.machine()
    report = f"{provenance.heading(machine, command)}\n\n{check_report.prediction_tables(figures)}"
    tell(report)
    write_aside(out / f"{FIGURES}.parquet", lambda path: frame.to_parquet(path, index=False))
    write_aside(out / f"{FIGURES}.csv", lambda path: frame.to_csv(path, index=False, float_format="%.6g"))
    if config.picture:
        title = f"predicted and reference energies of {len(frame)} crystals of {config.sampler}"
        check_report.prediction_picture(frame, out / f"{FIGURES}.png", title)
    settings: dict[str, Any] = plain_config(config)
    # The figures come last: where they are, all is there.
    provenance.write_report(
        out, FIGURES, report, {"command": command, "machine": machine, "settings": settings, **figures}
    )
    tell(f"\nEvery crystal: {out / FIGURES}.csv; the figures: {out / FIGURES}.json")
