"""From crystals to structures: the one pipeline over sources of candidates, the refiner, ranking and relaxation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from crystalgfn.calculators.base import Calculator
from crystalgfn.calculators.registry import DEFAULT
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.distances import fault
from crystalgfn.errors import PlacementError
from crystalgfn.structures.candidate_pool import candidates
from crystalgfn.structures.config import BuildConfig, Reference
from crystalgfn.structures.ranking.reranker import CandidateRanker, Ranked, rank_candidates
from crystalgfn.structures.refiner.base import STEPS, Refiner
from crystalgfn.structures.result import BuildResult
from crystalgfn.structures.sources.base import CandidateSource, PlacementRequest
from crystalgfn.structures.sources.random import RandomPlacement, RandomPlacementConfig
from crystalgfn.utils.parallel import parallel_map

PLACED_TOGETHER = 4
"""Requests that a process places at random before it takes others."""


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
    calculator: Calculator | str = DEFAULT,
    rounds: int = RandomPlacementConfig.rounds,
    n_jobs: int = 1,
    progress: bool = False,
) -> list[BuildResult]:
    """Structures of crystals, with exactly their composition and space group, and their lattice unless it may move.

    Every structure has the space group that was asked for at spglib's symprec 0.01, as many atoms in the primitive cell
    as the crystal, and no two atoms closer than 0.5 Å. Where that cannot be had, ``error`` says why; the other crystals
    are not affected.

    With a refiner the Wyckoff letters are those that real crystals make probable, the free coordinates come from its
    diffusion model, and the most probable structure comes first. Where none of its draws passes the checks, atoms are
    placed at random as without a refiner; ``origins`` says which it was.

    Args:
        crystals: [B].
        n_candidates: different structures of each, at most, best first.
        refiner: a shipped one by its name, the folder of one of your own, a `Refiner`, or None: random Wyckoff
            placement with soft-sphere relaxation.
        lattice: "keep", "refine" (may be strained by up to 5 %) or "generate" (the one given is not used).
        seed: the same seed gives the same structures, with any ``n_jobs``.
        templates: real crystals whose positions are tried too: sources of them (`Prototypes.read`), "aflow" for the
            prototypes that come with the package, a `CandidateSource` of your own, or None.
        assignment: how Wyckoff letters are chosen: "random", or "learned" for those that real crystals make probable;
            None: learned with a refiner, random without.
        draws: of the refiner for each crystal; None: 6 more than twice the candidates, six times as many with
            ``lattice="generate"``.
        steps: of the refiner's sampler; 2 ``steps`` - 1 evaluations of its network.
        energies: of the refiner's 20 most probable candidates those are more probable that are lower in energy, as they
            are.
        relax: candidates are relaxed within their symmetry (the cell too unless ``lattice`` is "keep"), at least 4 of
            each crystal, chosen as with ``energies``, and ordered by energy.
        calculator: of ``energies`` and ``relax``, see `load_calculator`.
        rounds: of random placement for one crystal, at most; in each up to 6 choices of letters with 32 to 128 draws.
        n_jobs: processes.
        progress: shows a bar.

    Raises:
        CheckpointError: there is no such refiner.
        CalculatorError: there is no such calculator.
        NotAvailable: ``energies`` or ``relax`` without the calculator's package.
        PlacementError: an argument that is invalid.
        DataError: ``templates`` cannot be read.
    """
    config = BuildConfig(
        n_candidates=n_candidates, refiner=refiner, lattice=lattice, seed=seed, templates=templates,
        assignment=assignment, draws=draws, steps=steps, energies=energies, relax=relax,
        calculator=calculator, n_jobs=n_jobs, progress=progress, placement=RandomPlacementConfig(rounds=rounds),
    )  # fmt: skip
    return build(requests_of(crystals), config)


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
    calculator: Calculator | str = DEFAULT,
    rounds: int = RandomPlacementConfig.rounds,
    n_jobs: int = 1,
    progress: bool = False,
) -> list[BuildResult]:
    """`build_structures` with the Wyckoff letters given: for each crystal element symbol -> letters of its orbits.

    Example: ``[{"Na": ["a"], "Cl": ["b"]}]`` for rock salt in group 225. Letters that do not go with a crystal are an
    ``error`` of that crystal. Arguments and exceptions are those of `build_structures`.
    """
    if len(letters) != len(crystals):
        raise PlacementError(f"letters are given for {len(letters)} crystals, but there are {len(crystals)}")
    config = BuildConfig(
        n_candidates=n_candidates, refiner=refiner, lattice=lattice, seed=seed, templates=templates, draws=draws,
        steps=steps, energies=energies, relax=relax, calculator=calculator, n_jobs=n_jobs, progress=progress,
        placement=RandomPlacementConfig(rounds=rounds),
    )  # fmt: skip
    requests = requests_of(crystals)
    return build([replace(one, letters=own) for one, own in zip(requests, letters, strict=True)], config)


def requests_of(crystals: Crystals) -> list[PlacementRequest]:
    """A request for each crystal."""
    groups, lattices = crystals.space_group.tolist(), crystals.lattice.tolist()
    return [
        PlacementRequest(space_group=groups[i], counts=crystals.counts(i), lattice=tuple(lattices[i]), stream=(i,))
        for i in range(len(crystals))
    ]


def build(requests: Sequence[PlacementRequest], config: BuildConfig | None = None) -> list[BuildResult]:
    """Structures of each request, or why there is none; a request that cannot be met does not affect the others.

    Raises:
        CalculatorError: the calculator breaks its contract.
    """
    config = config or BuildConfig()
    if config.lattice == "generate":
        requests = [replace(request, lattice=None) for request in requests]
    results = [_refused(request) for request in requests]
    good = [i for i, result in enumerate(results) if result.error is None]
    work = _placed if config.refiner is None else _refined
    made = work([requests[i] for i in good], config)
    if config.relax:
        made = _relaxed(made, config)
    name = None if config.potential is None else config.potential.name
    for i, result in zip(good, made, strict=True):
        ordered = result.ordered(range(len(result.orbits))[: config.n_candidates])
        results[i] = replace(ordered, calculator=name if ordered.energies else None)
    return results


def _refused(request: PlacementRequest) -> BuildResult:
    """The error of a request that nothing can meet; without one where it may be met."""
    try:
        request.assignment()
    except PlacementError as error:
        return BuildResult(request=request, error=str(error))
    return BuildResult(request=request)


def _relaxed(results: list[BuildResult], config: BuildConfig) -> list[BuildResult]:
    """Relaxed within their symmetry, the lowest energy first; what loses its group by that stays as it was."""
    from crystalgfn.calculators.symmetric import relax_orbits

    flat = [structure for result in results for structure in result.orbits]
    found = iter(relax_orbits(flat, config.calculator, config.lattice == "keep", progress=config.progress))
    relaxed = []
    for result in results:
        orbits, energies = [], []
        for before in result.orbits:
            one = next(found)
            kept = fault(one.structure) is None
            orbits.append(one.structure if kept else before)
            energies.append(one.energy if kept else float("nan"))
        order = np.argsort(energies, kind="stable").tolist()  # NaN comes last
        relaxed.append(replace(result, orbits=orbits, energies=energies).ordered(order))
    return relaxed


def _refined(requests: list[PlacementRequest], config: BuildConfig) -> list[BuildResult]:
    """With the refiner; what it fails at once more with more draws, and then at random."""
    more = replace(config, draws=config.pool.again * config.n_draws)
    alone = replace(config, templates=None)
    ways: list[Callable[[list[PlacementRequest]], list[BuildResult]]] = [lambda own: _drawn(own, config)]
    if config.retry:
        ways.append(lambda own: _drawn([replace(one, stream=(*one.stream, config.pool.again)) for one in own], more))
        if config.lattice == "keep":
            ways.append(lambda own: _placed(own, alone))
    results: dict[int, BuildResult] = {}
    failed = list(range(len(requests)))
    for way in ways:
        for i, found in zip(failed, way([requests[i] for i in failed]), strict=True):
            if found.error is None or i not in results:
                results[i] = replace(found, request=requests[i])
        failed = [i for i in failed if results[i].error is not None]
    return [results[i] for i in range(len(requests))]


def _drawn(requests: list[PlacementRequest], config: BuildConfig) -> list[BuildResult]:
    """The most probable of the refiner's candidates and the templates of each request."""
    if len(requests) <= config.together:
        return _ranked(requests, config, config.progress)
    words = "making structures" if config.progress else None
    work = partial(_ranked, config=config)
    return list(parallel_map(work, requests, n_jobs=config.n_jobs, batch=config.together, description=words))


