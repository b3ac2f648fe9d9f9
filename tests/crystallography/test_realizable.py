"""The table of realisable counts against spglib and known structures."""

import numpy as np
import pytest
import spglib

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.assignments import letter_packing
from crystalgfn.crystallography.realizable import (
    REALISABLE,
    STATUSES,
    fit_patterns,
    pattern_rows,
    patterns,
    realisable,
    status,
)
from crystalgfn.crystallography.supergroups import (
    count_operations,
    generic_points,
    holohedry,
    is_exact,
    primitive_basis,
)

NEEDS_MORE_ATOMS = {203: 227, 207: 221, 209: 225, 219: 215, 222: 229, 226: 221, 228: 224}
"""Groups that nothing with at most 20 atoms realises -> a larger group that all such structures have.

Even all positions that hold at most 20 atoms, each orbit a species of its own, have it (219, 226, 228: in a smaller
cell). Only orbits of 24 or 48 atoms break it (203 g, 207 k, 209 j, 219 h, 222 i, 226 i and j, 228 g and h).
"""


def generic_cell(space_group, rng):
    """Rows of a random primitive cell with the metric of the lattice system and nothing more."""
    a, b, c = rng.uniform(5, 6), rng.uniform(6.5, 7.5), rng.uniform(8, 9.5)
    alpha, beta, gamma = rng.uniform(75, 83), rng.uniform(96, 104), rng.uniform(106, 114)
    system = space_groups.CRYSTAL_LATTICE_SYSTEMS[space_groups.CRYSTAL_LATTICE_SYSTEM[space_group - 1]]
    parameters = {
        "triclinic": (a, b, c, alpha, beta, gamma),
        "monoclinic": (a, b, c, 90, beta, 90),
        "orthorhombic": (a, b, c, 90, 90, 90),
        "tetragonal": (a, a, c, 90, 90, 90),
        "cubic": (a, a, a, 90, 90, 90),
    }.get(system, (a, a, c, 90, 90, 120))
    la, lb, lc = parameters[:3]
    ca, cb, cg = np.cos(np.radians(parameters[3:]))
    gram = np.array(
        [
            [la * la, la * lb * cg, la * lc * cb],
            [la * lb * cg, lb * lb, lb * lc * ca],
            [la * lc * cb, lb * lc * ca, lc * lc],
        ]
    )
    return primitive_basis(space_group) @ np.linalg.cholesky(gram)


def spglib_dataset(space_group, letters, rng):
    for _ in range(5):  # atoms of one draw in a thousand lie so close that spglib gives up
        points, species = generic_points(space_group, letters, rng)
        found = spglib.get_symmetry_dataset((generic_cell(space_group, rng), points, species + 1), symprec=1e-4)
        if found is not None:
            return found
    raise AssertionError(f"spglib finds nothing in group {space_group} with {letters}")


def test_patterns():
    table = patterns()
    assert table.shape == REALISABLE.shape[::-1][:1] + (5,) == (1124, 5)
    assert (table[:, :-1] >= table[:, 1:]).all() and table[:, 0].min() >= 1 and table.sum(1).max() == 20
    assert [tuple(r) for r in table.tolist()] == sorted({tuple(r) for r in table.tolist()})
    assert pattern_rows(table).tolist() == list(range(1124))
    assert pattern_rows(np.array([[20, 1, 0], [0, 0, 0], [1, 2, 0]])).tolist() == [-1, -1, -1]
    assert len(patterns(8, 3)) == sum(p.sum() <= 8 and (p[3:] == 0).all() for p in table)


@pytest.mark.parametrize(
    ("space_group", "counts"),
    [
        (225, (1, 1)),  # NaCl
        (221, (3, 1, 1)),  # perovskite
        (227, (8, 4, 2)),  # spinel
        (227, (2,)),  # diamond
        (167, (6, 4)),  # corundum
        (166, (2, 1, 1)),  # LiCoO2
        (194, (2,)),  # hcp
        (216, (1, 1)),  # zinc blende
        (62, (12, 4, 4)),  # GdFeO3
        (62, (16, 4, 4, 4)),  # olivine, 28 atoms: fit only
    ],
)
def test_known_structures_are_realisable(space_group, counts):
    assert realisable(space_group, counts)
    assert realisable(space_group, counts[::-1] + (0,))


