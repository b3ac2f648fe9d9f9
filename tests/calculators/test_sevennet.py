import inspect
import sys

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystalgfn.calculators import sevennet as module
from crystalgfn.calculators.base import calculate_forces
from crystalgfn.calculators.registry import load_calculator
from crystalgfn.calculators.relaxation import relax
from crystalgfn.errors import NotAvailable
from tests.contracts.calculator import CalculatorContract

ROCK_SALT = Structure(Lattice(2.845 * (1 - np.eye(3))), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.65, 2.97), ["Ti", "O"], [[0, 0, 0], [0.29, 0.29, 0]]
)


def test_a_missing_package_and_an_unknown_model_are_named(monkeypatch):
    monkeypatch.setattr(module, "_load", inspect.unwrap(module._load))
    monkeypatch.setitem(sys.modules, "sevenn.util", None)
    with pytest.raises(NotAvailable, match=r'pip install -e "\.\[sevennet\]"'):
        load_calculator("sevennet")
    with pytest.raises(NotAvailable, match="no SevenNet model '7net-99'"):
        load_calculator("sevennet:7net-99")


@pytest.fixture
def sevennet():
    pytest.importorskip("sevenn", reason="needs the extra [sevennet]")


class TestContract(CalculatorContract):
    structures = (ROCK_SALT, RUTILE)
    unknown = "Am"

    @pytest.fixture
    def calculator(self, sevennet):
        return load_calculator("sevennet:7net-0")


@pytest.mark.usefixtures("sevennet")
@pytest.mark.filterwarnings("ignore")  # of theirs: torch.jit.script, tensor product accelerators
@pytest.mark.parametrize("model", module.MODELS)
def test_its_own_calculator_of_ase_says_the_same(model):
    from sevenn.calculator import SevenNetCalculator

    moved = RUTILE.copy()
    moved.perturb(0.1, seed=1)
    theirs = load_calculator(SevenNetCalculator(model, device="cpu"))
    ours = load_calculator(f"sevennet:{model}")
    for one, other in zip(*(calculate_forces(c, [ROCK_SALT, moved]) for c in (ours, theirs)), strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-5)
        assert one.forces == pytest.approx(other.forces, abs=1e-4)
        assert one.stress == pytest.approx(other.stress, abs=1e-5)
    assert ours.energies([ROCK_SALT, moved]) == pytest.approx(theirs.energies([ROCK_SALT, moved]), abs=1e-5)


@pytest.mark.usefixtures("sevennet")
def test_rock_salt_relaxes_to_its_volume():
    wide = ROCK_SALT.copy().scale_lattice(1.1 * ROCK_SALT.volume)
    (done,) = relax([wide], "sevennet", fixed_cell=False, max_steps=60, max_force=0.02)
    assert done.converged and done.structure.volume == pytest.approx(ROCK_SALT.volume, rel=0.03)  # PBE's own cell
