"""Which compositions can be: count patterns, and for each partial composition the charges that can still be balanced.

A composition is drawn in two parts. First its *pattern*, the non-increasing list of counts, one count at a time
along a trie. Then the counts are handed to elements that follow each other in one fixed order: at each step a pair
(element, count) with the element after the last one and the count among those left. So every composition is reached
by exactly one sequence, and what is left to do depends only on the position in the order of the elements, the
multiset of counts left and the set of charges reached. For each position and multiset the charges that can still be
balanced are tabulated once, going through the elements from the last to the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crystalgfn.space.charge import ChargeRule, add_charges, charge_vector

WORD = 63  # bits of an int64 that are used, so that no value is negative


@dataclass(frozen=True)
class CompositionRules:
    """What limits the compositions; ``units`` holds, in formula mode, {element position: atoms per formula unit}."""

    zs: tuple[int, ...]
    required: frozenset[int]
    metal: tuple[bool, ...]
    charge: ChargeRule
    n_elements: tuple[int, int]
    atoms_per_element: tuple[int, int]
    n_atoms: tuple[int, int]
    units: tuple[int, ...] | None = None


@dataclass(frozen=True)
class CompositionTables:
    """Look-up tables for the moves of a composition; numpy arrays.

    Attributes:
        patterns: [P, K] non-increasing counts, zero-padded; ordered by the number of elements, then lexicographically.
        pattern_child: [T, C + 1] the node of the trie after one more count, -1 where there is none; node 0 is empty.
        pattern_low, pattern_high: [T, K + 1] the range of patterns with k elements below a node.
        leftover: [P] the multiset of a whole pattern.
        slot_count, slot_next: [M, S] the different counts of a multiset and the multiset without one of them; 0, -1.
        first: [P, S, E] whether a pattern may begin with the count of slot s on element e.
        finish: int64 [M, S, E, 2, words] packed charge states from which (slot s on element e) can be finished:
            charges reached without and with a split element; the bit behind the last charge of the second row stands
            for "metals only so far".
        plain, split: int64 [F, C + 1, 1 + S] the number of charges that a count of an element can add (without and by
            a split), then these charges, zero-padded.
        after: [E + 1, E] which elements may follow element e - 1 (row 0: nothing yet): later ones, and none beyond the
            next required one.
        family: [E] the row of plain and split of each element.
        metal: [E].
        half_width: charges run from -half_width to half_width; W = 2 half_width + 1.
    """

    patterns: np.ndarray
    pattern_child: np.ndarray
    pattern_low: np.ndarray
    pattern_high: np.ndarray
    leftover: np.ndarray
    slot_count: np.ndarray
    slot_next: np.ndarray
    first: np.ndarray
    finish: np.ndarray
    plain: np.ndarray
    split: np.ndarray
    after: np.ndarray
    family: np.ndarray
    metal: np.ndarray
    half_width: int

    @property
    def n_elements(self) -> np.ndarray:
        """Elements of each pattern, [P]."""
        return (self.patterns > 0).sum(1)

    @property
    def n_atoms(self) -> np.ndarray:
        """Atoms of each pattern, [P]."""
        return self.patterns.sum(1)


def pack(bits: np.ndarray) -> np.ndarray:
    """Boolean [..., N] -> int64 [..., ceil(N / 63)]."""
    n_words = -(-bits.shape[-1] // WORD)
    padded = np.zeros((*bits.shape[:-1], n_words * WORD), dtype=bool)
    padded[..., : bits.shape[-1]] = bits
    weights = np.int64(1) << np.arange(WORD, dtype=np.int64)
    return (padded.reshape(*bits.shape[:-1], n_words, WORD) * weights).sum(-1)


def enumerate_patterns(k: int, low: int, high: int, n_low: int, n_high: int) -> np.ndarray:
    """All non-increasing lists of k counts in [low, high] with sum in [n_low, n_high], lexicographic, [P, k]."""
    rows = np.zeros((1, 0), dtype=np.int16)
    for left in range(k - 1, -1, -1):
        total = rows.sum(1, dtype=np.int64) if rows.shape[1] else np.zeros(len(rows), dtype=np.int64)
        upper = np.minimum(rows[:, -1] if rows.shape[1] else high, n_high - total - left * low)
        upper = np.minimum(np.broadcast_to(upper, total.shape), high)
        lower = np.maximum(low, -(-(n_low - total) // (left + 1)))
        size = np.clip(upper - lower + 1, 0, None)
        parent = np.repeat(np.arange(len(rows)), size)
        offset = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        rows = np.concatenate([rows[parent], (lower[parent] + offset)[:, None].astype(np.int16)], axis=1)
    return rows


class _Multisets:
    """Multisets of counts left (with the number of formula units as a tag), found by their contents."""

    def __init__(self) -> None:
        self.index: dict[tuple[int, ...], int] = {}
        self.rows: list[tuple[int, ...]] = []

    def add(self, key: tuple[int, ...]) -> int:
        found = self.index.get(key)
        if found is None:
            found = self.index[key] = len(self.rows)
            self.rows.append(key)
        return found


def build(rules: CompositionRules) -> CompositionTables:
    """The tables of a set of rules; patterns that no neutral composition has keep an all-False ``first``."""
    k_max = rules.n_elements[1]
    patterns, tags = _patterns(rules)
    padded = np.zeros((len(patterns), k_max), dtype=np.int64)
    for i, row in enumerate(patterns):
        padded[i, : len(row)] = row
    child, low, high = _trie(padded)

    # multisets: those that remain after at least one move have a table of charges, whole patterns only `first`
    sets = _Multisets()
    frontier = {
        (tag, *row[:i], *row[i + 1 :]) for row, tag in zip(patterns, tags, strict=True) for i in range(len(row))
    }
    while frontier:
        for key in sorted(frontier):
            sets.add(key)
        frontier = {(k[0], *k[1:][:i], *k[1:][i + 1 :]) for k in frontier for i in range(len(k) - 1)} - set(sets.index)
    n_small = len(sets.rows)
    leftover = np.array([sets.add((tag, *row)) for row, tag in zip(patterns, tags, strict=True)], dtype=np.int64)
    slot_count, slot_next = _slots(sets, k_max)
    after = _after(rules)
    first, finish, half_width = _charges(rules, sets, n_small, slot_count, slot_next, leftover)
    first &= after[0]
    families: dict[tuple, int] = {}
    family = np.array([families.setdefault(_family_key(rules, z), len(families)) for z in rules.zs], dtype=np.int64)
    c_max = int(padded.max(initial=1))
    representative = [rules.zs[list(family).index(f)] for f in range(len(families))]
    plain = _charge_lists(rules.charge.plain, representative, c_max, half_width)
    split = _charge_lists(rules.charge.split, representative, c_max, half_width)
    return CompositionTables(
        padded, child, low, high, leftover, slot_count, slot_next, first, finish,
        plain, split, after, family, np.array(rules.metal), half_width,
    )  # fmt: skip


def _charge_lists(
    kind: Callable[[int, int], tuple[int, ...]], zs: list[int], c_max: int, half_width: int
) -> np.ndarray:
    """Charges of 0 to c_max atoms of each element that lie within reach of neutral, [F, C + 1, 1 + S]."""
    lists = [[[q for q in kind(z, c) if abs(q) <= 2 * half_width] if c else [] for c in range(c_max + 1)] for z in zs]
    longest = max(len(charges) for row in lists for charges in row)
    return np.array([[[len(q), *q] + [0] * (longest - len(q)) for q in row] for row in lists], dtype=np.int64)


def _after(rules: CompositionRules) -> np.ndarray:
    n = len(rules.zs)
    after = np.zeros((n + 1, n), dtype=bool)
    for last in range(-1, n):
        stop = min((e for e in rules.required if e > last), default=n - 1)
        after[last + 1, last + 1 : stop + 1] = True
    return after


def _behind(bits: np.ndarray, last: np.ndarray | None = None) -> np.ndarray:
    """Boolean [..., W] -> [..., W + 1] with one more bit at the end."""
    last = np.zeros(bits.shape[:-1], dtype=bool) if last is None else last
    return np.concatenate([bits, last[..., None]], axis=-1)


def _family_key(rules: CompositionRules, z: int) -> tuple:
    return () if rules.charge.states is None else rules.charge.states[z - 1]


def _patterns(rules: CompositionRules) -> tuple[list[tuple[int, ...]], list[int]]:
    (k_low, k_high), (low, high), (n_low, n_high) = rules.n_elements, rules.atoms_per_element, rules.n_atoms
    if rules.units is not None:
        k = len(rules.units)
        found = {}
        for units in range(1, n_high // sum(rules.units) + 1):
            row = tuple(sorted((units * u for u in rules.units), reverse=True))
            if k_low <= k <= k_high and sum(row) >= n_low and row[0] <= high and row[-1] >= low:
                found[row] = units
        rows = sorted(found)
        return rows, [found[row] for row in rows]
    rows = []
    for k in range(k_low, min(k_high, len(rules.zs)) + 1):
        rows += [tuple(int(c) for c in row) for row in enumerate_patterns(k, low, high, n_low, n_high)]
    return rows, [0] * len(rows)


def _trie(patterns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Children [T, C + 1] and ranges of patterns [T, K + 1] of all prefixes."""
    c_max, k_max = int(patterns.max(initial=1)), patterns.shape[1]
    length = (patterns > 0).sum(1)
    ids: dict[tuple[int, ...], int] = {(): 0}
    child: list[np.ndarray] = [np.full(c_max + 1, -1, dtype=np.int64)]
    low: list[np.ndarray] = [np.zeros(k_max + 1, dtype=np.int64)]
    high: list[np.ndarray] = [np.zeros(k_max + 1, dtype=np.int64)]
    for p, row in enumerate(patterns.tolist()):
        k = int(length[p])
        node = 0
        for depth in range(k + 1):
            if high[node][k] == 0:
                low[node][k] = p
            high[node][k] = p + 1
            if depth == k:
                break
            prefix = tuple(row[: depth + 1])
            if prefix not in ids:
                ids[prefix] = len(child)
                child[node][row[depth]] = ids[prefix]
                child.append(np.full(c_max + 1, -1, dtype=np.int64))
                low.append(np.zeros(k_max + 1, dtype=np.int64))
                high.append(np.zeros(k_max + 1, dtype=np.int64))
            node = ids[prefix]
    return np.stack(child), np.stack(low), np.stack(high)


