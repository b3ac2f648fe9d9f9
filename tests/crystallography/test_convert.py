import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.standardize import conventional, crystals_of, nearest_ratio, standardise

ROCK_SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
RUTILE = Structure.from_spacegroup("P4_2/mnm", Lattice.tetragonal(4.6, 2.96), ["Ti", "O"], [[0, 0, 0], [0.3, 0.3, 0]])
CORUNDUM = Structure.from_spacegroup(
    "R-3c", Lattice.hexagonal(4.76, 12.99), ["Al", "O"], [[0, 0, 0.3522], [0.3064, 0, 0.25]]
)
ANHYDRITE = Structure.from_spacegroup(
    "C2/m", Lattice.monoclinic(9.2, 3.1, 6.1, 104), ["Ga", "O"], [[0.1, 0, 0.8], [0.4, 0, 0.3]]
)


def cell_of(structure):
    return standardise(
        structure.lattice.parameters, structure.frac_coords, np.array([site.specie.Z for site in structure])
    )


@pytest.mark.parametrize("structure", [ROCK_SALT, RUTILE, CORUNDUM, ANHYDRITE])
@pytest.mark.parametrize("primitive", [False, True])
def test_any_cell_of_a_crystal_becomes_its_standard_one(structure, primitive):
    wanted = Crystals.from_structures([structure])
    cell = cell_of(structure.get_primitive_structure() if primitive else structure)
    found = crystals_of([cell])
    assert found.space_group.tolist() == wanted.space_group.tolist()
    assert found.composition.tolist() == wanted.composition.tolist()
    assert found.lattice.numpy() == pytest.approx(wanted.lattice.numpy(), rel=1e-5)
    assert len(cell.numbers) == int(wanted.n_atoms[0])
    again = Crystals.from_structures([cell.structure()])
    assert again.space_group.tolist() == wanted.space_group.tolist()
    assert again.lattice.numpy() == pytest.approx(wanted.lattice.numpy(), rel=1e-5)


def test_a_strained_cell_keeps_its_group():
    cell = cell_of(CORUNDUM)
    wider = cell.with_lattice(cell.lattice * [1.1, 1.1, 0.9, 1, 1, 1])
    found = Crystals.from_structures([wider.structure()], symprec=0.01)
    assert found.space_group.tolist() == [167]
    assert found.lattice[0].numpy() == pytest.approx(wider.lattice, rel=1e-5)
    assert wider.volume_per_atom == pytest.approx(cell.volume_per_atom * 1.1**2 * 0.9)


def test_formula_and_composition():
    cell = cell_of(CORUNDUM)
    assert cell.formula == "Al2O3"
    assert cell.composition[elements.NUMBER["O"] - 1] == 6
    swapped = cell.with_numbers(np.where(cell.numbers == 8, 16, cell.numbers))
    assert swapped.formula == "Al2S3"


def test_atoms_that_do_not_fit_the_centring_are_no_cell():
    points = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])
    assert conventional(225, np.array([5, 5, 5, 90, 90, 90]), points, np.array([11, 17])) is None


def test_nearest_ratio_is_that_of_the_closest_pair_images_included():
    radius = elements.RADIUS
    distance = 5.64 / 2
    assert nearest_ratio(ROCK_SALT) == pytest.approx(distance / (radius[10] + radius[16]))
    alone = Structure(Lattice.cubic(2.0), ["Na"], [[0, 0, 0]])
    assert nearest_ratio(alone) == pytest.approx(2.0 / (2 * radius[10]))
    assert nearest_ratio(Structure(Lattice.cubic(9.0), ["Na"], [[0, 0, 0]])) == np.inf
