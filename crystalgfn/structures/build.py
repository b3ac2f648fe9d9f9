"""Places the atoms of crystals: on templates, or by exact Wyckoff assignments and random free parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystalgfn.calculators.chgnet import chgnet
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.distances import fault
from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.errors import PlacementError
from crystalgfn.structures.candidate_pool import candidates, enough_draws
from crystalgfn.structures.ranking.reranker import CandidateRanker, Ranked, rank_candidates
from crystalgfn.structures.refiner.refiner import LATTICES, STEPS, Refiner
from crystalgfn.structures.sources.random import Search, Task
from crystalgfn.structures.sources.templates import Templates
from crystalgfn.utils import files
from crystalgfn.utils.parallel import parallel_map

if TYPE_CHECKING:
    from pymatgen.core import Structure


AFLOW = files.SHIPPED / "prototypes" / "aflow.npz"
"""An index of the 288 prototypes of AFLOW that pymatgen carries."""
Reference = Templates | Prototypes | str | Path | Sequence[str | Path] | None
LETTERS = ("random", "learned")
FEWEST_RELAXED = 4
"""Candidates of a crystal that are relaxed, where so many were found."""
CHUNK = {"cpu": 32, "cuda": 10_000}
"""Crystals that structures are made of at once, at most."""
AGAIN = 4
"""Times as many draws where none of the first was right."""


@dataclass(frozen=True)
class BuildResult:
    """What came of one crystal.

    Attributes:
        structure: the conventional cell, the first of ``candidates``; None where there is none.
        candidates: different structures, best first.
        crystal: the crystal that the structures are of, a batch of one.
        error: why there is no structure, in a sentence; None where there is one.
        wyckoff: element symbol -> letters of the orbits of ``structure``.
        origins: where each of ``candidates`` comes from: "template", "refiner" (free coordinates made by diffusion),
            "random" (placed at random and pushed apart), or "fixed" (letters without a free coordinate).
        probabilities: of each among all candidates that were found; empty without a refiner.
        energies: CHGNet's total energy of each in eV/atom, NaN where it has none; empty unless they were relaxed or
            ``energies`` asked for.
    """

    structure: Structure | None
    candidates: list[Structure]
    crystal: Crystals
    error: str | None
    wyckoff: dict[str, list[str]] = field(default_factory=dict)
    origins: list[str] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)


def build_structures(
    crystals: Crystals,
    n_candidates: int = 1,
    refiner: Refiner | str | Path | None = "default",
    lattice: str = "keep",
    seed: int = 0,
    *,
    templates: Reference = None,
    assignment: str | None = None,
    draws: int | None = None,
    steps: int = STEPS,
    energies: bool = False,
    relax: bool = False,
    n_jobs: int = 1,
    progress: bool = False,
    time_limit: float = 2.0,
) -> list[BuildResult]:
    """Structures of crystals, with exactly their composition and space group, and their lattice unless it may move.

    Every structure has the group that was asked for at spglib's symprec 0.01, as many atoms in the primitive cell as
    the crystal, and no two atoms closer than 0.5 Å. Where that cannot be had, ``error`` says why.

    With a refiner the Wyckoff letters are those that real crystals make probable, the free coordinates come from its
    diffusion model, and the structure that is likeliest comes first. Where none of its draws passes the checks, atoms
    are placed at random as without a refiner; ``origins`` says which it was.

    Args:
        crystals: [B].
        n_candidates: at most so many different structures of each, best first.
        refiner: a shipped one by its name, the folder of one of your own, a `Refiner`, or None: atoms are placed at
            random and pushed apart.
        lattice: "keep", "refine" (may be strained by up to 5 %) or "generate" (the one given is not used).
        seed: the same seed gives the same structures.
        templates: real crystals whose positions are tried too: sources of them (`Prototypes.read`), `Templates` of
            your own, "aflow" for the prototypes that come with the package, or None.
        assignment: how Wyckoff letters are chosen: "random", or "learned" for those that real crystals make probable;
            None: learned with a refiner, random without.
        draws: of the refiner for each crystal; None: 6 more than twice the candidates, three times as many with
            ``lattice="generate"``.
        steps: of the refiner's sampler; 2 ``steps`` - 1 evaluations of its network.
        energies: of the refiner's 20 likeliest candidates those are likelier that CHGNet says are lower in energy, as
            they are; needs the extra ``[relax]``.
        relax: candidates are relaxed with CHGNet within their symmetry (the cell too unless ``lattice`` is "keep"), at
            least 4 of each crystal, chosen as with ``energies``, and ordered by its energy.
        n_jobs: processes.
        progress: shows a bar.
        time_limit: seconds for one crystal placed at random, after which what was found so far is taken.

    Raises:
        CheckpointError: there is no such refiner.
        NotAvailable: ``energies`` or ``relax`` without CHGNet.
        PlacementError: arguments that mean nothing.
        DataError: ``templates`` cannot be read.
    """
    settings = _Settings(
        n_candidates, refiner_of(refiner), lattice, seed, templates_of(templates), assignment, draws, steps,
        energies, relax, n_jobs, progress, time_limit,
    )  # fmt: skip
    return _build(crystals, None, settings)


def build_from_wyckoff(
    crystals: Crystals,
    letters: Sequence[Mapping[str, Sequence[str]]],
    n_candidates: int = 1,
    refiner: Refiner | str | Path | None = "default",
    lattice: str = "keep",
    seed: int = 0,
    *,
    templates: Reference = None,
    draws: int | None = None,
    steps: int = STEPS,
    energies: bool = False,
    relax: bool = False,
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
    settings = _Settings(
        n_candidates, refiner_of(refiner), lattice, seed, templates_of(templates), None, draws, steps,
        energies, relax, n_jobs, progress, time_limit,
    )  # fmt: skip
    return _build(crystals, letters, settings)


def refiner_of(refiner: Refiner | str | Path | None) -> Refiner | None:
    """The refiner that the argument ``refiner`` names.

    Raises:
        CheckpointError: there is none.
    """
    if refiner is None or isinstance(refiner, Refiner):
        return refiner
    return _read_refiner(str(refiner))


@lru_cache(maxsize=4)
def _read_refiner(name: str) -> Refiner:
    return Refiner.load(name)


def templates_of(reference: Reference) -> Templates | None:
    """Templates of what the argument ``templates`` names.

    Raises:
        DataError: it cannot be read.
    """
    if reference is None or isinstance(reference, Templates):
        return reference
    if isinstance(reference, Prototypes):
        return Templates(reference)
    sources = [reference] if isinstance(reference, str | Path) else reference
    return _read_templates(*(str(AFLOW if one == "aflow" else one) for one in sources))


@lru_cache(maxsize=4)
def _read_templates(*paths: str) -> Templates:
    return Templates(Prototypes.read(paths[0] if len(paths) == 1 else paths))


@dataclass(frozen=True)
class _Settings:
    """What holds for every crystal of a call."""

    n_candidates: int
    refiner: Refiner | None
    lattice: str
    seed: int
    templates: Templates | None
    assignment: str | None
    draws: int | None
    steps: int
    energies: bool
    relax: bool
    n_jobs: int
    progress: bool
    time_limit: float

    def __post_init__(self) -> None:
        if self.assignment not in (None, *LETTERS):
            raise PlacementError(f"assignment={self.assignment!r}: choose 'random' or 'learned'")
        if self.lattice not in LATTICES:
            raise PlacementError(f"lattice={self.lattice!r} means nothing; it is one of {', '.join(LATTICES)}")
        if self.refiner is None and self.lattice != "keep":
            raise PlacementError(f"lattice={self.lattice!r} needs a refiner; without one use lattice='keep'")
        if self.n_candidates < 1 or self.time_limit <= 0 or self.n_jobs == 0 or self.steps < 1:
            raise PlacementError(
                f"n_candidates={self.n_candidates}, time_limit={self.time_limit}, n_jobs={self.n_jobs}, "
                f"steps={self.steps}: at least one candidate and step, a positive time and one process, please"
            )
        if self.refiner is None and self.energies:
            raise PlacementError("energies=True needs a refiner's candidates; give a refiner, or relax=True")
        if self.draws is not None and self.draws < 1:
            raise PlacementError(f"draws={self.draws}: give at least one draw of the refiner")

    @property
    def wanted(self) -> int:
        """Candidates of each crystal before the last ordering."""
        return max(self.n_candidates, FEWEST_RELAXED) if self.relax else self.n_candidates

    @property
    def learned(self) -> bool:
        """Whether letters are those that real crystals make probable."""
        return (self.refiner is not None) if self.assignment is None else self.assignment == "learned"

    def task(self, i: int, crystals: Crystals, letters: Sequence[Mapping[str, Sequence[str]]] | None) -> Task:
        """What is asked of crystal ``i``."""
        counts = crystals.counts(i)
        given = None if letters is None else letters[i]
        cell = tuple(crystals.lattice[i].tolist())
        group = int(crystals.space_group[i])
        return Task(
            group, counts, cell, given, self.wanted, (self.seed, i), self.time_limit, (), self.learned
        )  # fmt: skip

    def with_templates(self, task: Task) -> Task:
        """The task with structures of templates."""
        if self.templates is None:
            return task
        try:
            given = task.assignment()
        except PlacementError:  # said again, as that crystal's error, where it is placed
            return task
        cell = np.array(task.lattice)
        found = self.templates.find(task.space_group, task.counts, cell, self.wanted, letters=given)
        return replace(task, templates=tuple(template.structure for template in found))


@dataclass(frozen=True)
class _Outcome:
    """What came of one task: structures with origins and probabilities, or why there are none."""

    structures: Sequence[OrbitStructure] = ()
    origins: Sequence[str] = ()
    probabilities: Sequence[float] = ()
    energies: Sequence[float] = ()
    error: str | None = None

    def ordered(self, order: Sequence[int]) -> _Outcome:
        """Some of its structures in another order."""
        columns = (self.structures, self.origins, self.probabilities, self.energies)
        return _Outcome(*([column[i] for i in order] if column else [] for column in columns), self.error)

    def result(self, crystal: Crystals) -> BuildResult:
        """For the user."""
        built = [structure.to_structure() for structure in self.structures]
        first = self.structures[0].wyckoff() if built else {}
        best = built[0] if built else None
        lists = (list(self.origins), list(self.probabilities), list(self.energies))
        return BuildResult(best, built, crystal, self.error, first, *lists)


def _build(
    crystals: Crystals, letters: Sequence[Mapping[str, Sequence[str]]] | None, settings: _Settings
) -> list[BuildResult]:
    if settings.energies or settings.relax:
        chgnet()  # refuses before the work
    tasks = [settings.task(i, crystals, letters) for i in range(len(crystals))]
    if settings.refiner is None:
        outcomes = _placed([settings.with_templates(task) for task in tasks], settings)
    else:
        outcomes = _refined(tasks, settings)
    if settings.relax:
        outcomes = _relaxed(outcomes, settings)
    return [
        outcome.ordered(range(len(outcome.structures))[: settings.n_candidates]).result(crystals[i])
        for i, outcome in enumerate(outcomes)
    ]


def _relaxed(outcomes: list[_Outcome], settings: _Settings) -> list[_Outcome]:
    """Relaxed within their symmetry, the lowest energy first; what loses its group by that stays as it was."""
    from crystalgfn.calculators.symmetric import relax_orbits

    flat = [structure for outcome in outcomes for structure in outcome.structures]
    found = iter(relax_orbits(flat, settings.lattice == "keep", progress=settings.progress))
    results = []
    for outcome in outcomes:
        structures, energies = [], []
        for before in outcome.structures:
            one = next(found)
            kept = fault(one.structure) is None
            structures.append(one.structure if kept else before)
            energies.append(one.energy if kept else float("nan"))
        order = np.argsort(energies, kind="stable").tolist()  # NaN comes last
        results.append(replace(outcome, structures=structures, energies=energies).ordered(order))
    return results


def _refined(tasks: list[Task], settings: _Settings) -> list[_Outcome]:
    """With the refiner; what it fails at once more with more draws, and then at random."""
    outcomes = _drawn(tasks, settings, 1)
    for more in (AGAIN, 0):
        failed = [i for i, outcome in enumerate(outcomes) if outcome.error is not None]
        if not failed:
            break
        again = [tasks[i] for i in failed]
        if more:
            found = _drawn(again, settings, more)
        else:
            found = _placed(again, settings) if settings.lattice == "keep" else [outcomes[i] for i in failed]
        for i, outcome in zip(failed, found, strict=True):
            outcomes[i] = outcome if outcome.error is None else outcomes[i]
    return outcomes


def _drawn(tasks: list[Task], settings: _Settings, times: int) -> list[_Outcome]:
    """The likeliest of the candidates of all tasks."""
    draws = times * (settings.draws or enough_draws(settings.wanted, settings.lattice))
    if times > 1:  # other noise
        tasks = [replace(task, seed=(*task.seed, times)) for task in tasks]
    size = CHUNK["cuda" if settings.refiner.device.type == "cuda" else "cpu"]
    work = partial(_likeliest, settings=settings, draws=draws)
    words = "making structures" if settings.progress else None
    return list(parallel_map(work, tasks, n_jobs=settings.n_jobs, batch=size, description=words))


def _likeliest(tasks: Sequence[Task], settings: _Settings, draws: int) -> list[_Outcome]:
    """Of the candidates of each crystal."""
    found = candidates(tasks, settings.refiner, draws, settings.templates, settings.lattice, settings.steps)
    choice = CandidateRanker.shipped(settings.templates is not None)
    energies = settings.energies or settings.relax
    ranked = rank_candidates([own for own, _ in found], choice, settings.wanted, energies)
    return [_outcome(own, reason, energies) for own, (_, reason) in zip(ranked, found, strict=True)]


def _outcome(ranked: Ranked, reason: str | None, energies: bool) -> _Outcome:
    """What the likeliest candidates are, or why there is none."""
    if not ranked:
        return _Outcome(error=reason)
    chosen = [candidate for candidate, _ in ranked]
    return _Outcome(
        [candidate.structure for candidate in chosen],
        [candidate.origin for candidate in chosen],
        [probability for _, probability in ranked],
        [candidate.energy for candidate in chosen] if energies else [],
    )


def _placed(tasks: list[Task], settings: _Settings) -> list[_Outcome]:
    """At random, after templates."""
    words = "placing atoms" if settings.progress else None
    return list(parallel_map(_place_all, tasks, n_jobs=settings.n_jobs, batch=4, description=words))


def _place_all(tasks: Sequence[Task]) -> list[_Outcome]:
    return [_place(task) for task in tasks]


def _place(task: Task) -> _Outcome:
    try:
        found = Search(task).run()
    except PlacementError as error:
        return _Outcome(error=str(error))
    return _Outcome(found, ["template" if one in task.templates else "random" for one in found])
