"""The commands ``crystalgfn-train``, ``-sample``, ...: build objects from the configuration and call them.

Every error that a user can act on ends in one sentence and exit code 2; Ctrl-C in 130.
"""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crystalgfn.cli import options
from crystalgfn.cli.options import OptionError, build, root
from crystalgfn.errors import CrystalGFNError, sentence, unusable
from crystalgfn.utils import distributed, run_folder
from crystalgfn.utils.files import remove_leftovers, write_aside
from crystalgfn.utils.interrupts import Terminations
from crystalgfn.utils.run_folder import begun

#: How many crystals of a run in shards are drawn in its picture, at most.
PICTURED = 10_000
#: Commands whose processes, where torchrun started several, are one group.
TOGETHER = ("train", "train_refiner")
#: Where coordinates come from (`crystalgfn.structures.build.BuildResult`), in words.
ORIGINS = {
    "refiner": "by the refiner",
    "template": "of templates",
    "random": "at random",
    "fixed": "fixed by symmetry",
}
#: Where the structure files of each format go.
FOLDERS = {"cif": "cifs", "poscar": "poscars", "extxyz": "extxyz"}


def train(arguments: Sequence[str] | None = None) -> int:
    """``crystalgfn-train``: the exit code."""
    return _run("train", _train, arguments)


def sample(arguments: Sequence[str] | None = None) -> int:
    """``crystalgfn-sample``: the exit code."""
    return _run("sample", _sample, arguments)


def benchmark(arguments: Sequence[str] | None = None) -> int:
    """``crystalgfn-benchmark``: the exit code."""
    command = shlex.join(["crystalgfn-benchmark", *(sys.argv[1:] if arguments is None else arguments)])

    def job(config: DictConfig) -> None:
        from crystalgfn.cli.benchmark import run

        run(config, command, _device)

    return _run("benchmark", job, arguments)


def check(arguments: Sequence[str] | None = None) -> int:
    """``crystalgfn-check``: the exit code."""
    command = shlex.join(["crystalgfn-check", *(sys.argv[1:] if arguments is None else arguments)])

    def job(config: DictConfig) -> None:
        from crystalgfn.cli.check import run

        run(config, command)

    return _run("check", job, arguments)


def evaluate(arguments: Sequence[str] | None = None) -> int:
    """``crystalgfn-evaluate``: the exit code."""
    command = shlex.join(["crystalgfn-evaluate", *(sys.argv[1:] if arguments is None else arguments)])

    def job(config: DictConfig) -> None:
        from crystalgfn.cli.evaluate import run

        run(config, command)

    return _run("evaluate", job, arguments)


def train_proxy(arguments: Sequence[str] | None = None) -> int:
    """``crystalgfn-train-proxy``: the exit code."""

    def job(config: DictConfig) -> None:
        from crystalgfn.cli.train_proxy import run

        run(config)

    return _run("train_proxy", job, arguments)


def train_refiner(arguments: Sequence[str] | None = None) -> int:
    """``crystalgfn-train-refiner``: the exit code."""

    def job(config: DictConfig) -> None:
        from crystalgfn.cli.train_refiner import run

        config.device = _device(distributed.own_device(config.device))
        run(config)

    return _run("train_refiner", job, arguments)


def _run(name: str, job: Callable[[DictConfig], None], arguments: Sequence[str] | None) -> int:
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # for the processes that place atoms
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a user's own modules, as with python -m
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module="crystalgfn")
        warnings.showwarning = lambda message, *_: _say(f"warning: {sentence(message)}")
        with Terminations(), distributed.Group() if name in TOGETHER else nullcontext():
            return _attempt(name, job, sys.argv[1:] if arguments is None else arguments)


