"""Looks for placements of one crystal: rounds of assignments, random parameters, steps apart, checks by spglib."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.assignments import Assignment, check_assignment, sample_assignments
from crystalgfn.crystallography.distances import SHORTEST, SYMPREC, Contacts, contacts_of, group_fault
from crystalgfn.crystallography.lattice import (
    HEXAGONAL,
    KIND,
    KINDS,
    MONOCLINIC,
    TETRAGONAL,
    TRICLINIC,
    canonical_lattice,
)
from crystalgfn.crystallography.orbit_batch import OrbitBatch
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure, cell_matrix
from crystalgfn.crystallography.packing import packing
from crystalgfn.crystallography.realizable import realisable
from crystalgfn.errors import PlacementError
from crystalgfn.structures.ranking.wyckoff import WyckoffModel
from crystalgfn.structures.sources.soft_spheres import SoftSpheres

LOOSE_SYMPREC = 0.1
"""Å; placements that keep their group at this tolerance too, so that they read back as asked, come first."""

ROUNDS, ASSIGNMENTS, DRAWS = 4, 6, 32
"""Rounds at most; in each so many assignments, with so many random parameters for each."""

SPREAD_ASSIGNMENTS, SPREAD_DRAWS, STEPS = 3, 4, 25
"""Of the best assignments, the best draws of each go through so many steps of pushing close atoms apart."""

CHECKS = 3
"""Placements of one assignment and stage checked by spglib in a round, besides those that are kept."""

GOOD_RATIO = 0.75
"""Distance over the sum of radii above which no further round is made."""

LOOKED_AT = 128
"""Assignments that learned letters are chosen from; enough for the rounds, and a quarter of the time of all."""

CHANCE = 0.1
"""Distance over the sum of radii that makes up for letters which are e times less probable."""

ENOUGH_ROOM = 0.9
"""Distance over the sum of radii above which more room says nothing against more probable letters."""

DISTINCT = 0.1
"""Å; candidates differ by more than this in some mean neighbour distance."""


@dataclass(frozen=True)
class Task:
    """What is asked of one crystal.

    ``counts`` are atoms per primitive cell by element symbol; ``letters``, where given, the orbits of each element.
    ``templates`` are candidates that passed the checks already and come first; ``learned``: letters are chosen by the
    model of real crystals instead of at random.
    """

    space_group: int
    counts: dict[str, int]
    lattice: tuple[float, ...]
    letters: Mapping[str, Sequence[str]] | None
    n_candidates: int
    seed: tuple[int, ...]
    time_limit: float = 2.0
    templates: tuple[OrbitStructure, ...] = ()
    learned: bool = False

    @classmethod
    def in_random_cell(
        cls,
        space_group: int,
        counts: dict[str, int],
        rng: np.random.Generator,
        n: int,
        seed: tuple[int, ...],
        **options: Any,
    ) -> Task:
        """What is asked of a crystal whose cell is not known."""
        cell = tuple(random_cell(space_group, counts, rng).tolist())
        return cls(space_group, counts, cell, None, n, seed, **options)

    @property
    def name(self) -> str:
        """The group in words."""
        return f"space group {self.space_group} ({space_groups.SYMBOL[self.space_group - 1]})"

    def assignment(self) -> Assignment | None:
        """The letters where they are given.

        Raises:
            PlacementError: the crystal cannot be placed whatever the parameters, or the letters do not go with it.
        """
        held = ", ".join(f"{count} {symbol}" for symbol, count in self.counts.items())
        if not self.counts:
            raise PlacementError("the crystal has no atoms")
        if not np.isfinite(self.lattice).all() or min(self.lattice) <= 0:
            raise PlacementError(f"{self.lattice} is not a cell")
        counts = tuple(self.counts.values())
        if not packing(self.space_group, max(counts)).fits(np.array([counts]))[0]:
            raise PlacementError(f"the Wyckoff positions of {self.name} cannot hold {held} per primitive cell")
        if not realisable(self.space_group, counts):
            raise PlacementError(f"every placement of {held} in {self.name} has a larger group")
        if self.letters is None:
            return None
        return check_assignment(self.space_group, self.counts, self.letters)


@dataclass(frozen=True)
class Trial:
    """One placement with its smallest distance over the sum of radii, and its smallest distance in Å.

    ``stage`` is 0 for random parameters, 1 after they were pushed apart, 2 half way. ``chance`` is the probability of
    the letters, None where they are given or drawn at random.
    """

    ratio: float
    shortest: float
    contacts: Contacts
    parameters: np.ndarray
    assignment: Assignment
    stage: int
    chance: float | None = None

    @property
    def merit(self) -> float:
        """What trials are ordered by: the room between atoms, with learned letters their probability too."""
        if self.chance is None:
            return self.ratio
        return min(self.ratio, ENOUGH_ROOM) + CHANCE * float(np.log(self.chance + 1e-9))


class Search:
    """The search for one crystal's placements."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.given = task.assignment()
        self.rng = np.random.default_rng(task.seed)
        self.stop = time.monotonic() + task.time_limit
        self.refusals: Counter[str] = Counter()
        self.ranked: list[tuple[Assignment, float]] | None = None

    def run(self) -> list[OrbitStructure]:
        """At most ``n_candidates`` structures that pass every check, best first.

        Raises:
            PlacementError: none does; says why.
        """
        given = list(self.task.templates[: self.task.n_candidates])
        wanted = self.task.n_candidates - len(given)
        if not wanted:
            return given
        kept: dict[float, list[Trial]] = {LOOSE_SYMPREC: [], SYMPREC: []}
        for number in range(ROUNDS):
            trials = self._trials(number, DRAWS if number == 0 or any(kept.values()) else 4 * DRAWS)
            for trial in self._in_turn(trials):
                late = time.monotonic() > self.stop and (given or any(kept.values()))
                if late or self._enough(kept, trial, wanted):
                    break
                if any(self._same(trial, other) for other in kept[LOOSE_SYMPREC] + kept[SYMPREC]):
                    continue
                if any(self._is(trial, template) for template in given):
                    continue
                kept_at = self._check(trial)
                if kept_at is not None:
                    kept[kept_at].append(trial)
            rigid = self.given is not None and not any(trial.contacts.free for trial in trials)
            good = [t for t in kept[LOOSE_SYMPREC] if t.ratio >= GOOD_RATIO]
            if len(good) >= wanted or rigid or not trials or time.monotonic() > self.stop:
                break
        best = [t for symprec in kept for t in sorted(kept[symprec], key=lambda t: -t.merit)]
        if not best and not given:
            raise PlacementError(self._reason())
        return given + [self._orbits(trial) for trial in best[:wanted]]

    def _in_turn(self, trials: list[Trial]) -> list[Trial]:
        """Those to check, best first: a few of each assignment and stage, as one that fails seldom fails alone."""
        apart = [trial for trial in sorted(trials, key=lambda t: -t.merit) if trial.shortest >= SHORTEST]
        self.refusals[f"atoms are closer than {SHORTEST} Å"] += len(trials) - len(apart)
        taken: Counter[tuple[int, int]] = Counter()
        chosen = []
        for trial in apart:
            source = (id(trial.contacts), trial.stage)
            if taken[source] < CHECKS + self.task.n_candidates:
                taken[source] += 1
                chosen.append(trial)
        return chosen

    def _enough(self, kept: dict[float, list[Trial]], trial: Trial, wanted: int) -> bool:
        """Whether a further trial cannot better what is kept."""
        merits = sorted((t.merit for t in kept[LOOSE_SYMPREC]), reverse=True)
        return len(merits) >= wanted and merits[wanted - 1] >= trial.merit

    def _choices(self, number: int) -> list[tuple[Assignment, float | None]]:
        """Assignments of a round with their probabilities: the given one, the next of the learned ones, random ones."""
        task = self.task
        if self.given:
            return [(self.given, None)]
        if task.learned:
            if self.ranked is None:
                model = WyckoffModel.shipped()
                cell = np.array(task.lattice)
                self.ranked = model.rank(task.space_group, task.counts, cell, ROUNDS * ASSIGNMENTS, LOOKED_AT)
            if self.ranked:
                start = number * ASSIGNMENTS % len(self.ranked)
                return list(self.ranked[start : start + ASSIGNMENTS])
        found = sample_assignments(task.space_group, task.counts, ASSIGNMENTS, self.rng)
        return [(assignment, None) for assignment in found]

    def _trials(self, number: int, draws: int) -> list[Trial]:
        """One round of placements with so many draws an assignment, not yet checked."""
        task = self.task
        drawn = []
        for assignment, chance in self._choices(number):
            letters = [letter for element in assignment.values() for letter in element]
            species = [elements.NUMBER[symbol] for symbol, element in assignment.items() for _ in element]
            contacts = Contacts(task.space_group, task.lattice, letters, species)
            parameters = self.rng.random((draws if contacts.free else 1, len(letters), 3))
            ratios, shortest = contacts.nearest(parameters)
            best = int(ratios.argmax())
            first = Trial(float(ratios[best]), float(shortest[best]), contacts, parameters[best], assignment, 0, chance)
            drawn.append((first, parameters, ratios, shortest))
            if time.monotonic() > self.stop:
                break
        if not drawn:
            self.refusals["no assignment of Wyckoff positions was found that gives exactly this group"] += 1
        drawn.sort(key=lambda d: -d[0].merit)
        tops = [np.argsort(-ratios, kind="stable")[:SPREAD_DRAWS] for _, _, ratios, _ in drawn]
        sets = [
            (first, 0, parameters[top], ratios[top], shortest[top])
            for (first, parameters, ratios, shortest), top in zip(drawn, tops, strict=True)
        ]
        crowded = [(first, chosen) for first, _, chosen, *_ in sets[:SPREAD_ASSIGNMENTS] if first.contacts.free]
        if crowded and time.monotonic() < self.stop:
            sets += [(first, k, moved, *first.contacts.nearest(moved)) for first, k, moved in self._spread(crowded)]
        return [
            replace(first, ratio=float(r), shortest=float(d), parameters=p, stage=stage)
            for first, stage, *columns in sets
            for p, r, d in zip(*columns, strict=True)
        ]

    def _spread(self, crowded: list[tuple[Trial, np.ndarray]]) -> Iterator[tuple[Trial, int, np.ndarray]]:
        """Parameters [M, O, 3] of the trials of some assignments after they were pushed apart, and half way.

        On the way lie placements that are less crowded than the start and less symmetric than the end.
        """
        trials = [replace(first, parameters=p) for first, chosen in crowded for p in chosen]
        batch = OrbitBatch.of([self._orbits(trial) for trial in trials], torch.float64)
        apart = SoftSpheres(batch).spread(STEPS)
        for stage, free in ((1, apart), (2, (apart + batch.free) / 2)):
            moved = iter(batch.at(free).structures())
            for first, chosen in crowded:
                yield first, stage, np.array([[o.parameters for o in next(moved).orbits] for _ in chosen])

    def _orbits(self, trial: Trial) -> OrbitStructure:
        pairs = [(symbol, letter) for symbol, letters in trial.assignment.items() for letter in letters]
        orbits = tuple(
            Orbit(letter, elements.NUMBER[symbol], tuple((p % 1.0).tolist()))
            for (symbol, letter), p in zip(pairs, trial.parameters, strict=True)
        )
        return OrbitStructure(self.task.space_group, self.task.lattice, orbits)

    def _check(self, trial: Trial) -> float | None:
        """The tolerance at which the placement keeps its group, the loose one if it can; None where it fails."""
        structure = self._orbits(trial)
        for symprec, answer in ((SYMPREC, None), (LOOSE_SYMPREC, SYMPREC)):
            wrong = group_fault(structure, symprec)
            if wrong is not None:
                if answer is None:
                    self.refusals[wrong] += 1
                return answer
        return LOOSE_SYMPREC

    def _same(self, one: Trial, other: Trial) -> bool:
        if self.task.n_candidates == 1:
            return False
        gaps = one.contacts.fingerprint(one.parameters) - other.contacts.fingerprint(other.parameters)
        return bool(np.abs(gaps).max() < DISTINCT)

    def _is(self, trial: Trial, template: OrbitStructure) -> bool:
        contacts, parameters = contacts_of(template)
        gaps = trial.contacts.fingerprint(trial.parameters) - contacts.fingerprint(parameters[0])
        return bool(np.abs(gaps).max() < DISTINCT)

    def _reason(self) -> str:
        reasons = "; ".join(f"{reason} ({n} of them)" for reason, n in self.refusals.most_common(2) if n)
        return f"none of the {self.refusals.total()} placements tried in {self.task.name} passed: {reasons}"


