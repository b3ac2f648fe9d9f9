"""Relaxation of structures with any calculator: quasi-Newton steps of the atoms, and of the cell where that is free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crystalgfn.calculators.base import Calculator, ForcesAndStress, calculate_forces
from crystalgfn.calculators.registry import DEFAULT, load_calculator
from crystalgfn.calculators.torchsim import in_batches
from crystalgfn.utils.progress import Bar

if TYPE_CHECKING:
    from pymatgen.core import Structure

MAX_STEPS, MAX_FORCE = 40, 0.05
LONGEST = 0.2
"""Å; no atom moves further in one step."""
STIFFNESS = 70.0
"""eV/Å2, of the first Hessian; that of ase's BFGS, whose steps these are."""


@dataclass(frozen=True, kw_only=True)
class Relaxed:
    """What came of relaxing one structure.

    Attributes:
        structure: the last one, or the lowest where it did not converge; None where the start has no energy.
        energy: of it, the total energy in eV/atom, NaN where there is none.
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


def relax(
    structures: Sequence[Structure],
    calculator: Calculator | str = DEFAULT,
    max_steps: int = MAX_STEPS,
    fixed_cell: bool = True,
    max_force: float = MAX_FORCE,
    progress: bool = False,
    torch_sim: bool | None = None,
) -> list[Relaxed]:
    """Relax all structures together; those that are done leave the batch.

    Quasi-Newton steps of at most 0.2 Å (`Descent`). Forces of a good potential have the symmetry of the structure, so
    the space group stays or grows.

    Args:
        structures: ordered structures, best as primitive cells.
        calculator: gives the energies, see `load_calculator`.
        max_steps: evaluations of forces after the first, at most.
        fixed_cell: False lets the cell relax too, all six parameters (within the symmetry, as stresses have it).
        max_force: a structure is converged when no atom feels more than this, eV/Å.
        progress: shows a bar.
        torch_sim: whether torch-sim runs the batches; None: where it is installed and the calculator offers it (see
            `crystalgfn.calculators.torchsim`). The energies are the same.

    Raises:
        CalculatorError: there is no such calculator, or it breaks its contract, or does not offer torch-sim.
        NotAvailable: its package, or torch-sim where it is demanded, is not installed.

    Example:
        >>> from ase.calculators.emt import EMT
        >>> from pymatgen.core import Lattice, Structure
        >>> copper = Structure(Lattice.cubic(3.5), ["Cu"] * 4, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
        >>> done = relax([copper], EMT(), fixed_cell=False)[0]
        >>> done.converged, round(done.structure.lattice.a, 2)
        (True, 3.58)
    """
    potential = in_batches(load_calculator(calculator), torch_sim)
    descents = [Descent(structure, max_force, fixed_cell) for structure in structures]
    active = list(range(len(descents)))
    with Bar(total=len(descents), description="relaxing", shown=progress, mininterval=1, leave=False) as bar:
        for step in range(max_steps + 1):
            found = calculate_forces(potential, [descents[i].structure() for i in active])
            for i, one in zip(active, found, strict=True):
                descents[i].take(one, move=step < max_steps)
            bar.update(sum(descents[i].done for i in active))
            active = [i for i in active if not descents[i].done]
            if not active:
                break
    return [descent.result() for descent in descents]


class Descent:
    """The way of one structure: BFGS with absolute eigenvalues (as in ase), from outside fed with forces.

    Coordinates are the Cartesian positions in the first cell [N, 3] and, where the cell is free, N times its
    logarithmic strain [3, 3] (so that both kinds of coordinate are about equally stiff). Every step is made of the
    forces, so it has their symmetry.
    """

    def __init__(self, start: Structure, max_force: float, fixed_cell: bool = True) -> None:
        self.start = start
        self.max_force = max_force
        self.fixed_cell = fixed_cell
        self.cell = np.array(start.lattice.matrix)
        self.numbers = [site.specie for site in start]
        rows = len(start) + (0 if fixed_cell else 3)
        self.x = np.zeros((rows, 3))
        self.x[: len(start)] = start.frac_coords @ self.cell
        self.hessian = STIFFNESS * np.eye(3 * rows)
        self._before: tuple[np.ndarray, np.ndarray] | None = None
        self._best: np.ndarray | None = None
        self.best_energy = self.start_energy = self.best_force = np.nan
        self.converged, self.done, self.steps = False, False, -1
        self.error: str | None = None

    def structure(self) -> Structure:
        """The structure whose forces are wanted next."""
        return self._structure(self.x)

    def result(self) -> Relaxed:
        """What came of it."""
        stretch = self.log_strain()
        return Relaxed(
            structure=self.best_structure(),
            energy=self.best_energy,
            start_energy=self.start_energy,
            force=self.best_force,
            converged=self.converged,
            steps=self.steps,
            strain=float(np.abs(stretch).max()),
            volume_ratio=float(np.exp(stretch.sum())),
            error=self.error,
        )

    def best_structure(self) -> Structure | None:
        """The converged one, else the lowest so far; None where there was no energy at all."""
        return None if self._best is None else self._structure(self._best)

    def log_strain(self) -> np.ndarray:
        """Principal logarithmic strains of the best cell against the first, [3]."""
        if self.fixed_cell or self._best is None:
            return np.zeros(3)
        return np.linalg.eigvalsh(self._strain(self._best))

    def take(self, found: ForcesAndStress, move: bool) -> None:
        """Take what was found for `structure`; step on if ``move``, else (or where that has an error) stop here."""
        self.steps += 1
        error = found.error
        if error is None and not self.fixed_cell and not np.isfinite(found.stress).all():
            error = "the calculator gives no stress, without which a cell cannot relax; keep it fixed"
        if error is not None:
            self.error, self.done = error, True
            return
        energy, downhill = found.energy, self._generalised(found)
        largest = float(np.linalg.norm(downhill, axis=1).max())
        if self.steps == 0:
            self.start_energy = energy
        self.converged = largest < self.max_force
        if self.converged or self._best is None or energy < self.best_energy:
            self._best, self.best_energy, self.best_force = self.x.copy(), energy, largest
        self.done = self.converged or not move
        if not self.done:
            self._step(downhill)

    def _step(self, downhill: np.ndarray) -> None:
        flat = downhill.ravel()
        if self._before is not None:
            moved = self.x.ravel() - self._before[0]
            turned = self._before[1] - flat  # change of the gradient
            slope, bent = moved @ turned, self.hessian @ moved
            if abs(slope) > 1e-12:
                self.hessian += np.outer(turned, turned) / slope - np.outer(bent, bent) / (moved @ bent)
        self._before = (self.x.ravel().copy(), flat.copy())
        values, vectors = np.linalg.eigh(self.hessian)
        step = (vectors @ (flat @ vectors / np.maximum(np.abs(values), 1e-3))).reshape(-1, 3)
        longest = np.linalg.norm(step, axis=1).max()
        self.x = self.x + step * min(1.0, LONGEST / max(longest, 1e-12))

    def _generalised(self, found: ForcesAndStress) -> np.ndarray:
        """Forces on the coordinates; exact for the atoms, for the strain to first order (zero where the stress is)."""
        if self.fixed_cell:
            return found.forces
        turn = _exponential(self._strain(self.x))
        virial = found.stress * abs(np.linalg.det(self.cell @ turn))
        return np.concatenate([found.forces @ turn, -(virial + virial.T) / 2 / len(self.start)])

    def _strain(self, x: np.ndarray) -> np.ndarray:
        strain = x[len(self.start) :] / len(self.start)
        return (strain + strain.T) / 2

    def _structure(self, x: np.ndarray) -> Structure:
        from pymatgen.core import Lattice, Structure

        cell = self.cell if self.fixed_cell else self.cell @ _exponential(self._strain(x))
        fractions = x[: len(self.start)] @ np.linalg.inv(self.cell)
        return Structure(Lattice(cell), self.numbers, fractions)


def _exponential(symmetric: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(symmetric)
    return vectors * np.exp(values) @ vectors.T
