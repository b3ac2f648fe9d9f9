"""The candidates of a crystal: what a source has, and draws of the refiner; where draws start, and what they become."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from crystalgfn.crystallography.assignments import sample_assignments
from crystalgfn.crystallography.distances import SHORTEST, group_fault
from crystalgfn.crystallography.enumeration import Choice, choice_of
from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.errors import PlacementError
from crystalgfn.structures.candidate import Candidate, candidate_of, density_at, join, same
from crystalgfn.structures.config import BuildConfig
from crystalgfn.structures.ranking.reranker import Plausibility
from crystalgfn.structures.ranking.wyckoff import WyckoffModel
from crystalgfn.structures.sources.base import PlacementRequest, Proposals
from crystalgfn.structures.sources.template_distance import Fingerprint
from crystalgfn.utils.progress import Bar

Letters = Mapping[str, Sequence[str]]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Start:
    """Where a draw starts: letters and cell, what the refiner does with the cell, the probability of the letters."""

    structure: OrbitStructure
    way: str  # one of the refiner's, or "near": that of a template, which may be strained
    probability: float


@dataclass(kw_only=True)
class CandidatePool:
    """One crystal on the way: candidates, the starts of its draws, and why draws were refused."""

    request: PlacementRequest
    config: BuildConfig
    found: list[Candidate] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    drawn: list[tuple[Fingerprint, float]] = field(default_factory=list)
    real: list[tuple[Fingerprint, float]] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    error: str | None = None

    def begin(self, proposals: Proposals) -> None:
        """What a source proposes as candidates, and where the draws start."""
        request, pool = self.request, self.config.pool
        try:
            given = request.assignment()
        except PlacementError as error:
            self.error = str(error)
            return
        source = getattr(self.config.source, "name", "template")
        for structure, probability in proposals.weighted():
            join(self.found, candidate_of(structure, template=probability, source=source))
        choices = list(self._choices(given))
        chances = {self._key(letters): probability for letters, probability, _ in choices}
        self.found = [replace(c, letters=chances.get(self._key(c.structure.wyckoff()), 0.0)) for c in self.found]
        self.real = [(c.fingerprint, c.template) for c in self.found]
        for letters, probability, n in choices:
            start = OrbitStructure.of_letters(request.space_group, request.cell, letters)
            n = min(n, max(n > 0, pool.pairs // (len(start.orbits) * sum(request.counts.values()))))
            near = self._cells(self._key(letters), n) if self.config.lattice == "generate" else []
            self.starts += [Start(replace(start, lattice=own), "near", probability) for own in near]
            self.starts += [Start(start, self.config.lattice, probability)] * (n - len(near))

    def _choices(self, given: Letters | None) -> Iterator[tuple[Letters, float, int]]:
        """Letters, their probability, and how many draws they get: the most probable most."""
        pool, draws = self.config.pool, self.config.n_draws
        if given is not None:
            yield given, 1.0, draws
            return
        choices = {self._key(letters): (letters, probability) for letters, probability in self._scored()}
        shares = {key: probability for key, (_, probability) in choices.items()}
        total = sum(shares.values())
        weight = sum(candidate.template for candidate in self.found)
        if weight > 0:
            shares = {key: (1 - pool.from_templates) * value / max(total, 1e-12) for key, value in shares.items()}
            for candidate in self.found:
                key = self._key(candidate.structure.wyckoff())
                choices.setdefault(key, (candidate.structure.wyckoff(), 0.0))
                shares[key] = shares.get(key, 0.0) + pool.from_templates * candidate.template / weight
        if not shares:
            return
        rounded = shared_out(shares, draws)
        for key, choice in choices.items():
            yield *choice, rounded.get(key, 0)

    def _scored(self) -> Sequence[tuple[Letters, float]]:
        """Letters with their probabilities, learned ones or random ones."""
        request, pool = self.request, self.config.pool
        if self.config.learned:
            model = WyckoffModel.shipped()
            return model.rank(request.space_group, request.counts, request.lattice, pool.letters, pool.looked_at)
        rng = np.random.default_rng((self.config.seed, *request.stream))
        drawn = sample_assignments(request.space_group, dict(request.counts), pool.letters, rng)
        return [(letters, 1 / len(drawn)) for letters in drawn]

    def _key(self, letters: Letters) -> Choice:
        return choice_of(self.request.space_group, letters)

    def _cells(self, letters: Choice, n: int) -> list[tuple[float, ...]]:
        """For some of ``n`` draws the cells of the templates with their letters, the most probable most."""
        own = [c for c in self.found if c.template > 0 and self._key(c.structure.wyckoff()) == letters]
        if not own:
            return []
        shares = shared_out({i: c.template for i, c in enumerate(own)}, round(self.config.pool.in_their_cells * n))
        return [c.structure.lattice for i, c in enumerate(own) for _ in range(shares.get(i, 0))]

    def take(self, structure: OrbitStructure | None, probability: float) -> None:
        """Count a draw, if it passes."""
        if structure is None:
            self.refusals["the refiner gave no structure with a possible cell"] += 1
            return
        candidate = candidate_of(structure, letters=probability, draw_frequency=1 / len(self.starts))
        if candidate is None:
            self.refusals[f"atoms are closer than {SHORTEST} Å"] += 1
            return
        known = any(same(candidate, other) for other in self.found)
        wrong = None if known else group_fault(structure)
        if wrong is not None:
            self.refusals[wrong] += 1
            return
        self.drawn.append((candidate.fingerprint, candidate.draw_frequency))
        join(self.found, candidate)

    def adapted(self, k: int, structure: OrbitStructure | None) -> None:
        """Count candidate ``k`` as it was refined: in its place where it is the same, else as one of its own."""
        if structure is None:
            return
        old = self.found[k]
        new = candidate_of(structure, letters=old.letters)
        if new is None or structure == old.structure or group_fault(structure) is not None:
            return
        if same(new, old):
            moved = {name: getattr(new, name) for name in ("structure", "min_contact_ratio", "fingerprint")}
            self.found[k] = replace(old, **moved)
        else:
            join(self.found, new)

    def with_densities(self) -> list[Candidate]:
        """The candidates, knowing what the others say."""
        return [
            replace(c, kernel_density=density_at(c, self.drawn), template_density=density_at(c, self.real))
            for c in self.found
        ]

    def reason(self) -> str:
        """Why there is no candidate."""
        if self.error is not None:
            return self.error
        if not self.refusals:
            return f"no assignment of Wyckoff positions was found that gives exactly {self.request.name}"
        return self.request.refused(self.refusals)


def shared_out(shares: Mapping[Key, float], draws: int) -> dict[Key, int]:
    """``draws`` in proportion to shares, by largest remainders."""
    total = sum(shares.values())
    exact = {key: draws * share / total for key, share in shares.items()}
    whole = {key: int(value) for key, value in exact.items()}
    rest = sorted(exact, key=lambda key: whole[key] - exact[key])[: draws - sum(whole.values())]
    return {key: n for key in exact if (n := whole[key] + (key in rest))}


def candidates(
    requests: Sequence[PlacementRequest], config: BuildConfig, progress: bool = False
) -> list[tuple[list[Candidate], str | None]]:
    """For each request its candidates in no order, each with exactly the group, and the reason where there is none.

    Where no lattice is given, templates come in their own cells, and draws in cells near them too. A lattice that is
    given is a start where ``config.lattice`` is not "keep".
    """
    proposals = [Proposals()] * len(requests)
    if config.source is not None:
        proposals = config.source.propose(requests, min(config.n_draws, config.pool.templates), config.seed)
    pools = [CandidatePool(request=request, config=config) for request in requests]
    for pool, own in zip(Bar(pools, description="choosing letters", shown=progress), proposals, strict=True):
        pool.begin(own)
    _adapt(pools, config)
    _draw(pools, config, progress)
    found = _judged([pool.with_densities() for pool in pools], config.device)
    return [(own, None if own else pool.reason()) for own, pool in zip(found, pools, strict=True)]


def _adapt(pools: Sequence[CandidatePool], config: BuildConfig) -> None:
    """Templates with coordinates, and where it is not known the cell, refined: in their place, or where they went."""
    known = [(pool, k, c.structure) for pool in pools for k, c in enumerate(pool.found)]
    if not known:
        return
    way = "near" if config.lattice == "generate" else config.lattice
    options = _options(way, config) | {"start": "given", "noise": config.pool.template_noise}
    seeds = [(0, config.seed, *pool.request.stream, k, 0) for pool, k, _ in known]
    made = config.model.refine([s for *_, s in known], steps=config.steps, seeds=seeds, **options)
    for (pool, k, _), structure in zip(known, made, strict=True):
        pool.adapted(k, structure)


def _options(way: str, config: BuildConfig) -> dict[str, Any]:
    """What the refiner does with a cell; "near": it may leave that of a template by so much."""
    return {"lattice": "refine", "max_strain": config.pool.max_strain} if way == "near" else {"lattice": way}


def _draw(pools: Sequence[CandidatePool], config: BuildConfig, progress: bool) -> None:
    """The refiner's draws from all starts, counted by their crystals in the order of the starts."""
    made: dict[tuple[int, int], OrbitStructure | None] = {}
    starts = {(i, k): start for i, pool in enumerate(pools) for k, start in enumerate(pool.starts)}
    for way in dict.fromkeys(start.way for start in starts.values()):
        own = [place for place, start in starts.items() if start.way == way]
        # a crystal's random numbers are its own, whatever else is in the batch
        seeds = [(0, config.seed, *pools[i].request.stream, k, 0) for i, k in own]
        structures = [starts[place].structure for place in own]
        options = _options(way, config) | {"steps": config.steps, "seeds": seeds, "progress": progress}
        made |= zip(own, config.model.refine(structures, **options), strict=True)
    for i, pool in enumerate(Bar(pools, description="checking", shown=progress)):
        for k, start in enumerate(pool.starts):
            pool.take(made[i, k], start.probability)


def _judged(found: list[list[Candidate]], device: str) -> list[list[Candidate]]:
    """The candidates, knowing how plausible they are."""
    structures = [candidate.structure for own in found for candidate in own]
    plausible = iter(Plausibility.shipped(device).of(structures).tolist())
    return [[replace(candidate, plausible=next(plausible)) for candidate in own] for own in found]
