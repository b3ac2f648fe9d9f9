"""Random Wyckoff placement with soft-sphere relaxation, one crystal at a time.

Rounds of assignments and random free parameters; close atoms are pushed apart, and spglib checks the best. The work is
counted in rounds and never in seconds, so the same seed gives the same structures on any machine.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.assignments import Assignment, sample_assignments
from crystalgfn.crystallography.convert import fingerprint
from crystalgfn.crystallography.distances import SHORTEST, SYMPREC, Contacts, contacts_of, group_fault
from crystalgfn.crystallography.orbit_batch import OrbitBatch
from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.errors import PlacementError
from crystalgfn.structures.ranking.wyckoff import WyckoffModel
from crystalgfn.structures.refiner.geometry import reduction
from crystalgfn.structures.sources.base import PlacementRequest, Proposals
from crystalgfn.typing import OfOrbits

REACH = 1.05
"""Times the sum of two radii, the distance below which atoms push each other."""
STEP = 0.4
"""Of the force, in each step."""
FIRST_STEP, LAST_STEP = 0.65, 0.05
"""Å, of the first step and of the last."""
_RADIUS = torch.tensor([0.0, *elements.RADIUS.tolist()], dtype=torch.float64)
_IMAGES = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=3)), dtype=torch.float64)
_OWN = len(_IMAGES) // 2


@dataclass(frozen=True, kw_only=True)
class RandomPlacementConfig:
    """How much is tried, and what counts as good.

    Attributes:
        rounds: at most; the work of a crystal is in proportion.
        assignments: Wyckoff letters tried in a round.
        draws: random free parameters of each.
        extra: times as many draws in a further round as long as no placement passed.
        relaxed_assignments: of the best assignments of a round so many are relaxed.
        relaxed_draws: of the best draws of each.
        steps: of the soft-sphere relaxation.
        checks: placements of one assignment and stage checked by spglib in a round, besides those that are wanted.
        good_ratio: distance over the sum of radii above which no further round is made.
        looked_at: assignments that learned letters are chosen from.
        letter_weight: distance over the sum of radii that makes up for letters which are e times less probable.
        enough_room: distance over the sum of radii above which more of it counts nothing against probable letters.
        distinct: Å; structures differ by more than this in some mean neighbour distance.
        loose_symprec: Å; placements that keep their space group at this tolerance too, so that they read back as asked,
            come first.
    """

    rounds: int = 4
    assignments: int = 6
    draws: int = 32
    extra: int = 4
    relaxed_assignments: int = 3
    relaxed_draws: int = 4
    steps: int = 25
    checks: int = 3
    good_ratio: float = 0.75
    looked_at: int = 128
    letter_weight: float = 0.1
    enough_room: float = 0.9
    distinct: float = 0.1
    loose_symprec: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.rounds, int) or self.rounds < 1:
            raise PlacementError(f"rounds={self.rounds}: give a whole number of at least 1")


class RandomPlacement:
    """The source of structures placed at random; ``learned``: on letters that real crystals make probable."""

    name = "random"

    def __init__(self, learned: bool = False, config: RandomPlacementConfig | None = None) -> None:
        self.learned = learned
        self.config = config or RandomPlacementConfig()

    def propose(self, requests: Sequence[PlacementRequest], n: int, seed: int = 0) -> list[Proposals]:
        """See `CandidateSource`; where no lattice is given, all structures are in one random cell."""
        return [self._proposals(request, n, seed) for request in requests]

    def _proposals(self, request: PlacementRequest, n: int, seed: int) -> Proposals:
        try:
            return Proposals(tuple(_Search(request, n, seed, self.learned, self.config).run()))
        except PlacementError as error:
            return Proposals(error=str(error))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Trial:
    """One placement, not yet checked."""

    ratio: float  # smallest distance over the sum of radii
    shortest: float  # smallest distance, Å
    contacts: Contacts  # the distances of its letters
    parameters: np.ndarray  # free ones [O, 3]
    assignment: Assignment  # the letters
    stage: int  # 0 for random parameters, 1 after the relaxation, 2 half way
    merit: float  # what trials are ordered by: the room between atoms, learned letters' probability

    @cached_property
    def fingerprint(self) -> np.ndarray:
        """Mean neighbour distances, Å."""
        return self.contacts.fingerprint(self.parameters)


@dataclass(frozen=True)
class _Draws:
    """Random parameters [M, O, 3] of one assignment with their distances [M], the best first."""

    contacts: Contacts
    assignment: Assignment
    probability: float | None
    columns: tuple[np.ndarray, np.ndarray, np.ndarray]


class _Search:
    """The search for one crystal's placements."""

    def __init__(
        self, request: PlacementRequest, n: int, seed: int, learned: bool, config: RandomPlacementConfig
    ) -> None:
        self.request, self.wanted, self.learned, self.config = request, n, learned, config
        self.given = request.assignment()
        self.lattice = request.cell
        self.rng = np.random.default_rng((seed, *request.stream))
        self.known = [fingerprint(structure) for structure in request.known]
        self.total = n + len(self.known)
        self.refusals: Counter[str] = Counter()
        self.ranked: list[tuple[Assignment, float]] | None = None
        self.kept: dict[float, list[_Trial]] = {config.loose_symprec: [], SYMPREC: []}

    def run(self) -> list[OrbitStructure]:
        """At most ``wanted`` structures that pass every check, best first.

        Raises:
            PlacementError: none does; says why.
        """
        config = self.config
        for number in range(config.rounds):
            first = number == 0 or any(self.kept.values())
            trials = self._trials(number, config.draws if first else config.extra * config.draws)
            self._keep(trials)
            rigid = self.given is not None and not any(trial.contacts.free for trial in trials)
            if rigid or not trials or self._satisfied():
                break
        if not any(self.kept.values()):
            raise PlacementError(self.request.refused(self.refusals))
        return [self._structure(trial.assignment, trial.parameters) for trial in self._best()[: self.wanted]]

    def _best(self) -> list[_Trial]:
        """What is kept, best first: before others those that keep their group at the loose tolerance."""
        return [trial for own in self.kept.values() for trial in sorted(own, key=lambda t: -t.merit)]

    def _keep(self, trials: list[_Trial]) -> None:
        """Keep those of a round that pass the checks and may be better than what is kept."""
        for trial in self._in_turn(trials):
            if self._enough(trial):
                break
            symprec = self._check(trial) if self._is_new(trial) else None
            if symprec is not None:
                self.kept[symprec].append(trial)

    def _satisfied(self) -> bool:
        """Whether enough of what is kept has room between its atoms."""
        good = [t for t in self.kept[self.config.loose_symprec] if t.ratio >= self.config.good_ratio]
        return len(good) >= self.wanted

    def _in_turn(self, trials: list[_Trial]) -> list[_Trial]:
        """Those to check, best first: a few of each assignment and stage, as one that fails seldom fails alone."""
        apart = [trial for trial in sorted(trials, key=lambda t: -t.merit) if trial.shortest >= SHORTEST]
        self.refusals[f"atoms are closer than {SHORTEST} Å"] += len(trials) - len(apart)
        taken: Counter[tuple[int, int]] = Counter()
        chosen = []
        for trial in apart:
            source = (id(trial.contacts), trial.stage)
            if taken[source] < self.config.checks + self.total:
                taken[source] += 1
                chosen.append(trial)
        return chosen

    def _enough(self, trial: _Trial) -> bool:
        """Whether a further trial cannot better what is kept."""
        merits = sorted((t.merit for t in self.kept[self.config.loose_symprec]), reverse=True)
        return len(merits) >= self.wanted and merits[self.wanted - 1] >= trial.merit

    def _choices(self, number: int) -> list[tuple[Assignment, float | None]]:
        """Assignments of a round with their probabilities: the given one, the next of the learned ones, random ones."""
        request, config = self.request, self.config
        if self.given:
            return [(self.given, None)]
        if self.learned:
            if self.ranked is None:
                n, model = config.rounds * config.assignments, WyckoffModel.shipped()
                self.ranked = model.rank(request.space_group, request.counts, request.lattice, n, config.looked_at)
            if self.ranked:
                start = number * config.assignments % len(self.ranked)
                return list(self.ranked[start : start + config.assignments])
        found = sample_assignments(request.space_group, dict(request.counts), config.assignments, self.rng)
        return [(assignment, None) for assignment in found]

    def _trials(self, number: int, draws: int) -> list[_Trial]:
        """One round of placements with so many draws an assignment."""
        drawn = [self._drawn(assignment, probability, draws) for assignment, probability in self._choices(number)]
        if not drawn:
            self.refusals["no assignment of Wyckoff positions was found that gives exactly this group"] += 1
        drawn.sort(key=lambda one: -self._merit(float(one.columns[1][0]), one.probability))
        best = [
            replace(one, columns=tuple(column[: self.config.relaxed_draws] for column in one.columns)) for one in drawn
        ]
        sets = [(one, 0) for one in best]
        crowded = [one for one in best[: self.config.relaxed_assignments] if one.contacts.free]
        if crowded:
            sets += self._relaxed(crowded)
        return [
            _Trial(
                ratio=float(ratio),
                shortest=float(shortest),
                contacts=one.contacts,
                parameters=parameters,
                assignment=one.assignment,
                stage=stage,
                merit=self._merit(float(ratio), one.probability),
            )
            for one, stage in sets
            for parameters, ratio, shortest in zip(*one.columns, strict=True)
        ]

    def _drawn(self, assignment: Assignment, probability: float | None, draws: int) -> _Draws:
        contacts, given = contacts_of(self._structure(assignment, None))
        parameters = self.rng.random((draws if contacts.free else 1, *given.shape[1:]))
        ratios, shortest = contacts.nearest(parameters)
        order = np.argsort(-ratios, kind="stable")
        return _Draws(contacts, assignment, probability, (parameters[order], ratios[order], shortest[order]))

    def _merit(self, ratio: float, probability: float | None) -> float:
        if probability is None:
            return ratio
        return min(ratio, self.config.enough_room) + self.config.letter_weight * float(np.log(probability + 1e-9))

    def _relaxed(self, crowded: list[_Draws]) -> Iterator[tuple[_Draws, int]]:
        """The draws of some assignments after their atoms were pushed apart, and half way.

        On the way lie placements that are less crowded than the start and less symmetric than the end.
        """
        starts = [self._structure(one.assignment, p) for one in crowded for p in one.columns[0]]
        batch = OrbitBatch.of(starts, torch.float64)
        apart = SoftSpheres(batch).spread(self.config.steps)
        for stage, free in ((1, apart), (2, (apart + batch.free) / 2)):
            moved = iter(batch.at(free).structures())
            for one in crowded:
                parameters = np.array([[o.parameters for o in next(moved).orbits] for _ in one.columns[0]])
                yield replace(one, columns=(parameters, *one.contacts.nearest(parameters))), stage

    def _structure(self, assignment: Assignment, parameters: np.ndarray | None) -> OrbitStructure:
        return OrbitStructure.of_letters(self.request.space_group, self.lattice, assignment, parameters)

    def _check(self, trial: _Trial) -> float | None:
        """The tolerance at which the placement keeps its group, the loose one if it can; None where it fails."""
        structure = self._structure(trial.assignment, trial.parameters)
        for symprec, answer in ((SYMPREC, None), (self.config.loose_symprec, SYMPREC)):
            wrong = group_fault(structure, symprec)
            if wrong is not None:
                if answer is None:
                    self.refusals[wrong] += 1
                return answer
        return self.config.loose_symprec

    def _is_new(self, trial: _Trial) -> bool:
        """Whether nothing like it is kept or known; one that is wanted alone is compared with known ones only."""
        kept = [] if self.total == 1 else [t.fingerprint for own in self.kept.values() for t in own]
        return not any(np.abs(trial.fingerprint - other).max() < self.config.distinct for other in [*kept, *self.known])


