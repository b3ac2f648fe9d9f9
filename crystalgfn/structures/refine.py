"""Structures of one's own, refined: from pymatgen to orbits, through the refiner, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crystalgfn.crystallography.atoms import SkippedRecord, atoms_of
from crystalgfn.crystallography.atoms import atoms_fault as atoms_fault
from crystalgfn.crystallography.convert import orbit_structure
from crystalgfn.crystallography.distances import fault
from crystalgfn.crystallography.orbit_batch import lattice_fault
from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.errors import CrystalGFNError, PlacementError
from crystalgfn.structures.config import refiner_of
from crystalgfn.structures.refiner.base import MAX_STRAIN, NOISE, STEPS, Refiner
from crystalgfn.structures.result import BuildResult
from crystalgfn.structures.sources.base import PlacementRequest

if TYPE_CHECKING:
    from pymatgen.core import Structure


def refine_structures(
    structures: Sequence[Structure],
    refiner: Refiner | str | Path = "default",
    lattice: str = "keep",
    seed: int = 0,
    *,
    noise: float = NOISE,
    max_strain: float = MAX_STRAIN,
    steps: int = STEPS,
    symprec: float = 0.1,
    progress: bool = False,
) -> list[BuildResult]:
    """Structures with the same group, letters and composition, whose free coordinates the refiner finds likelier.

    Args:
        structures: ordered ones, no two atoms closer than 0.5 Å.
        refiner: a shipped one by its name, the folder of one of your own, or a `Refiner`.
        lattice: "keep", or "refine": may be strained by ``max_strain``.
        seed: of the noise.
        noise: how much of the start is forgotten, from 0 (nothing) to 1 (everything).
        max_strain: largest principal logarithmic strain.
        steps: of the refiner's sampler.
        symprec: at which spglib finds the group, Å.
        progress: shows a bar.

    Returns:
        One result for each; what cannot be refined has its reason in ``error`` and does not stop the others.

    Raises:
        CheckpointError: there is no such refiner.
        PlacementError: arguments that mean nothing.
    """
    if lattice == "generate":
        raise PlacementError("lattice='generate' would forget the structure; use lattice='keep' or lattice='refine'")
    known = [_orbits(structure, symprec) for structure in structures]
    starts = [one for one in known if isinstance(one, OrbitStructure)]
    seeds = [(seed, i, 0) for i in range(len(starts))]
    options = {"start": "given", "steps": steps, "noise": noise, "max_strain": max_strain}
    made = iter(refiner_of(refiner).refine(starts, lattice, seeds=seeds, progress=progress, **options))
    return [_result(one, next(made) if isinstance(one, OrbitStructure) else None) for one in known]


def _orbits(structure: Structure, symprec: float) -> OrbitStructure | str:
    """A structure as orbits, or why it cannot be."""
    name = structure.reduced_formula
    if not len(structure):
        return "a structure without atoms cannot be refined"
    atoms = atoms_of(name, structure)
    if isinstance(atoms, SkippedRecord):
        return atoms.reason
    if (wrong := atoms_fault(atoms)) is not None:
        return f"{name} {wrong}"
    try:
        found = orbit_structure(atoms, symprec)
    except CrystalGFNError as error:
        return f"{name}: {error}"
    wrong = lattice_fault(found.space_group, found.lattice)
    return found if wrong is None else f"{name}: {wrong}"


def _result(before: OrbitStructure | str, after: OrbitStructure | None) -> BuildResult:
    if isinstance(before, str):
        return BuildResult(error=before)
    request = PlacementRequest(
        space_group=before.space_group, counts=before.counts, lattice=before.lattice, letters=before.wyckoff()
    )
    wrong = "its cell ran away" if after is None else fault(after)
    if wrong is not None:
        return BuildResult(request=request, error=f"the refined structure did not pass: {wrong}; try less noise")
    return BuildResult(request=request, orbits=[after], origins=["refiner"])
