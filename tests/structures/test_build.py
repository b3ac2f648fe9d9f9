"""Structures placed without a refiner are what was asked for, by spglib and pymatgen."""

import functools
import inspect
import re
import sys
import time

import numpy as np
import pytest
import spglib
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from crystalgfn.calculators import chgnet
from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import CheckpointError, NotAvailable, PlacementError
from crystalgfn.structures import build
from crystalgfn.structures.config import BuildConfig

build_structures = functools.partial(build.build_structures, refiner=None)
build_from_wyckoff = functools.partial(build.build_from_wyckoff, refiner=None)

ROCK_SALT = (225, {"Na": 1, "Cl": 1}, (5.64, 5.64, 5.64, 90.0, 90.0, 90.0))
PEROVSKITE = (221, {"Sr": 1, "Ti": 1, "O": 3}, (3.905, 3.905, 3.905, 90.0, 90.0, 90.0))


def check(structure, crystal):
    """Lattice, composition, group, primitive cell and distances of one structure."""
    number = int(crystal.space_group[0])
    assert structure.lattice.parameters == pytest.approx(crystal.lattice[0].tolist(), abs=1e-8)
    centring = int(space_groups.CENTRING[number - 1])
    wanted = {z + 1: n * centring for z, n in enumerate(crystal.composition[0].tolist()) if n}
    assert {element.Z: count for element, count in structure.composition.items()} == wanted
    cell = (structure.lattice.matrix, structure.frac_coords, [site.specie.Z for site in structure])
    found = spglib.get_symmetry_dataset(cell, symprec=0.01)
    assert found.number == number
    assert len(found.rotations) == space_groups.POINT_GROUP_ORDER[number - 1] * centring
    assert len(spglib.find_primitive(cell, symprec=0.01)[2]) == int(crystal.n_atoms[0])
    assert structure.get_neighbor_list(6.0)[3].min() >= 0.5


@pytest.mark.unchecked
def test_random_crystals_of_every_group(random_crystals, built):
    assert len(random_crystals) == len(built) == 223
    failed = [r for r in built if r.structure is None]
    assert len(failed) <= 4, [r.error for r in failed]  # some fixed positions lie too close in some cells
    for crystal, result in zip(random_crystals, built, strict=True):
        assert (result.error is None) == (result.structure is not None) == (len(result.candidates) == 1)
        if result.structure is not None:
            check(result.structure, crystal)
            assert set(result.wyckoff) == {e.symbol for e in result.structure.composition}
        else:
            assert "placements tried" in result.error


def test_structures_read_back_as_the_crystals_asked_for(built):
    back = Crystals.from_structures([r.structure for r in built if r.structure is not None])
    asked = Crystals.cat([r.crystal for r in built if r.structure is not None])
    same = (back.space_group == asked.space_group) & (back.composition == asked.composition).all(1)
    assert same.double().mean() >= 0.97  # at symprec 0.1, where close to symmetric is symmetric


def test_rock_salt_and_perovskite(make_crystals):
    crystals = make_crystals(ROCK_SALT, PEROVSKITE)
    letters = [{"Na": ["a"], "Cl": ["b"]}, {"Sr": ["a"], "Ti": ["b"], "O": ["c"]}]
    salt, perovskite = build_from_wyckoff(crystals, letters)
    matcher = StructureMatcher(scale=False, stol=0.01, ltol=0.001, angle_tol=0.1)
    assert matcher.fit(
        salt.structure, Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
    )
    reference = Structure.from_spacegroup(
        "Pm-3m", Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0] * 3, [0.5] * 3, [0, 0.5, 0.5]]
    )
    assert matcher.fit(perovskite.structure, reference)
    assert salt.wyckoff == letters[0] and perovskite.wyckoff == letters[1]
    for crystal, result in zip(crystals, (salt, perovskite), strict=True):
        check(result.structure, crystal)


def test_rock_salt_without_letters(make_crystals):
    """Only a and b hold one atom, so there is one structure, and a second candidate is not made up."""
    result = build_structures(make_crystals(ROCK_SALT), n_candidates=5)[0]
    assert len(result.candidates) == 1 and sorted(result.wyckoff.values()) == [["a"], ["b"]]


def test_candidates_are_different(make_crystals):
    crystals = make_crystals((62, {"Ca": 4, "Ti": 4, "O": 12}, (5.44, 7.64, 5.38, 90.0, 90.0, 90.0)))
    result = build_structures(crystals, n_candidates=4)[0]
    assert len(result.candidates) == 4 and result.structure is result.candidates[0]
    matcher = StructureMatcher(scale=False, stol=0.02, ltol=0.01)
    for i, structure in enumerate(result.candidates):
        check(structure, crystals)
        assert not any(matcher.fit(structure, other) for other in result.candidates[:i])


def test_seed_decides(random_crystals):
    some = random_crystals[::30]
    one, same, other = (build_structures(some, seed=s) for s in (3, 3, 4))
    assert [r.structure for r in one] == [r.structure for r in same]
    assert [r.structure for r in one] != [r.structure for r in other]


@pytest.mark.unchecked
def test_processes_give_the_same(random_crystals):
    some = random_crystals[190:]
    alone = build_structures(some)
    together = build_structures(some, n_jobs=2)
    assert [r.structure for r in alone] == [r.structure for r in together]