def _attempt(name: str, job: Callable[[DictConfig], None], arguments: Sequence[str]) -> int:
    """Do the job; of several processes the first that fails says why."""

    def read() -> DictConfig | None:
        config = options.read(name, arguments)
        if config is not None and name in TOGETHER and distributed.launched():
            OmegaConf.resolve(config)  # the time of day is the first process's for all
        return config

    try:
        config = distributed.of_first(read) if name in TOGETHER else read()
        if config is not None:
            _check_numbers(config)
            job(config)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except (CrystalGFNError, InstantiationException) as error:
        cause = root(error) if isinstance(error, InstantiationException) else error
        return _fail(f"{sentence(cause)}.")
    except OmegaConfBaseException as error:
        return _fail(f"the configuration cannot be used: {options.first_line(error)}.")
    except OSError as error:
        return _fail(f"{unusable(error)}.")
    except RuntimeError as error:
        if not distributed.cut_off(error):
            raise
        return _fail("another process of this training ended without a word; go on by resume=true out=<folder>.")
    return 0


def _check_numbers(config: DictConfig) -> None:
    """Refuse what no command can use."""
    for name in ("n_jobs", "csp.n_jobs"):
        if OmegaConf.select(config, name) == 0:
            raise OptionError(f"{name}=0: give a number of processes, or -1 for as many as there are cores.")
    for name in ("seed", "diagnostics"):
        value = OmegaConf.select(config, name)
        if isinstance(value, int) and not 0 <= value < 2**63:
            raise OptionError(f"{name}={value}: give a whole number from 0 to 2^63 - 1.")


def _fail(words: str) -> int:
    if distributed.fails_first():
        print(f"error: {words}", file=sys.stderr)
    return 2


def _say(words: str) -> None:
    """To people; once for all processes."""
    if distributed.first():
        print(words, file=sys.stderr)


def _device(name: str) -> str:
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"device={name} cannot be used here: {sentence(error).split('. ')[0]}.") from error
    return name


def _train(config: DictConfig) -> None:
    """One of the processes does all that is written and said; the others only train."""
    import crystalgfn as cg
    from crystalgfn.data import labelled
    from crystalgfn.gfn.loggers import NoLogger
    from crystalgfn.gfn.training import CHECKPOINT
    from crystalgfn.sampling import plots

    device = _device(distributed.own_device(config.trainer.device))
    space = cg.CrystalSpace(**options.space_arguments(config.space))
    reward = build(config.reward, "reward")
    if not hasattr(reward, "config"):
        reward = cg.rewards.Configured(reward, OmegaConf.to_container(config.reward, resolve=True))
    objective, policy, trainer = (build(config[name], name) for name in ("objective", "policy", "trainer"))
    strata = options.strata(config)
    if trainer.real_fraction and config.real is None:
        raise OptionError(f"trainer.real_fraction={trainer.real_fraction} needs real crystals: give real=<file>.")
    real = None if config.real is None else labelled.read(config.real).crystals
    init = None if config.init is None else cg.Sampler.load(config.init, trust=config.trust)
    out = Path(config.out)
    resume = config.resume and not _never_trained(out)
    with begun(out, lambda: not _never_trained(out)):
        logger = _start_folder(config, out) if distributed.first() else NoLogger()
        try:
            sampler = cg.train(
                space,
                reward,
                objective=objective,
                policy=policy,
                trainer=replace(trainer, device=device),
                strata=strata,
                seed=config.seed,
                out=out,
                resume=resume,
                logger=logger,
                real=real,
                init=init,
            )
        except KeyboardInterrupt:
            if (out / CHECKPOINT).exists():
                _say(f"\nThe checkpoint is kept; go on with: crystalgfn-train resume=true out={out}")
            raise
        finally:
            logger.close()
    if not distributed.first():
        return
    print(f"The sampler is in {out / 'sampler'}")
    if config.diagnostics:
        print(sampler.diagnostics(config.diagnostics, seed=config.seed))
    metrics = out / "metrics.csv"
    if metrics.exists():
        plots.curves(metrics, out / "curves.png")
        print(f"How training went: {out / 'curves.png'}")
    print(f"Draw crystals from it: crystalgfn-sample sampler={out / 'sampler'} n=100")


def _never_trained(out: Path) -> bool:
    """Whether a run was killed before its first checkpoint, which comes before its first step."""
    from crystalgfn.gfn.training import CHECKPOINT

    return not any((out / name).exists() for name in (CHECKPOINT, "metrics.csv", "sampler"))


