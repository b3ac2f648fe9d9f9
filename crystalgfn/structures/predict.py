"""From a formula to its polymorphs as full structures, with the energies that a proxy gives them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.convert import crystals_of
from crystalgfn.crystallography.lattice import canonical_lattice
from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.crystallography.realizable import MAX_ATOMS
from crystalgfn.errors import EmptySpace, PlacementError
from crystalgfn.rewards import Property, load_proxy
from crystalgfn.space.space import CrystalSpace
from crystalgfn.structures.build import Reference, refiner_of, templates_of
from crystalgfn.structures.candidate_pool import candidates
from crystalgfn.structures.ranking.polymorphs import Neighbours, PolymorphModel
from crystalgfn.structures.ranking.reranker import CandidateRanker
from crystalgfn.structures.refiner.refiner import STEPS, Refiner
from crystalgfn.structures.sources.random import Task
from crystalgfn.structures.sources.templates import Templates

if TYPE_CHECKING:
    from pymatgen.core import Structure


UNSURE = 0.5
"""eV/atom; standard error of the proxy above which it has no energy for a crystal."""

VOLUMES = (4.0, 60.0)
"""Å3 an atom; outside it has none either."""


@dataclass(frozen=True)
class Prediction:
    """A polymorph.

    Attributes:
        structure: the conventional cell.
        space_group: ITA number.
        probability: of this structure among all that could be.
        origin: "template", "refiner" (free coordinates and cell made by diffusion), or "fixed" (letters without a free
            coordinate).
        wyckoff: element symbol -> letters of the orbits.
        energy: the shipped proxy's formation energy, eV/atom; None where it has not learned what it is asked.
    """

    structure: Structure
    space_group: int
    probability: float
    origin: str
    wyckoff: dict[str, list[str]]
    energy: float | None


def predict(
    formula: str,
    space_group: int | None = None,
    n: int = 20,
    *,
    refiner: Refiner | str | Path | None = "default",
    templates: Reference = None,
    max_atoms: int = MAX_ATOMS,
    draws: int | None = None,
    steps: int = STEPS,
    seed: int = 0,
    progress: bool = False,
) -> list[Prediction]:
    """Polymorphs of a formula as full structures, the most probable first.

    Every structure has its group at spglib's symprec 0.01, exactly the composition, and no atoms closer than 0.5 Å.

    Args:
        formula: such as "LiFePO4"; counts only matter up to a common factor.
        space_group: only polymorphs with this group; None: all groups.
        n: so many structures at most.
        refiner: a shipped one by its name, the folder of one of your own, a `Refiner`, or None: templates alone.
        templates: real crystals whose positions are tried and whose groups count: sources of them, an index,
            `Templates` of your own, "aflow" for the prototypes that come with the package, or None.
        max_atoms: in the primitive cell, at most 20.
        draws: of the refiner for each group and cell; None: as many as make enough structures, at least 8.
        steps: of the refiner's sampler.
        seed: the same seed gives the same structures.
        progress: shows bars.

    Raises:
        InvalidSpace: a formula that cannot be read, an unknown element.
        PlacementError: a group that there is not or that cannot hold the formula, arguments that mean nothing, or no
            structure found.
        CheckpointError: there is no such refiner.
        DataError: ``templates`` cannot be read.
    """
    units = units_of(formula)
    whole = isinstance(n, int) and isinstance(max_atoms, int)
    if not whole or n < 1 or steps < 1 or (draws is not None and draws < 1):
        raise PlacementError(f"n={n}, steps={steps}, draws={draws}: give whole numbers of at least 1")
    if not 1 <= max_atoms <= MAX_ATOMS:
        raise PlacementError(f"max_atoms={max_atoms}: the primitive cell may have 1 to {MAX_ATOMS} atoms")
    if refiner is None and templates is None:
        raise PlacementError("refiner=None and templates=None leave nothing to make structures of; give one of them")
    settings = Settings(refiner_of(refiner), templates_of(templates), draws, steps, max_atoms, progress=progress)
    found = polymorphs(units, n, settings, space_group, seed)
    energies = energies_of([one.structure for one in found])
    return [
        Prediction(
            one.structure.to_structure(), one.structure.space_group, one.probability, one.origin,
            one.structure.wyckoff(), energy,
        )
        for one, energy in zip(found, energies, strict=True)
    ]  # fmt: skip


def units_of(formula: str) -> dict[int, int]:
    """Atoms of each element (by number) in one formula unit.

    Raises:
        InvalidSpace: a formula that cannot be read, an unknown element.
        PlacementError: a formula unit of more atoms than a primitive cell may have.
    """
    try:
        return CrystalSpace(formula=formula, n_elements=(1, MAX_ATOMS), oxidation_states=None).formula_units
    except EmptySpace as error:
        raise PlacementError(
            f"no space group holds {formula} with at most {MAX_ATOMS} atoms in the primitive cell; give a smaller "
            "formula"
        ) from error


def energies_of(structures: list[OrbitStructure]) -> list[float | None]:
    """The shipped proxy's formation energies, eV/atom; None for what it has not learned."""
    if not structures:
        return []
    lattices = [canonical_lattice(one.space_group, np.array(one.lattice)) for one in structures]
    crystals = crystals_of([replace(one, lattice=tuple(cell)) for one, cell in zip(structures, lattices, strict=True)])
    proxy = _proxy()
    values, spreads = proxy(crystals).tolist(), proxy.std(crystals).tolist()
    return [
        value if spread <= UNSURE and VOLUMES[0] <= volume <= VOLUMES[1] else None
        for value, spread, volume in zip(values, spreads, crystals.volume_per_atom.tolist(), strict=True)
    ]


