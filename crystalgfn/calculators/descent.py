"""Quasi-Newton steps downhill for the atoms of one structure, and for its cell where that is free."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pymatgen.core import Structure

LONGEST = 0.2
"""Å; no atom moves further in one step."""
STIFFNESS = 70.0
"""eV/Å2, of the first Hessian; that of ase's BFGS, whose steps these are."""


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
        self.converged, self.done, self.steps, self.error = False, False, -1, None

    def structure(self) -> Structure:
        """The structure whose forces are wanted next."""
        return self._structure(self.x)

    def best_structure(self) -> Structure | None:
        """The converged one, else the lowest so far; None where there was no energy at all."""
        return None if self._best is None else self._structure(self._best)

    def log_strain(self) -> np.ndarray:
        """Principal logarithmic strains of the best cell against the first, [3]."""
        if self.fixed_cell or self._best is None:
            return np.zeros(3)
        return np.linalg.eigvalsh(self._strain(self._best))

    def take(self, energy: float, forces: np.ndarray, virial: np.ndarray, error: str | None, move: bool) -> None:
        """Take what was found for `structure`; step on if ``move``, else stop here.

        Args:
            energy: eV/atom.
            forces: eV/Å [N, 3].
            virial: eV [3, 3], read where the cell is free.
            error: why there is no energy, which ends the way.
            move: whether a further step may be made.
        """
        self.steps += 1
        if error is not None:
            self.error, self.done = error, True
            return
        downhill = self._generalised(forces, virial)
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

    def _generalised(self, forces: np.ndarray, virial: np.ndarray) -> np.ndarray:
        """Forces on the coordinates; exact for the atoms, for the strain to first order (zero where the virial is)."""
        if self.fixed_cell:
            return forces
        turn = _exponential(self._strain(self.x))
        return np.concatenate([forces @ turn, -(virial + virial.T) / 2 / len(self.start)])

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
