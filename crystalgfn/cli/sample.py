"""What ``crystalgfn sample`` does: crystals of a sampler, their atoms, structure files, a table and a picture."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from crystalgfn.cli.console import note, tell
from crystalgfn.cli.options.compose import OptionError
from crystalgfn.cli.options.objects import plain_config, sampler_space, space_arguments
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.distances import CLOSEST
from crystalgfn.crystallography.standardize import nearest_ratio
from crystalgfn.data.shards import FOLDER, MANIFEST, read_shards
from crystalgfn.errors import CrystalGFNError
from crystalgfn.properties.exact import Density
from crystalgfn.sampling import plots, table
from crystalgfn.sampling.proportions import LEAST_ESS, LowESSWarning, distrust
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.sampling.sampler_files import full_name
from crystalgfn.sampling.sharded import ShardRun, run_fingerprint
from crystalgfn.space.space import CrystalSpace
from crystalgfn.utils.distributed import usable_device
from crystalgfn.utils.run_folder import CONFIG, RunFolder

if TYPE_CHECKING:
    from crystalgfn.structures.result import BuildResult

PICTURED = 10_000
"""Crystals of a run in shards that are in its picture, at most."""
FREE = ("out", "n_jobs", "progress", "json", "picture", "diagnostics")
"""May differ between the calls that a run is made in."""
ORIGINS = {
    "refiner": "by the refiner",
    "template": "of templates",
    "random": "at random",
    "fixed": "fixed by symmetry",
}
"""Where coordinates come from (`crystalgfn.structures.build.BuildResult`), in words."""
FOLDERS = {"cif": "cifs", "poscar": "poscars", "extxyz": "extxyz"}
"""Where the structure files of each format go."""


def run(config: DictConfig, command: str, folder: RunFolder) -> dict[str, Any]:
    """Sample; the table is written before atoms are placed, so that an interrupt loses no crystal.

    Raises:
        OptionError: values that cannot be, or crystals that are there already.
    """
    out = folder.path
    _check_new(folder)
    _check_shards(config, out)
    sampler = Sampler.load(config.sampler, device=usable_device(config.device), trust=config.trust)
    space = sampler_space(sampler, config)
    sampler.level(config.beta)
    made: dict[str, Any] = {"sampler": {"name": full_name(config.sampler), "hash": run_fingerprint(sampler)}}
    if config.shard_size is not None:
        return made | _write_shards(sampler, space, config, folder, made)
    folder.agree(plain_config(config), FREE)
    if config.adapt is not False:
        sampler, space = _adapted(sampler, space, config, made)
    how = {"beta": config.beta, "resample": config.resample, "tries": config.tries}
    crystals = sampler.sample(config.n, space=space, seed=config.seed, **how)
    if config.diagnostics and sampler.reward is not None:
        made["diagnostics"] = _diagnose(sampler, space, config)
    frame = table.results_table(sampler, crystals, space, beta=config.beta)
    table.write_table(frame, out)
    built: Sequence[BuildResult] = ()
    if config.structures:
        try:
            built, *placed = _place(crystals.to("cpu"), config, out, made["sampler"])
        except KeyboardInterrupt:
            note(
                f"\nAll {len(frame)} crystals are in {out / 'table.parquet'}, without their atoms; "
                f"place them with the same command and out={out}"
            )
            raise
        except CrystalGFNError:
            for name in ("table.parquet", "table.csv"):  # they would refuse the command put right
                (out / name).unlink(missing_ok=True)
            raise
        frame = table.results_table(sampler, crystals, space, *placed, beta=config.beta)
        table.write_table(frame, out)
    if config.picture:
        _draw(sampler, crystals, space, config, out, built, frame["closest"].to_list())
    return made | _summary(frame, config, out)


def _adapted(
    sampler: Sampler, space: CrystalSpace | None, config: DictConfig, made: dict[str, Any]
) -> tuple[Sampler, CrystalSpace | None]:
    """The sampler, or one adapted to the space; what was done is said and kept in the record."""
    from crystalgfn.sampling.adaptation import adapt_if_low, budget

    words = budget(config.adapt)[2]
    tell(f"adapt={config.adapt}: {words} of fine-tuning where the ESS in this space is below {LEAST_ESS:.0%}")
    given = space_arguments(config.get("space")) or None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LowESSWarning)  # said in the next line
        chosen, done = adapt_if_low(sampler, given, config.adapt, config.beta, config.seed, config.progress)
    tell(f"{config.sampler} {done}")
    made["adaptation"] = {"before": done.before, "after": done.after, "budget": done.budget}
    return chosen, space if chosen is sampler else None


def _diagnose(sampler: Sampler, space: CrystalSpace | None, config: DictConfig) -> dict[str, float | None]:
    how = {"beta": config.beta, "tries": config.tries}
    found = sampler.diagnostics(config.diagnostics, space=space, seed=config.seed, **how)
    there = "in this space" if config.beta is None else f"in this space at beta {config.beta:g}"
    tell(f"{config.sampler} {there}: {str(found).splitlines()[0]}")
    if found.ess < LEAST_ESS and config.resample is False:
        remedy = "resample=auto corrects it" if config.adapt is not False else "adapt=auto or resample=auto correct it"
        tell(f"  {distrust(found.ess)}; {remedy}")
    return found.figures()


def _check_new(folder: RunFolder) -> None:
    """Refuse a folder with crystals of a run that has ended, or of something else."""
    theirs = folder.ended or not (folder.path / CONFIG).exists()
    if theirs and (folder.path / "table.parquet").exists():
        raise OptionError(f"{folder.path} already holds crystals; choose another out=<folder>, or delete them.")


def _check_shards(config: DictConfig, out: Path) -> None:
    """Refuse what does not go with shards, before the work."""
    if config.shard_size is None and config.shard is not None:
        raise OptionError("shard=[i,k] shares out the files of a run; give their shard_size=<crystals> too.")
    if config.shard_size is None and (out / MANIFEST).exists():
        raise OptionError(f"{out} holds a run in shards; give its shard_size to go on, or choose another out=<folder>.")
    if config.shard_size is not None and config.adapt is not False:
        raise OptionError(
            "adapt does not go with shard_size: adapt in Python, sampler.adapt(space, steps=300).save(folder), then "
            "give this folder as the sampler."
        )
    if config.shard_size is not None and config.structures:
        raise OptionError(
            "shard_size writes crystals without their atoms: say structures=false, and place the atoms of those that "
            "you choose by crystalgfn.build_structures (docs/guide/scaling.md)."
        )


def _write_shards(
    sampler: Sampler, space: CrystalSpace | None, config: DictConfig, folder: RunFolder, made: dict[str, Any]
) -> dict[str, Any]:
    """Crystals as Parquet files, and a picture of the first of them."""
    shard, out = plain_config(config.shard) or [0, 1], folder.path
    run = ShardRun(
        sampler, folder, config.n, config.shard_size, space, config.resample, config.seed, shard, config.sampler,
        config.beta, config.tries,
    )  # fmt: skip
    whose = "" if shard[1] == 1 else f" of process {shard[0]} of {shard[1]}"
    left = len(run.own) - len(run.done)
    if run.done:
        tell(f"{out} holds {len(run.done)} of the {len(run.own)} shards{whose}: {'going on' if left else 'all'}.")
    if left and config.diagnostics and sampler.reward is not None:
        made["diagnostics"] = _diagnose(sampler, space, config)
    try:
        run.write(config.progress)
    except KeyboardInterrupt:
        note(
            f"\n{len(run.done)} of the {len(run.own)} shards{whose} are complete and kept; "
            f"go on with the same command and out={out}"
        )
        raise
    rows = sum(map(run.manifest.rows, run.own))
    tell(f"{rows} crystals in {len(run.own)} shards{whose}: {out / FOLDER}")
    if config.picture and shard[0] == 0 and not (out / "picture.png").exists():
        _draw(sampler, next(read_shards(out, partial=True))[:PICTURED], space, config, out)
        tell(f"A picture of the first of them: {out / 'picture.png'}")
    return {"counts": {"crystals": rows, "shards": len(run.own)}, "files": [FOLDER, MANIFEST]}


def _place(crystals: Crystals, config: DictConfig, out: Path, sampler: dict[str, str]) -> tuple[Any, ...]:
    """What was built; of each crystal: why there is no file, the file, the origin, how close, energy, calculator."""
    from crystalgfn.structures.build import build_structures  # takes long, and is not always needed
    from crystalgfn.structures.writers import write_structures

    built = build_structures(
        crystals,
        n_candidates=config.n_candidates,
        refiner=config.refiner,
        templates=plain_config(config.templates),
        energies=config.energies,
        relax=config.relax,
        calculator=config.calculator,
        seed=config.seed,
        n_jobs=config.n_jobs,
        progress=config.progress,
    )
    about = {"sampler": sampler["name"], "sampler hash": sampler["hash"], "seed": config.seed}
    names = [write_structures(built, out / FOLDERS[form], [form], about) for form in config.formats][0]
    files = [name and f"{FOLDERS[config.formats[0]]}/{name}" for name in names]
    return built, *_columns(built, files, config.energies or config.relax)


def _columns(built: Sequence[BuildResult], files: list[str | None], with_energies: bool) -> tuple[Any, ...]:
    origins = [next(iter(one.origins), None) for one in built]
    closest = [math.nan if one.structure is None else nearest_ratio(one.structure) for one in built]
    found = ([one.error for one in built], files, origins, closest)
    if not with_energies:
        return found
    energies = [next(iter(one.energies), math.nan) for one in built]
    return (*found, energies, next((one.calculator for one in built if one.calculator), None))


def _draw(
    sampler: Sampler,
    crystals: Crystals,
    space: CrystalSpace | None,
    config: DictConfig,
    out: Path,
    built: Sequence[BuildResult] = (),
    closest: Sequence[float] = (),
) -> None:
    """The picture, beside what an untrained sampler of the same space draws."""
    space = sampler.space if space is None else space
    untrained = Sampler.untrained(space, seed=config.seed).to(config.device).sample(1000, seed=config.seed)
    props = table.properties(sampler.reward)
    prop = props[0] if props else Density()
    plots.samples_picture(
        crystals,
        out / "picture.png",
        values=prop(crystals).cpu().numpy(),
        reference=untrained,
        reference_values=prop(untrained).cpu().numpy(),
        label=f"{prop.name.replace('_', ' ')}, {prop.unit}",
        title=f"{len(crystals)} crystals sampled from {config.sampler}",
        structures=[one.structure for one in built],
        crowded=np.asarray(closest) < CLOSEST,
        largest_first=getattr(sampler.reward, "direction", "minimise") == "maximise",
    )


def _summary(frame: pd.DataFrame, config: DictConfig, out: Path) -> dict[str, Any]:
    """What came out, in a few lines."""
    distinct = len(frame[["formula", "space_group"]].drop_duplicates())
    counts, files = {"crystals": len(frame), "distinct": distinct}, ["table.csv", "table.parquet"]
    tell(f"{len(frame)} crystals, {distinct} different pairs of formula and space group: {out / 'table.csv'}")
    if config.structures:
        counts["with_atoms"] = len(frame["file"].dropna())
        files += [FOLDERS[form] for form in config.formats]
        tell(f"{counts['with_atoms']} of them with atoms: {', '.join(str(out / FOLDERS[f]) for f in config.formats)}")
        origins = Counter(frame["origin"].dropna()).most_common()
        if origins:
            tell(f"  coordinates: {', '.join(f'{count} {ORIGINS[name]}' for name, count in origins)}")
        if crowded := int(np.count_nonzero(frame["closest"] < CLOSEST)):
            tell(
                f"  {crowded} have atoms closer than {CLOSEST} of the sum of radii (0.2 % of known crystals; column "
                "closest); discard them"
            )
        for reason, count in Counter(frame["error"].dropna()).most_common(5):
            tell(f"  {count} without: {reason}")
    if config.picture:
        files.append("picture.png")
        tell(f"A picture of them: {out / 'picture.png'}")
    return {"counts": counts, "files": files}
