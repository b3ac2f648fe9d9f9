"""All assignments of Wyckoff letters, equivalent ones once."""

import itertools

import numpy as np
import pytest

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.enumeration import _pairs, assignments, representative
from crystalgfn.crystallography.normalizer import letter_permutations
from crystalgfn.crystallography.supergroups import is_exact


def brute_force(number, counts):
    """Representatives of all exact assignments, by going through all multisets of letters for each element."""
    positions = {p.letter: p for p in space_groups.WYCKOFF[number - 1]}
    ways = []
    for count in counts:
        found = [
            letters
            for n in range(1, count + 1)
            for letters in itertools.combinations_with_replacement(positions, n)
            if sum(positions[f].primitive_multiplicity for f in letters) == count
        ]
        ways.append(found)
    kept = set()
    for letters in itertools.product(*ways):
        fixed = [f for element in letters for f in element if not positions[f].free]
        if len(fixed) == len(set(fixed)) and is_exact(number, tuple(sorted(letters))):
            kept.add(representative(number, letters))
    return kept


@pytest.mark.parametrize(
    ("number", "counts"),
    [(225, (1, 1)), (225, (1, 1, 2)), (221, (1, 1, 3)), (62, (4, 4)), (12, (1, 2, 2)), (2, (2, 3)), (166, (1, 2, 3))],
)
def test_agrees_with_brute_force(number, counts):
    found, whole = assignments(number, counts)
    assert whole and len(found) == len(set(found))
    assert set(found) == brute_force(number, counts)


def test_equivalent_choices_have_one_representative():
    for number in (2, 47, 62, 123, 166, 221, 227):
        letters = [p.letter for p in space_groups.WYCKOFF[number - 1]]
        choice = [letters[:1], letters[1:3]]
        all_of = {
            representative(number, [[new[f] for f in element] for element in choice])
            for new in letter_permutations(number)
        }
        assert len(all_of) == 1


def test_rock_salt_has_one_assignment_and_elements_with_equal_counts_are_told_apart():
    assert assignments(225, (1, 1)) == ([(("a",), ("b",))], True)
    heusler, _ = assignments(225, (1, 1, 2))
    assert ((("a",), ("b",), ("c",)) in heusler) and len(heusler) == len(set(heusler))
    # in the half-Heusler structure it matters which of the three is on the body diagonal's middle
    assert len(assignments(216, (1, 1, 1))[0]) == 3


def test_the_cap_keeps_what_is_preferred():
    found, whole = assignments(47, (2, 2, 4), cap=20, prefer=lambda element, letter: float(letter == "q"))
    assert not whole and len(found) <= 20
    best = max(sum(f == "q" for element in letters for f in element) for letters in found)
    assert sum(f == "q" for element in found[0] for f in element) == best


@pytest.mark.parametrize(("n", "m", "cap"), [(700, 900, 5), (1, 2000, 3), (3000, 2, 4), (40, 50, 100)])
def test_the_largest_sums_of_two_lists_are_among_the_pairs(n, m, cap):
    rng = np.random.default_rng(n)
    one, other = (-np.sort(-rng.random(length)) for length in (n, m))
    i, j = _pairs(n, m, cap)
    assert len(set(zip(i.tolist(), j.tolist(), strict=True))) == len(i)
    found, every = np.sort(one[i] + other[j])[::-1], np.sort((one[:, None] + other).ravel())[::-1]
    assert np.array_equal(found[: 12 * cap], every[: 12 * cap])
    assert n * m > 60 * cap or len(i) == n * m
