"""Orbits against pyxtal and known crystals."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pyxtal import pyxtal
from pyxtal.lattice import Lattice as PyxtalLattice

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure, cell_matrix
from crystalgfn.errors import PlacementError

SPINEL = OrbitStructure(
    227,
    (8.08, 8.08, 8.08, 90.0, 90.0, 90.0),
    (Orbit("a", 12), Orbit("d", 13), Orbit("e", 8, (0.2624, 0.0, 0.0))),
)


def test_spinel():
    structure = SPINEL.to_structure()
    assert structure.composition.formula == "Mg8 Al16 O32"
    assert SPINEL.composition == {12: 2, 13: 4, 8: 8}
    assert SPINEL.wyckoff() == {"Mg": ["a"], "Al": ["d"], "O": ["e"]}
    reference = Structure.from_spacegroup(
        "Fd-3m", Lattice.cubic(8.08), ["Mg", "Al", "O"], [[0, 0, 0], [0.625] * 3, [0.3874] * 3]
    )  # origin choice 1, shifted by 1/8
    assert np.sort(structure.distance_matrix.ravel()) == pytest.approx(
        np.sort(reference.distance_matrix.ravel()), abs=1e-6
    )


@pytest.mark.filterwarnings("ignore")  # pyxtal's own
@pytest.mark.parametrize(
    ("number", "cell", "orbits"),
    [
        (62, (10.3, 6.0, 4.7, 90, 90, 90), [("c", 26, (0.28, 0.25, 0.97)), ("d", 8, (0.17, 0.05, 0.28))]),
        (166, (2.8, 2.8, 14.1, 90, 90, 120), [("a", 3, (0, 0, 0)), ("b", 27, (0, 0, 0.5)), ("c", 8, (0, 0, 0.26))]),
        (15, (9.8, 9.0, 5.3, 90, 106, 90), [("e", 20, (0, 0.3, 0.25)), ("f", 14, (0.29, 0.09, 0.25))]),
    ],
)  # fmt: skip
def test_same_crystal_as_pyxtal(number, cell, orbits):
    ours = OrbitStructure(number, cell, tuple(Orbit(letter, z, p) for letter, z, p in orbits))
    species = [elements.SYMBOLS[z - 1] for _, z, _ in orbits]
    kind = {62: "orthorhombic", 166: "hexagonal", 15: "monoclinic"}[number]
    theirs = pyxtal()
    multiplicities = [ours.to_structure().composition[s] for s in species]
    theirs.build(
        number,
        species,
        [int(m) for m in multiplicities],
        PyxtalLattice.from_para(*cell, ltype=kind),
        [[{f"{int(m)}{letter}": list(p)}] for (letter, _, p), m in zip(orbits, multiplicities, strict=True)],
    )
    reference, structure = theirs.to_pymatgen(), ours.to_structure()
    assert structure.lattice.parameters == pytest.approx(cell)
    for z, symbol in zip([o[1] for o in orbits], species, strict=True):
        mine = structure.frac_coords[[site.specie.Z == z for site in structure]]
        pyx = reference.frac_coords[[site.specie.symbol == symbol for site in reference]]
        gaps = mine[:, None] - pyx[None]
        hit = np.abs(gaps - np.rint(gaps)).max(axis=2) < 1e-4
        assert hit.any(axis=0).all() and hit.any(axis=1).all()


def test_cell_matrix_agrees_with_pymatgen():
    cell = (4.1, 5.2, 6.3, 71.0, 98.0, 112.0)
    assert Lattice(cell_matrix(cell)).parameters == pytest.approx(cell)


def test_occupancy_is_kept():
    half = OrbitStructure(225, (4.2, 4.2, 4.2, 90.0, 90.0, 90.0), (Orbit("a", 12, occupancy=0.5), Orbit("b", 8)))
    assert half.to_structure().composition["Mg"] == pytest.approx(2.0)


def test_bad_letters():
    cell = (4.2, 4.2, 4.2, 90.0, 90.0, 90.0)
    with pytest.raises(PlacementError, match="no Wyckoff position 'z'; it has a, b, c"):
        OrbitStructure(225, cell, (Orbit("z", 12),))
    with pytest.raises(PlacementError, match="no free parameter, so only one orbit"):
        OrbitStructure(225, cell, (Orbit("a", 12), Orbit("a", 8)))
