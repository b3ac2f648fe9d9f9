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
from crystalgfn.utils.files import path_of
from crystalgfn.utils.parallel import parallel_map
from crystalgfn.utils.progress import Bar
from crystalgfn.utils.run_folder import Journal

if TYPE_CHECKING:
    from pymatgen.core import Structure

TASKS = ("T1", "T2", "T3", "T4")
KEY = ("where", "task", "method", "k", "seed")
"""What a record goes by."""
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

    @property
    def known_group(self) -> int:
        """The space group, where the task gives one."""
        assert self.space_group is not None, "no space group is given"
        return self.space_group


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
    """Let every method predict every target, at most ``k`` structures each; a record for each target, task and method.

    ``out``: a file of one JSON line a record, written as they come; what it holds already is not done again.

    Raises:
        CheckpointError: ``out`` holds something else.
    """
    journal = None if out is None else Journal(path_of(out, "out"), KEY, latest=True)
    done = {} if journal is None else dict(journal.records)
    work = _work(crystals, methods, tasks, k, seed)
    left = [job for key, job in work.items() if not _is_of(done.get(key), job[0], job[3])]
    bar = Bar(total=len(work), initial=len(work) - len(left), shown=progress, description="predicting", mininterval=2)
    for record in parallel_map(_predict_all, left, n_jobs=n_jobs, batch=1 if n_jobs == 1 else CHUNK):
        done[tuple(record[name] for name in KEY)] = record
        if journal is not None:
            journal.add(record)
        bar.update(1)
    bar.close()
    return [done[key] for key in work]


def _work(
    crystals: Sequence[CSPTarget], methods: Mapping[str, Method], tasks: Sequence[str], k: int, seed: int
) -> dict[tuple, tuple]:
    """The arguments of `predict_target`, by what its record goes by."""
    return {
        (one.where, task, name, k, seed): (one, task, name, method, k, seed)
        for one in crystals
        for task in tasks
        for name, method in methods.items()
        if task in getattr(method, "tasks", TASKS)
    }


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
    timed = getattr(method, "timed", True)
    seconds = (time.perf_counter() - start, time.process_time() - cpu) if timed else (None, None)
    return {
        "where": one.where,
        "task": task,
        "method": name,
        "about": getattr(method, "about", None),
        "k": k,
        "seed": seed,
        **_described(one),
        **_compared(found, one),
        "seconds": seconds[0],
        "cpu_seconds": seconds[1],
        "error": error,
    }


def _described(one: CSPTarget) -> dict[str, Any]:
    """Of the target."""
    group = one.orbits.space_group
    return {
        "formula": formula_of(one.orbits),
        "space_group": group,
        "system": space_groups.CRYSTAL_LATTICE_SYSTEMS[space_groups.CRYSTAL_LATTICE_SYSTEM[group - 1]],
        "free": sum(wyckoff_position(group, orbit.letter).n_free for orbit in one.orbits.orbits),
        "e_above_hull": one.e_above_hull,
        "polymorphs": list(one.polymorphs),
    }


def _compared(found: Sequence[Structure | SkippedRecord], one: CSPTarget) -> dict[str, Any]:
    """Of the structures beside the target and the other crystals of its formula."""
    matches = [_match(structure, one.truth) for structure in found]
    return {
        "rms": [m.rms for m in matches],
        "valid": [m.valid for m in matches],
        "known": {where: [_match(s, other).rms for s in found] for where, other in one.known.items()},
        "ratio": [None if isinstance(s, SkippedRecord) else round(min(nearest_ratio(s), FAR), 4) for s in found],
        "faults": [str(s) for s in found if isinstance(s, SkippedRecord)],
    }


def _match(structure: Structure | SkippedRecord, truth: Structure) -> Match:
    return Match(None, False) if isinstance(structure, SkippedRecord) else match(structure, truth)
