"""What every calculator must do: inherit `CalculatorContract`, and give it a fixture ``calculator``."""

import pickle

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystalgfn.calculators.base import Calculator, calculate_energies, calculate_forces
from crystalgfn.calculators.contract import check_calculator


class CalculatorContract:
    """``structures``: crystals that it knows; ``unknown``: the symbol of an element that it does not know, or None."""

    structures: tuple[Structure, ...] = ()
    unknown: str | None = None

    @pytest.fixture
    def calculator(self) -> Calculator:
        raise NotImplementedError("give the class a fixture that returns the calculator")

    @pytest.fixture
    def moved(self) -> list[Structure]:
        """The structures, each a little displaced."""
        copies = [structure.copy() for structure in self.structures]
        for copy in copies:
            copy.perturb(0.05, seed=3)
        return copies

    def test_slopes_batches_and_input(self, calculator):
        check_calculator(calculator, self.structures)

    def test_energies_are_those_of_an_atom(self, calculator, moved):
        doubled = [structure * [2, 1, 1] for structure in moved]
        energies = calculate_energies(calculator, moved + doubled)
        assert energies.dtype == np.float64 and energies.shape == (2 * len(moved),)
        assert energies[: len(moved)] == pytest.approx(energies[len(moved) :], abs=1e-4)

    def test_forces_follow_the_order_of_the_atoms_and_have_no_sum(self, calculator, moved):
        turned = [Structure.from_sites(structure.sites[::-1]) for structure in moved]
        there, back = calculate_forces(calculator, moved), calculate_forces(calculator, turned)
        for one, other in zip(there, back, strict=True):
            assert one.error is None and other.forces[::-1] == pytest.approx(one.forces, abs=1e-3)
            assert one.forces.sum(axis=0) == pytest.approx(0, abs=1e-3)
            assert one.stress == pytest.approx(one.stress.T) and other.stress == pytest.approx(one.stress, abs=1e-4)

    def test_a_crystal_that_it_does_not_know_has_none_and_says_so(self, calculator):
        if self.unknown is None:
            pytest.skip("it knows every element")
        strange = Structure(Lattice.cubic(4), [self.unknown], [[0, 0, 0]])
        energies = calculate_energies(calculator, [self.structures[0], strange])
        assert np.isfinite(energies[0]) and np.isnan(energies[1])
        (found,) = calculate_forces(calculator, [strange])
        assert f"{calculator.name} does not know {self.unknown}" in found.error

    def test_nothing_gives_nothing(self, calculator):
        assert calculate_energies(calculator, []).shape == (0,) and calculate_forces(calculator, []) == []
        assert len(calculator.energies([])) == 0 and list(calculator.forces_and_stress([])) == []

    def test_it_can_be_sent_to_another_process(self, calculator):
        again = pickle.loads(pickle.dumps(calculator))
        assert again.name == calculator.name
        energies = [calculate_energies(one, self.structures) for one in (calculator, again)]
        assert energies[0].tolist() == energies[1].tolist()
