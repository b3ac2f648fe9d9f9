import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystalgfn.calculators.base import ForcesAndStress
from crystalgfn.calculators.relaxation import LONGEST, Descent

CELL = Lattice.from_parameters(4, 5, 6, 80, 95, 100)


def found(energy, forces, stress=None):
    return ForcesAndStress(energy=energy, forces=forces, stress=np.zeros((3, 3)) if stress is None else stress)


def springs(descent, stiffness, target):
    """Energy per atom and forces of springs of stiffnesses [N, 3] that hold atoms at Cartesian targets [N, 3]."""
    gaps = descent.structure().cart_coords - target
    return float((stiffness * gaps**2).sum() / 2 / len(gaps)), -stiffness * gaps


def go_down(start, target, stiffness, steps):
    descent = Descent(start, max_force=1e-3)
    for step in range(steps + 1):
        energy, forces = springs(descent, stiffness, target)
        descent.take(found(energy, forces), move=step < steps)
        if descent.done:
            break
    return descent


@pytest.fixture
def start():
    return Structure(CELL, ["Na", "Cl"], [[0.1, 0.1, 0.1], [0.6, 0.5, 0.55]])


def test_springs_are_brought_to_rest(start):
    rng = np.random.default_rng(0)
    target = start.cart_coords + 0.15 * rng.standard_normal((2, 3))
    descent = go_down(start, target, rng.uniform(5, 100, (2, 3)), 60)
    assert descent.converged and descent.best_force < 1e-3
    assert descent.best_structure().cart_coords == pytest.approx(target, abs=1e-3)
    assert descent.best_energy == pytest.approx(0, abs=1e-6) and descent.start_energy > 0.01
    assert np.all(descent.log_strain() == 0)


def test_no_step_is_longer_than_allowed(start):
    target = start.cart_coords + 3.0
    descent = Descent(start, max_force=1e-3)
    for _ in range(5):
        before = descent.structure().cart_coords
        energy, forces = springs(descent, np.full((2, 3), 50.0), target)
        descent.take(found(energy, forces), move=True)
        assert np.linalg.norm(descent.structure().cart_coords - before, axis=1).max() <= LONGEST + 1e-9


def test_what_does_not_converge_ends_at_its_lowest(start):
    descent = Descent(start, max_force=1e-3)
    for step, energy in enumerate((-1.0, -3.0, -2.0)):
        if energy == -3.0:
            lowest = descent.structure().cart_coords
        descent.take(found(energy, np.ones((2, 3))), move=step < 2)
    assert descent.done and not descent.converged and descent.steps == 2
    assert descent.best_energy == -3.0
    assert descent.best_structure().cart_coords == pytest.approx(lowest)


def test_an_error_ends_the_way(start):
    descent = Descent(start, max_force=1e-3)
    descent.take(ForcesAndStress.missing(start, "an atom is alone"), move=True)
    assert descent.done and not descent.converged and descent.error == "an atom is alone"
    assert descent.best_structure() is None


def test_a_free_cell_follows_its_virial(start):
    """A cell under E = k/2 (ln V/V0)² with V0 5 % larger and nothing else: the volume grows by 5 %, isotropically."""
    descent = Descent(start, max_force=1e-4, fixed_cell=False)
    for _ in range(60):
        structure = descent.structure()
        gap = np.log(structure.volume / start.volume) - np.log(1.05)
        descent.take(found(5 * gap**2 / 2, np.zeros((2, 3)), 2 * 5 * gap * np.eye(3) / structure.volume), move=True)
        if descent.done:
            break
    assert descent.converged
    assert descent.best_structure().volume / start.volume == pytest.approx(1.05, rel=1e-3)
    assert descent.log_strain() == pytest.approx(np.log(1.05) / 3, abs=1e-3)
    assert descent.best_structure().lattice.angles == pytest.approx(start.lattice.angles, abs=1e-6)