class SoftSpheres:
    """Atoms of many structures pushed apart at once, along what symmetry leaves free.

    The potential of a structure is half the sum, over all pairs of atoms and images closer than a share of the sum of
    their radii, of the squares of what is missing (Å2).
    """

    def __init__(self, batch: OrbitBatch) -> None:
        """The batch in float64."""
        self.batch = batch
        cells = batch.cells()
        change = reduction(cells)
        self._to_reduced = torch.linalg.inv(change)
        self._basis = change @ cells  # Minkowski-reduced, so the nearest image is among the 27
        self._shifts = _IMAGES.to(cells) @ self._basis
        self._first = batch.first[..., None]
        radius = _RADIUS.to(cells)[batch.species][..., None]
        pairs = batch.orbit_mask[:, :, None] & batch.atom_mask[:, None]
        self._reach = REACH * (radius + batch.of_atoms(radius).mT) * pairs
        linear = batch.linear.gather(1, self._first[..., None].expand(-1, -1, 3, 3))
        self._to_free = torch.linalg.pinv(cells.mT[:, None] @ linear, rtol=1e-9)

    @torch.no_grad()
    def forces(self, free: OfOrbits) -> OfOrbits:
        """On the representative atom of each orbit at these free coordinates, Cartesian in Å, [B, O, 3]."""
        points = self.batch.at(free).points() @ self._to_reduced
        gaps = points[:, None] - points.gather(1, self._first.expand(-1, -1, 3))[:, :, None]
        vectors = (gaps - gaps.round()) @ self._basis[:, None]
        squares = (
            vectors.square().sum(-1, keepdim=True)
            + 2 * vectors @ self._shifts.mT[:, None]
            + self._shifts.square().sum(-1)[:, None, None]
        )
        distances = squares.clamp_min(0.0).sqrt()
        missing = (self._reach[..., None] - distances).clamp_min(0.0)  # [B, O, N, 27]
        missing[..., _OWN].scatter_(2, self._first, 0.0)  # an atom and itself
        weights = missing / distances.clamp_min(1e-3)
        return -(weights.sum(-1, keepdim=True) * vectors + weights @ self._shifts[:, None]).sum(2)

    @torch.no_grad()
    def spread(self, steps: int) -> OfOrbits:
        """Free coordinates after some steps of pushing close atoms apart, long ones first; not wrapped, [B, O, 3].

        Args:
            steps: at most; none is made once no two atoms are too close.
        """
        free = self.batch.free
        for step in range(steps):
            push = self.forces(free)
            length = torch.linalg.vector_norm(push, dim=-1, keepdim=True)
            if not length.any():
                break
            longest = LAST_STEP + (FIRST_STEP - LAST_STEP) * (1 - step / steps)
            push = push * torch.clamp(longest / length.clamp_min(1e-12), max=STEP)
            free = free + torch.einsum("boij,boj->boi", self._to_free, push)
        return free
