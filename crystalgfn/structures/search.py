"""Looks for placements of one crystal: rounds of assignments, random parameters, steps apart, checks by spglib."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crystalgfn.errors import PlacementError
from crystalgfn.structures.assignment import Assignment, check_assignment, sample_assignments
from crystalgfn.structures.checks import SHORTEST, SYMPREC, group_fault
from crystalgfn.structures.contacts import Contacts
from crystalgfn.structures.orbits import Orbit, OrbitStructure
from crystalgfn.tables import elements, groups
from crystalgfn.tables.packing import packing
from crystalgfn.tables.realisable import realisable

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
DISTINCT = 0.1
"""Å; candidates differ by more than this in some mean neighbour distance."""


@dataclass(frozen=True)
class Task:
    """What is asked of one crystal.

    ``counts`` are atoms per primitive cell by element symbol; ``letters``, where given, the orbits of each element.
    """

    space_group: int
    counts: dict[str, int]
    lattice: tuple[float, ...]
    letters: Mapping[str, Sequence[str]] | None
    n_candidates: int
    seed: tuple[int, int]
    time_limit: float

    @property
    def name(self) -> str:
        """The group in words."""
        return f"space group {self.space_group} ({groups.SYMBOL[self.space_group - 1]})"

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

    ``stage`` is 0 for random parameters, 1 after they were pushed apart, 2 half way.
    """

    ratio: float
    shortest: float
    contacts: Contacts
    parameters: np.ndarray
    assignment: Assignment
    stage: int


class Search:
    """The search for one crystal's placements."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.given = task.assignment()
        self.rng = np.random.default_rng(task.seed)
        self.stop = time.monotonic() + task.time_limit
        self.refusals: Counter[str] = Counter()

    def run(self) -> list[OrbitStructure]:
        """At most ``n_candidates`` structures that pass every check, best first.

        Raises:
            PlacementError: none does; says why.
        """
        wanted = self.task.n_candidates
        kept: dict[float, list[Trial]] = {LOOSE_SYMPREC: [], SYMPREC: []}
        for number in range(ROUNDS):
            trials = self._trials(DRAWS if number == 0 or any(kept.values()) else 4 * DRAWS)
            for trial in self._in_turn(trials):
                late = time.monotonic() > self.stop and any(kept.values())
                if late or self._enough(kept, trial):
                    break
                if any(self._same(trial, other) for other in kept[LOOSE_SYMPREC] + kept[SYMPREC]):
                    continue
                kept_at = self._check(trial)
                if kept_at is not None:
                    kept[kept_at].append(trial)
            rigid = self.given is not None and not any(trial.contacts.free for trial in trials)
            good = [t for t in kept[LOOSE_SYMPREC] if t.ratio >= GOOD_RATIO]
            if len(good) >= wanted or rigid or not trials or time.monotonic() > self.stop:
                break
        best = [t for symprec in kept for t in sorted(kept[symprec], key=lambda t: -t.ratio)]
        if not best:
            raise PlacementError(self._reason())
        return [self._orbits(trial) for trial in best[:wanted]]

    def _in_turn(self, trials: list[Trial]) -> list[Trial]:
        """Those to check, best first: a few of each assignment and stage, as one that fails seldom fails alone."""
        apart = [trial for trial in sorted(trials, key=lambda t: -t.ratio) if trial.shortest >= SHORTEST]
        self.refusals[f"atoms are closer than {SHORTEST} Å"] += len(trials) - len(apart)
        taken: Counter[tuple[int, int]] = Counter()
        chosen = []
        for trial in apart:
            source = (id(trial.contacts), trial.stage)
            if taken[source] < CHECKS + self.task.n_candidates:
                taken[source] += 1
                chosen.append(trial)
        return chosen

    def _enough(self, kept: dict[float, list[Trial]], trial: Trial) -> bool:
        """Whether a further trial cannot better what is kept."""
        ratios = sorted((t.ratio for t in kept[LOOSE_SYMPREC]), reverse=True)
        return len(ratios) >= self.task.n_candidates and ratios[self.task.n_candidates - 1] >= trial.ratio

    def _trials(self, draws: int) -> list[Trial]:
        """One round of placements with so many draws an assignment, not yet checked."""
        task = self.task
        assignments = [self.given] if self.given else sample_assignments(
            task.space_group, task.counts, ASSIGNMENTS, self.rng
        )  # fmt: skip
        drawn = []
        for assignment in assignments:
            letters = [letter for element in assignment.values() for letter in element]
            species = [elements.NUMBER[symbol] for symbol, element in assignment.items() for _ in element]
            contacts = Contacts(task.space_group, task.lattice, letters, species)
            parameters = self.rng.random((draws if contacts.free else 1, len(letters), 3))
            ratios, shortest = contacts.nearest(parameters)
            drawn.append((float(ratios.max()), contacts, parameters, ratios, shortest, assignment))
            if time.monotonic() > self.stop:
                break
        if not drawn:
            self.refusals["no assignment of Wyckoff positions was found that gives exactly this group"] += 1
        trials = []
        for rank, (_, contacts, parameters, ratios, shortest, assignment) in enumerate(
            sorted(drawn, key=lambda d: -d[0])
        ):
            top = np.argsort(-ratios, kind="stable")[:SPREAD_DRAWS]
            sets = [(parameters[top], ratios[top], shortest[top])]
            if contacts.free and rank < SPREAD_ASSIGNMENTS and time.monotonic() < self.stop:
                apart = contacts.spread(parameters[top], STEPS)
                # on the way lie placements that are less crowded than the start and less symmetric than the end
                for moved in (apart, (apart + parameters[top]) / 2):
                    sets.append((moved, *contacts.nearest(moved)))
            for stage, group in enumerate(sets):
                trials += [
                    Trial(float(r), float(d), contacts, p, assignment, stage) for p, r, d in zip(*group, strict=True)
                ]
        return trials

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

    def _reason(self) -> str:
        reasons = "; ".join(f"{reason} ({n} of them)" for reason, n in self.refusals.most_common(2) if n)
        return f"none of the {self.refusals.total()} placements tried in {self.task.name} passed: {reasons}"
