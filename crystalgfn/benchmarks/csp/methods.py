"""Methods of structure prediction for `crystalgfn.benchmarks.csp.run`: templates, placement at random, the refiner.

Objects that can be sent to other processes, and are called with what is given, how many structures, and a seed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from crystalgfn.benchmarks.csp.run import TASKS, CSPQuery, Method
from crystalgfn.calculators.base import Calculator
from crystalgfn.calculators.registry import DEFAULT
from crystalgfn.crystallography import elements
from crystalgfn.crystallography.atoms import Atoms, SkippedRecord, atoms_of
from crystalgfn.crystallography.convert import orbit_structure
from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.data.structure_index import Key
from crystalgfn.errors import PlacementError
from crystalgfn.structures.build import build
from crystalgfn.structures.config import BuildConfig
from crystalgfn.structures.predict import polymorphs, probable
from crystalgfn.structures.sources.base import PlacementRequest, random_cell
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
            alone = BuildConfig(refiner=None, templates=self.templates)
            return _predicted(what, k, seed, alone, self.leave_out, model=False)
        without: Collection[Key] = what.keys if self.leave_out else ()
        found = self.templates.find(what.space_group, what.counts, what.lattice, k, without, what.letters)
        return [template.structure.to_structure() for template in found]


@dataclass(frozen=True)
class Built:
    """The pipeline of `crystalgfn.build_structures`, in a random cell where none is given.

    Without a configuration the baseline: Wyckoff positions and coordinates at random, the least crowded first. Where no
    cell is given, templates come in their own; where no group is given, each of the most probable groups gets one
    structure.
    """

    config: BuildConfig = field(default_factory=lambda: BuildConfig(refiner=None))

    def __call__(self, what: CSPQuery, k: int, seed: int) -> list[Structure]:
        """At most ``k`` structures."""
        return [one.to_structure() for one in self.orbits(what, k, seed)]

    def orbits(self, what: CSPQuery, k: int, seed: int) -> list[OrbitStructure]:
        """The same as orbits."""
        if what.space_group is None:
            return [one for i, asked in enumerate(most_probable(what, k)) for one in self.orbits(asked, 1, seed + i)]
        config = replace(self.config, n_candidates=k, seed=seed)
        request = replace(request_of(what), stream=(0,))
        if what.lattice is not None:
            return list(build([request], config)[0].orbits)
        found: list[OrbitStructure] = []
        if isinstance(config.templates, Templates):
            found += config.templates.propose([request], k, seed)[0].structures
        rng = np.random.default_rng(seed)
        for i in range(k - len(found)):
            own = replace(request, lattice=tuple(random_cell(request.space_group, request.counts, rng).tolist()))
            placing = replace(config, templates=None, n_candidates=1, seed=seed + i)
            found += build([own], placing)[0].orbits
        return found


def most_probable(what: CSPQuery, k: int) -> list[CSPQuery]:
    """The same with each of the ``k`` most probable groups and numbers of formula units, where no group is given."""
    units = {elements.NUMBER[symbol]: n for symbol, n in what.counts.items()}
    return [
        replace(what, space_group=pair.space_group, counts={s: n * pair.units for s, n in what.counts.items()})
        for pair in probable(units)[:k]
    ]


@dataclass(frozen=True)
class RelaxedAtRandom:
    """Placed at random, relaxed within their symmetry by a calculator, the lowest energy first.

    The cell relaxes too where none is given. What has no energy comes last, as it was placed. Every structure that is
    asked for is relaxed, which takes seconds each.

    Attributes:
        place: places them.
        calculator: relaxes them, see `load_calculator`.
    """

    place: Method = field(default_factory=Built)
    calculator: Calculator | str = DEFAULT

    def __call__(self, what: CSPQuery, k: int, seed: int) -> list[Structure]:
        """At most ``k`` structures."""
        from crystalgfn.calculators.symmetric import relax_orbits

        if isinstance(self.place, Built):
            placed = self.place.orbits(what, k, seed)
        else:
            atoms = [atoms_of("placed", one) for one in self.place(what, k, seed) if not isinstance(one, SkippedRecord)]
            placed = [orbit_structure(one, PLACED) for one in atoms if isinstance(one, Atoms)]
        relaxed = relax_orbits(placed, self.calculator, fixed_cell=what.lattice is not None)
        order = np.argsort([one.energy for one in relaxed], kind="stable")  # NaN comes last
        return [relaxed[i].structure.to_structure() for i in order]


@dataclass(frozen=True)
class Refined:
    """What `build_structures` does with a refiner at its first try, in cells of the refiner's own where none is given.

    Where no group is given what `crystalgfn.predict` does.

    Attributes:
        config: the refiner, templates, letters and draws; ``energies`` not where no group is given.
        leave_out: templates of the crystal's own formula and group are not used; where no group is given, none of its
            formula.
    """

    config: BuildConfig = field(default_factory=BuildConfig)
    leave_out: bool = True

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it can do."""
        return tuple(task for task in TASKS if task != "T4" or not self.config.energies)

    def __call__(self, what: CSPQuery, k: int, seed: int) -> list[Structure]:
        """At most ``k`` structures, the most probable first."""
        if what.space_group is None:
            return _predicted(what, k, seed, self.config, self.leave_out)
        lattice = "generate" if what.lattice is None else "keep"
        config = replace(self.config, n_candidates=k, seed=seed, lattice=lattice, retry=False)
        (result,) = build([request_of(what, self.leave_out)], config)
        if result.error is not None:
            raise PlacementError(result.error)
        return result.candidates


def request_of(what: CSPQuery, leave_out: bool = False) -> PlacementRequest:
    """What is given as a request to the pipeline; ``leave_out``: without templates of the crystal itself."""
    return PlacementRequest(
        space_group=what.known_group,
        counts=what.counts,
        lattice=None if what.lattice is None else tuple(what.lattice.tolist()),
        letters=what.letters,
        excluded=what.keys if leave_out else (),
    )


def _predicted(
    what: CSPQuery, k: int, seed: int, config: BuildConfig, leave_out: bool, model: bool = True
) -> list[Structure]:
    """Structures of a formula."""
    units = {elements.NUMBER[symbol]: n for symbol, n in what.counts.items()}
    excluded = frozenset(formula for formula, _ in what.keys) if leave_out else frozenset()
    config = replace(config, n_candidates=k, seed=seed)
    found = polymorphs(units, config, model=model, excluded=excluded)
    return [one.structure for one in found]
