"""Exact packing and enumeration of letters against slow brute force."""

import itertools
from collections import Counter
from functools import cache

import numpy as np
import pytest

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.assignments import letter_packing
from crystalgfn.crystallography.realizable import fit_patterns, packing, patterns, signature


def brute_force_fit(space_group, counts):
    """Whether counts fit, by recursion over elements and letters one by one."""
    positions = space_groups.WYCKOFF[space_group - 1]

    @cache
    def place(counts, used):
        if not counts:
            return True
        if counts[0] == 0:
            return place(counts[1:], used)
        for p in positions:
            if p.primitive_multiplicity <= counts[0] and (p.free or p.letter not in used):
                rest = (counts[0] - p.primitive_multiplicity, *counts[1:])
                if place(rest, used if p.free else used | {p.letter}):
                    return True
        return False

    return place(tuple(counts), frozenset())


def test_signatures_and_states():
    assert len({signature(n) for n in range(1, 231)}) == 112
    assert max(len(packing(n, 20).states) for n in range(1, 231)) == 27
    assert signature(225).fixed == ((1, 2), (2, 1), (6, 1))  # Fm-3m: a, b; c; d


def test_fit_agrees_with_brute_force():
    rng = np.random.default_rng(0)
    table = patterns()
    for number in [195, 198, 199, 205, 214, 219, 220, 223, 225, 227, 230, 62, 82, 98, 166, 180, 194, 1, 2]:
        rows = table[rng.choice(len(table), 40, replace=False)]
        fits = fit_patterns(rows)[number - 1]
        assert fits.tolist() == [brute_force_fit(number, row) for row in rows.tolist()], number


def test_fit_of_large_counts_and_any_order():
    assert fit_patterns(np.array([[4, 4, 16, 4]]))[61, 0]  # olivine LiFePO4 in Pnma
    assert not fit_patterns(np.array([[3, 1, 0]]))[61, 0]
    assert fit_patterns(np.array([[80, 0], [79, 1]]))[0].all()
    many = np.sort(np.random.default_rng(0).integers(0, 41, (2000, 2)), axis=1)
    assert (fit_patterns(many) == fit_patterns(many[:, ::-1])).all()
    with pytest.raises(ValueError, match="non-negative"):
        fit_patterns(np.array([[3, -1]]))


def test_sampled_letters_pack_exactly():
    rng = np.random.default_rng(1)
    for number, counts in [(225, (6, 2, 1)), (62, (4, 4, 8, 8)), (166, (1, 1, 2)), (195, (3, 3, 1, 1)), (47, (5, 3))]:
        pack = letter_packing(number, 20)
        for _ in range(30):
            letters = pack.sample(counts, rng)
            assert tuple(sum(pack.multiplicity[f] for f in e) for e in letters) == counts
            used = Counter(f for e in letters for f in e)
            assert all(used[f] <= 1 for f, _ in pack.fixed)
            state = pack.packing.states[pack.state(letters)]
            held = Counter(m for f, m in pack.fixed if used[f])
            assert {m: n for m, n in zip(pack.packing.multiplicities.tolist(), state, strict=True) if n} == held
    assert letter_packing(225, 20).sample((1, 1, 1), rng) is None  # only a and b hold one atom


def test_enumeration_is_complete():
    rng = np.random.default_rng(2)
    for number, counts in [(195, (3, 1, 1)), (225, (2, 1, 1)), (99, (2, 1)), (166, (3, 3)), (2, (2, 2))]:
        pack = letter_packing(number, 20)
        found = list(pack.enumerate(counts))
        assert len(found) == len(set(found))
        up_to_exchange = {tuple(sorted(zip(counts, letters, strict=True))) for letters in found}
        for _ in range(300):
            letters = pack.sample(counts, rng)
            assert tuple(sorted(zip(counts, letters, strict=True))) in up_to_exchange
    pairs = set(letter_packing(2, 20).enumerate((1, 1)))  # the 8 inversion centres of P-1, two at a time
    assert pairs == {((a,), (b,)) for a, b in itertools.combinations("abcdefgh", 2)}
