"""What ``crystalgfn benchmark`` does: build what is measured from the configuration, print tables, write figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from crystalgfn.benchmarks import exactness, mode_coverage, throughput
from crystalgfn.benchmarks.csp import report as csp_page
from crystalgfn.cli.console import note, tell
from crystalgfn.cli.options.compose import OptionError
from crystalgfn.cli.options.objects import build_part, listed, plain_config, space_arguments, usable_device
from crystalgfn.cli.train import read_crystals
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.space.space import CrystalSpace
from crystalgfn.utils import provenance
from crystalgfn.utils.run_folder import RunFolder

CALCULATED = ("+energies", "+relaxed")
"""Ends of the names of methods of csp that need a calculator; they are asked for by name only."""


def run(config: DictConfig, command: str, folder: RunFolder | None) -> dict[str, Any]:
    """Measure, print, and write ``<task>.json`` and ``<task>.md`` where a folder is given.

    Args:
        config: the options of ``benchmark``.
        command: as it was typed.
        folder: of the run, or None.

    Returns:
        What goes into ``run.json``.

    Raises:
        OptionError: values that cannot be, or figures that are there already.
    """
    tasks = {"throughput": _throughput, "exactness": _exactness, "modes": _modes, "csp": _csp, "placement": _placement}
    task, out = config.task, None if folder is None else folder.path
    if out is not None and (out / f"{task}.json").exists():
        raise OptionError(f"{out} already holds {task}.json; choose another out=<folder>, or delete it.")
    tables, figures = tasks[task](config)
    machine = provenance.machine()
    report = f"{provenance.heading(machine, command)}\n\n{tables}"
    tell(report)
    if out is None:
        return {"figures": figures}
    figures = {"task": task, "command": command, "machine": machine, "settings": plain_config(config), **figures}
    if task == "csp":
        csp_page.write_csp_page(out / "csp.html", figures)
    provenance.write_report(out, task, report, figures)
    tell(f"\nThe figures are in {out / task}.json, the tables in {out / task}.md")
    return {"files": [f"{task}.json", f"{task}.md", *["csp.html", "csp.jsonl"] * (task == "csp")]}


def _throughput(config: DictConfig) -> tuple[str, dict[str, Any]]:
    devices = listed(config.devices) or ("cpu", "cuda")[: 1 + torch.cuda.is_available()]
    plan = throughput.ThroughputPlan(
        batch_sizes=tuple(config.batch_sizes),
        threads=tuple(config.threads),
        devices=tuple(usable_device(str(name)) for name in devices),
        seconds=config.seconds,
        competing_load=config.competing_load,
    )
    objective, trainer = build_part(config.objective, "objective"), build_part(config.trainer, "trainer")
    if config.sampler is not None:
        sampler = Sampler.load(config.sampler, trust=config.trust)
        tell(f"Measured in the space, with the network and the reward of {config.sampler}.")
    else:
        strata = plain_config(config.strata)
        strata = tuple(strata) if isinstance(strata, list) else strata
        space = CrystalSpace(**space_arguments(config.space))
        reward, policy = build_part(config.reward, "reward"), build_part(config.policy, "policy")
        sampler = throughput.untrained(space, reward, policy, strata, config.seed)
        tell("Measured with an untrained policy, which visits other states than a trained one (sampler=<folder>).")
    real = read_crystals(config.real)
    if real is None and trainer.real_fraction > 0:
        raise OptionError(f"trainer.real_fraction={trainer.real_fraction} needs real crystals: real=<file>.")
    keep = config.sampler is not None
    found = throughput.measure_throughput(
        sampler, objective, trainer, plan, real, keep_policy=keep, progress=config.progress
    )
    measured = {"space": sampler.space.to_dict(), "policy": asdict(sampler.network.config), "omega": sampler.omega}
    return throughput.throughput_tables(found), {
        "measured": measured,
        "measurements": throughput.throughput_figures(found),
    }


def _exactness(config: DictConfig) -> tuple[str, dict[str, Any]]:
    objective, policy, trainer = (build_part(config[name], name) for name in ("objective", "policy", "trainer"))
    small = exactness.small_space(config.train_seconds, config.samples, config.seed, policy, objective, trainer)
    grids, masses = exactness.hypergrids(config.grid_steps, trainer), exactness.densities()
    figures = {
        "small_space": asdict(small),
        "hypergrids": [asdict(one) for one in grids],
        "densities": [asdict(one) for one in masses],
    }
    return exactness.exactness_tables(small, grids, masses), figures


def _one_device(config: DictConfig) -> str:
    """The device of a task that takes one."""
    devices = listed(config.devices) or ["cpu"]
    if len(devices) != 1:
        raise OptionError(f"devices={devices}: task={config.task} takes one device.")
    return str(devices[0])


def _modes(config: DictConfig) -> tuple[str, dict[str, Any]]:
    if config.sampler is None:
        raise OptionError(
            "task=modes looks for modes that a trained sampler has dropped: give sampler=<name or folder>."
        )
    device = usable_device(_one_device(config))
    sampler = Sampler.load(config.sampler, device=device, trust=config.trust)
    real = read_crystals(config.real)
    result = mode_coverage.check_coverage(sampler, real, seed=config.seed, n=config.chains, n_q=config.samples)
    return str(result), mode_coverage.coverage_figures(result)


def _csp(config: DictConfig) -> tuple[str, dict[str, Any]]:
    """Match rates of each method; what a folder holds already is not done again."""
    from crystalgfn.benchmarks.csp import methods as csp_methods
    from crystalgfn.benchmarks.csp import report as csp_report
    from crystalgfn.benchmarks.csp import run as csp
    from crystalgfn.benchmarks.csp.outside import Outside, Pyxtal
    from crystalgfn.benchmarks.csp.tasks import targets
    from crystalgfn.calculators.registry import load_calculator
    from crystalgfn.data.structure_index import Prototypes
    from crystalgfn.structures.config import BuildConfig
    from crystalgfn.structures.refiner.refiner import DiffusionRefiner
    from crystalgfn.structures.sources.templates import Templates

    chosen = config.csp
    makers = {
        "random": lambda: csp_methods.Built(),
        "random+refiner": lambda: csp_methods.Refined(replace(refined, assignment="random")),
        "refiner": lambda: csp_methods.Refined(refined),
        "templates": lambda: csp_methods.FromTemplates(templates),
        "templates+refiner": lambda: csp_methods.Refined(replace(refined, templates=templates)),
        "pyxtal": lambda: Pyxtal(),
        "templates+refiner+energies": lambda: csp_methods.Refined(
            replace(refined, templates=templates, energies=True, calculator=calculator)
        ),
        "random+relaxed": lambda: csp_methods.RelaxedAtRandom(calculator=calculator),
        "pyxtal+relaxed": lambda: csp_methods.RelaxedAtRandom(Pyxtal(), calculator),
    }
    names, folders = _csp_methods(config, list(makers), csp.TASKS)
    device = usable_device(_one_device(config))
    # That it is there, before the others are at work.
    calculated = {name for name in names if name.endswith(CALCULATED)}
    calculator: Any = load_calculator(config.calculator) if calculated else None
    refiner = DiffusionRefiner.load(chosen.refiner, device) if any("refiner" in name for name in names) else None
    asked = targets(chosen.data, chosen.n, config.seed)
    rows = [one.where for one in asked.crystals]
    refined = None if refiner is None else BuildConfig(refiner=refiner, steps=chosen.steps)
    templates = None
    if chosen.templates is not None:
        templates = Templates(Prototypes.read(chosen.templates, chosen.cache, config.progress))
    kept = None if config.out is None else Path(config.out) / "csp.jsonl"
    methods = {f"{name} ({calculator.name})" if name in calculated else name: makers[name]() for name in names}
    methods |= {name: Outside.of(folder, rows, tasks) for name, (folder, tasks) in folders.items()}
    predictions = csp.run_csp(
        asked.crystals, methods, list(chosen.tasks), chosen.k, config.seed, kept, config.csp.n_jobs, config.progress
    )
    skipped = [str(one) for one in asked.skipped]
    figures = {
        "data": str(chosen.data),
        "crystals": len(rows),
        "skipped": skipped,
        "calculator": calculator and calculator.name,
        **csp_report.csp_figures(predictions),
    }
    for lines, words in ((skipped, "crystals can be no targets"), (figures["faults"], "predictions are missing")):
        if lines:
            note(f"{len(lines)} {words}; the first: {lines[0]}")
    return csp_report.csp_tables(figures), figures


def _csp_methods(
    config: DictConfig, known: Sequence[str], tasks: Sequence[str]
) -> tuple[list[str], dict[str, tuple[str, tuple[str, ...]]]]:
    """The names of the methods that are asked for, and the folders of other programs'."""
    chosen = config.csp
    if chosen.data is None:
        raise OptionError(
            "task=csp looks for real crystals: give csp.data=<file with atoms, or a folder of CIF files>."
        )
    names = (
        [name for name in known if not name.endswith(CALCULATED)] if chosen.methods is None else list(chosen.methods)
    )
    if chosen.methods is None and chosen.templates is None:
        names = [name for name in names if "templates" not in name]
    if unknown := [name for name in names if name not in known]:
        raise OptionError(f"csp.methods: there is no method {unknown[0]!r}; there are {', '.join(known)}.")
    if unknown := [task for task in chosen.tasks if task not in tasks]:
        raise OptionError(f"csp.tasks: there is no task {unknown[0]!r}; there are {', '.join(tasks)}.")
    if any("templates" in name for name in names) and chosen.templates is None:
        raise OptionError("csp.methods with templates need csp.templates=<real crystals that are not looked for>.")
    folders = _outside(config, taken=set(known), known=tasks)
    if not names and not folders:
        raise OptionError("csp.methods=[] leaves nothing to compare: name some, or give csp.outside={name: folder}.")
    return names, folders