@cache
def _proxy() -> Property:
    return load_proxy("formation_energy")


FEWEST_PAIRS = 4
"""Pairs (group, formula units) that are looked into, however few structures are asked for."""

FEWEST_DRAWS = 8
"""Of a refiner for a pair."""

COVERED = 0.97
"""Of the probability of all pairs; the rest is not looked into where there are enough."""


@dataclass(frozen=True)
class Pair:
    """A space group with the formula units in its primitive cell, and how probable it is."""

    space_group: int
    units: int
    probability: float


@dataclass(frozen=True, eq=False)
class Polymorph:
    """A structure with its probability and where it comes from."""

    structure: OrbitStructure
    probability: float
    origin: str


@dataclass(frozen=True)
class Settings:
    """How polymorphs are looked for.

    Attributes:
        refiner: makes coordinates and cells; None: templates alone.
        templates: real crystals, or None.
        draws: of the refiner for each pair; None: as many as give a quarter more structures than asked for, at least 8.
        steps: of the refiner's sampler.
        max_atoms: in the primitive cell.
        learned: letters that real crystals make probable; False: random ones.
        model: False: templates alone say which pairs are probable.
        without: formulas whose crystals are no templates, as `formula_of` writes them.
        progress: shows bars.
    """

    refiner: Refiner | None = None
    templates: Templates | None = None
    draws: int | None = None
    steps: int = STEPS
    max_atoms: int = MAX_ATOMS
    learned: bool = True
    model: bool = True
    without: Collection[str] = field(default_factory=frozenset)
    progress: bool = False


def polymorphs(
    units: Mapping[int, int], n: int, settings: Settings, space_group: int | None = None, seed: int = 0
) -> list[Polymorph]:
    """At most ``n`` structures, the most probable first.

    Args:
        units: atomic number -> atoms in one formula unit.
        n: how many, at most.
        settings: how they are looked for.
        space_group: only those with this group.
        seed: of the refiner's noise.

    Raises:
        PlacementError: no pair can hold the formula, or nothing was found.
    """
    pairs = probable(units, settings, space_group)
    enough = max(n, FEWEST_PAIRS)
    before = np.cumsum([0.0, *(pair.probability for pair in pairs)])[:-1]
    chosen = [pair for i, pair in enumerate(pairs[:enough]) if i < FEWEST_PAIRS or before[i] < COVERED]
    found, reasons = _of_pairs(units, chosen, n, settings, seed)
    if not found:
        raise PlacementError(reasons[0] if reasons else f"no template has the counts of {_formula(units)}")
    return sorted(found, key=lambda one: -one.probability)[:n]


