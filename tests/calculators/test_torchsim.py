"""Batches of torch-sim: energies, forces and relaxed crystals as without, and what is said where it is missing."""

import sys
import warnings

import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from pymatgen.core import Lattice, Structure

from crystalgfn.calculators import torchsim as module
from crystalgfn.calculators.base import BATCH_ATOMS, calculate_forces
from crystalgfn.calculators.registry import load_calculator
from crystalgfn.calculators.relaxation import relax
from crystalgfn.calculators.torchsim import TorchSimCalculator, in_batches
from crystalgfn.errors import CalculatorError, NotAvailable
from tests.contracts.calculator import CalculatorContract

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_sim.io import state_to_atoms
        from torch_sim.models.interface import ModelInterface
except ImportError:  # the tests that need it are left out, by the fixture `torch_sim`
    ModelInterface = torch.nn.Module

ARGON = Structure(Lattice.tetragonal(3.8, 5.4), ["Ar"] * 2, [[0, 0, 0], [0.5, 0.5, 0.5]])
POTENTIAL = LennardJones(sigma=3.4, epsilon=1.03, rc=9, smooth=True)
"""A hundred times as stiff as argon's, so that a wrong slope is seen."""


def _crystal(group: str, lattice: Lattice, symbols: list[str], points: list[list[float]]) -> Structure:
    return Structure.from_spacegroup(group, lattice, symbols, points).get_primitive_structure()


@pytest.fixture(scope="module")
def crystals() -> list[Structure]:
    """Seven crystals of six types away from their minima, one in a left-handed cell."""
    found = [
        _crystal("Fm-3m", Lattice.cubic(5.8), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        _crystal("P4_2/mnm", Lattice.tetragonal(4.7, 2.93), ["Ti", "O"], [[0, 0, 0], [0.3, 0.3, 0]]),
        _crystal("Fd-3m", Lattice.cubic(5.35), ["Si"], [[0, 0, 0]]),
        _crystal("Pm-3m", Lattice.cubic(4.0), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]),
        _crystal("P6_3mc", Lattice.hexagonal(3.3, 5.2), ["Zn", "O"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.385]]),
        _crystal("Fm-3m", Lattice.cubic(3.5), ["Cu"], [[0, 0, 0]]),
        _crystal("Pm-3m", Lattice.cubic(4.2), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    ]
    for i, one in enumerate(found):
        one.perturb(0.03, seed=i)
    silicon = found[2]
    cell, points = silicon.lattice.matrix[[1, 0, 2]], silicon.frac_coords[:, [1, 0, 2]]
    found[2] = Structure(Lattice(cell), silicon.species, points)
    assert np.linalg.det(cell) * np.linalg.det(silicon.lattice.matrix) < 0
    return found


class TestWithout:
    """Of a calculator that offers nothing, and where torch-sim is not installed."""

    def test_a_calculator_that_offers_nothing_goes_as_it_is_unless_told_otherwise(self):
        calculator = load_calculator(EMT())
        assert in_batches(calculator) is calculator and in_batches(calculator, False) is calculator
        with pytest.raises(CalculatorError, match="EMT offers no model of torch-sim"):
            relax([ARGON], calculator, torch_sim=True)

    def test_where_it_is_not_installed_nothing_changes_unless_it_is_demanded(self, monkeypatch):
        class Offering(type(load_calculator(EMT()))):
            def torch_sim(self):
                raise AssertionError("asked without torch-sim")

        monkeypatch.setattr(module, "find_spec", lambda name: None)
        monkeypatch.setitem(sys.modules, "torch_sim", None)
        calculator = Offering(EMT())
        assert in_batches(calculator) is calculator
        with pytest.raises(NotAvailable, match=r'pip install -e "\.\[torchsim\]"'):
            in_batches(calculator, True)


@pytest.fixture
def torch_sim():
    return pytest.importorskip("torch_sim", reason="needs the extra [torchsim]")


