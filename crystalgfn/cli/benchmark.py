"""What ``crystalgfn benchmark`` does: build what is measured from the configuration, print tables, write figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from crystalgfn.benchmarks import exactness, mode_coverage, throughput
from crystalgfn.benchmarks.csp import report as csp_page
from crystalgfn.benchmarks.log_z import compare_log_z
from crystalgfn.cli.console import note, tell
from crystalgfn.cli.options.compose import OptionError
from crystalgfn.cli.options.objects import (
    build_part,
    listed,
    plain_config,
    read_crystals,
    space_arguments,
    strata_of,
)
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.sampling.sampler_files import full_name
from crystalgfn.space.space import CrystalSpace
from crystalgfn.utils import provenance
from crystalgfn.utils.distributed import usable_device
from crystalgfn.utils.run_folder import RunFolder

CALCULATED = ("+energies", "+relaxed")
"""Ends of the names of methods of csp that need a calculator; they are asked for by name only."""


def run(config: DictConfig, command: str, folder: RunFolder | None) -> dict[str, Any]:
    """Measure, print, and write ``<task>.json`` and ``<task>.md`` where a folder is given.

    Raises:
        OptionError: values that cannot be, or figures that are there already.
    """
    tasks = {"throughput": _throughput, "exactness": _exactness, "modes": _modes, "csp": _csp, "placement": _placement}
    tasks["discovery"] = _discovery
    task, out = config.task, None if folder is None else folder.path
    if folder is not None and folder.ended and (folder.path / f"{task}.json").exists():
        raise OptionError(f"{out} already holds {task}.json; choose another out=<folder>, or delete it.")
    tables, figures = tasks[task](config)
    if config.sampler is not None:
        figures["sampler"] = full_name(config.sampler)
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
        space = CrystalSpace(**space_arguments(config.space))
        reward, policy = build_part(config.reward, "reward"), build_part(config.policy, "policy")
        sampler = throughput.untrained(space, reward, policy, strata_of(config), config.seed)
        tell("Measured with an untrained policy, which visits other states than a trained one (sampler=<folder>).")
    real = read_crystals(config.real)
    if real is None and trainer.real_fraction > 0:
        raise OptionError(f"trainer.real_fraction={trainer.real_fraction} needs real crystals: real=<file>.")
    keep = config.sampler is not None
    found = throughput.measure_throughput(
        sampler, objective, trainer, plan, real, keep_policy=keep, progress=config.progress
    )
    measured = {"space": sampler.space.to_dict(), "policy": asdict(sampler.network.config), "omega": sampler.omega}
    figures = {"measured": measured, "measurements": [asdict(one) for one in found]}
    return throughput.throughput_tables(found), figures


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
        raise OptionError("task=modes measures which modes a trained sampler misses: give sampler=<name or folder>.")
    device = usable_device(_one_device(config))
    sampler = Sampler.load(config.sampler, device=device, trust=config.trust)
    real = read_crystals(config.real)
    found = compare_log_z(sampler, seed=config.seed, n=config.chains, n_q=config.samples)
    result = mode_coverage.check_coverage(sampler, found, real, config.seed)
    return str(result), mode_coverage.coverage_figures(result)


def _csp(config: DictConfig) -> tuple[str, dict[str, Any]]:
    """Match rates of each method; what a folder holds already is not done again."""
    from crystalgfn.benchmarks.csp import run as csp
    from crystalgfn.benchmarks.csp.outside import Outside
    from crystalgfn.benchmarks.csp.scores import csp_figures
    from crystalgfn.benchmarks.csp.tasks import targets

    chosen = config.csp
    if chosen.data is None:
        raise OptionError(
            "task=csp looks for real crystals: give csp.data=<file with atoms, or a folder of CIF files>."
        )
    _refuse_unknown("csp.tasks", "task", chosen.tasks, csp.TASKS)
    folders = _outside(config, known=csp.TASKS)
    if folders and len(listed(chosen.data)) > 1:
        raise OptionError("csp.outside names structures by the row of csp.data; give one file of it, not a list.")
    # The calculator and the refiner are found to be there before the work.
    methods, calculator = _csp_methods(config, list(folders))
    asked = targets(plain_config(chosen.data), chosen.n, config.seed)
    rows = [one.where for one in asked.crystals]
    methods |= {name: Outside.of(folder, rows, tasks) for name, (folder, tasks) in folders.items()}
    kept = None if config.out is None else Path(config.out) / "csp.jsonl"
    predictions = csp.run_csp(
        asked.crystals, methods, list(chosen.tasks), chosen.k, config.seed, kept, chosen.n_jobs, config.progress
    )
    skipped = [str(one) for one in asked.skipped]
    about = {"data": str(chosen.data), "crystals": len(rows), "skipped": skipped, "calculator": calculator}
    figures = {**about, **csp_figures(predictions)}
    for lines, words in ((skipped, "crystals can be no targets"), (figures["faults"], "predictions are missing")):
        if lines:
            note(f"{len(lines)} {words}; the first: {lines[0]}")
    return csp_page.csp_tables(figures), figures


def _csp_methods(config: DictConfig, others: list[str]) -> tuple[dict[str, Any], str | None]:
    """The methods that are asked for, besides those of ``others``, and the name of the calculator that some need."""
    from crystalgfn.calculators.registry import load_calculator
    from crystalgfn.data.structure_index import Prototypes
    from crystalgfn.structures.config import BuildConfig
    from crystalgfn.structures.refiner.refiner import DiffusionRefiner
    from crystalgfn.structures.sources.templates import Templates

    chosen, device = config.csp, usable_device(_one_device(config))
    calculator: Any = None
    templates, refined = None, None
    known = list(_makers(None, None, None))
    names = _method_names(config, known)
    _check_others(names, others, known)
    if any(name.endswith(CALCULATED) for name in names):
        calculator = load_calculator(config.calculator)
    if any("refiner" in name for name in names):
        refined = BuildConfig(refiner=DiffusionRefiner.load(chosen.refiner, device), steps=chosen.steps)
    if chosen.templates is not None:
        templates = Templates(Prototypes.read(chosen.templates, chosen.cache, config.progress))
    shown = {name: f"{name} ({calculator.name})" if name.endswith(CALCULATED) else name for name in names}
    makers = _makers(refined, templates, calculator)
    return {shown[name]: makers[name]() for name in names}, calculator and calculator.name


def _makers(refined: Any, templates: Any, calculator: Any) -> dict[str, Callable[[], Any]]:
    """What makes each method, of what those that are asked for need (None where none does)."""
    from crystalgfn.benchmarks.csp import methods as csp_methods
    from crystalgfn.benchmarks.csp.outside import Pyxtal

    return {
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


def _method_names(config: DictConfig, known: list[str]) -> list[str]:
    """The names of the methods that are asked for; if none are, those that need no calculator nor what is not there."""
    chosen = config.csp
    if chosen.methods is None:
        free = [name for name in known if not name.endswith(CALCULATED)]
        return [name for name in free if chosen.templates is not None or "templates" not in name]
    _refuse_unknown("csp.methods", "method", chosen.methods, known)
    if chosen.templates is None and any("templates" in name for name in chosen.methods):
        raise OptionError("csp.methods with templates need csp.templates=<real crystals that are not looked for>.")
    return list(chosen.methods)


def _check_others(names: list[str], others: list[str], known: list[str]) -> None:
    if taken := [name for name in others if name in known]:
        raise OptionError(f"csp.outside: {taken[0]} is a method of its own; give the folder another name.")
    if not names and not others:
        raise OptionError("csp.methods=[] leaves nothing to compare: name some, or give csp.outside={name: folder}.")


def _refuse_unknown(option: str, what: str, given: Sequence[str], known: Sequence[str]) -> None:
    if unknown := [one for one in given if one not in known]:
        raise OptionError(f"{option}: there is no {what} {unknown[0]!r}; there are {', '.join(known)}.")


def _outside(config: DictConfig, known: Sequence[str]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Folder and tasks of each method of `csp.outside`."""
    given = plain_config(config.csp.outside) or {}
    found = {}
    for name, value in given.items():
        options = value if isinstance(value, dict) else {"folder": value}
        if set(options) - {"folder", "task"} or not isinstance(options.get("folder"), str):
            raise OptionError(f"csp.outside: {name} has {value}; give a folder, or {{folder: ..., task: T4}}.")
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
    outcomes = {name: [asdict(one) for one in own] for name, own in ways.items()}
    return placement.placement_table(ways, calculator.name), {"calculator": calculator.name, "outcomes": outcomes}


