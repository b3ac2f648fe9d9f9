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

from crystalgfn.space.automata import Automaton, StateTable, state_table
from crystalgfn.space.charge import ChargeRule, balanced, holds, pack
from crystalgfn.space.patterns import _slots, trie

TOGETHER = 8
"""Elements whose tables are written together."""


@dataclass(frozen=True, kw_only=True)
class CompositionRules:
    """What limits the compositions; elements are named by their position in ``zs``.

    Attributes:
        zs: atomic numbers in the order in which they are drawn.
        required: positions that every composition has.
        metal: whether each element is a metal.
        charge: the rule of neutrality.
        n_elements, atoms_per_element, n_atoms: lowest and highest.
        patterns: the count patterns that may be, non-increasing; None: all within the limits.
        automata: further rules.
    """

    zs: tuple[int, ...]
    required: frozenset[int]
    metal: tuple[bool, ...]
    charge: ChargeRule
    n_elements: tuple[int, int]
    atoms_per_element: tuple[int, int]
    n_atoms: tuple[int, int]
    patterns: tuple[tuple[int, ...], ...] | None = None
    automata: tuple[Automaton, ...] = ()


@dataclass(frozen=True)
class AutomatonTables:
    """How the states of automata go with multisets.

    Attributes:
        step: int64 [Q, E, C + 1] the state after a count of an element, -1 where it is refused.
        state: [M] that each multiset stands for; 0, the start, for whole patterns.
        accept: bool [Q] whether a composition may end in a state.
        place: [Q, B] the multiset that stands for a state and one of the first B multisets, whose state is 0; -1.
    """

    step: np.ndarray
    state: np.ndarray
    accept: np.ndarray
    place: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class CompositionTables:
    """Look-up tables for the moves of a composition; numpy arrays.

    Attributes:
        patterns: [P, K] non-increasing counts, zero-padded; ordered by the number of elements, then lexicographically.
        pattern_child: [T, C + 1] the node of the trie after one more count, -1 where there is none; node 0 is empty.
        pattern_low, pattern_high: [T, K + 1] the range of patterns with k elements below a node.
        leftover: [P] the multiset of a whole pattern.
        slot_count, slot_next: [M, S] the different counts of a multiset and the multiset without one of them; 0, -1.
            With automata a multiset stands for a state of theirs too, and `rest` says which follows.
        first: [P, S, E] whether a pattern may begin with the count of slot s on element e.
        finish: int64 [2, words, R, S - 1, E] packed charge states from which (slot s on element e) can be finished, of
            the R multisets that are left after a move: charges reached without and with a split element; the bit behind
            the last charge of the second stands for "metals only so far".
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
    automaton: AutomatonTables | None = None

    @property
    def n_elements(self) -> np.ndarray:
        """Elements of each pattern, [P]."""
        return (self.patterns > 0).sum(1)

    @property
    def n_atoms(self) -> np.ndarray:
        """Atoms of each pattern, [P]."""
        return self.patterns.sum(1)

    @property
    def n_left(self) -> int:
        """Multisets that are left after a move, R."""
        return self.finish.shape[2]


def composition_tables(rules: CompositionRules, padded: np.ndarray, c_max: int) -> CompositionTables:
    """The tables of a set of rules; patterns that no neutral composition has keep an all-False ``first``.

    Args:
        rules: on the compositions.
        padded: the patterns that may be, falling and filled up with zeros, [P, K].
        c_max: the largest count that has a place in the tables.
    """
    k_max = rules.n_elements[1]
    patterns = [tuple(count for count in row if count) for row in padded.tolist()]
    child, low, high = trie(padded, c_max)
    states = state_table(rules.automata, rules.zs, c_max) if rules.automata else None

    # those that remain after at least one move have a table of charges, whole patterns only `first`
    index = _remainders(patterns)
    n_base = n_small = len(index)
    leftover = np.array([index.setdefault(row, len(index)) for row in patterns], dtype=np.int64)
    slot_count, slot_next = _slots(index, k_max)
    automaton = None
    if states is not None:
        pairs = _reachable(states, slot_count, slot_next)
        automaton, which = _automaton(states, pairs, n_base, len(index))
        slot_count, slot_next = slot_count[which], slot_next[which]
        n_small += len(pairs)
        leftover = np.where(leftover < n_base, leftover, leftover + len(pairs))
    first, finish, half_width = _charges(rules, automaton, n_small, slot_count, slot_next, leftover)
    after = _after(rules)
    first &= after[0]
    families: dict[tuple, int] = {}
    states = rules.charge.states
    kinds = [((), ()) if states is None else (states[z - 1], rules.charge.pairs(z)) for z in rules.zs]
    family = np.array([families.setdefault(kind, len(families)) for kind in kinds], dtype=np.int64)
    representative = [rules.zs[list(family).index(f)] for f in range(len(families))]
    plain = _charge_lists(rules.charge.plain, representative, c_max, half_width)
    split = _charge_lists(rules.charge.split, representative, c_max, half_width)
    return CompositionTables(
        patterns=padded,
        pattern_child=child,
        pattern_low=low,
        pattern_high=high,
        leftover=leftover,
        slot_count=slot_count,
        slot_next=slot_next,
        first=first,
        finish=finish,
        plain=plain,
        split=split,
        after=after,
        family=family,
        metal=np.array(rules.metal),
        half_width=half_width,
        automaton=automaton,
    )


def _remainders(patterns: list[tuple[int, ...]]) -> dict[tuple[int, ...], int]:
    """The multisets that are left of patterns after one count or more is taken, with their numbers."""
    index: dict[tuple[int, ...], int] = {}
    frontier = {row[:i] + row[i + 1 :] for row in patterns for i in range(len(row))}
    while frontier:
        for key in sorted(frontier):
            index.setdefault(key, len(index))
        frontier = {row[:i] + row[i + 1 :] for row in frontier for i in range(len(row))} - set(index)
    return index


def _reachable(states: StateTable, slot_count: np.ndarray, slot_next: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of a state other than the start and a multiset that it can be left with, sorted."""
    follow = [
        [sorted({*states.step[q, :, c].tolist()} - {-1}) for c in range(states.step.shape[2])]
        for q in range(len(states.step))
    ]
    found: set[tuple[int, int]] = set()
    frontier = {(0, m) for m in range(len(slot_count))}
    while frontier:
        new = {
            (q, rest)
            for state, m in frontier
            for count, rest in zip(slot_count[m].tolist(), slot_next[m].tolist(), strict=True)
            if count > 0
            for q in follow[state][count]
            if q > 0
        }
        frontier = new - found
        found |= new
    return sorted(found)


