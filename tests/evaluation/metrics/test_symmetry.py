"""Groups at several tolerances, primitive cells, prototypes that no choice of origin changes."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.evaluation.metrics.symmetry import symmetry_of


def crystal(group, cell, **letters) -> Structure:
    """Atoms on Wyckoff positions: letter -> (symbol, free parameters)."""
    orbits = [Orbit(k, elements.NUMBER[v[0]], v[1] if len(v) > 1 else (0.0, 0.0, 0.0)) for k, v in letters.items()]
    return OrbitStructure(group, cell, tuple(orbits)).to_structure()


def cubic(group, edge, **letters) -> Structure:
    return crystal(group, (edge, edge, edge, 90.0, 90.0, 90.0), **letters)


SALT = cubic(225, 5.64, a=("Na",), b=("Cl",))
P1 = Structure(
    Lattice.from_parameters(4, 5, 6, 70, 80, 95), ["Na", "Cl", "O"], [[0, 0, 0], [0.3, 0.4, 0.6], [0.7, 0.2, 0.3]]
)


def test_rock_salt_in_any_cell():
    for structure in (SALT, SALT * [2, 1, 1], SALT.get_primitive_structure()):
        found = symmetry_of(structure)
        assert set(found.groups.values()) == {225} and len(found.primitive) == 2
        assert found.primitive.matches(SALT)


def test_a_shaken_crystal_has_its_group_at_a_wide_tolerance_only():
    shaken = SALT.copy()
    shaken.perturb(0.05)
    found = symmetry_of(shaken, (0.001, 0.01, 0.3))
    assert found.groups[0.3] == 225 and found.groups[0.001] == 1


def test_a_cell_without_symmetry():
    found = symmetry_of(P1)
    assert set(found.groups.values()) == {1} and found.prototype == "ABC_1_a_a_a" and len(found.primitive) == 3


def test_prototypes_know_neither_origin_nor_elements():
    first = symmetry_of(SALT).prototype
    moved = SALT.copy()
    moved.translate_sites(range(len(moved)), [0.5, 0.5, 0.5])
    other = cubic(225, 4.2, a=("O",), b=("Mg",))
    blende = cubic(216, 5.4, a=("Zn",), c=("S",))
    caesium = cubic(221, 4.1, a=("Cs",), b=("Cl",))
    assert {symmetry_of(s).prototype for s in (moved, other, SALT * [1, 2, 1])} == {first} == {"AB_225_a_b"}
    assert len({symmetry_of(s).prototype for s in (SALT, blende, caesium)}) == 3


def test_perovskite_from_either_corner():
    corner = cubic(221, 3.9, a=("Sr",), b=("Ti",), c=("O",))
    centre = cubic(221, 3.9, b=("Sr",), a=("Ti",), d=("O",))
    assert symmetry_of(corner).prototype == symmetry_of(centre).prototype
    assert symmetry_of(corner).prototype.startswith("ABC3_221_")


def test_disorder_is_a_kind_of_site():
    half = cubic(225, 4.2, a=("Li",), b=("O",))
    half.replace_species({"Li": {"Li": 0.5, "Fe": 0.5}})
    found = symmetry_of(half)
    assert set(found.groups.values()) == {225} and len(found.primitive) == 2 and not found.primitive.is_ordered


def test_no_group_where_atoms_lie_on_each_other():
    found = symmetry_of(Structure(Lattice.cubic(5), ["Na", "Na"], [[0, 0, 0], [0, 0, 0]]))
    assert set(found.groups.values()) == {0} and found.prototype is None and len(found.primitive) == 2


@pytest.mark.parametrize("number", [48, 70, 227])
def test_groups_with_two_origins(number):
    """A general orbit of a group of which spglib and others choose different origins."""
    cell = (14.0, 14.0, 14.0, 90.0, 90.0, 90.0) if number == 227 else (8.0, 9.5, 11.0, 90.0, 90.0, 90.0)
    general = {48: "m", 70: "h", 227: "i"}[number]
    structure = crystal(number, cell, **{general: ("Na", (0.07, 0.13, 0.21))})
    assert symmetry_of(structure, (0.01,)).groups[0.01] == number
    assert np.isclose(symmetry_of(structure).primitive.density, structure.density)
