"""The table of space groups against pyxtal and spglib, all 230."""

import itertools

import numpy as np
import pytest
import spglib
from pyxtal.symmetry import Group

from crystalgfn.crystallography import space_groups

NUMBERS = range(1, 231)
ORIGIN_CHOICE_TWO = (
    48, 50, 59, 68, 70, 85, 86, 88, 125, 126, 129, 130, 133, 134, 137, 138, 141, 142, 201, 203, 222, 224, 227, 228,
)  # fmt: skip


def as_set(rotations, translations):
    """Operations as comparable tuples, translations modulo 1 in 1 / 24."""
    integer = np.rint(np.asarray(translations) * 24)
    assert np.abs(integer - np.asarray(translations) * 24).max() < 1e-6
    return {
        (*np.rint(r).astype(int).ravel().tolist(), *(t.astype(int) % 24).tolist())
        for r, t in zip(np.asarray(rotations), integer, strict=True)
    }


def test_counts_of_systems_and_point_symmetries():
    assert np.bincount(space_groups.CRYSTAL_LATTICE_SYSTEM).tolist() == [2, 13, 59, 68, 7, 18, 27, 36]
    assert np.bincount(space_groups.POINT_SYMMETRY).tolist() == [92, 20, 48, 45, 25]
    assert len(space_groups.CRYSTAL_LATTICE_SYSTEMS) == 8 and len(space_groups.POINT_SYMMETRIES) == 5


def test_point_symmetry_is_what_the_operations_say():
    for number in NUMBERS:
        rotations = space_groups.WYCKOFF[number - 1][-1].operations[:, :, :3]
        centric = (rotations == -np.eye(3)).all(axis=(1, 2)).any()
        proper = (np.linalg.det(rotations) > 0).all()
        polar = np.abs(rotations.mean(axis=0)).max() > 1e-9  # a vector that every operation keeps
        name = {
            (True, False, False): "centrosymmetric",
            (False, True, True): "enantiomorphic-polar",
            (False, False, True): "polar",
            (False, True, False): "enantiomorphic",
            (False, False, False): "non-centrosymmetric",
        }[(bool(centric), bool(proper), bool(polar))]
        assert space_groups.POINT_SYMMETRIES[space_groups.POINT_SYMMETRY[number - 1]] == name, number


def test_systems_against_pyxtal():
    for number in NUMBERS:
        group = Group(number, quick=True)
        name = space_groups.CRYSTAL_LATTICE_SYSTEMS[space_groups.CRYSTAL_LATTICE_SYSTEM[number - 1]]
        assert name.split("-")[0] == ("trigonal" if 143 <= number <= 167 else group.lattice_type), number
        assert (name == "trigonal-rhombohedral") == (group.symbol[0] == "R"), number
        assert space_groups.SYMBOL[number - 1] == group.symbol


def test_operations_agree_with_both_libraries():
    for number in NUMBERS:
        general = space_groups.WYCKOFF[number - 1][-1].operations
        ours = as_set(general[:, :, :3], general[:, :, 3])
        affine = np.array([op.affine_matrix for op in Group(number)[0].ops])
        assert ours == as_set(affine[:, :3, :3], affine[:, :3, 3]), number
        database = spglib.get_symmetry_from_database(int(space_groups.HALL_NUMBER[number - 1]))
        assert ours == as_set(database["rotations"], database["translations"]), number
        assert len(ours) == space_groups.POINT_GROUP_ORDER[number - 1] * space_groups.CENTRING[number - 1], number
        kind = spglib.get_spacegroup_type(int(space_groups.HALL_NUMBER[number - 1]))
        assert kind.number == number


def test_default_hall_number_differs_in_the_24_groups_with_two_origins():
    first = {}
    for hall in range(1, 531):
        first.setdefault(spglib.get_spacegroup_type(hall).number, hall)
    differing = [n for n in NUMBERS if first[n] != space_groups.HALL_NUMBER[n - 1]]
    assert tuple(differing) == ORIGIN_CHOICE_TWO
    assert {spglib.get_spacegroup_type(int(space_groups.HALL_NUMBER[n - 1])).choice for n in differing} == {"2"}