def test_processes_give_the_same_to_the_last_digit_with_a_refiner(random_crystals, small_refiner):
    options = {"refiner": small_refiner(), "steps": 2, "draws": 2, "seed": 5, "part": 4, "retry": False}
    requests = build.requests_of(random_crystals[::24])
    alone, together = (build.build(requests, BuildConfig(n_jobs=n, **options)) for n in (1, 2))
    assert len(requests) == 10 and sum(r.error is None for r in alone) >= 4
    assert [(r.orbits, r.origins, r.probabilities, r.error) for r in alone] == [
        (r.orbits, r.origins, r.probabilities, r.error) for r in together
    ]


def test_a_slow_machine_gives_the_same(random_crystals, monkeypatch):
    """No clock decides: with one that runs a million times too fast nothing changes."""
    some = random_crystals[::40]
    before = build_structures(some, n_candidates=3, seed=2)
    for name in ("monotonic", "perf_counter", "time", "process_time"):
        clock = getattr(time, name)
        monkeypatch.setattr(time, name, lambda clock=clock: 1e6 * clock())
    after = build_structures(some, n_candidates=3, seed=2)
    assert [r.orbits for r in before] == [r.orbits for r in after]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((225, {"Na": 1, "Cl": 1, "O": 1}, ROCK_SALT[2]), "cannot hold 1 O, 1 Na, 1 Cl per primitive cell"),
        ((195, {"Na": 1, "Cl": 3}, ROCK_SALT[2]), "every placement of 1 Na, 3 Cl in space group 195 .* larger group"),
        ((225, {"Na": 1, "Cl": 1}, (0.6, 0.6, 0.6, 90.0, 90.0, 90.0)), "closer than 0.5 Å"),
        ((123, {"Na": 1, "Cl": 1}, (4.0, 4.0, 4.0, 90.0, 90.0, 90.0)), None),
        ((123, {"Na": 1}, (4.0, 4.0, 4.0, 90.0, 90.0, 90.0)), r"spglib \(symprec 0.01\) finds group 221"),
        ((5, {}, ROCK_SALT[2]), "no atoms"),
        ((2, {"Na": 1}, (5.0, float("nan"), 5.0, 90.0, 90.0, 90.0)), "is not a cell"),
    ],
)
def test_what_cannot_be_placed_says_why(row, message, make_crystals):
    crystals = make_crystals(row)
    result = build_structures(crystals)[0]
    if message is None:
        check(result.structure, crystals)
    else:
        assert result.structure is None and result.candidates == [] and result.wyckoff == {}
        assert torch.equal(result.crystal.composition, crystals.composition)
        assert re.search(message, result.error), result.error


def test_bad_letters_are_an_error_of_their_crystal(make_crystals):
    crystals = make_crystals(ROCK_SALT, PEROVSKITE)
    bad, good = build_from_wyckoff(crystals, [{"Na": ["a"], "Cl": ["c"]}, {"Sr": ["a"], "Ti": ["b"], "O": ["c"]}])
    assert "Cl hold 2 atoms" in bad.error and good.error is None


@pytest.mark.parametrize("asked", ["energies", "relax"])
def test_a_missing_chgnet_is_said_before_the_work(make_crystals, monkeypatch, asked):
    monkeypatch.setattr(chgnet, "_load", inspect.unwrap(chgnet._load))  # the model may be there from another test
    monkeypatch.setitem(sys.modules, "chgnet.model.model", None)
    monkeypatch.setattr(build, "candidates", None)
    with pytest.raises(NotAvailable, match=r"pip install -e \"\.\[relax\]\""):
        build_structures(make_crystals(ROCK_SALT), refiner="default", **{asked: True})


def test_bad_arguments(make_crystals):
    crystals = make_crystals(ROCK_SALT)
    with pytest.raises(CheckpointError, match="no refiner 'none of them'"):
        build_structures(crystals, refiner="none of them")
    with pytest.raises(PlacementError, match="needs a refiner; without one use lattice='keep'"):
        build_structures(crystals, lattice="refine")
    with pytest.raises(PlacementError, match="invalid lattice='bent'; expected one of keep, refine, generate"):
        build_structures(crystals, lattice="bent")
    with pytest.raises(PlacementError, match="energies=True needs a refiner's candidates"):
        build_structures(crystals, refiner=None, energies=True)
    with pytest.raises(PlacementError, match="draws=0"):
        build_structures(crystals, draws=0)
    with pytest.raises(PlacementError, match="steps=0"):
        build_structures(crystals, steps=0)
    with pytest.raises(PlacementError, match="n_candidates=0"):
        build_structures(crystals, n_candidates=0)
    with pytest.raises(PlacementError, match="letters are given for 2 crystals, but there are 1"):
        build_from_wyckoff(crystals, [{}, {}])


@pytest.mark.parametrize(
    "row",
    [
        (225, {"Ca": 20, "Al": 18, "O": 42}, (17.0, 17.0, 17.0, 90.0, 90.0, 90.0)),
        (1, {"Ca": 20, "Al": 20, "O": 40}, (10.0, 10.5, 11.0, 82.0, 84.0, 86.0)),
        (62, {"Li": 4, "Fe": 4, "P": 4, "O": 16}, (10.33, 6.01, 4.69, 90.0, 90.0, 90.0)),
    ],
)
def test_large_cells_do_not_stall(row, make_crystals):
    crystals = make_crystals(row)
    start = time.process_time()
    result = build_structures(crystals)[0]
    assert time.process_time() - start < 15  # at most 4 s where nothing is wrong
    if result.structure is not None:
        check(result.structure, crystals)
    else:
        assert "placements tried" in result.error
    assert row[0] != 62 or result.structure is not None


def test_empty_batch(make_crystals):
    assert build_structures(make_crystals(ROCK_SALT)[np.zeros(0, dtype=np.int64)]) == []