def _ranked(requests: Sequence[PlacementRequest], config: BuildConfig, progress: bool = False) -> list[BuildResult]:
    found = candidates(requests, config, progress)
    ranker = CandidateRanker.shipped(config.templates is not None)
    ranked = rank_candidates([own for own, _ in found], ranker, config.wanted, config.potential)
    return [
        _of_candidates(request, own, reason, config.potential is not None)
        for request, own, (_, reason) in zip(requests, ranked, found, strict=True)
    ]


def _of_candidates(request: PlacementRequest, ranked: Ranked, reason: str | None, energies: bool) -> BuildResult:
    chosen = [candidate for candidate, _ in ranked]
    return BuildResult(
        request=request,
        orbits=[candidate.structure for candidate in chosen],
        error=None if chosen else reason,
        origins=[candidate.origin for candidate in chosen],
        probabilities=[probability for _, probability in ranked],
        energies=[candidate.energy for candidate in chosen] if energies else [],
    )


def _placed(requests: list[PlacementRequest], config: BuildConfig) -> list[BuildResult]:
    """Of the sources one after the other: templates, then random placement."""
    words = "placing atoms" if config.progress else None
    work = partial(_from_sources, config=config)
    return list(parallel_map(work, requests, n_jobs=config.n_jobs, batch=PLACED_TOGETHER, description=words))


def _from_sources(requests: Sequence[PlacementRequest], config: BuildConfig) -> list[BuildResult]:
    sources = [config.templates, RandomPlacement(config.learned, config.placement)]
    results = [BuildResult(request=request, error="") for request in requests]
    for source in sources:
        if isinstance(source, CandidateSource):
            results = _more(results, source, config)
    return results


def _more(results: list[BuildResult], source: CandidateSource, config: BuildConfig) -> list[BuildResult]:
    """The results with further structures of a source, as far as they are wanted."""
    found = list(results)
    for missing in range(1, config.wanted + 1):
        rows = [i for i, result in enumerate(results) if config.wanted - len(result.orbits) == missing]
        asked = [replace(results[i].request, known=tuple(results[i].orbits)) for i in rows]
        for i, own in zip(rows, source.propose(asked, missing, config.seed) if rows else (), strict=True):
            orbits = [*results[i].orbits, *own.structures]
            origins = results[i].origins + [source.name] * len(own.structures)
            found[i] = replace(results[i], orbits=orbits, origins=origins, error=None if orbits else own.error)
    return found
