"""`check_calculator`: whether a calculator keeps the contract of `crystalgfn.calculators.base.Calculator`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from crystalgfn.calculators.base import Calculator, calculate_energies, calculate_forces, formula, why_none
from crystalgfn.errors import CalculatorError

if TYPE_CHECKING:
    from pymatgen.core import Structure

MOVE, STRAIN = 0.1, 0.02
"""Å and strain, over which forces and stress are integrated: energies change by far more than single precision."""
TOLERANCE = 0.02
"""Of a change of energy; twice that of an energy in single precision comes on top (`FLOOR`)."""
FLOOR = 1e-3
"""eV/atom."""


def check_calculator(calculator: Calculator, structures: Sequence[Structure] | None = None, seed: int = 0) -> None:
    """Refuse a calculator that breaks its contract.

    Energies are finite and those that `forces_and_stress` gives too; their change along a path of the atoms and along
    one of the cell is the integral of forces and of the stress (five-point Gauss-Legendre); a batch gives what single
    structures give; the structures stay as they are.

    Args:
        calculator: to check.
        structures: crystals of elements that it knows; None: the first of some simple metals, salts and a noble gas.
        seed: of the displacements.

    Raises:
        CalculatorError: what it breaks, in a sentence.

    Example:
        >>> from ase.calculators.emt import EMT
        >>> from crystalgfn.calculators.registry import load_calculator
        >>> check_calculator(load_calculator(EMT()))
    """
    if not isinstance(calculator, Calculator):
        raise CalculatorError(
            f"{type(calculator).__name__} is no calculator: it needs name, knows(numbers), energies(structures) and "
            "forces_and_stress(structures)"
        )
    if not isinstance(calculator.name, str) or not calculator.name:
        raise CalculatorError(f"a calculator's name is text that is not empty, not {calculator.name!r}")
    given = _known(calculator) if structures is None else list(structures)
    rng = np.random.default_rng(seed)
    moved = [_displaced(structure, 0.05 * rng.standard_normal((len(structure), 3))) for structure in given]
    copies = [structure.copy() for structure in moved]
    values = _energies(calculator, moved)
    _check_answers(calculator, moved, values)
    if any(one != copy for one, copy in zip(moved, copies, strict=True)):
        raise CalculatorError(f"{calculator.name} changes the structures that it is given; let it work on copies")
    alone = [_energies(calculator, [structure])[0] for structure in moved]
    i = int(np.argmax(np.abs(values - alone)))
    if abs(values[i] - alone[i]) > FLOOR:
        raise CalculatorError(
            f"{calculator.name} gives {values[i]:.6g} eV/atom to {formula(moved[i])} in a batch, and "
            f"{alone[i]:.6g} alone"
        )
    for structure in moved:
        n = len(structure)
        step = MOVE / np.sqrt(n) * _unit(rng, (n, 3))
        _check_path(calculator, structure, "forces", lambda s, t, step=step: _displaced(s, t * step), step)
        strain = _unit(rng, (3, 3))
        strain = STRAIN * (strain + strain.T) / 2
        _check_path(calculator, structure, "stress", lambda s, t, strain=strain: _strained(s, t * strain), strain)


def _check_answers(calculator: Calculator, structures: Sequence[Structure], values: np.ndarray) -> None:
    """Forces and stresses there are, with the energies that are given alone."""
    for structure, value, answer in zip(structures, values, calculate_forces(calculator, structures), strict=True):
        if answer.error is not None:
            raise CalculatorError(f"{calculator.name}.forces_and_stress: {answer.error}")
        if not np.isfinite(answer.stress).all():
            raise CalculatorError(f"{calculator.name} has no finite stress for {formula(structure)}")
        if abs(value - answer.energy) > FLOOR:
            raise CalculatorError(
                f"{calculator.name}.energies gives {value:.6g} eV/atom for {formula(structure)}, and "
                f"forces_and_stress {answer.energy:.6g}"
            )


def _check_path(
    calculator: Calculator,
    structure: Structure,
    what: str,
    along: Callable[[Structure, float], Structure],
    direction: np.ndarray,
) -> None:
    """The change of the energy along a path, against the integral of what should be its slope."""
    places, weights = np.polynomial.legendre.leggauss(5)
    inner = [along(structure, (1 + place) / 2) for place in places]
    first, last = _energies(calculator, [structure, along(structure, 1.0)])
    slopes = []
    for one, answer in zip(inner, calculate_forces(calculator, inner), strict=True):
        if answer.error is not None:
            raise CalculatorError(f"{calculator.name}.forces_and_stress: {answer.error}")
        along_it = (
            -(answer.forces * direction).sum() if what == "forces" else one.volume * (answer.stress * direction).sum()
        )
        slopes.append(along_it / len(structure))
    change, integral = last - first, float(weights @ slopes / 2)
    scale = max(abs(change), float(weights @ np.abs(slopes) / 2))
    if abs(change - integral) > TOLERANCE * scale + FLOOR:
        raise CalculatorError(
            f"the {what} of {calculator.name} are not the slope of its energy: along a path of "
            f"{formula(structure)} the energy changes by {change:.5f} eV/atom, and the {what} say "
            f"{integral:.5f}; forces are -dE/dr in eV/Å, the stress is (1 / V) dE/dε in eV/Å³"
        )


def _energies(calculator: Calculator, structures: Sequence[Structure]) -> np.ndarray:
    """Finite energies."""
    for structure in structures:
        if reason := why_none(calculator, structure):
            raise CalculatorError(f"{reason}; give check_calculator structures of elements that it knows")
    values = calculate_energies(calculator, structures)
    for structure, value in zip(structures, values, strict=True):
        if not np.isfinite(value):
            raise CalculatorError(f"{calculator.name}.energies gives {value} for {formula(structure)}")
    return values


def _known(calculator: Calculator) -> list[Structure]:
    """Two structures of elements that the calculator knows."""
    from pymatgen.core import Lattice, Structure

    double, pair = np.diag([2.0, 1.0, 1.0]), np.eye(3)  # two atoms a cell, so that they can move against each other
    every = [
        Structure(Lattice(cells @ (edge / 2 * (1 - np.eye(3)))), names, [[0, 0, 0], place])
        for names, edge, cells, place in (
            (("Cu", "Cu"), 3.61, double, [0.5, 0, 0]),
            (("Al", "Al"), 4.05, double, [0.5, 0, 0]),
            (("Na", "Cl"), 5.64, pair, [0.5, 0.5, 0.5]),
            (("Ar", "Ar"), 5.40, double, [0.5, 0, 0]),
            (("Si", "Si"), 5.43, pair, [0.25, 0.25, 0.25]),
        )
    ]
    known = [structure for structure in every if why_none(calculator, structure) is None]
    if not known:
        raise CalculatorError(
            f"{calculator.name} knows none of Cu, Al, NaCl, Ar and Si; give check_calculator structures that it knows"
        )
    return known[:2]


def _unit(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    direction = rng.standard_normal(shape)
    return direction / np.linalg.norm(direction)


def _displaced(structure: Structure, shifts: np.ndarray) -> Structure:
    from pymatgen.core import Structure

    points = structure.cart_coords + shifts
    return Structure(structure.lattice, structure.species, points, coords_are_cartesian=True)


def _strained(structure: Structure, strain: np.ndarray) -> Structure:
    from pymatgen.core import Lattice, Structure

    values, vectors = np.linalg.eigh(strain)
    matrix = structure.lattice.matrix @ (vectors * np.exp(values) @ vectors.T)
    return Structure(Lattice(matrix), structure.species, structure.frac_coords)
