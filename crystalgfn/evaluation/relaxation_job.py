"""One relaxation of an evaluation: atoms and cell, energies on the scale of the reference, what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.calculators.base import Calculator
from crystalgfn.calculators.energy_references import References, references_of
from crystalgfn.calculators.registry import DEFAULT, load_calculator
from crystalgfn.calculators.relaxation import relax
from crystalgfn.crystallography.atoms import structure_of
from crystalgfn.crystallography.standardize import nearest_ratio
from crystalgfn.evaluation.describe import atoms_of_row
from crystalgfn.evaluation.metrics.compositions import amounts
from crystalgfn.structures.ground_state import MAX_FORCE

if TYPE_CHECKING:
    from pymatgen.core import Structure


STEPS = 100
CLOSEST = 0.6
"""Of the sum of radii; a structure with a closer pair, before or after, has no energy. All of MP-20 val lie above."""


@dataclass(frozen=True, kw_only=True)
class RelaxationJob:
    """A structure to relax.

    Attributes:
        index: of its row.
        structure: where the relaxation starts, best a primitive cell.
        calculator: relaxes it, see `load_calculator`.
        references: file of its energy references; None: those that come with the package.
        steps: at most.
        max_force: eV/Å; converged when no atom, nor the cell, feels more.
    """

    index: int
    structure: Structure
    calculator: Calculator | str = DEFAULT
    references: str | None = None
    steps: int = STEPS
    max_force: float = MAX_FORCE


def relax_job(job: RelaxationJob) -> dict[str, Any]:
    """Relax atoms and cell; the record of what came of it.

    Energies are formation energies on MP-20's scale in eV/atom, which `energy_references` makes of the calculator's;
    ``calculator`` is its name. ``displacement`` is the root mean square over the atoms, in Å, without a common drift
    and in the relaxed cell.
    ``error`` says why a structure has no energy; None where it has one.

    Raises:
        NotAvailable: the calculator's package is not installed.
    """
    start = time.perf_counter()
    record: dict[str, Any] = {"index": job.index, "error": None, "calculator": None}
    if not job.structure.is_ordered:
        return {**record, "error": "partially occupied sites have no energy; order them first", "seconds": 0.0}
    ratio = nearest_ratio(job.structure)
    if ratio < CLOSEST:
        words = f"two atoms are closer than {CLOSEST} of the sum of their radii ({ratio:.2f}), so it is not relaxed"
        return {**record, "error": words, "seconds": 0.0}
    calculator = load_calculator(job.calculator)
    references, record["calculator"] = references_of(calculator, job.references), calculator.name
    found = relax([job.structure], calculator, job.steps, fixed_cell=False, max_force=job.max_force)[0]
    record["seconds"] = time.perf_counter() - start
    if found.structure is None:
        return {**record, "error": found.error or f"{calculator.name} has no energy for it"}
    energy = _formation(job.structure, found.energy, references)
    if not np.isfinite(energy):
        return {**record, "error": "an element has no reference energy"}
    if nearest_ratio(found.structure) < CLOSEST:
        return {**record, "error": "atoms ran into each other while it relaxed"}
    return {
        **record,
        "formation_energy": energy,
        "start_energy": _formation(job.structure, found.start_energy, references),
        "converged": bool(found.converged),
        "steps": found.steps,
        "strain": found.strain,
        "volume_ratio": found.volume_ratio,
        "displacement": displacement(job.structure, found.structure),
        "relaxed_cell": list(found.structure.lattice.parameters),
        "relaxed_Z": [site.specie.Z for site in found.structure],
        "relaxed_frac": found.structure.frac_coords.ravel().tolist(),
    }


def evaluations_of(records: Iterable[Mapping[str, Any]]) -> int:
    """Evaluations of the calculator that relaxations took; those that failed are not known and not counted."""
    return sum(one["steps"] + 1 for one in records if one["error"] is None)


def _formation(structure: Structure, energy: float, references: References) -> float:
    composition = np.zeros((1, 118))
    for z, n in amounts(structure).items():
        composition[0, z - 1] = n
    return float(references.formation_energy(composition, np.array([energy]))[0])


def displacement(before: Structure, after: Structure) -> float:
    """Root mean square displacement of atoms in the same order, Å, without drift, in the cell after."""
    gaps = after.frac_coords - before.frac_coords
    gaps = gaps - np.rint(gaps)
    gaps = gaps - gaps.mean(axis=0)
    return float(np.sqrt(((gaps @ after.lattice.matrix) ** 2).sum(axis=1).mean()))


def relaxed_structure(record: Mapping[str, Any]) -> Structure:
    """The relaxed structure of a record without an error."""
    return structure_of(atoms_of_row(record, relaxed=True))
