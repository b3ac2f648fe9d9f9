"""One crystal on the way to its candidates: where draws start, and what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.assignments import sample_assignments
from crystalgfn.crystallography.distances import SHORTEST, group_fault
from crystalgfn.crystallography.enumeration import representative
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.data.structure_index import Key
from crystalgfn.errors import PlacementError
from crystalgfn.structures.candidate import Candidate, Mark, candidate_of, join, same, support_of
from crystalgfn.structures.ranking.plausibility import Plausibility
from crystalgfn.structures.ranking.wyckoff import WyckoffModel
from crystalgfn.structures.refiner.refiner import STEPS, Refiner
from crystalgfn.structures.sources.random import Task
from crystalgfn.structures.sources.templates import Templates

LETTERS = 12
"""Choices of letters that draws are spread over, at most."""

LOOKED_AT = 256
"""Choices of letters that these are chosen from."""

BUDGET = 60_000
"""Pairs of an orbit and an atom in the draws of one crystal, at most; 80 atoms in general positions have 6,400."""

TEMPLATES = 12
"""Looked at, at most."""

FROM_TEMPLATES = 0.5
"""Share of the draws whose letters are those of templates, where there are any."""

IN_THEIR_CELLS = 0.5
"""Share of the draws with the letters of a template that start in its cell, where the crystal's own is not known."""


@dataclass(frozen=True)
class Start:
    """Where a draw starts: letters and cell, what the refiner does with the cell, the letters' chance."""

    structure: OrbitStructure
    way: str  # one of the refiner's, or "near": that of a template, which may be strained
    probability: float


