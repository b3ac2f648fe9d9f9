"""Candidate structures of crystals, for all of them at once: templates, and free coordinates that a refiner makes.

Each candidate knows what speaks for it: how probable its template or its letters are, how many of the refiner's draws
came out as this structure, how plausible it looks, and how much room its atoms have.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from crystalgfn.structures.candidate import Candidate
from crystalgfn.structures.gathered import Gathered
from crystalgfn.structures.orbits import OrbitStructure
from crystalgfn.structures.plausibility import Plausibility
from crystalgfn.structures.prototypes import Key
from crystalgfn.structures.refine import STEPS, Refiner
from crystalgfn.structures.search import Task
from crystalgfn.structures.templates import Templates

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
    from tqdm import tqdm

    gathered = [Gathered(task, lattice) for task in tasks]
    for i, one in enumerate(tqdm(gathered, desc="choosing letters", disable=not progress)):
        one.begin(draws, templates, () if without is None else without[i])
    _adapt(gathered, refiner, steps)
    made = _made(gathered, refiner, steps, progress)
    for i, one in enumerate(tqdm(gathered, desc="checking", disable=not progress)):
        for k, start in enumerate(one.starts):
            one.take(made[i, k], start.probability)
    found = [one.supported() for one in gathered]
    structures = [candidate.structure for own in found for candidate in own]
    plausible = iter(Plausibility.shipped(refiner.device.type).of(structures).tolist())
    judged = [[replace(c, plausible=next(plausible)) for c in own] for own in found]
    return [(own, None if own else one.reason()) for own, one in zip(judged, gathered, strict=True)]


def _adapt(gathered: Sequence[Gathered], refiner: Refiner, steps: int) -> None:
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
    gathered: Sequence[Gathered], refiner: Refiner, steps: int, progress: bool
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
