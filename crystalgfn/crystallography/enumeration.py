"""Every way to lay the atoms of a crystal on Wyckoff positions that gives exactly its group, equivalent ones once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

import numpy as np

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.assignments import LetterPacking, Letters, letter_packing
from crystalgfn.crystallography.normalizer import letter_permutations
from crystalgfn.crystallography.supergroups import is_exact

CAP = 512
"""Assignments looked at, the best first."""
OPTIONS = 4000
"""Ways to lay one element that are looked at, at most."""
BREADTH = 12
"""Partial assignments kept are so many times the cap, as equivalent and inexact ones drop out later."""
ALL, LARGEST = 60, 15
"""Pairs of a partial assignment and an element's option are all looked at up to so many times the cap; where there are
more, at least so many times the cap with the largest sums."""
Choice = tuple[tuple[str, tuple[str, ...]], ...]
"""Element symbols with their letters."""
Preference = Callable[[int, str], float]
"""(element, letter) -> how well one orbit suits; sums of these say which assignments are looked at first."""


@cache
def _tables(space_group: int) -> tuple[dict[str, int], np.ndarray]:
    """Rank of each letter, and the permutations of ranks that lead to equivalent assignments, [n, letters]."""
    rank = {p.letter: i for i, p in enumerate(space_groups.WYCKOFF[space_group - 1])}
    renamed = [[rank[new] for new in one.values()] for one in letter_permutations(space_group)]
    return rank, np.array(renamed, dtype=np.int64)


def representative(space_group: int, letters: Sequence[Sequence[str]]) -> Letters:
    """The first, in alphabetical order, of the equivalent choices of letters for the elements."""
    rank, permutations = _tables(space_group)
    names = [p.letter for p in space_groups.WYCKOFF[space_group - 1]]
    ranked = [[rank[f] for f in element] for element in letters]
    best = min(tuple(tuple(sorted(new[i] for i in element)) for element in ranked) for new in permutations.tolist())
    return tuple(tuple(names[i] for i in element) for element in best)


def choice_of(space_group: int, letters: Mapping[str, Sequence[str]]) -> Choice:
    """The same for letters by element symbol, elements in alphabetical order."""
    symbols = sorted(letters)
    return tuple(zip(symbols, representative(space_group, [letters[symbol] for symbol in symbols]), strict=True))


def assignments(
    space_group: int, counts: Sequence[int], cap: int = CAP, prefer: Preference | None = None
) -> tuple[list[Letters], bool]:
    """Assignments that hold the counts and give exactly the group, and whether these are all there are.

    Of equivalent choices (`representative`) there is one. Where there are more than the cap, those with the highest
    preference are looked at: of an element (its place in ``counts``, atoms per primitive cell in any order) for a
    letter; None: for positions with more free parameters.
    """
    if prefer is None:
        free = {p.letter: float(np.log1p(p.n_free)) for p in space_groups.WYCKOFF[space_group - 1]}
        prefer = lambda _, letter: free[letter]  # noqa: E731
    best_first, whole = _best_first(space_group, counts, cap, prefer)
    found: dict[Letters, None] = {}
    for letters in best_first:
        if len(found) == cap:
            return list(found), False
        one = representative(space_group, letters)
        if one not in found and is_exact(space_group, tuple(sorted(one))):
            found[one] = None
    return list(found), whole


def _best_first(
    space_group: int, counts: Sequence[int], cap: int, prefer: Preference
) -> tuple[Iterator[Letters], bool]:
    """Assignments by falling sums of preferences, and whether these are all."""
    pack = letter_packing(space_group, max(counts))
    order = sorted(range(len(counts)), key=lambda e: counts[e])
    scores, used, chosen = np.zeros(1), np.zeros(1, dtype=np.int64), np.zeros((1, 0), dtype=np.int64)
    options: dict[int, list[tuple[str, ...]]] = {}
    whole = True
    for e in order:
        options[e], summed, taken = _options(pack, counts[e], lambda letter, e=e: prefer(e, letter))
        i, j = _pairs(len(scores), len(summed), cap)
        whole &= len(summed) <= OPTIONS and len(i) == len(scores) * len(summed)
        free = (used[i] & taken[j]) == 0
        i, j = i[free], j[free]
        both = scores[i] + summed[j]
        whole &= len(both) <= BREADTH * cap
        kept = np.argsort(-both, kind="stable")[: BREADTH * cap]
        i, j = i[kept], j[kept]
        scores, used, chosen = both[kept], used[i] | taken[j], np.concatenate([chosen[i], j[:, None]], axis=1)
    place = [order.index(e) for e in range(len(counts))]
    return (tuple(options[e][row[at]] for e, at in enumerate(place)) for row in chosen.tolist()), whole


def _options(
    pack: LetterPacking, count: int, prefer: Callable[[str], float]
) -> tuple[list[tuple[str, ...]], np.ndarray, np.ndarray]:
    """Ways to lay one element by falling sums of preferences, the sums, and the fixed positions of each as bits."""
    drawn = list(itertools.islice(pack.of_element(count, frozenset()), OPTIONS + 1))
    value = {f: prefer(f) for f in set().union(*drawn)}
    summed = np.array([sum(value[f] for f in letters) for letters in drawn])
    ranked = np.argsort(-summed, kind="stable")
    options = [drawn[k] for k in ranked]
    bit = {f: 1 << i for i, (f, _) in enumerate(pack.fixed)}
    taken = np.array([sum(bit.get(f, 0) for f in letters) for letters in options], dtype=np.int64)
    return options, summed[ranked], taken


def _pairs(n: int, m: int, cap: int) -> tuple[np.ndarray, np.ndarray]:
    """Places in two falling lists whose sums may be among the largest; all where these are not too many.

    The pair (i, j) has (i + 1) (j + 1) - 1 others with no smaller sum.
    """
    if n * m <= ALL * cap:
        i, j = np.indices((n, m)).reshape(2, -1)
        return i, j
    widths = np.minimum(m, LARGEST * cap // np.arange(1, n + 1))
    i = np.repeat(np.arange(n), widths)
    return i, np.arange(len(i)) - np.repeat(np.cumsum(widths) - widths, widths)
