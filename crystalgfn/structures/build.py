"""From crystals to structures: the one pipeline over sources of candidates, the refiner, ranking and relaxation.

Structures of one's own are refined here too: from pymatgen to orbits, through the refiner, and back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.crystallography.atoms import SkippedRecord, atoms_fault, atoms_of
from crystalgfn.crystallography.convert import orbit_structure
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.distances import fault
from crystalgfn.crystallography.orbit_batch import lattice_fault
from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.errors import CrystalGFNError, PlacementError, check_kind
from crystalgfn.structures.candidate_pool import candidates
from crystalgfn.structures.config import BuildConfig, refiner_of
from crystalgfn.structures.exchange import StructureList
from crystalgfn.structures.ranking.reranker import CandidateRanker, Ranked, rank_candidates
from crystalgfn.structures.refiner.base import MAX_STRAIN, NOISE, STEPS, Refiner
from crystalgfn.structures.result import BuildResult
from crystalgfn.structures.sources.base import CandidateSource, PlacementRequest
from crystalgfn.structures.sources.random import RandomPlacement
from crystalgfn.utils.parallel import parallel_map

if TYPE_CHECKING:
    from pymatgen.core import Structure

PLACED_TOGETHER = 4
"""Requests that a process places at random before it takes others."""


def build_structures(
    crystals: Crystals,
    n_candidates: int = 1,
    refiner: Refiner | str | Path | None = "default",
    lattice: str = "keep",
    seed: int = 0,
    **options: Any,
) -> StructureList[BuildResult]:
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
        **options: further ones of `BuildConfig`, such as ``templates="aflow"``, ``relax=True``, ``n_jobs=4``.

    Raises:
        CheckpointError: there is no such refiner.
        CalculatorError: there is no such calculator.
        NotAvailable: ``energies`` or ``relax`` without the calculator's package.
        PlacementError: an argument that is invalid.
        DataError: ``templates`` cannot be read.
    """
    main = {"n_candidates": n_candidates, "refiner": refiner, "lattice": lattice, "seed": seed}
    return StructureList(build(requests_of(crystals), BuildConfig(**main, **options)))


def build_from_wyckoff(
    crystals: Crystals,
    letters: Sequence[Mapping[str, Sequence[str]]],
    n_candidates: int = 1,
    refiner: Refiner | str | Path | None = "default",
    lattice: str = "keep",
    seed: int = 0,
    **options: Any,
) -> StructureList[BuildResult]:
    """`build_structures` with the Wyckoff letters given: for each crystal element symbol -> letters of its orbits.

    Example: ``[{"Na": ["a"], "Cl": ["b"]}]`` for rock salt in group 225. Letters that do not go with a crystal are an
    ``error`` of that crystal. Options and exceptions are those of `build_structures`.
    """
    check_kind("letters", letters, (list, tuple), "a list with the letters of each crystal", PlacementError)
    if len(letters) != len(crystals):
        raise PlacementError(f"letters are given for {len(letters)} crystals, but there are {len(crystals)}")
    requests = requests_of(crystals)
    known = [replace(one, letters=own) for one, own in zip(requests, letters, strict=True)]
    main = {"n_candidates": n_candidates, "refiner": refiner, "lattice": lattice, "seed": seed}
    return StructureList(build(known, BuildConfig(**main, **options)))


def requests_of(crystals: Crystals) -> list[PlacementRequest]:
    """A request for each crystal.

    Raises:
        PlacementError: not `Crystals`.
    """
    check_kind("crystals", crystals, Crystals, "Crystals", PlacementError)
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
    for i, result in zip(good, _made([requests[i] for i in good], config), strict=True):
        results[i] = result
    return results


def _made(requests: list[PlacementRequest], config: BuildConfig) -> list[BuildResult]:
    """Of requests that may be met: as many structures as are wanted, in their last order."""
    made = _placed(requests, config) if config.refiner is None else _refined(requests, config)
    if config.relax:
        made = _relaxed(made, config)
    best = [result.ordered(range(len(result.orbits))[: config.n_candidates]) for result in made]
    name = None if config.potential is None else config.potential.name
    return [replace(result, calculator=name if result.energies else None) for result in best]


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
    return _in_parts(_ranked, requests, config, config.together, "making structures")


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
    return _in_parts(_from_sources, requests, config, PLACED_TOGETHER, "placing atoms")


def _in_parts(
    work: Callable[..., list[BuildResult]], requests: list[PlacementRequest], config: BuildConfig, size: int, words: str
) -> list[BuildResult]:
    """The work on parts of the requests, shared out over processes."""
    shown = words if config.progress else None
    return list(
        parallel_map(partial(work, config=config), requests, n_jobs=config.n_jobs, batch=size, description=shown)
    )