@dataclass
class CandidatePool:
    """One crystal on the way: candidates, the starts of its draws, and why draws were refused."""

    task: Task
    lattice: str  # what the refiner does with its cell
    found: list[Candidate] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    drawn: list[tuple[Mark, float]] = field(default_factory=list)
    real: list[tuple[Mark, float]] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    error: str | None = None

    def begin(self, draws: int, templates: Templates | None, without: Collection[Key]) -> None:
        """Templates as candidates, and where the draws start."""
        task = self.task
        try:
            given = task.assignment()
        except PlacementError as error:
            self.error = str(error)
            return
        cell = None if self.lattice == "generate" else np.array(task.lattice)
        if templates is not None:
            n = min(draws, TEMPLATES)
            for one in templates.find(task.space_group, task.counts, cell, n, without, given):
                join(self.found, candidate_of(one.structure, template=one.probability))
        choices = list(_choices(task, given, self.found, draws, cell))
        chances = {_key(task, letters): probability for letters, probability, _ in choices}
        self.found = [replace(c, letters=chances.get(_key(task, c.structure.wyckoff()), 0.0)) for c in self.found]
        self.real = [(c.mark, c.template) for c in self.found]
        for letters, probability, n in choices:
            start = _start(task, letters)
            n = min(n, max(n > 0, BUDGET // (len(start.orbits) * sum(task.counts.values()))))
            near = self._cells(_key(task, letters), n) if cell is None else []
            self.starts += [Start(replace(start, lattice=own), "near", probability) for own in near]
            self.starts += [Start(start, self.lattice, probability)] * (n - len(near))

    def _cells(self, letters: tuple, n: int) -> list[tuple[float, ...]]:
        """For some of ``n`` draws the cells of the templates with their letters, the most probable most."""
        own = [c for c in self.found if c.template > 0 and _key(self.task, c.structure.wyckoff()) == letters]
        if not own:
            return []
        shares = _rounded({(i,): c.template for i, c in enumerate(own)}, round(IN_THEIR_CELLS * n))
        return [c.structure.lattice for i, c in enumerate(own) for _ in range(shares.get((i,), 0))]

    def take(self, structure: OrbitStructure, probability: float) -> None:
        """Count a draw, if it passes."""
        candidate = candidate_of(structure, letters=probability, votes=1 / len(self.starts))
        wrong = f"atoms are closer than {SHORTEST} Å" if candidate is None else None
        if candidate is not None and not any(same(candidate, other) for other in self.found):
            wrong = group_fault(structure)
        if wrong is not None:
            self.refusals[wrong] += 1
        else:
            self.drawn.append((candidate.mark, candidate.votes))
            join(self.found, candidate)

    def adapted(self, k: int, structure: OrbitStructure) -> None:
        """Count candidate ``k`` as it was refined: in its place where it is the same, else as one of its own."""
        old = self.found[k]
        new = candidate_of(structure, letters=old.letters)
        if new is None or structure == old.structure or group_fault(structure) is not None:
            return
        if same(new, old):
            self.found[k] = replace(old, structure=new.structure, room=new.room, mark=new.mark)
        else:
            join(self.found, new)

    def supported(self) -> list[Candidate]:
        """The candidates, knowing what the others say."""
        return [
            replace(c, support=support_of(c, self.drawn), template_support=support_of(c, self.real)) for c in self.found
        ]

    def reason(self) -> str:
        """Why there is no candidate."""
        if self.error is not None:
            return self.error
        if not self.refusals:
            return f"no assignment of Wyckoff positions was found that gives exactly {self.task.name}"
        words = "; ".join(f"{reason} ({n} of them)" for reason, n in self.refusals.most_common(2))
        return f"none of the {self.refusals.total()} placements tried in {self.task.name} passed: {words}"


def _choices(
    task: Task,
    given: Mapping[str, Sequence[str]] | None,
    offered: Sequence[Candidate],
    draws: int,
    cell: np.ndarray | None,
) -> Iterator[tuple[Mapping[str, Sequence[str]], float, int]]:
    """Letters, their probability, and how many draws they get: the most probable most."""
    if given is not None:
        yield given, 1.0, draws
        return
    if task.learned:
        ranked = WyckoffModel.shipped().rank(task.space_group, task.counts, cell, LETTERS, LOOKED_AT)
    else:
        drawn = sample_assignments(task.space_group, task.counts, LETTERS, np.random.default_rng(task.seed))
        ranked = [(letters, 1 / len(drawn)) for letters in drawn]
    choices = {_key(task, letters): (letters, probability) for letters, probability in ranked}
    shares = {key: probability for key, (_, probability) in choices.items()}
    total = sum(shares.values())
    weight = sum(candidate.template for candidate in offered)
    if offered and weight > 0:
        shares = {key: (1 - FROM_TEMPLATES) * value / max(total, 1e-12) for key, value in shares.items()}
        for candidate in offered:
            key = _key(task, candidate.structure.wyckoff())
            choices.setdefault(key, (candidate.structure.wyckoff(), 0.0))
            shares[key] = shares.get(key, 0.0) + FROM_TEMPLATES * candidate.template / weight
    if not shares:
        return
    rounded = _rounded(shares, draws)
    for key, choice in choices.items():
        yield *choice, rounded.get(key, 0)


def _rounded(shares: Mapping[tuple, float], draws: int) -> dict[tuple, int]:
    """``draws`` shared out by shares, by largest remainders."""
    total = sum(shares.values())
    exact = {key: draws * share / total for key, share in shares.items()}
    whole = {key: int(value) for key, value in exact.items()}
    rest = sorted(exact, key=lambda key: whole[key] - exact[key])[: draws - sum(whole.values())]
    return {key: n for key in exact if (n := whole[key] + (key in rest))}


def _key(task: Task, letters: Mapping[str, Sequence[str]]) -> tuple:
    return representative(task.space_group, [letters[symbol] for symbol in task.counts])


def _start(task: Task, letters: Mapping[str, Sequence[str]]) -> OrbitStructure:
    orbits = tuple(Orbit(letter, elements.NUMBER[symbol]) for symbol, own in letters.items() for letter in own)
    return OrbitStructure(task.space_group, task.lattice, orbits)


STRAIN = 0.15
"""Largest principal logarithmic strain of these."""

TEMPLATE_NOISE = 0.3
"""Under so much noise the refiner makes a template's coordinates those of the crystal's own elements."""

MORE_DRAWS, IN_OWN_CELLS = 6, 6
"""Than twice the structures asked for; times as many where the refiner makes the cells too."""


def enough_draws(n: int, lattice: str) -> int:
    """Draws of the refiner for ``n`` structures of a crystal."""
    return (2 * n + MORE_DRAWS) * (IN_OWN_CELLS if lattice == "generate" else 1)


def candidates(
    tasks: Sequence[Task],
    refiner: Refiner,
    draws: int,
    templates: Templates | None = None,
    lattice: str = "keep",
    steps: int = STEPS,
    without: Sequence[Collection[Key]] | None = None,
    progress: bool = False,
) -> list[tuple[list[Candidate], str | None]]:
    """For each task its candidates in no order, each with exactly the group, and the reason where there is none.

    Args:
        tasks: what is asked, with the seeds of the noise; a task's lattice is a start where ``lattice`` is not "keep".
        refiner: makes coordinates.
        draws: of the refiner, for each task.
        templates: real crystals, or None.
        lattice: see `Refiner.refine`; with "generate" templates come in their own cells, and draws in cells near them
            too.
        steps: of the refiner.
        without: for each task pairs (formula, group) that no template may have.
        progress: shows a bar.
    """
    from crystalgfn.utils.progress import Bar

    gathered = [CandidatePool(task, lattice) for task in tasks]
    for i, one in enumerate(Bar(gathered, description="choosing letters", shown=progress)):
        one.begin(draws, templates, () if without is None else without[i])
    _adapt(gathered, refiner, steps)
    made = _made(gathered, refiner, steps, progress)
    for i, one in enumerate(Bar(gathered, description="checking", shown=progress)):
        for k, start in enumerate(one.starts):
            one.take(made[i, k], start.probability)
    found = [one.supported() for one in gathered]
    structures = [candidate.structure for own in found for candidate in own]
    plausible = iter(Plausibility.shipped(refiner.device.type).of(structures).tolist())
    judged = [[replace(c, plausible=next(plausible)) for c in own] for own in found]
    return [(own, None if own else one.reason()) for own, one in zip(judged, gathered, strict=True)]


def _adapt(gathered: Sequence[CandidatePool], refiner: Refiner, steps: int) -> None:
    """Templates with coordinates, and where it is not known the cell, refined: in their place, or where they went."""
    for lattice in dict.fromkeys(one.lattice for one in gathered):
        known = [(one, k, c) for one in gathered if one.lattice == lattice for k, c in enumerate(one.found)]
        options = _options("near" if lattice == "generate" else lattice) | {"start": "given", "noise": TEMPLATE_NOISE}
        if not known:
            continue
        streams = [(*one.task.seed, k) for one, k, _ in known]
        made = refiner.refine([c.structure for *_, c in known], steps=steps, streams=streams, **options)
        for (one, k, _), structure in zip(known, made, strict=True):
            one.adapted(k, structure)


def _options(way: str) -> dict[str, Any]:
    """What the refiner does with a cell; "near": it may leave that of a template by so much."""
    return {"lattice": "refine", "max_strain": STRAIN} if way == "near" else {"lattice": way}


def _made(
    gathered: Sequence[CandidatePool], refiner: Refiner, steps: int, progress: bool
) -> dict[tuple[int, int], OrbitStructure]:
    """The draws, by crystal and place among its own."""
    made: dict[tuple[int, int], OrbitStructure] = {}
    starts = {(i, k): start for i, one in enumerate(gathered) for k, start in enumerate(one.starts)}
    for way in dict.fromkeys(start.way for start in starts.values()):
        own = [place for place, start in starts.items() if start.way == way]
        # a crystal's random numbers are its own, whatever else is in the batch
        streams = [(*gathered[i].task.seed, k) for i, k in own]
        structures = [starts[place].structure for place in own]
        drawn = refiner.refine(structures, steps=steps, streams=streams, progress=progress, **_options(way))
        made |= zip(own, drawn, strict=True)
    return made