@pytest.mark.parametrize(
    ("space_group", "counts"),
    [(195, (1,)), (195, (3, 1)), (195, (3, 3, 1, 1)), (1, (1,)), (1, (2,)), (207, (8, 6)), (225, (1, 1, 1))],
)
def test_counts_that_only_supergroups_hold(space_group, counts):
    assert not realisable(space_group, counts)


def test_p1_small_cells():
    """One atom or two of one kind have inversion; three of one kind or two kinds have not."""
    assert [realisable(1, c) for c in ((1,), (2,), (3,), (1, 1))] == [False, False, True, True]


def test_bad_arguments():
    for space_group, counts in [(0, (1,)), (231, (1,)), (5, ()), (5, (0,)), (5, (2, -1))]:
        with pytest.raises(ValueError, match="1-230"):
            realisable(space_group, counts)


def test_everything_is_settled_and_fits():
    assert set(np.unique(status()).tolist()) <= {STATUSES.index(s) for s in STATUSES[:4]}
    assert ((status() > 0) == fit_patterns(patterns())).all()
    assert not (REALISABLE & ~fit_patterns(patterns())).any()


def test_groups_beyond_twenty_atoms():
    assert [n for n in range(1, 231) if not REALISABLE[n - 1].any()] == list(NEEDS_MORE_ATOMS)
    rng = np.random.default_rng(0)
    for number, larger in NEEDS_MORE_ATOMS.items():
        letters = []
        for p in space_groups.WYCKOFF[number - 1]:
            if p.primitive_multiplicity <= 20:
                letters += [(p.letter,)] * (20 // p.primitive_multiplicity if p.free else 1)
        assert spglib_dataset(number, tuple(letters), rng).number == larger


@pytest.mark.unchecked
def test_operation_count_agrees_with_spglib():
    """Random assignments of every group, exact ones and others."""
    rng = np.random.default_rng(3)
    exact = 0
    for number in range(1, 231):
        pack = letter_packing(number, 20)
        fitting = patterns()[fit_patterns(patterns())[number - 1]]
        for row in fitting[rng.choice(len(fitting), 3)].tolist():
            letters = pack.sample(tuple(c for c in row if c), rng)
            found = spglib_dataset(number, letters, rng)
            counted = count_operations(holohedry(number), *generic_points(number, letters, rng))
            assert counted == len(found.rotations), (number, letters)
            assert is_exact(number, letters) == (
                found.number == number and counted == space_groups.POINT_GROUP_ORDER[number - 1]
            )
            exact += is_exact(number, letters)
    assert 200 < exact < 690  # both kinds were seen


def test_exactness_is_that_of_all_atoms_together():
    """Parts of an assignment may decide, but never otherwise than the whole."""
    rng, answers = np.random.default_rng(0), []
    for group in range(1, 231):
        counts = tuple(rng.integers(1, 7, int(rng.integers(1, 4))).tolist())
        letters = letter_packing(group, max(counts)).sample(counts, rng)
        if letters is None:
            continue
        letters, draws = tuple(sorted(letters)), np.random.default_rng(group)
        found = [count_operations(holohedry(group), *generic_points(group, letters, draws)) for _ in range(3)]
        answers.append(is_exact(group, letters))
        assert answers[-1] == (min(found) == space_groups.POINT_GROUP_ORDER[group - 1]), (group, letters)
    assert 20 < sum(answers) < len(answers) - 20


@pytest.mark.unchecked
def test_table_against_random_search_with_spglib():
    """What random assignments realise the table allows; what it forbids none of them realises."""
    rng = np.random.default_rng(4)
    fits = fit_patterns(patterns())
    for number in rng.choice(np.arange(1, 231), 40, replace=False).tolist():
        pack = letter_packing(number, 20)
        for wanted in (True, False):
            rows = np.flatnonzero(fits[number - 1] & (REALISABLE[number - 1] == wanted))
            for row in rows[rng.permutation(len(rows))[:2]].tolist():
                counts = tuple(int(c) for c in patterns()[row] if c)
                drawn = [pack.sample(counts, rng) for _ in range(40 if wanted else 8)]
                hits = [
                    spglib_dataset(number, d, rng).number == number
                    for d in drawn
                    if wanted is False or is_exact(number, d)
                ]
                assert all(hits) if wanted else not any(hits), (number, counts)