class Pairs(ModelInterface):
    """The Lennard-Jones potential of ase as a model of torch-sim (the one of version 0.3 gives twice its forces)."""

    def __init__(self):
        super().__init__()
        self._device, self._dtype = torch.device("cpu"), torch.float64
        self._compute_forces = self._compute_stress = True

    def forward(self, state, **_):
        found = state_to_atoms(state)
        for atoms in found:
            atoms.calc = POTENTIAL
        answers = {
            "energy": [atoms.get_potential_energy() for atoms in found],
            "forces": np.concatenate([atoms.get_forces() for atoms in found]),
            "stress": [atoms.get_stress(voigt=False) for atoms in found],
        }
        return {name: torch.as_tensor(np.array(values)) for name, values in answers.items()}


@pytest.fixture
def argon_model(torch_sim):
    return Pairs()


class TestContract(CalculatorContract):
    """Any model of torch-sim is a calculator."""

    structures = (ARGON,)
    unknown = "Ne"

    @pytest.fixture
    def calculator(self, argon_model):
        return TorchSimCalculator(argon_model, "argon", ["Ar"])


def test_a_model_may_stand_wherever_a_calculator_may_and_says_what_ase_says(argon_model):
    ours = load_calculator(argon_model)
    assert ours.name == "Pairs" and in_batches(ours) is ours
    moved = ARGON * [2, 1, 1]
    moved.perturb(0.1, seed=1)
    answers = [calculate_forces(load_calculator(one), [ARGON, moved]) for one in (ours, POTENTIAL)]
    for one, other in zip(*answers, strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-9) and np.abs(one.stress).max() > 1e-3
        assert one.forces == pytest.approx(other.forces, abs=1e-9)
        assert one.stress == pytest.approx(other.stress, abs=1e-9)


class TestBatches:
    def test_each_has_as_many_atoms_as_said_and_the_order_stays(self, argon_model, monkeypatch):
        sizes = []
        forward = argon_model.forward
        monkeypatch.setattr(argon_model, "forward", lambda state: sizes.append(state.n_atoms) or forward(state))
        structures = [ARGON * [n, 1, 1] for n in (1, 3, 2, 1, 4, 2)]
        for i, one in enumerate(structures):
            one.perturb(0.05, seed=i)
        alone = [calculate_forces(TorchSimCalculator(argon_model), [one])[0] for one in structures]
        assert sizes == [2, 6, 4, 2, 8, 4]
        sizes.clear()
        together = calculate_forces(TorchSimCalculator(argon_model, batch_atoms=7), structures)
        assert sum(sizes) == 26 and sorted(sizes)[-1] == 8 and len(sizes) < 6  # the largest is a batch of its own
        for one, other in zip(alone, together, strict=True):
            assert other.energy == pytest.approx(one.energy, abs=1e-12)
            assert other.forces == pytest.approx(one.forces, abs=1e-12)
        assert TorchSimCalculator(argon_model).batch_atoms == BATCH_ATOMS

    def test_on_a_gpu_memory_is_measured_once_and_again_for_a_larger_structure(self, argon_model, monkeypatch):
        import torch_sim.autobatching

        asked = []

        def estimate(_, other, metrics, **more):
            asked.append(len(metrics))
            return 2 * max(metrics)

        monkeypatch.setattr(torch_sim.autobatching, "estimate_max_memory_scaler", estimate)
        calculator = TorchSimCalculator(argon_model)
        calculator.batch_atoms = None  # as where the model is on a GPU
        for structures in ([ARGON] * 3, [ARGON] * 5, [ARGON, ARGON * [2, 2, 1]]):
            answers = calculate_forces(calculator, structures)
            assert [one.error for one in answers] == [None] * len(structures)
        assert asked == [3, 2]

    def test_a_model_that_raises_at_one_leaves_the_others_theirs(self, argon_model, monkeypatch):
        forward = argon_model.forward

        def fails(state):
            if (state.atomic_numbers == 36).any():
                raise RuntimeError("no krypton")
            return forward(state)

        monkeypatch.setattr(argon_model, "forward", fails)
        krypton = Structure(Lattice.cubic(4), ["Kr"], [[0, 0, 0]])
        done = relax([ARGON, krypton], argon_model, fixed_cell=False)
        assert done[0].converged and done[0].error is None
        assert done[1].structure is None and not done[1].converged and np.isnan(done[1].energy)
        assert "Pairs fails at Kr: RuntimeError: no krypton" in done[1].error

    def test_without_stress_a_cell_cannot_relax_and_says_so(self, argon_model, monkeypatch):
        forward = argon_model.forward
        monkeypatch.setattr(
            argon_model, "forward", lambda state: {k: v for k, v in forward(state).items() if k != "stress"}
        )
        fixed, free = (relax([ARGON], argon_model, fixed_cell=cell)[0] for cell in (True, False))
        assert fixed.converged and free.error is not None and "gives no stress" in free.error


