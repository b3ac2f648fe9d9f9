import inspect
import sys

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from crystalgfn.calculators import chgnet as module
from crystalgfn.calculators.base import calculate_energies, calculate_forces
from crystalgfn.calculators.registry import load_calculator
from crystalgfn.calculators.relaxation import relax
from crystalgfn.errors import NotAvailable
from tests.contracts.calculator import CalculatorContract

ROCK_SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
).get_primitive_structure()


def rutile(u, a=4.65):
    return Structure.from_spacegroup("P4_2/mnm", Lattice.tetragonal(a, 2.97), ["Ti", "O"], [[0, 0, 0], [u, u, 0]])


def test_a_missing_chgnet_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "chgnet.model.model", None)
    monkeypatch.setattr(module, "_load", inspect.unwrap(module._load))  # the model may be there from another test
    with pytest.raises(NotAvailable, match=r'pip install -e "\.\[relax\]"'):
        load_calculator("chgnet")


@pytest.fixture
def chgnet():
    pytest.importorskip("chgnet", reason="needs the extra [relax]")


class TestContract(CalculatorContract):
    structures = (ROCK_SALT, rutile(0.29))
    unknown = "Am"

    @pytest.fixture
    def calculator(self, chgnet):
        return load_calculator("chgnet")


def energies(structures):
    return calculate_energies(load_calculator("chgnet"), structures)


@pytest.mark.usefixtures("chgnet")
class TestWithChgnet:
    def test_batches_give_what_single_structures_give(self):
        structures = [ROCK_SALT, rutile(0.29), rutile(0.31), ROCK_SALT.copy().scale_lattice(40.0)]
        together = energies(structures)
        assert together == pytest.approx([energies([one])[0] for one in structures], abs=1e-5)
        assert together.dtype == np.float64 and np.isfinite(together).all()

    @pytest.mark.filterwarnings("ignore:Converting a tensor:UserWarning")  # inside CHGNet
    def test_energies_are_those_of_the_public_call(self):
        wanted = module._load(module.VERSION).predict_structure(rutile(0.29), task="efs")
        found = calculate_forces(load_calculator("chgnet"), [ROCK_SALT, rutile(0.29)])[1]
        assert found.energy == pytest.approx(float(wanted["e"]), abs=1e-5)
        assert found.forces == pytest.approx(wanted["f"], abs=1e-4)
        assert found.stress * 160.21766208 == pytest.approx(wanted["s"], abs=1e-3)  # GPa

    def test_forces_and_virial_are_slopes_of_the_energy(self):
        start = rutile(0.29)
        start.perturb(0.05, seed=1)
        found = calculate_forces(load_calculator("chgnet"), [start])[0]
        virial = found.stress * start.volume
        step = 2e-3

        def moved(sign):
            copy = start.copy()
            copy.translate_sites([2], [sign * step, 0, 0], frac_coords=False)
            return copy

        def stretched(sign):
            matrix = np.eye(3)
            matrix[0, 0] += sign * step
            return Structure(Lattice(start.lattice.matrix @ matrix), start.species, start.frac_coords)

        up, down, longer, shorter = 6 * energies([moved(1), moved(-1), stretched(1), stretched(-1)])
        assert found.forces[2, 0] == pytest.approx(-(up - down) / (2 * step), abs=0.05)
        assert virial[0, 0] == pytest.approx((longer - shorter) / (2 * step), abs=0.1)

    def test_atoms_relax_at_fixed_cell_and_keep_the_group(self):
        start = rutile(0.27)
        done = relax([ROCK_SALT, start])[1]
        assert done.converged and done.error is None and done.force < 0.05 and 1 <= done.steps <= 40
        assert done.energy < done.start_energy - 0.01
        assert done.structure.lattice.matrix == pytest.approx(start.lattice.matrix)
        assert done.strain == 0 and done.volume_ratio == 1
        assert SpacegroupAnalyzer(done.structure, 0.01).get_space_group_number() == 136
        assert done.structure.frac_coords[2, 0] == pytest.approx(0.305, abs=0.005)  # rutile's own u

    def test_atoms_that_symmetry_holds_need_no_step(self):
        done = relax([ROCK_SALT])[0]
        assert done.converged and done.steps == 0
        assert done.energy == pytest.approx(energies([ROCK_SALT])[0], abs=1e-6)

    def test_a_free_cell_finds_its_volume(self):
        wide = ROCK_SALT.copy().scale_lattice(1.15 * ROCK_SALT.volume)
        done = relax([wide], fixed_cell=False, max_steps=60, max_force=0.02)[0]
        assert done.converged
        assert done.structure.volume == pytest.approx(ROCK_SALT.volume, rel=0.03)  # PBE's own cell
        assert done.volume_ratio == pytest.approx(done.structure.volume / wide.volume, rel=1e-6)
        assert done.strain == pytest.approx(abs(np.log(done.volume_ratio)) / 3, abs=1e-3)
        assert SpacegroupAnalyzer(done.structure, 0.01).get_space_group_number() == 225

    def test_too_few_steps_are_no_convergence(self):
        done = relax([rutile(0.25)], max_steps=1)[0]
        assert not done.converged and done.steps == 1 and done.structure is not None
        assert done.energy <= done.start_energy

    def test_a_lonely_atom_and_an_unknown_element_are_failures_with_a_reason(self):
        lonely = Structure(Lattice.cubic(9), ["Na"], [[0, 0, 0]])
        heavy = Structure(Lattice.cubic(4), ["Am"], [[0, 0, 0]])
        assert np.isnan(energies([lonely, ROCK_SALT, heavy])).tolist() == [True, False, True]
        first, second, third = relax([lonely, ROCK_SALT, heavy])
        assert first.structure is None and "no neighbour within" in first.error and not first.converged
        assert second.converged
        assert third.structure is None and "Z = 95" in third.error

    def test_nothing_gives_nothing(self):
        assert len(energies([])) == 0 and relax([]) == []
