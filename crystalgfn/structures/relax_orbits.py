"""CHGNet relaxation of orbits: what moves are the free coordinates, and the lattice within its system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from crystalgfn.structures.lattice_basis import log_metric_of
from crystalgfn.structures.orbit_batch import OrbitBatch
from crystalgfn.structures.orbits import OrbitStructure
from crystalgfn.structures.relax import MAX_FORCE, MAX_STEPS, relax
from crystalgfn.tables import elements


@dataclass(frozen=True)
class RelaxedOrbits:
    """What came of one structure.

    Attributes:
        structure: the relaxed one, with the orbits and the group it had; the one given where there is no energy.
        energy: CHGNet's total energy, eV/atom; NaN where there is none.
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
    fixed_cell: bool = True,
    max_steps: int = MAX_STEPS,
    max_force: float = MAX_FORCE,
    progress: bool = False,
) -> list[RelaxedOrbits]:
    """Relax structures within their symmetry, in primitive cells.

    Forces have the symmetry of the structure but for rounding; what is left of that is taken off by going back to the
    free coordinates, so the group is exactly kept.

    Args:
        structures: of any sizes.
        fixed_cell: False lets the lattice relax too, within its lattice system.
        max_steps: evaluations of forces after the first, at most.
        max_force: eV/Å.
        progress: shows a bar.

    Raises:
        NotAvailable: CHGNet is not installed.
    """
    from pymatgen.core import Lattice, Structure

    batches = [OrbitBatch.of([structure], torch.float64) for structure in structures]
    cells = []
    for batch in batches:
        names = [elements.SYMBOLS[z - 1] for z in batch.species[0][batch.orbit[0]].tolist()]
        cells.append(Structure(Lattice(batch.cells()[0].numpy()), names, batch.points()[0].numpy()))
    found = relax(cells, max_steps, fixed_cell, max_force, progress)
    results = []
    for before, batch, one in zip(structures, batches, found, strict=True):
        after = before if one.structure is None else _back(before, batch, one.structure, fixed_cell)
        results.append(RelaxedOrbits(after, one.energy, one.converged, one.steps, one.error))
    return results


def _back(before: OrbitStructure, batch: OrbitBatch, relaxed: object, fixed_cell: bool) -> OrbitStructure:
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