def _slots(sets: _Multisets, k_max: int) -> tuple[np.ndarray, np.ndarray]:
    count = np.zeros((len(sets.rows), k_max), dtype=np.int64)
    following = np.full((len(sets.rows), k_max), -1, dtype=np.int64)
    for m, (tag, *row) in enumerate(sets.rows):
        for slot, c in enumerate(sorted(set(row), reverse=True)):
            rest = list(row)
            rest.remove(c)
            count[m, slot] = c
            following[m, slot] = sets.index[(tag, *rest)]
    return count, following


def _charges(
    rules: CompositionRules,
    sets: _Multisets,
    n_small: int,
    slot_count: np.ndarray,
    slot_next: np.ndarray,
    leftover: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, int]:
    """``first``, ``finish`` and the half width: the recursion over the elements from the last to the first."""
    half = rules.charge.half_width(rules.zs, rules.n_atoms[1])
    width, n_el, n_slots = 2 * half + 1, len(rules.zs), slot_count.shape[1]
    tag = np.array([row[0] for row in sets.rows], dtype=np.int64)
    size = np.array([len(row) - 1 for row in sets.rows])
    pairs = {
        c: np.nonzero(slot_count == c) for c in range(1, int(slot_count.max(initial=0)) + 1) if (slot_count == c).any()
    }
    root_rows = np.full(len(sets.rows), -1)
    root_rows[leftover] = np.arange(len(leftover))
    first = np.zeros((len(leftover), n_slots, n_el), dtype=bool)
    finish = np.zeros((n_small, n_slots, n_el, 2, -(-(width + 1) // WORD)), dtype=np.int64)

    whole = np.zeros((n_small, width), dtype=bool)  # charges that the elements from here on can have, no split
    mixed = np.zeros((n_small, width), dtype=bool)  # the same with one element split
    metals = np.zeros(n_small, dtype=bool)  # can be finished with metals only
    empty = size[:n_small] == 0
    whole[empty, half] = True
    metals[empty] = True
    for e in range(n_el - 1, -1, -1):
        new_whole, new_mixed, new_metals = (
            (np.zeros_like(whole), np.zeros_like(mixed), np.zeros_like(metals))
            if e in rules.required
            else (whole.copy(), mixed.copy(), metals.copy())
        )
        for c, (rows, slots) in pairs.items():
            if rules.units is not None:
                keep = c == tag[rows] * rules.units[e]
                rows, slots = rows[keep], slots[keep]
            if not len(rows):
                continue
            rest = slot_next[rows, slots]
            plain, split = rules.charge.plain(rules.zs[e], c), rules.charge.split(rules.zs[e], c)
            unique, inverse = np.unique(rest, return_inverse=True)
            before = whole[unique]
            one = add_charges(before, plain)
            two = add_charges(mixed[unique], plain) | add_charges(before, split)
            metal = metals[unique] & rules.metal[e]
            one, two, metal = one[inverse], two[inverse], metal[inverse]
            small = rows < n_small
            r, s = rows[small], slots[small]
            new_whole[r] |= one[small]  # a multiset has one slot a count: rows are unique
            new_mixed[r] |= two[small]
            new_metals[r] |= metal[small]
            any_ = (one | two)[small]
            finish[r, s, e, 0] = pack(_behind(any_[:, ::-1]))
            finish[r, s, e, 1] = pack(_behind(one[small][:, ::-1], metal[small]))
            root = root_rows[rows]
            at = root >= 0
            start = (one | two)[at][:, half] | (metal[at] & rules.charge.alloys)
            if rules.charge.states is None:
                start = one[at][:, half]
            single = size[rows[at]] == 1  # a pure element counts as neutral
            start |= single & (rules.required <= {e})
            first[root[at], slots[at], e] = start
        whole, mixed, metals = new_whole, new_mixed, new_metals
    return first, finish, half


def initial_charge(half_width: int, alloys: bool) -> np.ndarray:
    """The packed charge state before any element: charge 0, no split; and, with alloys, metals only. [2, words]."""
    whole = _behind(charge_vector((0,), half_width))
    mixed = _behind(np.zeros(2 * half_width + 1, dtype=bool), np.array(alloys))
    return pack(np.stack([whole, mixed]))