def _discovery(config: DictConfig) -> tuple[str, dict[str, Any]]:
    """Held-back stable phases, looked for by several methods; what a folder holds already is not done again."""
    from crystalgfn.benchmarks.discovery import run as discovery
    from crystalgfn.benchmarks.discovery.methods import DiscoverySettings
    from crystalgfn.benchmarks.discovery.systems import choose_systems
    from crystalgfn.calculators.registry import load_calculator
    from crystalgfn.discovery.phases import read_phases
    from crystalgfn.discovery.proposer import ProposerConfig

    for name in ("sampler", "known", "targets", "out"):
        if config[name] is None:
            raise OptionError(f"task=discovery needs {name}=: a sampler, known phases, phases to find, and a folder.")
    calculator = load_calculator(config.calculator)  # refuses before the work
    sampler = Sampler.load(config.sampler, trust=config.trust)
    known, held = (
        read_phases(plain_config(config[name]), "formation_energy_per_atom")[1] for name in ("known", "targets")
    )
    allowed = [z for z in sampler.space.element_numbers if calculator.knows([z])]
    systems = choose_systems(held, known, allowed, config.systems, config.phases, config.seed)
    settings = DiscoverySettings(
        budget=config.budget, calculator=calculator, energy_references=config.energy_references, sampler=sampler,
        templates=[one for one in known if one.entry is not None], seed=config.seed,
        more={"proposer": ProposerConfig(build={"templates": plain_config(config.templates)})},
    )  # fmt: skip
    records = discovery.run_discovery(systems, settings, config.discovered_by, Path(config.out), config.progress)
    figures = {"calculator": calculator.name, **discovery.discovery_figures(records)}
    return discovery.discovery_tables(figures), figures
