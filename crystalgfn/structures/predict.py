"""From a formula to its polymorphs as full structures, with the energies that a proxy gives them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.convert import crystals_of_orbits
from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.crystallography.realizable import MAX_ATOMS
from crystalgfn.errors import EmptySpace, InvalidSpace, PlacementError, check_kind
from crystalgfn.rewards import Property, load_proxy
from crystalgfn.space.space import CrystalSpace
from crystalgfn.structures.build import build
from crystalgfn.structures.config import BuildConfig, Reference
from crystalgfn.structures.exchange import Exchange, StructureList, StructureRecord, ase_atoms, caption_of
from crystalgfn.structures.ranking.polymorphs import Neighbours, PolymorphModel
from crystalgfn.structures.refiner.base import STEPS, Refiner
from crystalgfn.structures.sources.base import CandidateSource, PlacementRequest
from crystalgfn.structures.sources.templates import Templates
from crystalgfn.utils.plain import Plain

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure


UNSURE = 0.5
"""eV/atom; standard error of the proxy above which it has no energy for a crystal."""
VOLUMES = (4.0, 60.0)
"""Å3 an atom; outside it has none either."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Prediction(Plain, Exchange):
    """A polymorph.

    Attributes:
        orbits: the structure.
        probability: of this structure among all that could be.
        origin: "template", "refiner" (free coordinates and cell made by diffusion), or "fixed" (letters without a free
            coordinate).
        energy: the shipped proxy's formation energy, eV/atom; None where it has not learned what it is asked.
    """

    orbits: OrbitStructure
    probability: float
    origin: str
    energy: float | None = None

    @cached_property
    def structure(self) -> Structure:
        """The conventional cell."""
        return self.orbits.to_structure()

    @property
    def space_group(self) -> int:
        """ITA number."""
        return self.orbits.space_group

    @property
    def wyckoff(self) -> dict[str, list[str]]:
        """Element symbol -> letters of the orbits."""
        return self.orbits.wyckoff()

    def to_ase(self) -> Atoms:
        """The conventional cell as ASE's atoms."""
        return ase_atoms(self.structure, self.records()[0].properties)

    def records(self) -> list[StructureRecord]:
        """The structure with probability, origin, letters and formation energy."""
        about = {"probability": self.probability, "origin": self.origin, "wyckoff": self.wyckoff}
        name = f"{self.structure.composition.reduced_formula}-{self.space_group}"
        by = None if self.energy is None else "proxy"
        return [
            StructureRecord(
                structure=self.structure, name=name, space_group=self.space_group, energy=self.energy,
                energy_of="formation", by=by, about=about,
            )
        ]  # fmt: skip

    def __repr__(self) -> str:
        return f"Prediction({caption_of(self.records()[0])}, probability {self.probability:.3f}, by {self.origin})"


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
) -> StructureList[Prediction]:
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
    check_kind("formula", formula, str, "one such as LiFePO4", InvalidSpace)
    units = formula_units_of(formula)
    whole = isinstance(n, int) and isinstance(max_atoms, int)
    if not whole or n < 1 or steps < 1 or (draws is not None and draws < 1):
        raise PlacementError(f"n={n}, steps={steps}, draws={draws}: give whole numbers of at least 1")
    if not 1 <= max_atoms <= MAX_ATOMS:
        raise PlacementError(f"max_atoms={max_atoms}: the primitive cell may have 1 to {MAX_ATOMS} atoms")
    if refiner is None and templates is None:
        raise PlacementError("refiner=None and templates=None leave nothing to make structures of; give one of them")
    config = BuildConfig(
        n_candidates=n, refiner=refiner, seed=seed, templates=templates, draws=draws, steps=steps, progress=progress
    )
    found = polymorphs(units, config, space_group, max_atoms)
    energies = energies_of([one.orbits for one in found])
    return StructureList(replace(one, energy=energy) for one, energy in zip(found, energies, strict=True))


def formula_units_of(formula: str) -> dict[int, int]:
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
    crystals = crystals_of_orbits(structures, canonical=True)
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


def polymorphs(
    units: Mapping[int, int],
    config: BuildConfig,
    space_group: int | None = None,
    max_atoms: int = MAX_ATOMS,
    *,
    model: bool = True,
    excluded: Collection[str] = (),
) -> list[Prediction]:
    """At most ``config.n_candidates`` structures in cells of their own, the most probable first.

    Without a refiner they are those of templates alone. The draws of the configuration are for each pair; None: as many
    as give a quarter more structures than asked for, at least 8. The other arguments are those of `probable`.

    Raises:
        PlacementError: no pair can hold the formula, or nothing was found.
    """
    n = config.n_candidates
    pairs = probable(units, config.source, space_group, max_atoms, model=model, excluded=excluded)
    enough = max(n, FEWEST_PAIRS)
    before = np.cumsum([0.0, *(pair.probability for pair in pairs)])[:-1]
    chosen = [pair for i, pair in enumerate(pairs[:enough]) if i < FEWEST_PAIRS or before[i] < COVERED]
    requests = [
        PlacementRequest(
            space_group=pair.space_group,
            counts={elements.SYMBOLS[z - 1]: k * pair.units for z, k in units.items()},
            stream=(pair.space_group, pair.units),
            excluded=frozenset((name, pair.space_group) for name in excluded),
        )
        for pair in chosen
    ]
    of_pairs = _of_templates if config.refiner is None else _of_refiner
    found, reasons = of_pairs(chosen, requests, config)
    if not found:
        raise PlacementError(reasons[0] if reasons else f"no template has the counts of {_formula(units)}")
    return sorted(found, key=lambda one: -one.probability)[:n]


