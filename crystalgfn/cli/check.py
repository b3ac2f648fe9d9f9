"""What ``crystalgfn-check`` does: draw, check, print; table, figures and picture into a folder that survives a kill."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from crystalgfn.calculators.chgnet import chgnet
from crystalgfn.cli import options
from crystalgfn.cli.options import OptionError
from crystalgfn.data.parents import Parents
from crystalgfn.errors import sentence
from crystalgfn.evaluation.proxy_check import report as claim_report
from crystalgfn.evaluation.proxy_check.check import Plan, check_crystals, formation_energy
from crystalgfn.evaluation.proxy_check.run import Check, ClaimRun
from crystalgfn.fitting.proposals import Templates
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.sampling import table
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.utils import provenance
from crystalgfn.utils.files import write_aside

FIGURES = "claim"


def run(config: DictConfig, command: str, check: Check = check_crystals) -> None:
    """Check the claims of a sampler; the folder of one that was interrupted goes on.

    Args:
        config: ``config/check.yaml`` under the user's options.
        command: as it was typed.
        check: what checks a chunk of crystals.

    Raises:
        OptionError: values that cannot be, or figures that are there already.
        NotAvailable: CHGNet is not installed.
        RewardError: the sampler's reward holds no formation energy.
    """
    out = Path(config.out)
    if (out / f"{FIGURES}.json").exists():
        raise OptionError(f"{out} already holds {FIGURES}.json; choose another out=<folder>, or delete it.")
    plan = _plan(config)
    if check is check_crystals:
        chgnet()
    sampler = Sampler.load(config.sampler, trust=config.trust)
    formation_energy(sampler.reward)
    constraints = options.space_arguments(config.get("space"))
    space = sampler.space.narrowed(**constraints) if constraints else None
    sampler.level(config.beta)
    hull = None if config.hull is None else ExactHull.from_entries(Path(config.hull), skip=True)
    templates = None if config.templates is None else Templates(Parents.read(config.templates)).cells
    table.make_folder(out)
    of = {"sampler": str(config.sampler), "space": constraints, "templates": config.templates}
    job = ClaimRun(out, sampler, plan, space, config.beta, of)
    _say_where(job)
    try:
        job.work(templates, n_jobs=config.n_jobs, progress=config.progress, check=check)
    except KeyboardInterrupt:
        print(
            f"\n{job.done} of {plan.n} crystals are checked and kept; go on with the same command and out={out}",
            file=sys.stderr,
        )
        raise
    _report(job.table(hull), config, command, out)


def _plan(config: DictConfig) -> Plan:
    names = ("n", "seed", "k", "n_candidates", "steps", "full_steps", "chunk")
    if config.n_jobs == 0:
        raise OptionError("n_jobs=0: give at least one process, or -1 for one a core.")
    try:
        return Plan(**{name: config[name] for name in names})
    except ValueError as error:
        raise OptionError(f"{sentence(error)}.") from error


def _say_where(job: ClaimRun) -> None:
    if job.done:
        more = "going on" if job.todo else "all"
        print(f"{job.out} holds {job.done} of {job.plan.n} crystals checked: {more}.")


def _report(frame: pd.DataFrame, config: DictConfig, command: str, out: Path) -> None:
    figures = claim_report.summary(frame)
    machine = provenance.machine()
    report = f"{provenance.heading(machine, command)}\n\n{claim_report.tables(figures)}"
    print(report)
    write_aside(out / f"{FIGURES}.parquet", lambda path: frame.to_parquet(path, index=False))
    write_aside(out / f"{FIGURES}.csv", lambda path: frame.to_csv(path, index=False, float_format="%.6g"))
    if config.picture:
        title = f"claim and check of {len(frame)} crystals drawn from {config.sampler}"
        claim_report.picture(frame, out / f"{FIGURES}.png", title)
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)
    # The figures come last: where they are, all is there.
    provenance.write(out, FIGURES, report, {"command": command, "machine": machine, "settings": settings, **figures})
    print(f"\nEvery crystal: {out / FIGURES}.csv; the figures: {out / FIGURES}.json")
