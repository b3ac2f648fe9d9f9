"""Methods of structure prediction for `crystalgfn.benchmarks.csp.run`: templates, placement at random, the refiner.

Objects that can be sent to other processes, and are called with what is given, how many structures, and a seed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from crystalgfn.benchmarks.csp.run import TASKS, CSPQuery, Method
from crystalgfn.crystallography import elements
from crystalgfn.crystallography.atoms import atoms_of
from crystalgfn.crystallography.convert import orbit_structure
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.data.structure_index import Key
from crystalgfn.errors import PlacementError
from crystalgfn.structures.build import build_from_wyckoff, build_structures, templates_of
from crystalgfn.structures.candidate_pool import candidates, enough_draws
from crystalgfn.structures.predict import Settings, polymorphs, probable
from crystalgfn.structures.ranking.reranker import CandidateRanker, rank_candidates
from crystalgfn.structures.refiner.refiner import STEPS, Refiner
from crystalgfn.structures.sources.random import Task, random_cell
from crystalgfn.structures.sources.templates import Templates

if TYPE_CHECKING:
    from pymatgen.core import Structure

PLACED = 0.01
"""Å, symprec: placed structures have the group that was asked for at that."""


@dataclass(frozen=True)
class FromTemplates:
    """Templates alone; ``leave_out``: those of the crystal's own formula and group are not used.

    Where no group is given, those of all groups in order of their distances, none of the crystal's own formula.
    """

    templates: Templates
    leave_out: bool = True

    def __call__(self, what: CSPQuery, k: int, seed: int) -> list[Structure]:
        """At most ``k`` structures."""
        if what.space_group is None:
            return _predicted(what, k, seed, Settings(templates=self.templates, model=False), self.leave_out)
        without: Collection[Key] = what.keys if self.leave_out else ()
        found = self.templates.find(what.space_group, what.counts, what.lattice, k, without, what.letters)
        return [template.structure.to_structure() for template in found]


@dataclass(frozen=True)
class Built:
    """`crystalgfn.build_structures` and `build_from_wyckoff` with options, in a random cell where none is given.

    Without options the baseline: Wyckoff positions and coordinates at random, the least crowded first. Where no cell is
    given, templates come in their own; where no group is given, each of the most probable groups gets one structure.
    """

    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, what: CSPQuery, k: int, seed: int) -> list[Structure]:
        """At most ``k`` structures."""
        if what.space_group is None:
            return self._one_of_each(what, k, seed)
        templates = templates_of(self.options.get("templates"))
        options = {"refiner": None, **self.options}
        if what.lattice is not None:
            return _built(what, what.lattice, k, seed, {**options, "templates": templates})
        found = [] if templates is None else FromTemplates(templates, leave_out=False)(what, k, seed)
        rng = np.random.default_rng(seed)
        cells = [random_cell(what.space_group, what.counts, rng) for _ in range(k - len(found))]
        placing = {**options, "templates": None}
        return found + [one for i, cell in enumerate(cells) for one in _built(what, cell, 1, seed + i, placing)]

    def _one_of_each(self, what: CSPQuery, k: int, seed: int) -> list[Structure]:
        """A structure in each of the most probable groups and cells of a formula, as far as one is found."""
        return [one for i, asked in enumerate(most_probable(what, k)) for one in self(asked, 1, seed + i)]


def most_probable(what: CSPQuery, k: int) -> list[CSPQuery]:
    """The same with each of the ``k`` most probable groups and numbers of formula units, where no group is given."""
    units = {elements.NUMBER[symbol]: n for symbol, n in what.counts.items()}
    return [
        replace(what, space_group=pair.space_group, counts={s: n * pair.units for s, n in what.counts.items()})
        for pair in probable(units, Settings())[:k]
    ]


@dataclass(frozen=True)
class RelaxedAtRandom:
    """Placed at random, relaxed within their symmetry by CHGNet, the lowest energy first.

    The cell relaxes too where none is given. What CHGNet has no energy for comes last, as it was placed. Needs the
    extra ``[relax]``; every structure that is asked for is relaxed, which takes seconds each.

    Attributes:
        place: places them.
    """

    place: Method = field(default_factory=Built)

    def __call__(self, what: CSPQuery, k: int, seed: int) -> list[Structure]:
        """At most ``k`` structures."""
        from crystalgfn.calculators.symmetric import relax_orbits

        placed = [orbit_structure(atoms_of("placed", one), PLACED) for one in self.place(what, k, seed)]
        relaxed = relax_orbits(placed, fixed_cell=what.lattice is not None)
        order = np.argsort([one.energy for one in relaxed], kind="stable")  # NaN comes last
        return [relaxed[i].structure.to_structure() for i in order]


@dataclass(frozen=True)
class Refined:
    """What `build_structures` does with a refiner, in cells of the refiner's own where none is given.

    Where no group is given what `crystalgfn.predict` does.

    Attributes:
        refiner: makes the free coordinates.
        templates: real crystals that are tried too, or None.
        leave_out: those of the crystal's own formula and group are not used; where no group is given, none of its
            formula.
        draws: of the refiner for a crystal; None: `enough_draws`.
        steps: of the refiner's sampler.
        learned: letters that real crystals make probable; False: random ones.
        energies: see `likeliest`; not where no group is given.
    """

    refiner: Refiner
    templates: Templates | None = None
    leave_out: bool = True
    draws: int | None = None
    steps: int = STEPS
    learned: bool = True
    energies: bool = False

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it answers."""
        return tuple(task for task in TASKS if task != "T4" or not self.energies)

    def __call__(self, what: CSPQuery, k: int, seed: int) -> list[Structure]:
        """At most ``k`` structures, the likeliest first."""
        if what.space_group is None:
            settings = Settings(self.refiner, self.templates, self.draws, self.steps, learned=self.learned)
            return _predicted(what, k, seed, settings, self.leave_out)
        task, way = task_of(what, k, seed, self.learned)
        draws = self.draws or enough_draws(k, way)
        without = [what.keys if self.leave_out else ()]
        found, reason = candidates([task], self.refiner, draws, self.templates, way, self.steps, without)[0]
        if reason is not None:
            raise PlacementError(reason)
        ranked = rank_candidates([found], CandidateRanker.shipped(self.templates is not None), k, self.energies)[0]
        return [candidate.structure.to_structure() for candidate, _ in ranked]


