"""Distances against pymatgen."""

import numpy as np
import pytest
from pymatgen.core import Lattice

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.distances import Contacts, reduced_basis
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure, cell_matrix
from crystalgfn.crystallography.symmetry import MAX_MATRIX
from crystalgfn.errors import InvalidCrystal

CASES = [
    (1, (3.1, 4.9, 12.0, 55.0, 62.0, 71.0), ["a", "a", "a"], [3, 8, 26]),
    (14, (2.9, 11.0, 6.1, 90.0, 138.0, 90.0), ["e", "a", "e"], [8, 26, 3]),
    (166, (2.6, 2.6, 19.0, 90.0, 90.0, 120.0), ["a", "c", "h"], [3, 8, 27]),
    (166, (9.6, 9.6, 3.0, 90.0, 90.0, 120.0), ["b", "c", "c"], [3, 8, 27]),
    (227, (8.1, 8.1, 8.1, 90.0, 90.0, 90.0), ["a", "d", "e"], [12, 13, 8]),
    (82, (2.2, 2.2, 14.0, 90.0, 90.0, 90.0), ["a", "g"], [30, 16]),
]


@pytest.mark.parametrize(("number", "cell", "letters", "species"), CASES)
def test_nearest_agrees_with_pymatgen(number, cell, letters, species):
    contacts = Contacts(number, cell, letters, species)
    parameters = np.random.default_rng(0).random((5, len(letters), 3))
    ratios, shortest = contacts.nearest(parameters)
    for p, ratio, distance in zip(parameters, ratios, shortest, strict=True):
        orbits = tuple(Orbit(f, z, tuple(x)) for f, z, x in zip(letters, species, p.tolist(), strict=True))
        structure = OrbitStructure(number, cell, orbits).to_structure()
        centre, other, _, found = structure.get_neighbor_list(12.0)
        radius = elements.RADIUS[[site.specie.Z - 1 for site in structure]]
        assert distance == pytest.approx(found.min(), abs=1e-6)
        assert ratio == pytest.approx((found / (radius[centre] + radius[other])).min(), abs=1e-6)


def test_reduced_basis_is_the_niggli_cell():
    rng = np.random.default_rng(1)
    for _ in range(200):
        cell = cell_matrix((*rng.uniform(2, 12, 3), *rng.uniform(65, 115, 3))) + rng.normal(0, 0.1, (3, 3))
        cell = rng.integers(-2, 3, (3, 3)) @ cell
        if abs(np.linalg.det(cell)) < 1:
            continue
        lengths = np.linalg.norm(reduced_basis(cell), axis=1)
        assert np.sort(lengths) == pytest.approx(np.sort(Lattice(cell).get_niggli_reduced_lattice().abc), rel=1e-4)


def test_fingerprint_ignores_origin_and_letters():
    cell = (5.6, 5.6, 5.6, 90.0, 90.0, 90.0)
    prints = [Contacts(225, cell, letters, [11, 17]).fingerprint(np.zeros((2, 3))) for letters in ("ab", "ba")]
    assert prints[0] == pytest.approx(prints[1])
    blende = Contacts(216, cell, ["a", "c"], [11, 17]).fingerprint(np.zeros((2, 3)))
    assert np.abs(blende - prints[0]).max() > 0.3


def test_reducing_any_cell_ends():
    rng = np.random.default_rng(2)
    for number in range(400):
        rows = rng.standard_normal((3, 3)) * 10 ** rng.uniform(-3, 3)
        for _ in range(3):
            i, j = rng.choice(3, 2, replace=False)
            rows[i] += rows[j] * 10 ** rng.uniform(0, 8)
        if number % 4 == 0:  # almost in one plane
            rows[2] = rows[1] + rows[0] + 1e-9 * rng.random(3)
        try:
            reduced = reduced_basis(rows)
        except InvalidCrystal:
            assert np.abs(rows).max() >= MAX_MATRIX or np.linalg.cond(rows) > 1e10
            continue
        assert (np.linalg.norm(reduced, axis=1) <= np.linalg.norm(rows, axis=1).max() * (1 + 1e-9)).all()
        if np.linalg.cond(rows) < 1e6:
            assert abs(np.linalg.det(reduced)) == pytest.approx(abs(np.linalg.det(rows)), rel=1e-4)