def test_wyckoff_positions_against_pyxtal():
    for number in NUMBERS:
        theirs = {p.letter: p for p in Group(number).Wyckoff_positions}
        ours = space_groups.WYCKOFF[number - 1]
        assert [p.letter for p in ours] == list(theirs)[::-1], number
        for position in ours:
            reference = theirs[position.letter]
            assert position.multiplicity == reference.multiplicity == len(position.operations)
            assert position.primitive_multiplicity * space_groups.CENTRING[number - 1] == position.multiplicity
            assert position.n_free == reference.get_dof()
            assert position.free == (reference.get_dof() > 0)
            affine = np.array([op.affine_matrix[:3] for op in reference.ops])
            assert np.abs(affine - position.operations).max() < 1e-9, (number, position.letter)


def test_orbits_are_closed_under_the_group():
    rng = np.random.default_rng(0)
    for number in NUMBERS:
        general = space_groups.WYCKOFF[number - 1][-1].operations
        for position in space_groups.WYCKOFF[number - 1]:
            points = position.operations @ np.append(rng.random(3), 1.0)
            images = general[:, :, :3] @ points[0] + general[:, :, 3]
            gaps = images[:, None] - points[None]
            hit = np.abs(gaps - np.rint(gaps)).max(axis=2) < 1e-9
            assert hit.any(axis=1).all() and hit.any(axis=0).all(), (number, position.letter)


def test_known_axis_permutations():
    def allowed(number):
        permutations = itertools.permutations(range(3))
        return {p for p, ok in zip(permutations, space_groups.AXIS_PERMUTATIONS[number - 1], strict=True) if ok}

    everything = set(itertools.permutations(range(3)))
    identity, exchange = (0, 1, 2), (1, 0, 2)
    assert allowed(47) == allowed(19) == allowed(70) == everything
    assert allowed(61) == {identity, (1, 2, 0), (2, 0, 1)}  # Pbca and Pcab are different settings
    assert allowed(62) == {identity}
    assert allowed(35) == allowed(65) == {identity, exchange}
    assert allowed(225) == {identity}  # nothing to permute outside the orthorhombic system
    for number in NUMBERS:  # a subgroup: closed under composition
        found = allowed(number)
        assert {tuple(p[i] for i in q) for p in found for q in found} == found


def test_known_monoclinic_classes():
    assert [int(c) for c in space_groups.MONOCLINIC_REDUCTION[2:15]] == [1, 1, 3, 1, 2, 3, 3, 1, 1, 3, 2, 2, 3]
    assert not space_groups.MONOCLINIC_REDUCTION[:2].any() and not space_groups.MONOCLINIC_REDUCTION[15:].any()


def screw_and_glide_parts(rotations, translations):
    """The translations that twofold operations cannot lose by a shift of the origin, and the centring."""
    parts = set()
    for n in itertools.product((0, 1), repeat=3):
        moved = np.asarray(translations) + n
        intrinsic = np.where(
            (np.asarray(rotations) == np.eye(3)).all(axis=(1, 2))[:, None],
            moved,
            (moved + np.einsum("nij,nj->ni", rotations, moved)) / 2,
        )
        parts |= as_set(rotations, intrinsic)
    return parts


@pytest.mark.parametrize("number", range(3, 16))
def test_monoclinic_class_seen_by_spglib(number):
    """In an allowed basis a crystal has the same centring, screws and glides; in a forbidden one it has not."""
    general = space_groups.WYCKOFF[number - 1][-1].operations
    lattice = np.array([[5.1, 0, 0], [0, 6.3, 0], [-1.7, 0, 7.9]])
    rng = np.random.default_rng(number)
    points = np.concatenate([general @ np.append(rng.random(3), 1.0) for _ in range(4)])
    species = np.repeat([1, 2, 3, 4], len(general))
    kept = []
    for basis in ([[1, 0, 0], [0, 1, 0], [1, 0, 1]], [[1, 0, 1], [0, 1, 0], [0, 0, 1]]):  # a + c for a; a + c for c
        cell = (np.transpose(basis) @ lattice, points @ np.linalg.inv(basis).T, species)
        found = spglib.get_symmetry_dataset(cell, symprec=1e-4)
        assert found.number == number
        ours = screw_and_glide_parts(general[:, :, :3], general[:, :, 3])
        kept.append(screw_and_glide_parts(found.rotations, found.translations) == ours)
    expected = {1: [True, True], 2: [True, False], 3: [False, True]}
    assert kept == expected[int(space_groups.MONOCLINIC_REDUCTION[number - 1])]
