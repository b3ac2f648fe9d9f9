"""Assignments of Wyckoff letters."""

import numpy as np
import pytest

from crystalgfn.crystallography.assignments import check_assignment, exact, sample_assignments
from crystalgfn.crystallography.orbits import wyckoff_position
from crystalgfn.crystallography.realizable import REALISABLE, patterns
from crystalgfn.errors import PlacementError


@pytest.mark.unchecked
def test_every_realisable_pair_has_an_assignment():
    """A sample of the table: letters hold the counts, fixed positions come once, the group is exact."""
    rng = np.random.default_rng(0)
    pairs = np.argwhere(REALISABLE)
    for group, row in pairs[rng.choice(len(pairs), 400, replace=False)].tolist():
        counts = {f"{i}": int(c) for i, c in enumerate(patterns()[row]) if c}
        found = sample_assignments(group + 1, counts, 3, rng)
        assert found, (group + 1, counts)
        for assignment in found:
            assert exact(group + 1, assignment)
            positions = [wyckoff_position(group + 1, f) for e in assignment.values() for f in e]
            fixed = [p.letter for p in positions if not p.free]
            assert len(fixed) == len(set(fixed))
            for element, count in counts.items():
                held = [wyckoff_position(group + 1, f).primitive_multiplicity for f in assignment[element]]
                assert sum(held) == count


def test_assignments_differ_and_repeat_with_the_seed():
    counts = {"O": 6, "Ti": 2, "Ba": 2}
    drawn = sample_assignments(62, {s: 2 * n for s, n in counts.items()}, 5, np.random.default_rng(1))
    again = sample_assignments(62, {s: 2 * n for s, n in counts.items()}, 5, np.random.default_rng(1))
    assert drawn == again and len(drawn) == 5
    assert len({tuple(sorted(a.items())) for a in drawn}) == 5


def test_no_assignment():
    assert sample_assignments(225, {"Na": 1, "Cl": 1, "O": 1}, 3, np.random.default_rng(0)) == []
    assert sample_assignments(195, {"Na": 1, "Cl": 3}, 3, np.random.default_rng(0)) == []


def test_rock_salt_letters():
    assert check_assignment(225, {"Na": 1, "Cl": 1}, {"Cl": ["b"], "Na": ["a"]}) == {"Na": ("a",), "Cl": ("b",)}


@pytest.mark.parametrize(
    ("number", "counts", "letters", "message"),
    [
        (225, {"Na": 1, "Cl": 1}, {"Na": ["a"]}, "letters are given for Na, but the crystal has Cl, Na"),
        (225, {"Na": 1, "Cl": 1}, {"Na": ["a"], "Cl": ["a"]}, "only one orbit can be there"),
        (225, {"Na": 1, "Cl": 1}, {"Na": ["a"], "Cl": ["q"]}, "has no Wyckoff position 'q'"),
        (225, {"Na": 1, "Cl": 1}, {"Na": ["a"], "Cl": ["c"]}, "of Cl hold 2 atoms .* but the crystal has 1"),
        (195, {"Na": 1, "Cl": 1}, {"Na": ["a"], "Cl": ["b"]}, "have a larger group than space group 195"),
    ],
)
def test_bad_letters(number, counts, letters, message):
    with pytest.raises(PlacementError, match=message):
        check_assignment(number, counts, letters)
