"""Atoms as orbits, and the same crystal in other settings."""

import itertools

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from crystalgfn.crystallography import normalizer, space_groups
from crystalgfn.crystallography.lattice import canonical_lattice
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.crystallography.site_assignment import orbits_of
from crystalgfn.crystallography.standardize import Cell, standardise
from crystalgfn.errors import PlacementError


def random_structure(number, rng, cell):
    """Two orbits on random positions of a group, at random coordinates."""
    positions = space_groups.WYCKOFF[number - 1]
    first, second = rng.integers(len(positions)), len(positions) - 1
    orbits = [Orbit(positions[p].letter, z, tuple(rng.random(3).tolist())) for p, z in ((first, 11), (second, 17))]
    return OrbitStructure(number, cell, tuple(orbits))


def cell_like(number):
    kind = space_groups.CRYSTAL_LATTICE_SYSTEMS[space_groups.CRYSTAL_LATTICE_SYSTEM[number - 1]]
    return {
        "triclinic": (8.0, 9.0, 11.0, 75.0, 82.0, 71.0),
        "monoclinic": (8.0, 9.0, 11.0, 90.0, 97.0, 90.0),
        "orthorhombic": (8.0, 9.5, 11.0, 90.0, 90.0, 90.0),
        "tetragonal": (9.0, 9.0, 12.0, 90.0, 90.0, 90.0),
        "cubic": (12.0, 12.0, 12.0, 90.0, 90.0, 90.0),
    }.get(kind, (9.0, 9.0, 13.0, 90.0, 90.0, 120.0))


def as_cell(structure):
    """The atoms of a structure, one for each lattice point of the cell."""
    from crystalgfn.crystallography.standardize import conventional

    return conventional(structure.space_group, np.array(structure.lattice), *structure.sites())


def same_points(one, other):
    """Whether two cells hold the same atoms."""
    if len(one.numbers) != len(other.numbers):
        return False
    gaps = one.points[:, None] - other.points[None]
    near = (np.abs(gaps - np.rint(gaps)) < 1e-5).all(axis=2) & (one.numbers[:, None] == other.numbers[None])
    return bool((near.sum(axis=0) == 1).all() and (near.sum(axis=1) == 1).all())


def test_orbits_are_found_again_in_every_group():
    rng = np.random.default_rng(3)
    for number in range(1, 231):
        made = random_structure(number, rng, cell_like(number))
        found = orbits_of(as_cell(made))
        assert sorted((o.letter, o.species) for o in found.orbits) == sorted((o.letter, o.species) for o in made.orbits)
        assert same_points(as_cell(found), as_cell(made)), number


def test_atoms_without_the_symmetry_of_their_group_are_refused():
    cell = Cell(
        225, np.array([5.6, 5.6, 5.6, 90, 90, 90]), np.array([[0.0, 0, 0], [0.4, 0.5, 0.5]]), np.array([11, 17])
    )
    with pytest.raises(PlacementError, match="is on no orbit of space group 225 .*standardise"):
        orbits_of(cell)


def test_a_change_of_setting_is_the_same_crystal():
    """Distances between all atoms stay, whatever setting of the normaliser describes the crystal."""
    rng = np.random.default_rng(1)
    for number in (1, 2, 5, 12, 14, 15, 19, 26, 47, 62, 63, 69, 72):
        made = random_structure(number, rng, cell_like(number))
        lattices = normalizer.changed_lattices(number, np.array(made.lattice))
        assert len(lattices) > 1 or number in (26, 62, 63, 72)
        for index in rng.choice(len(lattices), min(3, len(lattices)), replace=False).tolist():
            moved = normalizer.apply(normalizer.setting(number, index), made, lattices[index])
            assert same_distances(made.to_structure(), moved.to_structure()), (number, index)


def same_distances(one, other):
    lengths = [np.sort(s.get_neighbor_list(5.0)[3]) for s in (one, other)]
    return len(lengths[0]) == len(lengths[1]) and np.allclose(*lengths, atol=1e-5)


@pytest.mark.parametrize("number", [14, 15, 5, 62, 47, 2, 19])
def test_the_canonical_setting_is_reached(number):
    rng = np.random.default_rng(number)
    a, b, c, alpha, beta, gamma = cell_like(number)
    made = random_structure(number, rng, (c, b, a, alpha, beta, gamma) if number != 62 else (c, a, b, 90.0, 90.0, 90.0))
    target = canonical_lattice(number, np.array(made.lattice))
    found = normalizer.canonical(made, target)
    assert found.lattice == pytest.approx(target.tolist())
    assert same_distances(made.to_structure(), found.to_structure())


def test_orthorhombic_settings_are_those_of_the_table():
    """The permutations of axes that the table of groups allows, each once."""
    for number in range(16, 75):
        lattices = normalizer.changed_lattices(number, np.array([3.0, 5.0, 7.0, 90, 90, 90]))
        found = {tuple(np.round(x[:3]).astype(int).tolist()) for x in lattices}
        kept = space_groups.AXIS_PERMUTATIONS[number - 1]
        wanted = {
            tuple((3, 5, 7)[i] for i in p) for p, k in zip(itertools.permutations(range(3)), kept, strict=True) if k
        }
        assert found == wanted and len(lattices) == len(wanted), number


def test_equivalent_letters():
    def renamed(number):
        return [{k: v for k, v in p.items() if k != v} for p in normalizer.letter_permutations(number)]

    assert renamed(62) == [{}, {"a": "b", "b": "a"}]
    assert renamed(221)[1]["a"] == "b" and len(renamed(221)) == 2
    assert {p["a"] for p in normalizer.letter_permutations(2)} == set("abcdefgh")
    assert all({} in renamed(number) for number in range(1, 231, 7))


def test_letters_renamed_describe_the_same_crystal():
    """Rock salt with the letters exchanged is rock salt."""
    matcher = StructureMatcher(scale=False)
    cell = (5.6, 5.6, 5.6, 90.0, 90.0, 90.0)
    one = OrbitStructure(225, cell, (Orbit("a", 11), Orbit("b", 17))).to_structure()
    other = OrbitStructure(225, cell, (Orbit("b", 11), Orbit("a", 17))).to_structure()
    assert matcher.fit(one, other)


def test_another_origin_gives_the_same_orbits():
    """Spinel given at origin choice 1 and at an arbitrary origin."""
    lattice = Lattice.cubic(8.08)
    spinel = Structure.from_spacegroup(227, lattice, ["Mg", "Al", "O"], [[0] * 3, [5 / 8] * 3, [0.3874] * 3])
    marks = []
    for shift in ([0, 0, 0], [0.13, 0.27, 0.41]):
        moved = spinel.copy()
        moved.translate_sites(list(range(len(moved))), shift)
        numbers = np.array([site.specie.Z for site in moved])
        orbits = orbits_of(standardise(moved.lattice.parameters, moved.frac_coords, numbers))
        marks.append(orbits.wyckoff())
    equal = [{"Mg": ["a"], "Al": ["d"], "O": ["e"]}, {"Mg": ["b"], "Al": ["c"], "O": ["e"]}]
    assert marks[0] in equal and marks[1] in equal
