"""Relaxation within the symmetry."""

import numpy as np
import pytest

pytest.importorskip("chgnet")

from crystalgfn.structures.checks import group_fault  # noqa: E402
from crystalgfn.structures.orbits import Orbit, OrbitStructure  # noqa: E402
from crystalgfn.structures.placement import build_structures  # noqa: E402
from crystalgfn.structures.relax import energies  # noqa: E402
from crystalgfn.structures.relax_orbits import relax_orbits  # noqa: E402

RUTILE = OrbitStructure(136, (4.6, 4.6, 2.96, 90.0, 90.0, 90.0), (Orbit("a", 22), Orbit("f", 8, (0.33, 0.33, 0.0))))
LARGE_SALT = OrbitStructure(225, (6.0, 6.0, 6.0, 90.0, 90.0, 90.0), (Orbit("a", 11), Orbit("b", 17)))


def test_coordinates_relax_and_the_cell_stays():
    before, rutile = relax_orbits([RUTILE], max_steps=0)[0], relax_orbits([RUTILE])[0]
    assert rutile.converged and rutile.energy < before.energy - 0.01
    assert rutile.structure.lattice == RUTILE.lattice and rutile.structure.wyckoff() == RUTILE.wyckoff()
    assert group_fault(rutile.structure, 1e-5) is None
    assert rutile.structure.orbits[1].parameters[0] == pytest.approx(0.305, abs=0.01)  # of the experiment


def test_the_lattice_relaxes_within_its_system():
    salt, rutile = relax_orbits([LARGE_SALT, RUTILE], fixed_cell=False, max_steps=60)
    a, b, c, *angles = salt.structure.lattice
    assert a == pytest.approx(5.7, abs=0.15) and (a, a) == pytest.approx((b, c)) and angles == pytest.approx([90.0] * 3)
    a, b, c, *angles = rutile.structure.lattice
    assert a == pytest.approx(b) and c < a and angles == pytest.approx([90.0] * 3)
    assert group_fault(rutile.structure, 1e-5) is None


def test_structures_are_relaxed_and_ranked_by_energy(make_crystals):
    crystals = make_crystals((136, {"Ti": 2, "O": 4}, RUTILE.lattice), (225, {"Na": 1, "Cl": 1}, LARGE_SALT.lattice))
    plain = build_structures(crystals, 3, refiner=None, seed=2)
    relaxed = build_structures(crystals, 3, refiner=None, seed=2, relax=True)
    for before, after in zip(plain, relaxed, strict=True):
        assert before.energies == [] and len(after.energies) == len(after.candidates)
        assert after.energies == sorted(after.energies)
        assert after.energies[0] <= energies(before.candidates).min() + 1e-4
        for structure in after.candidates:
            assert structure.lattice.parameters == pytest.approx(before.structure.lattice.parameters)
            assert structure.get_space_group_info(0.01)[1] == int(after.crystal.space_group[0])


def test_an_element_that_chgnet_does_not_know():
    heavy = OrbitStructure(225, (5.0, 5.0, 5.0, 90.0, 90.0, 90.0), (Orbit("a", 96), Orbit("b", 8)))
    (one,) = relax_orbits([heavy])
    assert np.isnan(one.energy) and one.structure == heavy and "Z = 96" in one.error