def _automaton(
    states: StateTable, pairs: list[tuple[int, int]], n_base: int, n_sets: int
) -> tuple[AutomatonTables, np.ndarray]:
    """The tables of pairs, which stand between the first multisets and whole patterns; and the multiset of each."""
    place = np.full((len(states.step), n_base), -1, dtype=np.int64)
    place[0] = np.arange(n_base)
    for i, (q, m) in enumerate(pairs):
        place[q, m] = n_base + i
    which = np.concatenate([np.arange(n_base), [m for _, m in pairs], np.arange(n_base, n_sets)]).astype(np.int64)
    state = np.zeros(len(which), dtype=np.int64)
    state[n_base : n_base + len(pairs)] = [q for q, _ in pairs]
    return AutomatonTables(states.step, state, states.accept, place), which


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


def rest_of(table: AutomatonTables | None, left: np.ndarray, following: np.ndarray, e: int, count: int) -> np.ndarray:
    """The multisets after ``count`` atoms of element ``e``, -1 where an automaton refuses, [rows]."""
    if table is None:
        return following
    state = table.step[table.state[left], e, count]
    return np.where(state >= 0, table.place[state, following], -1)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Multisets from which one count is taken.

    Attributes:
        row, slot, rest: those with a table of charges, the slot of the count, what is left, [n].
        root, root_slot, root_rest: the same of whole patterns.
    """

    row: np.ndarray
    slot: np.ndarray
    rest: np.ndarray
    root: np.ndarray
    root_slot: np.ndarray
    root_rest: np.ndarray

    @staticmethod
    def of(rows: np.ndarray, slots: np.ndarray, rest: np.ndarray, n_small: int, root_rows: np.ndarray) -> _Part:
        """The part of ``rows`` [n] with ``rest`` left; -1: nothing may be."""
        small, root = (rest >= 0) & (rows < n_small), (rest >= 0) & (root_rows[rows] >= 0)
        return _Part(
            row=rows[small],
            slot=slots[small],
            rest=rest[small],
            root=root_rows[rows[root]],
            root_slot=slots[root],
            root_rest=rest[root],
        )


def _charges(
    rules: CompositionRules,
    automaton: AutomatonTables | None,
    n_small: int,
    slot_count: np.ndarray,
    slot_next: np.ndarray,
    leftover: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, int]:
    """``first``, ``finish`` and the half width: the recursion over the elements from the last to the first."""
    half = rules.charge.half_width(rules.zs, rules.n_atoms[1])
    width, n_el, n_slots = 2 * half + 1, len(rules.zs), slot_count.shape[1]
    empty = slot_count[:n_small, 0] == 0
    accepted = empty if automaton is None else empty & automaton.accept[automaton.state[:n_small]]
    counts = np.unique(slot_count[slot_count > 0]).tolist()
    pairs = {c: np.nonzero(slot_count == c) for c in counts}
    root_rows = np.full(len(slot_count), -1)
    root_rows[leftover] = np.arange(len(leftover))
    parts = {
        c: _Part.of(rows, slots, slot_next[rows, slots], n_small, root_rows)
        for c, (rows, slots) in pairs.items()
        if automaton is None
    }
    # packed, and by the charge that is to be balanced: of the elements from here on, without and with one split
    valid = pack(np.arange(width + 1) < width)
    words, metal_bit = len(valid), pack(np.arange(width + 1) == width)
    first = np.zeros((len(leftover), n_slots, n_el), dtype=bool)
    finish = np.zeros((2, words, n_small, n_slots - 1, n_el), dtype=np.int64)
    planes = np.zeros((TOGETHER, 2, words, n_small, n_slots - 1), dtype=np.int64)  # of some elements
    whole, mixed = np.zeros((words, n_small), dtype=np.int64), np.zeros((words, n_small), dtype=np.int64)
    metals = np.zeros(n_small, dtype=bool)  # can be finished with metals only
    whole[:, accepted] = pack(np.arange(width + 1) == half)[:, None]
    metals[accepted] = True
    for e in range(n_el - 1, -1, -1):
        skip = e not in rules.required
        new_whole, new_mixed, new_metals = (one * skip for one in (whole, mixed, metals))
        plane = planes[e % TOGETHER]
        for c, (rows, slots) in pairs.items():
            if automaton is None:
                part = parts[c]
            else:
                part = _Part.of(rows, slots, rest_of(automaton, rows, slot_next[rows, slots], e, c), n_small, root_rows)
            plain, split = rules.charge.plain(rules.zs[e], c), rules.charge.split(rules.zs[e], c)
            before = whole[:, part.rest]
            one, two = balanced(np.stack([before, mixed[:, part.rest]], axis=1), plain, valid).swapaxes(0, 1)
            two = two | balanced(before, split, valid)
            metal = metals[part.rest] & rules.metal[e]
            new_whole[:, part.row] |= one  # a multiset has one slot a count: rows are unique
            new_mixed[:, part.row] |= two
            new_metals[part.row] |= metal
            plane[0][:, part.row, part.slot] = one | two
            plane[1][:, part.row, part.slot] = one | np.where(metal, metal_bit[:, None], 0)
            start = holds(whole, plain, half) | (accepted & (rules.required <= {e}))  # a pure element is neutral
            if rules.charge.states is not None:
                start |= holds(mixed, plain, half) | holds(whole, split, half)
                start |= metals & (rules.metal[e] and rules.charge.alloys)
            first[part.root, part.root_slot, e] = start[part.root_rest]
        if e % TOGETHER == 0:
            some = min(TOGETHER, n_el - e)
            finish[..., e : e + some] = np.moveaxis(planes[:some], 0, -1)
            planes[:] = 0  # an automaton leaves other places to each element
        whole, mixed, metals = new_whole, new_mixed, new_metals
    return first, finish, half