class TestSevenNet:
    @pytest.fixture
    def sevennet(self, torch_sim):
        pytest.importorskip("sevenn", reason="needs the extra [sevennet]")
        return load_calculator("sevennet:7net-0")

    def test_forces_and_stresses_are_the_same(self, sevennet, crystals):
        batched = in_batches(sevennet)
        assert isinstance(batched, TorchSimCalculator) and batched.name == sevennet.name
        assert [batched.knows([z]) for z in (1, 26, 95)] == [sevennet.knows([z]) for z in (1, 26, 95)]
        for one, other in zip(calculate_forces(sevennet, crystals), calculate_forces(batched, crystals), strict=True):
            assert other.energy == pytest.approx(one.energy, abs=1e-5)
            assert other.forces == pytest.approx(one.forces, abs=1e-4)
            assert other.stress == pytest.approx(one.stress, abs=1e-5)
        assert batched.energies(crystals) == pytest.approx(sevennet.energies(crystals), abs=1e-5)

    @pytest.mark.parametrize("fixed_cell", [True, False])
    def test_relaxed_crystals_are_the_same(self, sevennet, crystals, fixed_cell):
        alone = [relax([one], sevennet, fixed_cell=fixed_cell, torch_sim=False)[0] for one in crystals]
        together = relax(crystals, sevennet, fixed_cell=fixed_cell)
        for one, other in zip(alone, together, strict=True):
            assert one.converged and other.converged and one.error is other.error is None
            assert other.energy == pytest.approx(one.energy, abs=1e-3)  # eV/atom; 5e-3 is asked
            assert other.start_energy == pytest.approx(one.start_energy, abs=1e-5)
            assert abs(other.steps - one.steps) <= 1
            assert other.volume_ratio == pytest.approx(one.volume_ratio, abs=2e-3)

    def test_the_optimiser_of_torch_sim_ends_at_the_same_energies(self, torch_sim, sevennet, crystals):
        """FIRE in all six parameters of the cell, an independent implementation (of right-handed cells alone)."""
        chosen = [crystals[i] for i in (0, 4, 5)]
        if hasattr(torch_sim, "CellFilter"):  # from 0.4 on
            way = {"optimizer": torch_sim.Optimizer.fire, "init_kwargs": {"cell_filter": torch_sim.CellFilter.frechet}}
        else:
            way = {"optimizer": torch_sim.frechet_cell_fire}
        state = torch_sim.optimize(
            chosen,
            sevennet.torch_sim().model,
            **way,
            convergence_fn=torch_sim.generate_force_convergence_fn(0.05, include_cell_forces=True),
            max_steps=300,
            steps_between_swaps=1,
        )
        theirs = (state.energy / state.system_idx.bincount()).tolist()
        ours = [one.energy for one in relax(chosen, sevennet, fixed_cell=False)]
        assert ours == pytest.approx(theirs, abs=2e-3)