def _start_folder(config: DictConfig, out: Path) -> Any:
    """The folder of a run with its configuration, and the logger."""
    from crystalgfn.sampling import table

    if not config.resume and (out / run_folder.CONFIG).exists():
        raise OptionError(
            f"{out} already holds a run; go on with it by resume=true out={out}, or choose another out=<folder>."
        )
    table.make_folder(out)
    for folder in (out, out / "sampler"):
        remove_leftovers(folder)  # of a run that was killed
    logger = build(config.logger, "logger")
    if not config.resume:
        write_aside(out / run_folder.CONFIG, lambda path: OmegaConf.save(config, path, resolve=True))
    return logger


def _sample(config: DictConfig) -> None:
    import crystalgfn as cg
    from crystalgfn.sampling import table

    if config.n < 1:
        raise OptionError(f"n must be at least 1, not {config.n}.")
    out = Path(config.out)
    if (out / "table.parquet").exists():
        raise OptionError(f"{out} already holds crystals; choose another out=<folder>, or delete them.")
    _check_shards(config, out)
    sampler = cg.Sampler.load(config.sampler, device=_device(config.device), trust=config.trust)
    constraints = options.space_arguments(config.get("space"))
    space = sampler.space.narrowed(**constraints) if constraints else None
    sampler.level(config.beta)
    table.make_folder(out)
    if config.shard_size is not None:
        _write_shards(sampler, space, config, out)
        return
    crystals = sampler.sample(config.n, space=space, beta=config.beta, resample=config.resample, seed=config.seed)
    if config.diagnostics and sampler.reward is not None:
        _diagnose(sampler, space, config)
    placed = _place(crystals.to("cpu"), config, out) if config.structures else ()
    frame = table.table(sampler, crystals, space, *placed, beta=config.beta)
    table.write_table(frame, out)
    if config.picture:
        _draw(sampler, crystals, space, config, out)
    _summary(frame, config, out)


def _diagnose(sampler: Any, space: Any, config: DictConfig) -> None:
    found = sampler.diagnostics(config.diagnostics, space=space, seed=config.seed, beta=config.beta)
    there = "in this space" if config.beta is None else f"in this space at beta {config.beta:g}"
    print(f"{config.sampler} {there}: {str(found).splitlines()[0]}")


def _check_shards(config: DictConfig, out: Path) -> None:
    """Refuse what does not go with shards, before the work."""
    from crystalgfn.data.shards import MANIFEST

    if config.shard_size is None and config.shard is not None:
        raise OptionError("shard=[i,k] shares out the files of a run; give their shard_size=<crystals> too.")
    if config.shard_size is None and (out / MANIFEST).exists():
        raise OptionError(f"{out} holds a run in shards; give its shard_size to go on, or choose another out=<folder>.")
    if config.shard_size is not None and config.structures:
        raise OptionError(
            "shard_size writes crystals without their atoms: say structures=false, and place the atoms of those that "
            "you choose by crystalgfn.build_structures (docs/guide/scaling.md)."
        )
    if config.shard is not None and not OmegaConf.is_list(config.shard):
        raise OptionError(f"shard={config.shard}: give [i,k] with 0 <= i < k, for process i of k.")


def _write_shards(sampler: Any, space: Any, config: DictConfig, out: Path) -> None:
    """Crystals as Parquet files, and a picture of the first of them."""
    from crystalgfn.data.shards import FOLDER, read_shards
    from crystalgfn.sampling.sharded import ShardRun

    shard = list(config.shard or (0, 1))
    run = ShardRun(
        sampler, out, config.n, config.shard_size, space, config.resample, config.seed, shard, config.sampler,
        config.beta,
    )  # fmt: skip
    whose = "" if shard[1] == 1 else f" of process {shard[0]} of {shard[1]}"
    left = len(run.own) - len(run.done)
    if run.done:
        print(f"{out} holds {len(run.done)} of the {len(run.own)} shards{whose}: {'going on' if left else 'all'}.")
    if left and config.diagnostics and sampler.reward is not None:
        _diagnose(sampler, space, config)
    try:
        run.write(config.progress)
    except KeyboardInterrupt:
        print(
            f"\n{len(run.done)} of the {len(run.own)} shards{whose} are complete and kept; "
            f"go on with the same command and out={out}",
            file=sys.stderr,
        )
        raise
    print(f"{sum(map(run.manifest.rows, run.own))} crystals in {len(run.own)} shards{whose}: {out / FOLDER}")
    if config.picture and shard[0] == 0 and not (out / "picture.png").exists():
        _draw(sampler, next(read_shards(out, partial=True))[:PICTURED], space, config, out)
        print(f"A picture of the first of them: {out / 'picture.png'}")


