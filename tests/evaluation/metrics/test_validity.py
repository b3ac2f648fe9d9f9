"""Distances, volumes and charges of structures where they are known."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.evaluation.metrics import validity as module
from crystalgfn.evaluation.metrics.compositions import amounts, whole
from crystalgfn.evaluation.metrics.validity import nearest, validity

SALT = OrbitStructure(225, (5.64, 5.64, 5.64, 90.0, 90.0, 90.0), (Orbit("a", 11), Orbit("b", 17))).to_structure()


def test_rock_salt():
    found = validity(SALT.get_primitive_structure())
    assert found.shortest == pytest.approx(2.82)
    assert found.ratio == pytest.approx(2.82 / (elements.RADIUS[10] + elements.RADIUS[16]))
    assert found.volume_per_atom == pytest.approx(5.64**3 / 8)
    assert found.longest_edge == pytest.approx(5.64 / np.sqrt(2))
    assert found.valid_structure and found.valid_composition and found.no_short_contacts and found.usual_volume
    assert found.neutral_icsd and found.neutral_common and found.neutral_all


def test_a_supercell_or_another_cell_changes_nothing():
    first = validity(SALT)
    turned = Structure(Lattice(np.array([[1, 0, 0], [1, 1, 0], [3, -2, 1]]) @ SALT.lattice.matrix), SALT.species,
                       SALT.cart_coords, coords_are_cartesian=True)  # fmt: skip
    for other in (SALT * [2, 1, 3], turned):
        found = validity(other)
        assert (found.shortest, found.ratio) == pytest.approx((first.shortest, first.ratio))
        assert found.relative_volume == pytest.approx(first.relative_volume)


def test_atoms_that_overlap_across_the_boundary():
    pair = Structure(Lattice.cubic(5), ["Na", "Cl"], [[0.01, 0.5, 0.5], [0.97, 0.5, 0.5]])
    found = validity(pair)
    assert found.shortest == pytest.approx(0.2) and not found.valid_structure and not found.no_short_contacts


def test_an_atom_and_its_own_image():
    thin = Structure(Lattice.orthorhombic(0.4, 6, 6), ["Na"], [[0.3, 0.1, 0.2]])
    assert nearest(thin)[0] == pytest.approx(0.4)
    assert not validity(thin).valid_structure  # CDVAE's own check does not see images


def test_two_atoms_on_one_place():
    found = validity(Structure(Lattice.cubic(5), ["Na", "Cl"], [[0, 0, 0], [0, 0, 0]]))
    assert found.shortest == 0.0 and found.ratio == 0.0


def test_distances_of_skew_cells_are_those_that_pymatgen_finds():
    rng = np.random.default_rng(0)
    for _ in range(20):
        lattice = Lattice.from_parameters(*rng.uniform(2.5, 9, 3), *rng.uniform(55, 125, 2), 90)
        structure = Structure(lattice, ["Na"] * 7, rng.random((7, 3)))
        distances = structure.get_neighbor_list(2.5 * lattice.volume ** (1 / 3))[3]
        assert nearest(structure)[0] == pytest.approx(distances.min())


def test_many_atoms_go_in_parts(monkeypatch):
    whole = nearest(SALT * 2)
    monkeypatch.setattr(module, "ROWS", 7)
    assert nearest(SALT * 2) == pytest.approx(whole)


def test_alternatives_of_a_disordered_site_are_no_overlap():
    split = Structure(Lattice.cubic(5), [{"Li": 0.5}, {"Li": 0.5}, "O"], [[0, 0, 0.02], [0, 0, 0.98], [0.5, 0.5, 0.5]])
    found = validity(split)
    assert found.shortest == pytest.approx(np.sqrt(2 * 2.5**2 + 2.4**2)) and found.valid_structure
    full = Structure(Lattice.cubic(5), ["Li", {"Li": 0.5}], [[0, 0, 0.02], [0, 0, 0.98]])
    assert nearest(full)[0] == pytest.approx(0.2)


def test_charge_by_the_tables():
    def judge(formula):
        species = [symbol for symbol, n in formula.items() for _ in range(n)]
        points = np.random.default_rng(0).random((len(species), 3))
        return validity(Structure(Lattice.cubic(10), species, points))

    magnetite, odd, alloy = judge({"Fe": 3, "O": 4}), judge({"Na": 1, "O": 3}), judge({"Cu": 1, "Au": 1})
    assert magnetite.neutral_icsd and not magnetite.valid_composition  # two states of iron: ours yes, CDVAE's no
    assert not odd.neutral_icsd and not odd.neutral_common
    assert alloy.valid_composition and not alloy.neutral_common  # all metals pass CDVAE's rule


def test_a_disordered_composition_is_made_whole():
    half = Structure(Lattice.cubic(4.2), [{"Li": 0.5, "Fe": 0.5}, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert validity(half).neutral_common  # LiFeO2
    assert whole(amounts(half)) == ((3, 1), (8, 2), (26, 1))
    trace = Structure(Lattice.cubic(4.2), [{"Li": 0.0012}, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert validity(trace).neutral_icsd is None and not validity(trace).valid_composition


def test_far_too_large_a_cell():
    found = validity(Structure(Lattice.cubic(12), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]))
    assert found.relative_volume > 3 and not found.usual_volume and found.no_short_contacts