def probable(units: Mapping[int, int], settings: Settings, space_group: int | None = None) -> list[Pair]:
    """Pairs (space group, formula units in the primitive cell), the most probable first.

    Raises:
        PlacementError: none can hold the formula.
    """
    if space_group is not None and space_group not in range(1, 231):
        raise PlacementError(f"space_group={space_group}: space groups are numbered 1 to 230")
    chances = PolymorphModel.shipped().log_chances([units], settings.max_atoms)[0]
    if space_group is not None:
        chances[np.arange(230) != space_group - 1] = -np.inf
    if not np.isfinite(chances).any():
        group = (
            "no space group"
            if space_group is None
            else f"space group {space_group} ({space_groups.SYMBOL[space_group - 1]})"
        )
        raise PlacementError(
            f"{group} {'holds' if space_group is None else 'cannot hold'} {_formula(units)} with at most "
            f"{settings.max_atoms} atoms in the primitive cell; ask for another group or formula, or for more atoms "
            f"(max_atoms up to {MAX_ATOMS})"
        )
    if settings.templates is not None:
        neighbours = _neighbours(settings.templates)
        if settings.model:
            said = neighbours.features(units, settings.without)
            chances = PolymorphModel.shipped().mixture.log_chances(chances, said)
        else:
            alone = neighbours.log_chances(units, settings.without)
            chances = np.where(np.isfinite(chances), alone, -np.inf)
    flat = np.exp(chances.ravel())
    if not flat.sum() > 0:
        raise PlacementError(f"no template has the counts of {_formula(units)}")
    flat /= flat.sum()
    order = [int(i) for i in np.argsort(-flat, kind="stable") if flat[i] > 0]
    return [Pair(i // MAX_ATOMS + 1, i % MAX_ATOMS + 1, float(flat[i])) for i in order]


def _of_pairs(
    units: Mapping[int, int], pairs: list[Pair], n: int, settings: Settings, seed: int
) -> tuple[list[Polymorph], list[str]]:
    """Structures of all pairs with their probabilities, and why some pairs have none."""
    counts = [{elements.SYMBOLS[z - 1]: k * pair.units for z, k in units.items()} for pair in pairs]
    without = [frozenset((name, pair.space_group) for name in settings.without) for pair in pairs]
    found: list[Polymorph] = []
    reasons: list[str] = []
    if settings.refiner is None:
        assert settings.templates is not None  # or there is nothing to make structures of
        for pair, own, keys, share in zip(pairs, counts, without, _shares(pairs, n), strict=True):
            if sum(one.probability > pair.probability for one in found) >= n:
                break  # nothing of this pair or the next is among the first
            for one in settings.templates.find(pair.space_group, own, None, share, keys):
                found.append(Polymorph(one.structure, pair.probability * one.probability, "template"))
        return found, reasons
    rng = np.random.default_rng(seed)
    tasks = [
        Task.in_random_cell(
            pair.space_group, own, rng, n, (seed, pair.space_group, pair.units), learned=settings.learned
        )
        for pair, own in zip(pairs, counts, strict=True)
    ]
    draws = settings.draws or max(FEWEST_DRAWS, ceil(1.25 * n / len(pairs)))
    answers = candidates(
        tasks, settings.refiner, draws, settings.templates, "generate", settings.steps, without, settings.progress
    )
    choice = CandidateRanker.shipped(settings.templates is not None)
    for pair, (own_candidates, reason) in zip(pairs, answers, strict=True):
        if reason is not None:
            reasons.append(reason)
        for candidate, probability in choice.ranked(own_candidates, n):
            found.append(Polymorph(candidate.structure, pair.probability * probability, candidate.origin))
    return found, reasons


def _shares(pairs: list[Pair], n: int) -> list[int]:
    """Structures of each pair, by its probability, one more than its part of ``n``; at most ``n``."""
    total = sum(pair.probability for pair in pairs)
    return [min(n, 1 + ceil(n * pair.probability / total)) for pair in pairs]


@cache
def _neighbours(templates: Templates) -> Neighbours:
    return Neighbours(templates.index, templates.ranking)


def _formula(units: Mapping[int, int]) -> str:
    return "".join(f"{elements.SYMBOLS[z - 1]}{n if n > 1 else ''}" for z, n in units.items())