def _from_sources(requests: Sequence[PlacementRequest], config: BuildConfig) -> list[BuildResult]:
    sources = [config.source, RandomPlacement(config.learned, config.placement)]
    results = [BuildResult(request=request, error="") for request in requests]
    for source in sources:
        if source is not None:
            results = _more(requests, results, source, config)
    return results


def _more(
    requests: Sequence[PlacementRequest], results: list[BuildResult], source: CandidateSource, config: BuildConfig
) -> list[BuildResult]:
    """The results with further structures of a source, as far as they are wanted."""
    found = list(results)
    for missing in range(1, config.wanted + 1):
        rows = [i for i, result in enumerate(results) if config.wanted - len(result.orbits) == missing]
        asked = [replace(requests[i], known=tuple(results[i].orbits)) for i in rows]
        for i, own in zip(rows, source.propose(asked, missing, config.seed) if rows else (), strict=True):
            orbits = [*results[i].orbits, *own.structures]
            origins = results[i].origins + [source.name] * len(own.structures)
            found[i] = replace(results[i], orbits=orbits, origins=origins, error=None if orbits else own.error)
    return found


def refine_structures(
    structures: Sequence[Structure],
    refiner: Refiner | str | Path = "default",
    lattice: str = "keep",
    seed: int = 0,
    *,
    noise: float = NOISE,
    max_strain: float = MAX_STRAIN,
    steps: int = STEPS,
    symprec: float = 0.1,
    progress: bool = False,
) -> StructureList[BuildResult]:
    """Structures with the same group, letters and composition, whose free coordinates the refiner finds likelier.

    Args:
        structures: ordered ones, no two atoms closer than 0.5 Å.
        refiner: a shipped one by its name, the folder of one of your own, or a `Refiner`.
        lattice: "keep", or "refine": may be strained by ``max_strain``.
        seed: of the noise.
        noise: how much of the start is forgotten, from 0 (nothing) to 1 (everything).
        max_strain: largest principal logarithmic strain.
        steps: of the refiner's sampler.
        symprec: at which spglib finds the group, Å.
        progress: shows a bar.

    Returns:
        One result for each; what cannot be refined has its reason in ``error`` and does not stop the others.

    Raises:
        CheckpointError: there is no such refiner.
        PlacementError: arguments that mean nothing.
    """
    if lattice == "generate":
        raise PlacementError("lattice='generate' would forget the structure; use lattice='keep' or lattice='refine'")
    if not isinstance(structures, Iterable) or hasattr(structures, "frac_coords"):
        raise PlacementError(f"{type(structures).__name__} is no list of structures; give [structure]")
    check_kind("symprec", symprec, (int, float), "a number, Å", PlacementError)
    known = [_orbits(structure, symprec) for structure in structures]
    starts = [one for one in known if isinstance(one, OrbitStructure)]
    seeds = [(seed, i, 0) for i in range(len(starts))]
    options = {"start": "given", "steps": steps, "noise": noise, "max_strain": max_strain}
    made = iter(refiner_of(refiner).refine(starts, lattice, seeds=seeds, progress=progress, **options))
    return StructureList(_result(one, next(made) if isinstance(one, OrbitStructure) else None) for one in known)


def _orbits(structure: Structure, symprec: float) -> OrbitStructure | str:
    """A structure as orbits, or why it cannot be."""
    if not hasattr(structure, "frac_coords"):
        return f"{type(structure).__name__} {str(structure)[:40]!r} is no pymatgen Structure"
    name = structure.reduced_formula
    if not len(structure):
        return "a structure without atoms cannot be refined"
    atoms = atoms_of(name, structure)
    if isinstance(atoms, SkippedRecord):
        return atoms.reason
    if (wrong := atoms_fault(atoms)) is not None:
        return f"{name} {wrong}"
    try:
        found = orbit_structure(atoms, symprec)
    except CrystalGFNError as error:
        return f"{name}: {error}"
    wrong = lattice_fault(found.space_group, found.lattice)
    return found if wrong is None else f"{name}: {wrong}"


def _result(before: OrbitStructure | str, after: OrbitStructure | None) -> BuildResult:
    if isinstance(before, str):
        return BuildResult(error=before)
    request = PlacementRequest(
        space_group=before.space_group, counts=before.counts, lattice=before.lattice, letters=before.wyckoff()
    )
    wrong = "its cell ran away" if after is None else fault(after)
    if after is None or wrong is not None:
        return BuildResult(request=request, error=f"the refined structure did not pass: {wrong}; try less noise")
    return BuildResult(request=request, orbits=[after], origins=["refiner"])
