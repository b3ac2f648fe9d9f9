"""What ``crystalgfn discover`` does: a campaign in a folder, its ranked list, and a report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from crystalgfn.calculators.energy_references import references_of
from crystalgfn.calculators.registry import load_calculator
from crystalgfn.cli.console import note, tell
from crystalgfn.cli.options.compose import OptionError
from crystalgfn.cli.options.objects import plain_config, space_arguments
from crystalgfn.discovery.acquisition import AcquisitionConfig
from crystalgfn.discovery.discover import SUMMARY, discover
from crystalgfn.discovery.found import SECOND, Found
from crystalgfn.discovery.page import headlines
from crystalgfn.discovery.proposer import ProposerConfig
from crystalgfn.discovery.ranking import STABLE
from crystalgfn.discovery.screening import ScreenConfig
from crystalgfn.errors import NotAvailable
from crystalgfn.evaluation.report.page import REPORT
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.sampling.sampler_files import full_name
from crystalgfn.utils.run_folder import RunFolder

TOLD = 10
"""Ranks that are printed."""


def run(config: DictConfig, command: str, folder: RunFolder) -> dict[str, Any]:
    """Look for crystals; the folder of a discovery that was interrupted goes on.

    Args:
        config: the options of ``discover``.
        command: as it was typed.
        folder: of the run.

    Returns:
        What goes into ``run.json``.

    Raises:
        OptionError: no reference.
        CrystalGFNError: as `crystalgfn.discovery.discover.discover`.
    """
    if config.reference is None:
        raise OptionError("discover needs known phases with formation energies: reference=<file>.")
    if config.second is not None:
        references_of(load_calculator(config.second))  # better found out before the work
    build = {name: plain_config(config[name]) for name in ("refiner", "templates", "n_candidates", "n_jobs")}
    names = ("budget", "calculator", "batch", "shortlist", "correction", "energy_references", "seconds", "steps")
    names += ("max_force", "seed", "n_jobs", "progress", "scale", "check_hull", "plausibility")
    try:
        found = discover(
            space_arguments(config.get("space")) or None,
            reference=plain_config(config.reference),
            out=folder,
            sampler=Sampler.load(config.sampler, trust=config.trust),
            acquisition=AcquisitionConfig(kappa=config.kappa),
            proposer=ProposerConfig(
                build=build,
                **{name: config[name] for name in ("draws", "pool", "beta", "adapt", "substituted")},
            ),
            screening=None if config.screen_steps is None else ScreenConfig(steps=config.screen_steps),
            energy_column=config.energy,
            goals=plain_config(config.goals) or {},
            command=command,
            sampler_name=full_name(config.sampler),
            **{name: config[name] for name in names},
        )
    except KeyboardInterrupt:
        note(f"\nWhat is relaxed is kept; go on with the same command and out={folder.path}")
        raise
    files = [*found.summary["files"], SUMMARY, *_report(found, config.report)]
    _tell(found)
    if config.second is not None:
        files.append(_second(found, config))
    sampler = {"name": found.about["sampler"], "hash": found.about["sampler_hash"]}
    return {
        "sampler": sampler,
        "counts": {name: found.summary[name] for name in ("relaxed", "failed", "known", "new")},
        "files": files,
    }


def _report(found: Found, wanted: bool) -> list[str]:
    """The page, where it was asked for and can be written."""
    if not wanted:
        return []
    try:
        found.report()
    except NotAvailable as error:
        note(error)
        return []
    return [REPORT]


def _second(found: Found, config: DictConfig) -> str:
    """Tell what another calculator says of the first ranks; the name of the file."""
    frame = found.second_opinion(config.second, config.second_n, config.steps)
    higher = frame.loc[:, ["e_above_hull", "second_e_above_hull"]].to_numpy(dtype=float).max(axis=1)
    both = np.count_nonzero(higher <= STABLE)
    tell(f"\nAt most {STABLE:g} eV/atom above the hull by both calculators: {both} of {len(frame)}")
    if len(frame):
        tell(frame.drop(columns="second_error").to_string(index=False, float_format="%.3f"))
    return SECOND


def _tell(found: Found) -> None:
    for one in headlines(found.summary):
        tell(f"{one.name}: {one.figure} ({one.detail})")
    rows = found.ranked.head(TOLD)
    if len(rows):
        names = ["rank", "formula", "space_group", "e_above_hull", "known_as", "decomposition"]
        with pd.option_context("display.width", 160, "display.max_colwidth", 60):
            tell(f"\n{rows[names].to_string(index=False, float_format='%.3f')}")
    if found.summary["doubts"]:
        note(f"\nwarning: {found.summary['doubts']}")
    if found.summary["stopped_by"] != "budget":
        tell(f"\nStopped by: {found.summary['stopped_by']}.")
    tell(f"\nAll of them: {found.out / 'table.csv'}; the figures: {found.out / SUMMARY}")
    if (found.out / REPORT).exists():
        tell(f"To read: {found.out / REPORT}")
