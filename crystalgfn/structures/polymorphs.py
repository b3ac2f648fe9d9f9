"""Structures that a composition may have: probable groups and cells, candidates in each, all of them ranked.

The probability of a structure is that of its (space group, formula units in the primitive cell) given the composition,
times its own among the candidates there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from math import ceil

import numpy as np

from crystalgfn.errors import PlacementError
from crystalgfn.structures.candidates import candidates
from crystalgfn.structures.choice import Choice
from crystalgfn.structures.orbits import OrbitStructure
from crystalgfn.structures.polymorph_mixture import Neighbours
from crystalgfn.structures.polymorph_model import PolymorphModel
from crystalgfn.structures.refine import STEPS, Refiner
from crystalgfn.structures.search import Task
from crystalgfn.structures.templates import Templates
from crystalgfn.tables import elements, groups
from crystalgfn.tables.realisable import MAX_ATOMS

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
            "no space group" if space_group is None else f"space group {space_group} ({groups.SYMBOL[space_group - 1]})"
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
    choice = Choice.shipped(settings.templates is not None)
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
