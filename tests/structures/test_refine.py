"""One's own structures through the refiner."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystalgfn.errors import PlacementError
from crystalgfn.structures.build import refine_structures

RUTILE = Structure.from_spacegroup(136, Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0] * 3, [0.27, 0.27, 0]])
SALT = Structure.from_spacegroup(225, Lattice.cubic(5.64), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
DISORDERED = Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}, "Cl"], [[0] * 3, [0.5] * 3])
OVERLAPPING = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0] * 3, [0.0, 0.0, 0.05]])


def test_what_can_be_refined_is_and_the_rest_says_why():
    rutile, salt, disordered, overlapping = refine_structures([RUTILE, SALT, DISORDERED, OVERLAPPING], seed=1)
    assert rutile.error is None and salt.error is None
    assert "disordered" in disordered.error and disordered.structure is None and len(disordered.crystal) == 0
    assert "apart" in overlapping.error
    for result, before, group in ((rutile, RUTILE, 136), (salt, SALT, 225)):
        assert result.structure.get_space_group_info(0.01)[1] == group == int(result.crystal.space_group[0])
        assert result.structure.composition.reduced_formula == before.composition.reduced_formula
        assert result.structure.lattice.parameters == pytest.approx(before.lattice.parameters, abs=1e-6)


def shortest_bond(structure):
    kinds = np.array([site.specie.symbol for site in structure])
    return structure.distance_matrix[np.ix_(kinds == "Ti", kinds == "O")].min()


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_rutile_gets_nearer_to_its_real_bonds(noise):
    (better,) = refine_structures([RUTILE], noise=noise)
    assert shortest_bond(RUTILE) == pytest.approx(1.75, abs=0.01)
    assert abs(shortest_bond(better.structure) - 1.95) < 0.12  # 1.95 Å in the experiment


def test_the_cell_may_move_by_what_is_said():
    (moved,) = refine_structures([RUTILE], lattice="refine", max_strain=0.02)
    assert np.abs(np.log(np.array(moved.structure.lattice.abc) / RUTILE.lattice.abc)).max() <= 0.02 + 1e-6
    with pytest.raises(PlacementError, match="would forget the structure"):
        refine_structures([RUTILE], lattice="generate")
    with pytest.raises(PlacementError, match="noise=2"):
        refine_structures([RUTILE], noise=2.0)
