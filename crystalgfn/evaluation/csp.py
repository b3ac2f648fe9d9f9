"""Crystal structure prediction on real crystals: what share of them is found again, given less and less of them.

T1: group, composition, lattice and Wyckoff letters are given; T2: without the letters; T3: group and composition only;
T4: the reduced formula only.
A method returns up to k structures, best first; a crystal counts as found at k where one of the first k matches
(``crystalgfn.evaluation.matching``). Every crystal counts, those for which a method returns nothing as misses.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from crystalgfn.domain.crystals import Crystals
from crystalgfn.errors import DataError, PlacementError
from crystalgfn.evaluation.matching import match
from crystalgfn.structures.candidates import candidates
from crystalgfn.structures.choice import Choice
from crystalgfn.structures.orbits import OrbitStructure, wyckoff_position
from crystalgfn.structures.placement import MORE_DRAWS, build_from_wyckoff, build_structures, templates_of
from crystalgfn.structures.polymorphs import Settings, polymorphs, probable
from crystalgfn.structures.prototypes import Key
from crystalgfn.structures.random_cell import random_cell
from crystalgfn.structures.refine import STEPS, Refiner
from crystalgfn.structures.search import Task
from crystalgfn.structures.sources import Atoms, read_atoms
from crystalgfn.structures.standard import formula_of, orbit_structure
from crystalgfn.structures.templates import Templates
from crystalgfn.tables import elements, groups

if TYPE_CHECKING:
    from pymatgen.core import Structure

TASKS = ("T1", "T2", "T3", "T4")


@dataclass(frozen=True)
class Question:
    """A crystal to find.

    Attributes:
        where: where it stands in its source.
        truth: its structure as the source has it.
        orbits: the same in the package's setting.
        keys: the pairs (reduced formula, group) that it goes by.
    """

    where: str
    truth: Structure
    orbits: OrbitStructure
    keys: frozenset[Key]


@dataclass(frozen=True)
class Given:
    """What a method is told of a crystal: lattice [6], letters and group only in the tasks that give them.

    ``counts`` are atoms in the primitive cell, or where no group is given in one formula unit.
    """

    space_group: int | None
    counts: dict[str, int]
    lattice: np.ndarray | None
    letters: dict[str, list[str]] | None
    keys: frozenset[Key] = frozenset()


Method = Callable[[Given, int, int], "Sequence[Structure]"]
"""What is given, how many structures at most, a seed -> structures, best first."""


def questions(source: str | Path, n: int | None = None, seed: int = 0) -> list[Question]:
    """The crystals of a source, or ``n`` of them drawn at random (for a Parquet file as ``DataFrame.sample`` does).

    Raises:
        DataError: the source cannot be read, or has none.
    """
    entries = [entry for entry in read_atoms(source) if isinstance(entry, Atoms)]
    if not entries:
        raise DataError(f"{source} holds no crystal with atoms")
    if n is not None:
        entries = [entries[i] for i in np.random.RandomState(seed).permutation(len(entries))[:n]]
    return [question(atoms) for atoms in entries]


def question(atoms: Atoms) -> Question:
    """The question that a crystal is.

    Raises:
        PlacementError: spglib finds no group in it.
    """
    from pymatgen.core import Lattice, Structure

    names = [elements.SYMBOLS[z - 1] for z in atoms.numbers]
    orbits = orbit_structure(atoms)
    formula = formula_of(orbits)
    keys = frozenset({(formula, orbits.space_group), (formula, atoms.space_group or orbits.space_group)})
    return Question(atoms.where, Structure(Lattice.from_parameters(*atoms.lattice), names, atoms.points), orbits, keys)


def given(task: str, one: Question) -> Given:
    """What a task tells of a crystal.

    Raises:
        ValueError: an unknown task.
    """
    if task not in TASKS:
        raise ValueError(f"there is no task {task!r}; there are {', '.join(TASKS)}")
    counts = {elements.SYMBOLS[z - 1]: n for z, n in one.orbits.composition.items()}
    if task == "T4":
        units = gcd(*counts.values())
        return Given(None, {symbol: n // units for symbol, n in counts.items()}, None, None, one.keys)
    lattice = None if task == "T3" else np.array(one.orbits.lattice)
    return Given(one.orbits.space_group, counts, lattice, one.orbits.wyckoff() if task == "T1" else None, one.keys)


def template_method(templates: Templates, leave_out: bool = True) -> Method:
    """Templates alone; ``leave_out``: those of the crystal's own formula and group are not used.

    Where no group is given, those of all groups in order of their distances, none of the crystal's own formula.
    """

    def method(what: Given, k: int, seed: int) -> list[Structure]:
        if what.space_group is None:
            return _predicted(what, k, seed, Settings(templates=templates, model=False), leave_out)
        without: Collection[Key] = what.keys if leave_out else ()
        found = templates.find(what.space_group, what.counts, what.lattice, k, without, what.letters)
        return [template.structure.to_structure() for template in found]

    return method


def build_method(**options: Any) -> Method:
    """`crystalgfn.build_structures` and `build_from_wyckoff` with these options, in a random cell where none is given.

    Without options the baseline: Wyckoff positions and coordinates at random, the least crowded first. Where no cell is
    given, templates come in their own; where no group is given, each of the most probable groups gets one structure.
    """
    templates = templates_of(options.get("templates"))
    options = {"refiner": None, **options}
    placing = {**options, "templates": None}

    def method(what: Given, k: int, seed: int) -> list[Structure]:
        if what.space_group is None:
            return _one_of_each(what, k, seed, method)
        if what.lattice is not None:
            return _built(what, what.lattice, k, seed, {**options, "templates": templates})
        found = [] if templates is None else template_method(templates, leave_out=False)(what, k, seed)
        rng = np.random.default_rng(seed)
        cells = [random_cell(what.space_group, what.counts, rng) for _ in range(k - len(found))]
        return found + [one for i, cell in enumerate(cells) for one in _built(what, cell, 1, seed + i, placing)]

    return method


def refiner_method(
    refiner: Refiner,
    templates: Templates | None = None,
    leave_out: bool = True,
    draws: int | None = None,
    steps: int = STEPS,
    learned: bool = True,
) -> Method:
    """What `build_structures` does with a refiner, in cells of the refiner's own where none is given.

    Where no group is given what `crystalgfn.predict` does.

    Args:
        refiner: makes the free coordinates.
        templates: real crystals that are tried too, or None.
        leave_out: those of the crystal's own formula and group are not used; where no group is given, none of its
            formula.
        draws: of the refiner for a crystal; None: 6 more than twice the structures asked for.
        steps: of the refiner's sampler.
        learned: letters that real crystals make probable; False: random ones.
    """

    def method(what: Given, k: int, seed: int) -> list[Structure]:
        if what.space_group is None:
            settings = Settings(refiner, templates, draws, steps, learned=learned)
            return _predicted(what, k, seed, settings, leave_out)
        n = 2 * k + MORE_DRAWS if draws is None else draws
        generate = what.lattice is None
        cell = random_cell(what.space_group, what.counts, np.random.default_rng(seed)) if generate else what.lattice
        task = Task(
            what.space_group, what.counts, tuple(cell.tolist()), what.letters, k, (seed,), time_limit=2.0,
            learned=learned,
        )  # fmt: skip
        way = "generate" if generate else "keep"
        without = [what.keys if leave_out else ()]
        found, reason = candidates([task], refiner, n, templates, way, steps, without)[0]
        if reason is not None:
            raise PlacementError(reason)
        return [candidate.structure.to_structure() for candidate, _ in Choice.shipped().ranked(found)[:k]]

    return method


def _predicted(what: Given, k: int, seed: int, settings: Settings, leave_out: bool) -> list[Structure]:
    """Structures of a formula."""
    units = {elements.NUMBER[symbol]: n for symbol, n in what.counts.items()}
    taken = frozenset(formula for formula, _ in what.keys) if leave_out else frozenset()
    found = polymorphs(units, k, replace(settings, without=taken), seed=seed)
    return [one.structure.to_structure() for one in found]


def _one_of_each(what: Given, k: int, seed: int, method: Method) -> list[Structure]:
    """A structure of a method in each of the most probable groups and cells of a formula, as far as it finds one."""
    units = {elements.NUMBER[symbol]: n for symbol, n in what.counts.items()}
    found: list[Structure] = []
    for i, pair in enumerate(probable(units, Settings())[:k]):
        counts = {symbol: n * pair.units for symbol, n in what.counts.items()}
        found += method(Given(pair.space_group, counts, None, None, what.keys), 1, seed + i)
    return found


def _built(what: Given, lattice: np.ndarray, k: int, seed: int, options: Mapping[str, Any]) -> list[Structure]:
    composition = torch.zeros(1, 118, dtype=torch.int64)
    for symbol, count in what.counts.items():
        composition[0, elements.NUMBER[symbol] - 1] = count
    crystal = Crystals(torch.tensor([what.space_group]), composition, torch.tensor(lattice, dtype=torch.float64)[None])
    if what.letters is not None:
        own = {name: value for name, value in options.items() if name != "assignment"}
        return build_from_wyckoff(crystal, [what.letters], n_candidates=k, seed=seed, **own)[0].candidates
    return build_structures(crystal, n_candidates=k, seed=seed, **options)[0].candidates


def run(
    crystals: Sequence[Question],
    methods: Mapping[str, Method],
    tasks: Sequence[str] = TASKS,
    k: int = 20,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Let every method answer every question; one record for each crystal, task and method.

    Args:
        crystals: what is to be found.
        methods: by name.
        tasks: some of T1, T2, T3, T4.
        k: structures of each method, at most.
        seed: of the methods.
        out: a file of one JSON line a record, written as they come; what it holds already is not done again.
        progress: shows a bar.

    Raises:
        DataError: ``out`` holds something else.
    """
    from tqdm import tqdm

    path = None if out is None else Path(out)
    done = {} if path is None else _read(path)
    work = [(i, task, name) for i in range(len(crystals)) for task in tasks for name in methods]
    records = []
    for i, task, name in tqdm(work, disable=not progress, desc="predicting", mininterval=2):
        key = (crystals[i].where, task, name, k, seed)
        if key not in done:
            done[key] = answer(crystals[i], task, name, methods[name], k, seed)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a") as file:
                    file.write(json.dumps(done[key]) + "\n")
        records.append(done[key])
    return records