def _outside(config: DictConfig, taken: set[str], known: Sequence[str]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Folder and tasks of each method of `csp.outside`."""
    given = plain_config(config.csp.outside) or {}
    found = {}
    for name, value in given.items():
        options = value if isinstance(value, dict) else {"folder": value}
        if set(options) - {"folder", "task"} or not isinstance(options.get("folder"), str):
            raise OptionError(f"csp.outside: {name} has {value}; give a folder, or {{folder: ..., task: T4}}.")
        if name in taken:
            raise OptionError(f"csp.outside: {name} is a method of its own; give the folder another name.")
        tasks = options.get("task") or list(known)
        tasks = (tasks,) if isinstance(tasks, str) else tuple(tasks)
        if unknown := [task for task in tasks if task not in known]:
            raise OptionError(f"csp.outside: {name} has the task {unknown[0]}; there are {', '.join(known)}.")
        found[str(name)] = options["folder"], tasks
    return found


def _placement(config: DictConfig) -> tuple[str, dict[str, Any]]:
    """Crystals of a sampler, placed in several ways, relaxed with a calculator."""
    from crystalgfn.benchmarks import placement
    from crystalgfn.calculators.registry import load_calculator
    from crystalgfn.structures.refiner.refiner import DiffusionRefiner

    if config.sampler is None:
        raise OptionError("task=placement places crystals of a sampler: give sampler=<name or folder>.")
    device = usable_device(_one_device(config))
    calculator = load_calculator(config.calculator)  # refuses before the work
    crystals = Sampler.load(config.sampler, trust=config.trust).sample(config.placed, seed=config.seed)
    refiner = DiffusionRefiner.load(config.csp.refiner, device)
    ways = {}
    for way in config.placed_by:
        placed = placement.place(way, crystals, refiner, config.seed, config.progress)
        ways[placement.WAYS[way]] = placement.measure_placement(crystals, placed, calculator, progress=config.progress)
    outcomes = placement.placement_figures(ways)
    return placement.placement_table(ways, calculator.name), {"calculator": calculator.name, "outcomes": outcomes}
