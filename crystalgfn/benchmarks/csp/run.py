"""Crystal structure prediction on real crystals: match rates @k of methods, on four tasks.

T1: space group, composition, lattice and Wyckoff letters are given; T2: without the letters; T3: space group and
composition only; T4: the reduced formula only.
A method returns up to k structures, best first; a crystal is matched @k where one of the first k matches
(``crystalgfn.evaluation.metrics.matching``). Every crystal counts, those for which a method returns nothing as misses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.benchmarks.csp.tasks import CSPTarget
from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.atoms import SkippedRecord
from crystalgfn.crystallography.convert import formula_of
from crystalgfn.crystallography.orbits import OrbitStructure, wyckoff_position
from crystalgfn.crystallography.standardize import nearest_ratio
from crystalgfn.data.structure_index import Key
from crystalgfn.errors import PlacementError
from crystalgfn.evaluation.metrics.matching import Match, match
from crystalgfn.utils.parallel import parallel_map
from crystalgfn.utils.run_folder import Journal

if TYPE_CHECKING:
    from pymatgen.core import Structure

TASKS = ("T1", "T2", "T3", "T4")
CHUNK = 20
"""Predictions that a process of several makes before they are written."""
FAR = 10.0
"""Ratios of a distance to the sum of radii above that say no more."""


@dataclass(frozen=True, kw_only=True)
class CSPQuery:
    """What a method is told of a crystal: lattice [6], letters and group only in the tasks that give them.

    ``counts`` are atoms in the primitive cell, or where no group is given in one formula unit. ``keys`` and ``where``
    are no help to predict with: they say what to leave out, and where predictions made elsewhere are looked up.
    """

    counts: dict[str, int]
    space_group: int | None = None
    lattice: np.ndarray | None = None
    letters: dict[str, list[str]] | None = None
    keys: frozenset[Key] = frozenset()
    where: str = ""


Method = Callable[[CSPQuery, int, int], "Sequence[Structure | SkippedRecord]"]
"""What is given, how many structures at most, a seed -> structures, best first, `SkippedRecord` where one failed.

A method may have attributes: ``tasks``, those that it can do; ``timed``, False where its seconds say nothing;
``about``, a text that is kept with its predictions: those with another are not taken for its own.
"""


def query(task: str, one: CSPTarget) -> CSPQuery:
    """What a task tells of a crystal.

    Raises:
        ValueError: an unknown task.
    """
    if task not in TASKS:
        raise ValueError(f"there is no task {task!r}; there are {', '.join(TASKS)}")
    return replace(query_of(task, one.orbits, one.keys), where=one.where)


def query_of(task: str, orbits: OrbitStructure, keys: frozenset[Key]) -> CSPQuery:
    """The same of a structure with the keys that it goes by."""
    counts = orbits.counts
    if task == "T4":
        units = gcd(*counts.values())
        return CSPQuery(counts={symbol: n // units for symbol, n in counts.items()}, keys=keys)
    lattice = None if task == "T3" else np.array(orbits.lattice)
    letters = orbits.wyckoff() if task == "T1" else None
    return CSPQuery(space_group=orbits.space_group, counts=counts, lattice=lattice, letters=letters, keys=keys)


def run_csp(
    crystals: Sequence[CSPTarget],
    methods: Mapping[str, Method],
    tasks: Sequence[str] = TASKS,
    k: int = 20,
    seed: int = 0,
    out: str | Path | None = None,
    n_jobs: int = 1,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Let every method predict every target; one record for each target, task and method.

    Args:
        crystals: the targets.
        methods: by name.
        tasks: some of T1, T2, T3, T4.
        k: structures of each method, at most.
        seed: of the methods.
        out: a file of one JSON line a record, written as they come; what it holds already is not done again.
        n_jobs: processes; with more than one, 20 predictions are written together.
        progress: shows a bar.

    Raises:
        CheckpointError: ``out`` holds something else.
    """
    from crystalgfn.utils.progress import Bar

    path = None if out is None else Path(out)
    journal = None if path is None else Journal(path, ("where", "task", "method", "k", "seed"), latest=True)
    done = {} if journal is None else dict(journal.records)
    work = [
        (i, task, name)
        for i in range(len(crystals))
        for task in tasks
        for name, method in methods.items()
        if task in getattr(method, "tasks", TASKS)
    ]
    keys = {item: (crystals[item[0]].where, item[1], item[2], k, seed) for item in work}
    left = [i for i in work if not _is_of(done.get(keys[i]), crystals[i[0]], methods[i[2]])]
    parts = [left[i : i + CHUNK] for i in range(0, len(left), CHUNK)] if n_jobs != 1 else [[item] for item in left]
    jobs = ([(crystals[i], task, name, methods[name], k, seed) for i, task, name in part] for part in parts)
    bar = Bar(total=len(work), initial=len(work) - len(left), shown=progress, description="predicting", mininterval=2)
    for part, records in zip(parts, parallel_map(_predict_all, jobs, n_jobs=n_jobs), strict=True):
        done |= {keys[item]: record for item, record in zip(part, records, strict=True)}
        if journal is not None:
            journal.add(*records)
        bar.update(len(part))
    bar.close()
    return [done[keys[item]] for item in work]