VOLUME_OF_SPHERES = 0.55
"""Share of the cell that spheres of the elements' radii fill in the median of real crystals."""


def random_cell(space_group: int, counts: Mapping[str, int], rng: np.random.Generator) -> np.ndarray:
    """A random conventional cell of about the right volume, in the group's domain, [6]."""
    kind = KIND[space_group - 1]
    volume = sum(elements.SPHERE_VOLUME[elements.NUMBER[s] - 1] * n for s, n in counts.items()) / VOLUME_OF_SPHERES
    lengths = np.exp(rng.uniform(-0.5, 0.5, 3))
    angles = np.full(3, 90.0)
    if kind == TRICLINIC:
        angles = rng.uniform(65, 90, 3)
    elif kind == MONOCLINIC:
        angles[1] = rng.uniform(90, 120)
    elif kind == HEXAGONAL:
        angles[2] = 120.0
    if kind in (TETRAGONAL, HEXAGONAL):
        lengths[1] = lengths[0]
    elif kind == KINDS.index("cubic"):
        lengths[:] = 1.0
    unit = abs(np.linalg.det(cell_matrix([*lengths, *angles])))
    lengths *= (volume * int(space_groups.CENTRING[space_group - 1]) / unit) ** (1 / 3)
    return canonical_lattice(space_group, np.concatenate([lengths, angles]))
