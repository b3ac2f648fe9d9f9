"""Orbits are found again from atoms."""

import numpy as np
import pytest

from crystalgfn.structures.cells import Cell, conventional, standardise
from crystalgfn.structures.recognise import orbits_of


def sorted_points(structure):
    points, species = structure.sites()
    return species, points


def test_orbits_of_every_group_are_found_again(random_orbits):
    for structure in random_orbits:
        points, species = structure.sites()
        cell = conventional(structure.space_group, np.array(structure.lattice), points, species)
        if cell is None:  # two atoms on one random place
            continue
        found = orbits_of(cell)
        assert sorted(o.letter for o in found.orbits) == sorted(o.letter for o in structure.orbits)
        assert found.composition == structure.composition
        again, kinds = found.sites()
        gaps = again[:, None] - points[None]
        same = (np.abs(gaps - np.rint(gaps)) < 1e-6).all(axis=2) & (kinds[:, None] == species[None])
        assert same.any(axis=1).all() and same.any(axis=0).all()


def test_rock_salt_from_another_cell():
    points = np.array([[0.1, 0.1, 0.1], [0.6, 0.6, 0.6]])
    found = orbits_of(standardise([3.96, 3.96, 3.96, 60, 60, 60], points, np.array([11, 17])))
    assert found.space_group == 225
    assert found.wyckoff() in ({"Na": ["a"], "Cl": ["b"]}, {"Na": ["b"], "Cl": ["a"]})
    assert found.lattice == pytest.approx((5.6, 5.6, 5.6, 90, 90, 90), abs=1e-2)


def test_atoms_without_the_symmetry_of_the_group():
    cell = Cell(225, np.array([5.0, 5, 5, 90, 90, 90]), np.array([[0.0, 0, 0], [0.1, 0.2, 0.3]]), np.array([11, 17]))
    assert orbits_of(cell) is None
