"""What a calculator says of placed crystals before they are relaxed: the energy after the first few steps.

A prediction from composition, group and cell knows nothing of the atoms. The energy of a placed structure does, and a
few steps of a relaxation, begun at the best of a few volumes, rank candidates nearly as the whole of it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from crystalgfn.calculators.base import Calculator, calculate_energies
from crystalgfn.calculators.energy_references import References
from crystalgfn.calculators.relaxation import relax
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.standardize import nearest_ratio
from crystalgfn.discovery.proposer import PlacedCrystal
from crystalgfn.evaluation.relaxation_job import CLOSEST

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True, kw_only=True)
class ScreenConfig:
    """How placed crystals are screened.

    Attributes:
        volumes: at which the energy of each is calculated, over the volume that it was placed in.
        steps: of relaxing atoms and cell from the best of these; 0: none.
    """

    volumes: tuple[float, ...] = (0.9, 1.0, 1.1)
    steps: int = 8

    def __post_init__(self) -> None:
        if not self.volumes or not all(0.2 < one < 5 for one in self.volumes):
            raise ValueError(f"volumes={list(self.volumes)}: give at least one number between 0.2 and 5")
        if self.steps < 0:
            raise ValueError(f"steps={self.steps}: give a whole number of at least 0")


DEFAULT_SCREEN = ScreenConfig()


class Screen:
    """Formation energies of placed structures after the first steps of a relaxation, eV/atom.

    Args:
        calculator: gives the energies.
        references: that make formation energies of them.
        config: how.
    """

    def __init__(self, calculator: Calculator, references: References, config: ScreenConfig | None = None) -> None:
        self.calculator, self.references, self.config = calculator, references, config or ScreenConfig()

    @property
    def evaluations(self) -> int:
        """Of the calculator for each crystal, at most."""
        return len(self.config.volumes) + 1 + self.config.steps  # a relaxation evaluates its start too

    def __call__(self, placed: Sequence[PlacedCrystal]) -> tuple[list[PlacedCrystal], np.ndarray]:
        """The crystals after these steps and their energies [B]; as they were, and NaN, where there is no energy."""
        if not placed:
            return [], np.zeros(0)
        starts = self._at_best_volume([one.structure for one in placed])
        found, energies = list(placed), np.full(len(placed), np.nan)
        known = [i for i, one in enumerate(starts) if one is not None]
        going = [one for one in starts if one is not None]
        done = relax(going, self.calculator, self.config.steps, fixed_cell=False)
        for i, start, one in zip(known, going, done, strict=True):
            structure = start if one.structure is None else one.structure
            if nearest_ratio(structure) >= CLOSEST:
                found[i] = _with(placed[i], structure)
                energies[i] = one.start_energy if one.structure is None else one.energy
        rows = Crystals.cat([one.crystal for one in placed]).composition.numpy()
        energies = self.references.formation_energy(rows, energies)
        return found, np.where(np.isfinite(energies), energies, np.nan)

    def _at_best_volume(self, structures: Sequence[Structure]) -> list[Structure | None]:
        """Each at the volume of its lowest energy; None where it has none, or only with short contacts."""
        tried = [[_scaled(one, volume) for volume in self.config.volumes] for one in structures]
        apart = np.array([[nearest_ratio(one) >= CLOSEST for one in own] for own in tried])
        energies = np.full(apart.shape, np.nan)
        rows, columns = np.nonzero(apart)
        pairs = list(zip(rows.tolist(), columns.tolist(), strict=True))
        energies[rows, columns] = calculate_energies(self.calculator, [tried[i][k] for i, k in pairs])
        return [
            own[int(np.nanargmin(energy))] if np.isfinite(energy).any() else None
            for own, energy in zip(tried, energies, strict=True)
        ]


def _scaled(structure: Structure, volume: float) -> Structure:
    scaled = structure.copy()
    scaled.scale_lattice(structure.volume * volume)
    return scaled


def _with(placed: PlacedCrystal, structure: Structure) -> PlacedCrystal:
    """A crystal with other atoms, and the lengths of its cell at their volume."""
    lattice = placed.crystal.lattice.clone()
    lattice[:, :3] *= (structure.volume / placed.structure.volume) ** (1 / 3)
    return replace(placed, crystal=replace(placed.crystal, lattice=lattice), structure=structure)