def answer(one: Question, task: str, name: str, method: Method, k: int, seed: int) -> dict[str, Any]:
    """The record of one method's answer to one question."""
    start = time.perf_counter()
    error = None
    try:
        found = list(method(given(task, one), k, seed))[:k]
    except PlacementError as reason:
        found, error = [], str(reason)
    seconds = time.perf_counter() - start
    matches = [match(structure, one.truth) for structure in found]
    return {
        "where": one.where,
        "task": task,
        "method": name,
        "k": k,
        "seed": seed,
        "formula": formula_of(one.orbits),
        "space_group": one.orbits.space_group,
        "system": groups.CRYSTAL_LATTICE_SYSTEMS[groups.CRYSTAL_LATTICE_SYSTEM[one.orbits.space_group - 1]],
        "free": sum(wyckoff_position(one.orbits.space_group, o.letter).n_free for o in one.orbits.orbits),
        "rms": [m.rms for m in matches],
        "valid": [m.valid for m in matches],
        "seconds": seconds,
        "error": error,
    }


def _read(path: Path) -> dict[tuple, dict[str, Any]]:
    if not path.is_file():
        return {}
    found = {}
    lines = path.read_text().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            found[record["where"], record["task"], record["method"], record["k"], record["seed"]] = record
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) and not line.endswith("\n"):  # the run was stopped while it wrote this line
                path.write_text("".join(lines[:-1]))
                break
            raise DataError(f"{path}, line {number}, is no record of this benchmark; give another file") from error
    return found