def task_of(what: CSPQuery, k: int, seed: int, learned: bool = True) -> tuple[Task, str]:
    """What is given as a task for `candidates`, and its way with the lattice: a random cell where none is given."""
    if what.lattice is None:
        rng = np.random.default_rng(seed)
        return Task.in_random_cell(what.space_group, what.counts, rng, k, (seed,), learned=learned), "generate"
    cell = tuple(what.lattice.tolist())
    return Task(what.space_group, what.counts, cell, what.letters, k, (seed,), learned=learned), "keep"


def _predicted(what: CSPQuery, k: int, seed: int, settings: Settings, leave_out: bool) -> list[Structure]:
    """Structures of a formula."""
    units = {elements.NUMBER[symbol]: n for symbol, n in what.counts.items()}
    taken = frozenset(formula for formula, _ in what.keys) if leave_out else frozenset()
    found = polymorphs(units, k, replace(settings, without=taken), seed=seed)
    return [one.structure.to_structure() for one in found]


def _built(what: CSPQuery, lattice: np.ndarray, k: int, seed: int, options: Mapping[str, Any]) -> list[Structure]:
    composition = torch.zeros(1, 118, dtype=torch.int64)
    for symbol, count in what.counts.items():
        composition[0, elements.NUMBER[symbol] - 1] = count
    crystal = Crystals(torch.tensor([what.space_group]), composition, torch.tensor(lattice, dtype=torch.float64)[None])
    if what.letters is not None:
        own = {name: value for name, value in options.items() if name != "assignment"}
        return build_from_wyckoff(crystal, [what.letters], n_candidates=k, seed=seed, **own)[0].candidates
    return build_structures(crystal, n_candidates=k, seed=seed, **options)[0].candidates