def _is_of(record: Mapping[str, Any] | None, one: CSPTarget, method: Method) -> bool:
    """Whether a record is of this crystal and method, and not of others with the same names."""
    if record is None:
        return False
    same = record["formula"] == formula_of(one.orbits) and record["space_group"] == one.orbits.space_group
    return same and record.get("about") == getattr(method, "about", None)


def _predict_all(job: list[tuple]) -> list[dict[str, Any]]:
    return [predict_target(*arguments) for arguments in job]


def predict_target(one: CSPTarget, task: str, name: str, method: Method, k: int, seed: int) -> dict[str, Any]:
    """The record of one method's prediction of one target.

    Of each structure: ``rms`` from the target, None where they do not match; ``valid`` by the filtered
    protocol; ``ratio`` of the closest pair of atoms to its sum of radii, at most `FAR`, None where there is no
    structure; ``known``: rms from the other crystals of the formula.
    """
    start, cpu = time.perf_counter(), time.process_time()
    error = None
    try:
        found = list(method(query(task, one), k, seed))[:k]
    except PlacementError as reason:
        found, error = [], str(reason)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    timed = getattr(method, "timed", True)
    matches = [_match(structure, one.truth) for structure in found]
    return {
        "where": one.where,
        "task": task,
        "method": name,
        "about": getattr(method, "about", None),
        "k": k,
        "seed": seed,
        "formula": formula_of(one.orbits),
        "space_group": one.orbits.space_group,
        "system": space_groups.CRYSTAL_LATTICE_SYSTEMS[space_groups.CRYSTAL_LATTICE_SYSTEM[one.orbits.space_group - 1]],
        "free": sum(wyckoff_position(one.orbits.space_group, o.letter).n_free for o in one.orbits.orbits),
        "e_above_hull": one.e_above_hull,
        "rms": [m.rms for m in matches],
        "valid": [m.valid for m in matches],
        "known": {where: [_match(s, other).rms for s in found] for where, other in one.known.items()},
        "polymorphs": list(one.polymorphs),
        "ratio": [None if isinstance(s, SkippedRecord) else round(min(nearest_ratio(s), FAR), 4) for s in found],
        "faults": [str(s) for s in found if isinstance(s, SkippedRecord)],
        "seconds": seconds if timed else None,
        "cpu_seconds": cpu_seconds if timed else None,
        "error": error,
    }


def _match(structure: Structure | SkippedRecord, truth: Structure) -> Match:
    return Match(None, False) if isinstance(structure, SkippedRecord) else match(structure, truth)