def probable(
    units: Mapping[int, int],
    templates: CandidateSource | None = None,
    space_group: int | None = None,
    max_atoms: int = MAX_ATOMS,
    *,
    model: bool = True,
    excluded: Collection[str] = (),
) -> list[Pair]:
    """Pairs (space group, formula units in the primitive cell), the most probable first.

    Args:
        units: atomic number -> atoms in one formula unit.
        templates: real crystals that count too; sources of another kind do not.
        space_group: only pairs with this group.
        max_atoms: in the primitive cell.
        model: False: templates alone say which pairs are probable.
        excluded: formulas whose crystals are no templates, as `formula_of` writes them.

    Raises:
        PlacementError: none can hold the formula.
    """
    if space_group is not None and space_group not in range(1, 231):
        raise PlacementError(f"space_group={space_group}: space groups are numbered 1 to 230")
    chances = PolymorphModel.shipped().log_chances([units], max_atoms)[0]
    if space_group is not None:
        chances[np.arange(230) != space_group - 1] = -np.inf
    if not np.isfinite(chances).any():
        raise PlacementError(_no_room(units, space_group, max_atoms))
    if isinstance(templates, Templates):
        neighbours = _neighbours(templates)
        if model:
            said = neighbours.features(units, excluded)
            chances = PolymorphModel.shipped().mixture.log_chances(chances, said)
        else:
            alone = neighbours.log_chances(units, excluded)
            chances = np.where(np.isfinite(chances), alone, -np.inf)
    flat = np.exp(chances.ravel())
    if not flat.sum() > 0:
        raise PlacementError(f"no template has the counts of {_formula(units)}")
    flat /= flat.sum()
    order = [int(i) for i in np.argsort(-flat, kind="stable") if flat[i] > 0]
    return [Pair(i // MAX_ATOMS + 1, i % MAX_ATOMS + 1, float(flat[i])) for i in order]


def _no_room(units: Mapping[int, int], space_group: int | None, max_atoms: int) -> str:
    group = "no space group holds"
    if space_group is not None:
        group = f"{space_groups.words_for(space_group)} cannot hold"
    return (
        f"{group} {_formula(units)} with at most {max_atoms} atoms in the primitive cell; ask for another group or "
        f"formula, or for more atoms (max_atoms up to {MAX_ATOMS})"
    )


def _of_templates(
    pairs: list[Pair], requests: list[PlacementRequest], config: BuildConfig
) -> tuple[list[Prediction], list[str]]:
    """Structures of the pairs with their probabilities, of templates alone."""
    found: list[Prediction] = []
    source = config.source
    if source is None:
        return found, []
    for pair, request, share in zip(pairs, requests, _shares(pairs, config.n_candidates), strict=True):
        if sum(one.probability > pair.probability for one in found) >= config.n_candidates:
            break  # nothing of this pair or the next is among the first
        (own,) = source.propose([request], share, config.seed)
        found += [
            Prediction(orbits=structure, probability=pair.probability * probability, origin=source.name)
            for structure, probability in own.weighted()
        ]
    return found, []


def _of_refiner(
    pairs: list[Pair], requests: list[PlacementRequest], config: BuildConfig
) -> tuple[list[Prediction], list[str]]:
    """The same of a refiner's draws too, and why some pairs have none."""
    draws = config.draws or max(FEWEST_DRAWS, ceil(1.25 * config.n_candidates / len(pairs)))
    results = build(requests, replace(config, lattice="generate", draws=draws, retry=False, part=len(requests)))
    found = [
        Prediction(orbits=structure, probability=pair.probability * probability, origin=origin)
        for pair, one in zip(pairs, results, strict=True)
        for structure, probability, origin in zip(one.orbits, one.probabilities, one.origins, strict=True)
    ]
    return found, [one.error for one in results if one.error is not None]


def _shares(pairs: list[Pair], n: int) -> list[int]:
    """Structures of each pair, by its probability, one more than its part of ``n``; at most ``n``."""
    total = sum(pair.probability for pair in pairs)
    return [min(n, 1 + ceil(n * pair.probability / total)) for pair in pairs]


@cache
def _neighbours(templates: Templates) -> Neighbours:
    return Neighbours(templates.index, templates.ranking)


def _formula(units: Mapping[int, int]) -> str:
    return "".join(f"{elements.SYMBOLS[z - 1]}{n if n > 1 else ''}" for z, n in units.items())
