"""Energies and relaxations with CHGNet, many structures at once.

CHGNet (Deng et al., Nature Machine Intelligence 5, 1031, 2023; model 0.3.0) is fitted to trajectories of the Materials
Project: a second opinion, not DFT. Its energies are total energies on the Materials Project's corrected scale; they
become formation energies with `crystalgfn.calculators.energy_references`. Needs the extra ``[relax]``.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from crystalgfn.calculators.descent import Descent
from crystalgfn.errors import NotAvailable
from crystalgfn.utils.progress import Bar

if TYPE_CHECKING:
    from pymatgen.core import Structure

MAX_STEPS, MAX_FORCE = 40, 0.05
BATCH_ATOMS = 400
"""Atoms in one batch of graphs, at most (a larger structure is a batch of its own)."""
HEAVIEST = 94
"""CHGNet knows the elements up to plutonium."""


@dataclass(frozen=True)
class Evaluated:
    """What CHGNet says of one structure.

    Attributes:
        energy: eV/atom, NaN where there is none.
        forces: eV/Å [N, 3].
        virial: derivative of the energy of the cell by strain, eV [3, 3]; zeros where it was not asked for.
        error: why there is no energy, None where there is one.
    """

    energy: float
    forces: np.ndarray
    virial: np.ndarray
    error: str | None = None


@dataclass(frozen=True)
class Relaxed:
    """What came of relaxing one structure.

    Attributes:
        structure: the last one, or the lowest where it did not converge; None where CHGNet has no energy for the start.
        energy: of it, CHGNet's total energy in eV/atom, NaN where there is none.
        start_energy: of the structure that was given, eV/atom.
        force: largest force in eV/Å (with the cell free also that on the cell: virial over number of atoms, in eV).
        converged: whether that is below the limit.
        steps: evaluations of forces after the first.
        strain: largest principal logarithmic strain of the cell; 0 where it was fixed.
        volume_ratio: final volume over the first.
        error: why it failed or stopped, None where it did neither.
    """

    structure: Structure | None
    energy: float
    start_energy: float
    force: float
    converged: bool
    steps: int
    strain: float
    volume_ratio: float
    error: str | None


@cache
def chgnet() -> Any:
    """The model, in evaluation mode on the CPU, its weights frozen.

    Raises:
        NotAvailable: CHGNet is not installed.
    """
    return _load()


def _load() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from chgnet.model.model import CHGNet
    except ImportError as error:
        remedy = "install it with pip install 'crystalgfn[relax]'"
        raise NotAvailable(f"energies and relaxations need CHGNet ({error}); {remedy}") from error
    with redirect_stdout(StringIO()):  # it says how many parameters it has
        model = CHGNet.load(use_device="cpu", verbose=False).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # only derivatives by positions are wanted, at a third of the cost
    return model


def energies(structures: Sequence[Structure], progress: bool = False) -> np.ndarray:
    """CHGNet's total energies in eV/atom, float64 [M]; NaN where it has none (an isolated atom, Z > 94).

    Primitive cells are cheaper than conventional ones.
    """
    return np.array([found.energy for found in evaluate(structures, forces=False, progress=progress)])


def evaluate(
    structures: Sequence[Structure], forces: bool = True, virial: bool = False, progress: bool = False
) -> list[Evaluated]:
    """Energies and, where asked for, forces and virials, in batches of about `BATCH_ATOMS` atoms.

    Raises:
        NotAvailable: CHGNet is not installed.
    """
    model = chgnet()
    results: list[Evaluated | None] = [None] * len(structures)
    graphs, positions, atoms = [], [], 0
    bar = Bar(total=len(structures), description="CHGNet energies", shown=progress, mininterval=1, leave=False)
    for i, structure in enumerate(structures):
        graph, error = _graph(model, structure)
        if graph is None:
            results[i] = Evaluated(np.nan, np.zeros((len(structure), 3)), np.zeros((3, 3)), error)
            bar.update()
            continue
        if graphs and atoms + len(structure) > BATCH_ATOMS:
            _fill(model, graphs, positions, results, forces, virial)
            bar.update(len(graphs))
            graphs, positions, atoms = [], [], 0
        graphs.append(graph)
        positions.append(i)
        atoms += len(structure)
    if graphs:
        _fill(model, graphs, positions, results, forces, virial)
        bar.update(len(graphs))
    bar.close()
    return results


def relax(
    structures: Sequence[Structure],
    max_steps: int = MAX_STEPS,
    fixed_cell: bool = True,
    max_force: float = MAX_FORCE,
    progress: bool = False,
) -> list[Relaxed]:
    """Relax all structures together; those that are done leave the batch.

    Quasi-Newton steps of at most 0.2 Å (`Descent`). CHGNet's forces have the symmetry of the structure, so the space
    group stays or grows.

    Args:
        structures: ordered structures, best as primitive cells.
        max_steps: evaluations of forces after the first, at most.
        fixed_cell: False lets the cell relax too, all six parameters (within the symmetry, as stresses have it).
        max_force: a structure is converged when no atom feels more than this, eV/Å.
        progress: shows a bar.

    Raises:
        NotAvailable: CHGNet is not installed.
    """
    descents = [Descent(structure, max_force, fixed_cell) for structure in structures]
    active = list(range(len(descents)))
    bar = Bar(total=len(descents), description="relaxing", shown=progress, mininterval=1, leave=False)
    for step in range(max_steps + 1):
        found = evaluate([descents[i].structure() for i in active], virial=not fixed_cell)
        for i, one in zip(active, found, strict=True):
            descents[i].take(one.energy, one.forces, one.virial, one.error, move=step < max_steps)
        bar.update(sum(descents[i].done for i in active))
        active = [i for i in active if not descents[i].done]
        if not active:
            break
    bar.close()
    return [_relaxed(descent) for descent in descents]


def _relaxed(descent: Descent) -> Relaxed:
    structure = descent.best_structure()
    stretch = descent.log_strain()
    return Relaxed(
        structure,
        descent.best_energy,
        descent.start_energy,
        descent.best_force,
        descent.converged,
        descent.steps,
        float(np.abs(stretch).max()),
        float(np.exp(stretch.sum())),
        descent.error,
    )


def _graph(model: Any, structure: Structure) -> tuple[Any, str | None]:
    """CHGNet's graph of a structure, or why there is none."""
    heaviest = max(site.specie.Z for site in structure)
    if heaviest > HEAVIEST:
        return None, f"CHGNet knows elements up to Z = {HEAVIEST}, and {structure.reduced_formula} has Z = {heaviest}"
    try:
        return model.graph_converter(structure), None
    except (ValueError, RuntimeError, IndexError) as error:
        cutoff = model.graph_converter.atom_graph_cutoff
        if "isolated" in str(error) or isinstance(error, IndexError):
            return None, f"an atom of {structure.reduced_formula} has no neighbour within CHGNet's {cutoff} Å"
        return None, f"CHGNet cannot read {structure.reduced_formula}: {error}"


