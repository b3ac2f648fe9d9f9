"""From a formula to its polymorphs as full structures, with the energies that a proxy gives them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystalgfn.domain.lattice import canonical_lattice
from crystalgfn.domain.space import CrystalSpace
from crystalgfn.errors import EmptySpace, PlacementError
from crystalgfn.rewards import Property, load_proxy
from crystalgfn.structures.orbits import OrbitStructure
from crystalgfn.structures.placement import Reference, refiner_of, templates_of
from crystalgfn.structures.polymorphs import Settings, polymorphs
from crystalgfn.structures.refine import STEPS, Refiner
from crystalgfn.structures.standard import crystals_of
from crystalgfn.tables.realisable import MAX_ATOMS

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
    values, spreads = proxy(crystals).tolist(), proxy.spread(crystals).tolist()
    return [
        value if spread <= UNSURE and VOLUMES[0] <= volume <= VOLUMES[1] else None
        for value, spread, volume in zip(values, spreads, crystals.volume_per_atom.tolist(), strict=True)
    ]


@cache
def _proxy() -> Property:
    return load_proxy("formation_energy")
