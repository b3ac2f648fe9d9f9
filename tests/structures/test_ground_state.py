import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystalgfn.calculators.base import calculate_energies
from crystalgfn.calculators.registry import load_calculator
from crystalgfn.calculators.relaxation import relax
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.standardize import crystals_of, standardise
from crystalgfn.errors import PlacementError
from crystalgfn.structures.ground_state import CROWDED, NOT_PLACED, SearchFailure, lowest_structures

ROCK_SALT = standardise([3.99, 3.99, 3.99, 60, 60, 60], np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([11, 17]))
RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.65, 2.97), ["Ti", "O"], [[0, 0, 0], [0.29, 0.29, 0]]
)


def energies(structures):
    return calculate_energies(load_calculator(), structures)


@pytest.fixture(scope="module")
def found() -> list:
    """The lowest of rock salt, of rutile, and of a cell in which nothing fits."""
    pytest.importorskip("chgnet", reason="needs the extra [relax]")
    rutile = Crystals.from_structures([RUTILE])
    tiny = ROCK_SALT.with_lattice(ROCK_SALT.lattice * [0.6, 0.6, 0.6, 1, 1, 1])
    return lowest_structures(Crystals.cat([crystals_of([ROCK_SALT]), rutile, crystals_of([tiny])]), seed=1)


def test_placements_find_rock_salt_and_rutile(found):
    assert found[0].energy == pytest.approx(energies([ROCK_SALT.structure()])[0], abs=1e-3)
    (real,) = relax([RUTILE])
    assert found[1].energy == pytest.approx(real.energy, abs=2e-3)
    for one in found[:2]:
        assert one.converged and one.placed and one.given == 0 and one.candidates >= 1


def test_the_structure_is_the_crystal_that_was_asked_for(found):
    again = Crystals.from_structures([found[1].structure], symprec=0.01)
    wanted = Crystals.from_structures([RUTILE])
    assert again.space_group.tolist() == [136] and again.composition.tolist() == wanted.composition.tolist()
    assert again.lattice.numpy() == pytest.approx(wanted.lattice.numpy(), rel=1e-4)
    assert energies([found[1].structure])[0] == pytest.approx(found[1].energy, abs=1e-5)


def test_crowded_cells_have_none(found):
    assert isinstance(found[2], SearchFailure) and found[2].failure in (CROWDED, NOT_PLACED)
    assert "closer than" in found[2].error


def test_what_is_given_is_among_the_candidates(found):
    crystals = crystals_of([ROCK_SALT])
    (one,) = lowest_structures(crystals, [[ROCK_SALT]], n_candidates=1, seed=1)
    assert one.given == 1 and one.candidates in (1, 2)
    assert one.energy == pytest.approx(found[0].energy, abs=1e-4)


def test_one_list_a_crystal_please():
    with pytest.raises(PlacementError, match="given for 2 crystals, but there are 1"):
        lowest_structures(crystals_of([ROCK_SALT]), [[], []])