def _fill(
    model: Any, graphs: list, positions: list[int], results: list[Evaluated | None], forces: bool, virial: bool
) -> None:
    """Evaluate one batch and put what comes into ``results`` at ``positions``."""
    from chgnet.model.model import BatchedGraph

    with torch.set_grad_enabled(forces or virial), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # volumes as scalars, inside CHGNet
        batch = BatchedGraph.from_graphs(
            graphs,
            bond_basis_expansion=model.bond_basis_expansion,
            angle_basis_expansion=model.angle_basis_expansion,
            compute_stress=virial,
        )
        # The public call would build a second-order graph for the forces, at three times the cost.
        energy = model._compute(batch)["e"] + model.composition_model(graphs)
        atoms = torch.tensor([len(g.atomic_number) for g in graphs])
        sizes = atoms.tolist()
        slopes = [torch.zeros(n, 3) for n in sizes]
        strains = [torch.zeros(3, 3) for _ in sizes]
        if forces or virial:
            by = [*batch.atom_positions, *(batch.strains if virial else ())]
            slopes = torch.autograd.grad((energy * atoms).sum(), by)
            strains = slopes[len(sizes) :] if virial else strains
    for k, i in enumerate(positions):
        value = float(energy[k])
        known = np.isfinite(value) and bool(torch.isfinite(slopes[k]).all())
        results[i] = Evaluated(
            value if known else np.nan,
            -slopes[k].numpy().astype(np.float64),
            strains[k].numpy().astype(np.float64),
            None if known else "CHGNet's energy is not finite; atoms are too close",
        )
