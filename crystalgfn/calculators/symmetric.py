"""Energies and relaxation of orbits: what moves are the free coordinates, and the lattice within its system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from crystalgfn.calculators.base import Calculator, calculate_energies
from crystalgfn.calculators.registry import DEFAULT, load_calculator
from crystalgfn.calculators.relaxation import MAX_FORCE, MAX_STEPS, relax
from crystalgfn.crystallography import elements
from crystalgfn.crystallography.lattice_vectors import log_metric_of
from crystalgfn.crystallography.orbit_batch import OrbitBatch
from crystalgfn.crystallography.orbits import OrbitStructure

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True, kw_only=True)
class RelaxedOrbits:
    """What came of one structure.

    Attributes:
        structure: the relaxed one, with the orbits and the group it had; the one given where there is no energy.
        energy: total energy, eV/atom; NaN where there is none.
        converged: whether no force is above the limit.
        steps: evaluations of forces after the first.
        error: why there is no energy, or why it stopped.
    """

    structure: OrbitStructure
    energy: float
    converged: bool
    steps: int
    error: str | None


def relax_orbits(
    structures: Sequence[OrbitStructure],
    calculator: Calculator | str = DEFAULT,
    fixed_cell: bool = True,
    max_steps: int = MAX_STEPS,
    max_force: float = MAX_FORCE,
    progress: bool = False,
) -> list[RelaxedOrbits]:
    """Relax structures within their symmetry, in primitive cells; arguments are those of `relax`.

    Forces have the symmetry of the structure but for rounding; what is left of that is taken off by going back to the
    free coordinates, so the group is exactly kept.

    Raises:
        CalculatorError: there is no such calculator, or it breaks its contract.
        NotAvailable: its package is not installed.
    """
    batches = [OrbitBatch.of([structure], torch.float64) for structure in structures]
    found = relax([_primitive(batch) for batch in batches], calculator, max_steps, fixed_cell, max_force, progress)
    results = []
    for before, batch, one in zip(structures, batches, found, strict=True):
        after = before if one.structure is None else _back(before, batch, one.structure, fixed_cell)
        results.append(
            RelaxedOrbits(structure=after, energy=one.energy, converged=one.converged, steps=one.steps, error=one.error)
        )
    return results


def orbit_energies(structures: Sequence[OrbitStructure], calculator: Calculator | str = DEFAULT) -> np.ndarray:
    """Total energies of structures as they are, eV/atom, float64 [M]; NaN where there is none.

    Raises:
        CalculatorError: there is no such calculator, or it breaks its contract.
        NotAvailable: its package is not installed.
    """
    cells = [_primitive(OrbitBatch.of([structure], torch.float64)) for structure in structures]
    return calculate_energies(load_calculator(calculator), cells)


def _primitive(batch: OrbitBatch) -> Structure:
    """The primitive cell of a batch of one."""
    from pymatgen.core import Lattice, Structure

    names = [elements.SYMBOLS[z - 1] for z in batch.species[0][batch.orbit[0]].tolist()]
    return Structure(Lattice(batch.cells()[0].numpy()), names, batch.points()[0].numpy())


def _back(before: OrbitStructure, batch: OrbitBatch, relaxed: Structure, fixed_cell: bool) -> OrbitStructure:
    """The relaxed primitive cell as orbits."""
    points = torch.tensor(np.asarray(relaxed.frac_coords))[None]
    first = batch.first[..., None].expand(-1, -1, 3)
    moved = points.gather(1, first) - batch.points().gather(1, first)
    moved = moved - moved.round()
    free = batch.free + torch.einsum("boij,boj->boi", batch.inverse, moved) * batch.free_mask
    if fixed_cell:
        return replace(batch.at(free).structures()[0], lattice=before.lattice)
    conventional = np.linalg.inv(batch.primitive[0].numpy()) @ relaxed.lattice.matrix
    lengths = np.linalg.norm(conventional, axis=1)
    cosines = [conventional[i] @ conventional[j] / lengths[i] / lengths[j] for i, j in ((1, 2), (0, 2), (0, 1))]
    lattice = np.array([[*lengths, *np.degrees(np.arccos(cosines))]])
    return batch.at(free, torch.from_numpy(log_metric_of(lattice))).structures()[0]
