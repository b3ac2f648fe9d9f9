"""Every way to lay the atoms of a crystal on Wyckoff positions that gives exactly its group, equivalent ones once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np

from crystalgfn.structures.normaliser import letter_permutations
from crystalgfn.tables import groups
from crystalgfn.tables.exactness import is_exact
from crystalgfn.tables.letters import Letters, letter_packing

CAP = 512
"""Assignments looked at, the best first."""
OPTIONS = 4000
"""Ways to lay one element that are looked at, at most."""
BREADTH = 3
"""Partial assignments kept are so many times the cap, as equivalent and inexact ones drop out later."""
Preference = Callable[[int, str], float]
"""(element, letter) -> how well one orbit suits; sums of these say which assignments are looked at first."""


@cache
def _tables(space_group: int) -> tuple[dict[str, int], np.ndarray]:
    """Rank of each letter, and the permutations of ranks that lead to equivalent assignments, [n, letters]."""
    rank = {p.letter: i for i, p in enumerate(groups.WYCKOFF[space_group - 1])}
    renamed = [[rank[new] for new in one.values()] for one in letter_permutations(space_group)]
    return rank, np.array(renamed, dtype=np.int64)


def representative(space_group: int, letters: Sequence[Sequence[str]]) -> Letters:
    """The first, in alphabetical order, of the equivalent choices of letters for the elements."""
    rank, permutations = _tables(space_group)
    names = [p.letter for p in groups.WYCKOFF[space_group - 1]]
    ranked = [[rank[f] for f in element] for element in letters]
    best = min(tuple(tuple(sorted(new[i] for i in element)) for element in ranked) for new in permutations.tolist())
    return tuple(tuple(names[i] for i in element) for element in best)


def assignments(
    space_group: int, counts: Sequence[int], cap: int = CAP, prefer: Preference | None = None
) -> tuple[list[Letters], bool]:
    """Assignments that hold the counts and give exactly the group, and whether these are all there are.

    Of equivalent choices (`representative`) there is one. Where there are more than the cap, those with the highest
    preference are looked at.

    Args:
        space_group: 1-230.
        counts: atoms of each element per primitive cell, in any order.
        cap: at most so many.
        prefer: of an element (its place in ``counts``) for a letter; None: for positions with more free parameters.
    """
    if prefer is None:
        free = {p.letter: float(np.log1p(p.n_free)) for p in groups.WYCKOFF[space_group - 1]}
        prefer = lambda _, letter: free[letter]  # noqa: E731
    partial, whole = _partial(space_group, counts, cap, prefer)
    found: dict[Letters, None] = {}
    for _, _, letters in partial:
        if len(found) == cap:
            return list(found), False
        one = representative(space_group, letters)
        if one not in found and is_exact(space_group, tuple(sorted(one))):
            found[one] = None
    return list(found), whole


_Partial = tuple[float, frozenset[str], Letters]


def _partial(space_group: int, counts: Sequence[int], cap: int, prefer: Preference) -> tuple[list[_Partial], bool]:
    """Assignments with their sums of preferences, the best first, in the order of the elements given."""
    pack = letter_packing(space_group, max(counts))
    fixed = frozenset(f for f, _ in pack.fixed)
    order = sorted(range(len(counts)), key=lambda e: counts[e])
    options, whole = {}, True
    for e in order:
        drawn = list(itertools.islice(pack._element(counts[e], frozenset()), OPTIONS + 1))
        whole &= len(drawn) <= OPTIONS
        weighed = [(sum(prefer(e, f) for f in letters), fixed.intersection(letters), letters) for letters in drawn]
        options[e] = sorted(weighed, key=lambda option: -option[0])
    partial: list[tuple[float, frozenset[str], dict[int, tuple[str, ...]]]] = [(0.0, frozenset(), {})]
    for e in order:
        longer = list(itertools.islice(_extended(partial, options[e], e), 60 * cap))
        whole &= len(longer) < 60 * cap
        longer.sort(key=lambda p: -p[0])
        whole &= len(longer) <= BREADTH * cap * 4
        partial = longer[: BREADTH * cap * 4]
    return [(s, u, tuple(chosen[e] for e in range(len(counts)))) for s, u, chosen in partial], whole


def _extended(
    partial: list[tuple[float, frozenset[str], dict[int, tuple[str, ...]]]],
    options: list[tuple[float, frozenset[str], tuple[str, ...]]],
    element: int,
) -> Iterator[tuple[float, frozenset[str], dict[int, tuple[str, ...]]]]:
    """Partial assignments with one more element, roughly the best first."""
    for step in range(len(partial) + len(options) - 1):  # along diagonals of the table of both
        for i in range(max(0, step - len(options) + 1), min(step + 1, len(partial))):
            score, used, chosen = partial[i]
            more, taken, letters = options[step - i]
            if not used & taken:
                yield score + more, used | taken, {**chosen, element: letters}
