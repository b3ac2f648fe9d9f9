"""Candidate structures of crystals, for all of them at once: templates, and free coordinates that a refiner makes.

Each candidate knows what speaks for it: how probable its template or its letters are, how many of the refiner's draws
came out as this structure, how well the refiner finds it again from noise, and how much room its atoms have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from crystalgfn.errors import PlacementError
from crystalgfn.structures.assignment import sample_assignments
from crystalgfn.structures.checks import SHORTEST, contacts_of, group_fault
from crystalgfn.structures.enumeration import representative
from crystalgfn.structures.orbits import Orbit, OrbitStructure, cell_matrix, wyckoff_position
from crystalgfn.structures.prototypes import Key
from crystalgfn.structures.ranking import shape_vector
from crystalgfn.structures.refine import STEPS, Refiner
from crystalgfn.structures.search import Task
from crystalgfn.structures.templates import Templates
from crystalgfn.structures.wyckoff_model import WyckoffModel
from crystalgfn.tables import elements, groups

SAME, SAME_SHAPE = 0.12, 0.1
"""Largest difference of fingerprints (over the cube root of the volume per atom) and of cells of one structure."""
LETTERS = 12
"""Choices of letters that draws are spread over, at most."""
LOOKED_AT = 256
"""Choices of letters that these are chosen from."""
BUDGET = 10_000
"""Pairs of an orbit and an atom in the draws of one crystal, at most; 80 atoms in general positions have 6,400."""
TEMPLATES = 12
"""Looked at, at most."""
FROM_TEMPLATES = 0.5
"""Share of the draws whose letters are those of templates, where there are any."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A structure with what speaks for it.

    Attributes:
        structure: in the lattice that was asked for, if one was.
        template: the probability of its template, summed over those with this structure; 0 where none has it.
        letters: the probability of its letters, 1 where they were given.
        votes: share of the refiner's draws that came out as this structure.
        room: the smallest distance of two atoms over the sum of their radii.
        misfit: see `Refiner.misfit`; 0 where nothing is free.
        mark: what tells it from others.
    """

    structure: OrbitStructure
    template: float
    letters: float
    votes: float
    room: float
    misfit: float
    mark: tuple[np.ndarray, np.ndarray] = field(repr=False)

    @property
    def origin(self) -> str:
        """Where it comes from: "template", "refiner", or "fixed" where the letters leave nothing free."""
        if not any(wyckoff_position(self.structure.space_group, o.letter).free for o in self.structure.orbits):
            return "fixed"
        return "template" if self.template > 0 else "refiner"


@dataclass
class Refusals:
    """Why draws were not taken."""

    counts: Counter[str] = field(default_factory=Counter)

    def reason(self, task: Task) -> str:
        """In a sentence."""
        if not self.counts:
            return f"no assignment of Wyckoff positions was found that gives exactly {task.name}"
        words = "; ".join(f"{reason} ({n} of them)" for reason, n in self.counts.most_common(2))
        return f"none of the {self.counts.total()} placements tried in {task.name} passed: {words}"


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
        lattice: see `Refiner.refine`; with "generate" templates come in their own cells.
        steps: of the refiner.
        without: for each task pairs (formula, group) that no template may have.
        progress: shows a bar.
    """
    from tqdm import tqdm

    found: list[list[Candidate]] = [[] for _ in tasks]
    refusals = [Refusals() for _ in tasks]
    errors: list[str | None] = [None] * len(tasks)
    starts: list[OrbitStructure] = []
    owner: list[tuple[int, float]] = []
    streams: list[tuple[int, ...]] = []  # a crystal's are its own, whatever else is in the batch
    known = lattice != "generate"
    for i, task in enumerate(tqdm(tasks, desc="choosing letters", disable=not progress)):
        try:
            given = task.assignment()
        except PlacementError as error:
            errors[i] = str(error)
            continue
        offered = []
        if templates is not None:
            cell = np.array(task.lattice) if known else None
            taken = () if without is None else without[i]
            offered = templates.find(task.space_group, task.counts, cell, min(draws, TEMPLATES), taken, given)
        for template in offered:
            _join(found[i], _candidate(template.structure, template=template.probability))
        begun = 0
        for letters, probability, n in _choices(task, given, found[i], draws, known):
            start = _start(task, letters)
            n = min(n, max(1, BUDGET // (len(start.orbits) * sum(task.counts.values()))))
            streams += [(*task.seed, k) for k in range(begun, begun + n)]
            begun += n
            starts += [start] * n
            owner += [(i, probability)] * n
    drawn = Counter(i for i, _ in owner)
    made = refiner.refine(starts, lattice, steps=steps, streams=streams, progress=progress)
    checks = zip(owner, made, strict=True)
    for (i, probability), structure in tqdm(checks, total=len(made), desc="checking", disable=not progress):
        candidate = _candidate(structure, letters=probability, votes=1 / drawn[i])
        wrong = f"atoms are closer than {SHORTEST} Å" if candidate is None else None
        if candidate is not None and not any(_same(candidate, other) for other in found[i]):
            wrong = group_fault(structure)
        if wrong is not None:
            refusals[i].counts[wrong] += 1
        else:
            _join(found[i], candidate)
    return [
        (own, None) if own else ([], error or refused.reason(task))
        for task, own, error, refused in zip(tasks, _judged(found, refiner), errors, refusals, strict=True)
    ]


def _judged(found: list[list[Candidate]], refiner: Refiner) -> list[list[Candidate]]:
    """The candidates with their misfits."""
    flat = [candidate.structure for own in found for candidate in own]
    misfits = iter(refiner.misfit(flat).tolist())
    return [[replace(candidate, misfit=next(misfits)) for candidate in own] for own in found]


def _choices(
    task: Task, given: Mapping[str, Sequence[str]] | None, offered: Sequence[Candidate], draws: int, known: bool
) -> Iterator[tuple[Mapping[str, Sequence[str]], float, int]]:
    """Letters, their probability, and how many draws they get: the most probable most."""
    if given is not None:
        yield given, 1.0, draws
        return
    cell = np.array(task.lattice) if known else None
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
    for key, n in _rounded(shares, draws).items():
        yield *choices[key], n


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


def _candidate(
    structure: OrbitStructure, template: float = 0.0, letters: float = 0.0, votes: float = 0.0
) -> Candidate | None:
    """A structure as a candidate; None where two atoms are too close."""
    contacts, parameters = contacts_of(structure)
    ratio, shortest = (float(x[0]) for x in contacts.nearest(parameters))
    if not shortest >= SHORTEST:
        return None
    volume = abs(np.linalg.det(cell_matrix(structure.lattice))) / int(groups.CENTRING[structure.space_group - 1])
    scale = (volume / sum(structure.composition.values())) ** (1 / 3)
    mark = contacts.fingerprint(parameters[0]) / scale, shape_vector(np.array(structure.lattice))
    return Candidate(structure, template, letters, votes, ratio, 0.0, mark)


def _same(one: Candidate, other: Candidate) -> bool:
    near = np.abs(one.mark[0] - other.mark[0]).max() < SAME
    return bool(near and np.linalg.norm(one.mark[1] - other.mark[1]) < SAME_SHAPE)


def _join(found: list[Candidate], candidate: Candidate | None) -> None:
    """Count a candidate to the one that is the same, or as a new one."""
    if candidate is None:
        return
    for i, other in enumerate(found):
        if _same(candidate, other):
            found[i] = replace(
                other,
                template=other.template + candidate.template,
                letters=max(other.letters, candidate.letters),
                votes=other.votes + candidate.votes,
            )
            return
    found.append(candidate)
