"""Relaxation within the symmetry."""

import numpy as np
import pytest

pytest.importorskip("chgnet")

from crystalgfn.calculators.base import calculate_energies  # noqa: E402
from crystalgfn.calculators.registry import load_calculator  # noqa: E402
from crystalgfn.calculators.symmetric import orbit_energies, relax_orbits  # noqa: E402
from crystalgfn.crystallography.distances import group_fault
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure  # noqa: E402
from crystalgfn.structures.build import build_structures  # noqa: E402
from crystalgfn.structures.ranking.reranker import PER_ENERGY, WEIGHED


def energies(structures):
    return calculate_energies(load_calculator(), structures)


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


def test_energies_as_they_are():
    found = orbit_energies([RUTILE, LARGE_SALT])
    assert found == pytest.approx([one.energy for one in relax_orbits([RUTILE, LARGE_SALT], max_steps=0)], abs=1e-5)
    assert found == pytest.approx(energies([RUTILE.to_structure(), LARGE_SALT.to_structure()]), abs=1e-4)


def test_candidates_are_ranked_by_their_energies_too(make_crystals, small_refiner):
    """The same candidates, each with CHGNet's energy of it and a chance that has the Boltzmann factor of that.

    Where few are asked for they are the first of more.
    """
    crystals = make_crystals((136, {"Ti": 2, "O": 4}, RUTILE.lattice))
    options = {"n_candidates": 100, "refiner": small_refiner(), "seed": 1, "draws": 24, "steps": 3}
    (plain,), (ranked,) = build_structures(crystals, **options), build_structures(crystals, **options, energies=True)
    assert plain.energies == [] and len(ranked.energies) == len(plain.candidates) > 2
    assert ranked.energies == pytest.approx(energies(ranked.candidates), abs=1e-4)
    before = {tuple(s.frac_coords.ravel()): p for s, p in zip(plain.candidates, plain.probabilities, strict=True)}
    weight = [
        before[tuple(s.frac_coords.ravel())] * np.exp(-e / PER_ENERGY)
        for s, e in zip(ranked.candidates, ranked.energies, strict=True)
    ]
    assert ranked.probabilities == pytest.approx(np.array(weight) / np.sum(weight), abs=1e-3)
    assert len(ranked.candidates) <= WEIGHED
    (few,) = build_structures(crystals, **options | {"n_candidates": 2}, energies=True)
    assert few.energies == pytest.approx(ranked.energies[:2])


def test_an_element_that_chgnet_does_not_know():
    heavy = OrbitStructure(225, (5.0, 5.0, 5.0, 90.0, 90.0, 90.0), (Orbit("a", 96), Orbit("b", 8)))
    (one,) = relax_orbits([heavy])
    assert np.isnan(one.energy) and one.structure == heavy and "Z = 96" in one.error
