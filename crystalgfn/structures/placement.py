"""Places the atoms of crystals: on templates, or by exact Wyckoff assignments and random free parameters."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.domain.crystals import Crystals
from crystalgfn.errors import NotAvailable, PlacementError
from crystalgfn.structures.prototypes import Prototypes
from crystalgfn.structures.search import Search, Task
from crystalgfn.structures.templates import Templates
from crystalgfn.tables import elements

if TYPE_CHECKING:
    from pymatgen.core import Structure


AFLOW = Path(__file__).parent / "data" / "aflow.npz"
"""An index of the 288 prototypes of AFLOW that pymatgen carries."""
Reference = Templates | Prototypes | str | Path | None


@dataclass(frozen=True)
class BuildResult:
    """What came of one crystal.

    Attributes:
        structure: the conventional cell, the first of ``candidates``; None where there is none.
        candidates: different structures, best first.
        crystal: the crystal that the structures are of, a batch of one.
        error: why there is no structure, in a sentence; None where there is one.
        wyckoff: element symbol -> letters of the orbits of ``structure``.
    """

    structure: Structure | None
    candidates: list[Structure]
    crystal: Crystals
    error: str | None
    wyckoff: dict[str, list[str]] = field(default_factory=dict)


def build_structures(
    crystals: Crystals,
    n_candidates: int = 1,
    refiner: Callable[..., Any] | str | None = None,
    lattice: str = "keep",
    seed: int = 0,
    *,
    templates: Reference = None,
    assignment: str = "random",
    n_jobs: int = 1,
    progress: bool = False,
    time_limit: float = 2.0,
) -> list[BuildResult]:
    """Structures of crystals, with exactly their lattice, composition and space group.

    Every structure has the group that was asked for at spglib's symprec 0.01, as many atoms in the primitive cell as
    the crystal, and no two atoms closer than 0.5 Å. Where that cannot be had, ``error`` says why.

    Args:
        crystals: [B].
        n_candidates: at most so many different structures of each, those with the most room between atoms first.
        refiner: None; this version places atoms at random and pushes close ones apart.
        lattice: "keep"; this version does not change lattices.
        seed: the same seed gives the same structures.
        templates: real crystals whose positions are tried first: a source of them (`Prototypes.read`), `Templates` of
            your own, "aflow" for the prototypes that come with the package, or None.
        assignment: how Wyckoff letters are chosen: "random", or "learned" for those that real crystals make probable.
        n_jobs: processes.
        progress: shows a bar.
        time_limit: seconds for one crystal, after which what was found so far is taken.

    Raises:
        NotAvailable: a refiner or a way with the lattice that this version does not have.
        PlacementError: arguments that mean nothing.
        DataError: ``templates`` cannot be read.
    """
    if assignment not in ("random", "learned"):
        raise PlacementError(f"assignment={assignment!r}: choose 'random' or 'learned'")
    settings = _Settings(n_candidates, seed, time_limit, assignment == "learned", templates_of(templates))
    return _build(crystals, None, settings, refiner, lattice, n_jobs, progress)


def build_from_wyckoff(
    crystals: Crystals,
    letters: Sequence[Mapping[str, Sequence[str]]],
    n_candidates: int = 1,
    refiner: Callable[..., Any] | str | None = None,
    lattice: str = "keep",
    seed: int = 0,
    *,
    templates: Reference = None,
    n_jobs: int = 1,
    progress: bool = False,
    time_limit: float = 2.0,
) -> list[BuildResult]:
    """`build_structures` with the Wyckoff letters given: for each crystal element symbol -> letters of its orbits.

    Example: ``[{"Na": ["a"], "Cl": ["b"]}]`` for rock salt in group 225. Letters that do not go with a crystal are an
    ``error`` of that crystal. Arguments and exceptions are those of `build_structures`.
    """
    if len(letters) != len(crystals):
        raise PlacementError(f"letters are given for {len(letters)} crystals, but there are {len(crystals)}")
    settings = _Settings(n_candidates, seed, time_limit, False, templates_of(templates))
    return _build(crystals, letters, settings, refiner, lattice, n_jobs, progress)


def templates_of(reference: Reference) -> Templates | None:
    """Templates of what the argument ``templates`` names.

    Raises:
        DataError: it cannot be read.
    """
    if reference is None or isinstance(reference, Templates):
        return reference
    if isinstance(reference, Prototypes):
        return Templates(reference)
    return _read_templates(str(AFLOW if reference == "aflow" else reference))


@lru_cache(maxsize=4)
def _read_templates(path: str) -> Templates:
    return Templates(Prototypes.read(path))


@dataclass(frozen=True)
class _Settings:
    """What holds for every crystal of a call."""

    n_candidates: int
    seed: int
    time_limit: float
    learned: bool
    templates: Templates | None

    def task(
        self,
        i: int,
        space_group: int,
        counts: dict[str, int],
        cell: tuple[float, ...],
        letters: Mapping[str, Sequence[str]] | None,
    ) -> Task:
        """What is asked of crystal ``i``, with its templates."""
        plain = Task(
            space_group, counts, cell, letters, self.n_candidates, (self.seed, i), self.time_limit, (), self.learned
        )
        if self.templates is None:
            return plain
        try:
            given = plain.assignment()
        except PlacementError:  # said again, as that crystal's error, where it is placed
            return plain
        found = self.templates.find(space_group, counts, np.array(cell), self.n_candidates, letters=given)
        return replace(plain, templates=tuple(template.structure for template in found))


def _build(
    crystals: Crystals,
    letters: Sequence[Mapping[str, Sequence[str]]] | None,
    settings: _Settings,
    refiner: Callable[..., Any] | str | None,
    lattice: str,
    n_jobs: int,
    progress: bool,
) -> list[BuildResult]:
    if refiner is not None:
        raise NotAvailable(f"refiner={refiner!r}: this version has no refiner; use refiner=None")
    if lattice != "keep":
        raise NotAvailable(f"lattice={lattice!r}: this version keeps every lattice as it is; use lattice='keep'")
    if settings.n_candidates < 1 or settings.time_limit <= 0 or n_jobs == 0:
        raise PlacementError(
            f"n_candidates={settings.n_candidates}, time_limit={settings.time_limit}, n_jobs={n_jobs}: at least one "
            "candidate, a positive time and one process, please"
        )
    tasks = []
    for i, (number, row, cell) in enumerate(
        zip(crystals.space_group.tolist(), crystals.composition.tolist(), crystals.lattice.tolist(), strict=True)
    ):
        counts = {elements.SYMBOLS[z]: count for z, count in enumerate(row) if count}
        given = None if letters is None else letters[i]
        tasks.append(settings.task(i, number, counts, tuple(cell), given))
    results = []
    for i, (structures, error, wyckoff) in enumerate(_run(tasks, n_jobs, progress)):
        best = structures[0] if structures else None
        results.append(BuildResult(best, structures, crystals[i], error, wyckoff))
    return results


_Outcome = tuple[list, str | None, dict[str, list[str]]]


def _run(tasks: list[Task], n_jobs: int, progress: bool) -> list[_Outcome]:
    from tqdm import tqdm

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(n_jobs if n_jobs > 0 else cores, max(1, len(tasks) // 16))
    if workers > 1:
        from joblib import Parallel, delayed

        calls = (delayed(_place)(task) for task in tasks)
        outcomes = Parallel(n_jobs=workers, return_as="generator")(calls)
    else:
        outcomes = map(_place, tasks)
    return list(tqdm(outcomes, total=len(tasks), desc="placing atoms", disable=not progress))


def _place(task: Task) -> _Outcome:
    """Structures, the reason why there is none, letters of the best."""
    try:
        found = Search(task).run()
    except PlacementError as error:
        return [], str(error), {}
    return [orbits.to_structure() for orbits in found], None, found[0].wyckoff()