def _place(crystals: Any, config: DictConfig, out: Path) -> tuple[list[Any] | None, ...]:
    """Structure files; of each crystal why it has none, its first file, the atoms' origin, how close, the energy."""
    import crystalgfn as cg
    from crystalgfn.crystallography.standardize import nearest_ratio
    from crystalgfn.structures.writers import write_structures

    formats = list(config.formats)
    write_structures([], out, formats=formats)  # refuses unknown formats before the work
    built = cg.build_structures(
        crystals,
        n_candidates=config.n_candidates,
        refiner=config.refiner,
        templates=config.templates,
        energies=config.energies,
        relax=config.relax,
        seed=config.seed,
        n_jobs=config.n_jobs,
        progress=config.progress,
    )
    names = [write_structures(built, out / FOLDERS[form], formats=[form]) for form in formats][0]
    files = [name and f"{FOLDERS[formats[0]]}/{name}" for name in names]
    origins = [one.origins[0] if one.origins else None for one in built]
    closest = [nearest_ratio(one.structure) if one.structure is not None else float("nan") for one in built]
    energies = [one.energies[0] if one.energies else float("nan") for one in built]
    return [one.error for one in built], files, origins, closest, energies if config.energies or config.relax else None


def _draw(sampler: Any, crystals: Any, space: Any, config: DictConfig, out: Path) -> None:
    """The picture, beside what an untrained sampler of the same space draws."""
    import crystalgfn as cg
    from crystalgfn.sampling import plots, table

    space = sampler.space if space is None else space
    untrained = cg.Sampler.untrained(space, seed=config.seed).to(config.device).sample(1000, seed=config.seed)
    props = table.properties(sampler.reward)
    prop = props[0] if props else cg.rewards.Density()
    plots.picture(
        crystals,
        out / "picture.png",
        values=prop(crystals).cpu().numpy(),
        reference=untrained,
        reference_values=prop(untrained).cpu().numpy(),
        label=f"{prop.name.replace('_', ' ')}, {prop.unit}",
        title=f"{len(crystals)} crystals drawn from {config.sampler}",
        largest_first=getattr(sampler.reward, "direction", "minimise") == "maximise",
    )


def _summary(frame: Any, config: DictConfig, out: Path) -> None:
    """What came out, in a few lines."""
    from crystalgfn.structures.ground_state import CLOSEST

    distinct = frame[["formula", "space_group"]].drop_duplicates()
    print(f"{len(frame)} crystals, {len(distinct)} different pairs of formula and space group: {out / 'table.csv'}")
    if config.structures:
        folders = ", ".join(str(out / FOLDERS[form]) for form in config.formats)
        print(f"{frame['file'].notna().sum()} of them with atoms: {folders}")
        origins = ", ".join(
            f"{count} {ORIGINS[name]}" for name, count in Counter(frame["origin"].dropna()).most_common()
        )
        if origins:
            print(f"  coordinates: {origins}")
        if crowded := int((frame["closest"] < CLOSEST).sum()):
            print(
                f"  {crowded} of them crowded (atoms closer than {CLOSEST} of the sum of their radii, as in 2 of 1,000 "
                "known crystals; column closest): better left out"
            )
        for reason, count in Counter(frame["error"].dropna()).most_common(5):
            print(f"  {count} without: {reason}")
    if config.picture:
        print(f"A picture of them: {out / 'picture.png'}")
