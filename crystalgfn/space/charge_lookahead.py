"""Which last elements can still balance the charge, by look-up."""

from __future__ import annotations

from functools import partial
from weakref import WeakKeyDictionary

import numpy as np
import torch

from crystalgfn.space.charge import WORD, balanced, initial_charge, pack, packed
from crystalgfn.space.compositions import CompositionTables
from crystalgfn.typing import Followers, Pairs, RowIndex


def to_tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """An array of any layout as a tensor on a device."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


class LastTwo:
    """Look-up tables over pairs of families; nothing loops over the batch."""

    def __init__(self, table: CompositionTables, sets: ChargeSets, alloys: bool) -> None:
        device = sets.family.device
        size = np.zeros(len(table.slot_count), dtype=np.int64)
        for _ in range(table.patterns.shape[1]):
            size = np.where(table.slot_count[:, 0] > 0, 1 + size[table.slot_next[:, 0]], 0)
        small = np.arange(len(size)) < table.n_left  # whole patterns have no table; a pure element needs none
        counts = table.slot_count[(size == 2) & small, :2]
        counts = np.where(counts[:, 1:] > 0, counts, counts[:, :1])  # two equal counts share a slot
        which, inverse = np.unique(counts, axis=0, return_inverse=True)
        place = np.full(len(size), -1)
        place[(size == 2) & small] = inverse.reshape(-1)
        ones = np.nonzero((size == 1) & small)[0]
        single = np.full(len(size), -1)
        single[ones] = np.arange(len(ones))
        possible = (table.finish[:, :, ones, 0] != 0).any((0, 1))  # [ones, E]
        follow = possible[:, None] & table.after[None, 1:]

        put = partial(to_tensor, device=device)
        self.place, self.single, self.multisets = put(place), put(single), Multisets(table, device)
        self.follow = put(follow.reshape(-1, follow.shape[2]))  # [ones * E, E]
        self.sets, self.family, self.metal, self.alloys = sets, sets.family, sets.metal.bool(), alloys
        self.words = put(_pairs_of(table, which))
        self.n_families = len(table.plain)

    def may(
        self,
        charge: torch.Tensor,
        left: RowIndex,
        row: Pairs,
        slot: Pairs,
        column: Pairs,
    ) -> Followers:
        """Which elements may take the last count.

        Args:
            charge: packed sets that were reached, [rows, 2, words].
            left: multisets of the two counts left, [rows].
            row: of each pair.
            slot: of its count in that multiset.
            column: the element that takes it.
        """
        place, words = self.place[left], charge.flatten(1)
        common = torch.zeros(len(left), self.n_families**2, dtype=torch.int64, device=charge.device)
        for table, word in zip(self.words, words.unbind(1), strict=True):
            common |= table.index_select(0, place) & word[:, None]
        first = (common != 0).view(-1, self.n_families, self.n_families)
        fits = torch.stack([first, first.mT], 1).flatten(0, 2)  # who takes the slot's count, then who the other
        fits = fits.gather(1, self.family.expand(len(fits), -1))  # several times faster than index_select
        may = fits.index_select(0, (2 * row + slot) * self.n_families + self.family[column])
        if self.alloys:
            metals = self.sets.metals_only(charge).bool()[row] & self.metal[column]
            may |= metals[:, None] & self.metal
        rest = self.single[self.multisets.rest(left[row], slot, column)]
        return may & self.follow.index_select(0, rest * len(self.family) + column)


_PAIRS: WeakKeyDictionary[CompositionTables, np.ndarray] = WeakKeyDictionary()
"""Made once for the tables of a space, of which several environments may be made."""


def _pairs_of(table: CompositionTables, counts: np.ndarray) -> np.ndarray:
    """`_balancing_pairs`; ``counts`` follow from the table."""
    if table not in _PAIRS:
        _PAIRS[table] = _balancing_pairs(table, counts)
    return _PAIRS[table]


def _balancing_pairs(table: CompositionTables, counts: np.ndarray) -> np.ndarray:
    """Packed charges that two families balance with ``counts`` [k, 2] atoms, [2 * words, k, families²].

    As in ``finish``: with at most one element split if none was before, else with none; metals alone are not looked at.
    """
    n, half = len(table.plain), table.half_width
    valid = pack(np.arange(2 * half + 2) <= 2 * half)
    out = np.zeros((2, len(valid), len(counts), n, n), dtype=np.int64)
    last = np.unique(counts[:, 1])
    sets = [_packed_all(kind[:, last], half) for kind in (table.plain, table.split)]  # [words, families, counts]
    for count in np.unique(counts[:, 0]):
        mine = np.flatnonzero(counts[:, 0] == count)
        of = np.searchsorted(last, counts[mine, 1])
        whole, mixed = (one[:, :, of] for one in sets)
        both = np.stack([whole, mixed], axis=1)
        for family in range(n):
            plain, split = (
                tuple(kind[family, count, 1:][: kind[family, count, 0]].tolist()) for kind in (table.plain, table.split)
            )
            one, two = balanced(both, plain, valid).swapaxes(0, 1)
            two = two | balanced(whole, split, valid)
            out[0][:, mine, family] = (one | two).swapaxes(1, 2)
            out[1][:, mine, family] = one.swapaxes(1, 2)
    return out.reshape(2 * len(valid), len(counts), n * n)


def _packed_all(lists: np.ndarray, half: int) -> np.ndarray:
    """What balances lists [..., 1 + S] of charges, the number of them first, as packed sets [words, ...]."""
    sets: list[np.ndarray] = [
        packed(tuple(-charge for charge in row[1 : 1 + row[0]]), half)
        for row in lists.reshape(-1, lists.shape[-1]).tolist()
    ]
    words = len(packed((), half))
    return np.moveaxis(np.array(sets, dtype=np.int64).reshape(*lists.shape[:-1], words), -1, 0)


class Multisets:
    """What is left of the counts of a pattern, and what an element takes of it."""

    def __init__(self, table: CompositionTables, device: torch.device) -> None:
        put = partial(to_tensor, device=device)
        self.count, self.next = put(table.slot_count), put(table.slot_next)
        self.automaton = None
        if table.automaton is not None:
            self.automaton = tuple(map(put, (table.automaton.step, table.automaton.state, table.automaton.place)))

    def rest(self, left: torch.Tensor, slot: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        """Multisets [rows] without the count of a slot, which the element in ``column`` takes."""
        following = self.next[left, slot]
        if self.automaton is None:
            return following
        step, state, place = self.automaton
        return place[step[state[left], column, self.count[left, slot]], following]


class ChargeSets:
    """Adds elements to packed sets of charges, int64 [rows, 2, words]: without and with a split element.

    The bit behind the last charge of the second set means "metals only so far" (rule ``alloys``).
    """

    def __init__(self, table: CompositionTables, alloys: bool, device: torch.device) -> None:
        put = partial(to_tensor, device=device)
        self.plain, self.split, self.family = put(table.plain), put(table.split), put(table.family)
        self.metal = put(table.metal)
        self.half_width = table.half_width
        self.initial = put(initial_charge(table.half_width, alloys))
        self.charges = put(pack(np.arange(2 * table.half_width + 2) <= 2 * table.half_width))  # the bits of charges
        self.bit = torch.arange(WORD, device=device)
        self.metal_word, self.metal_bit = divmod(2 * table.half_width + 1, WORD)

    def after(self, charge: torch.Tensor, column: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        """The sets after ``count`` [rows] atoms of the elements in ``column`` [rows]."""
        family = self.family[column]
        before = charge & self.charges
        out = _add(before, self.plain[family, count])
        out[:, 1] |= _add(before[:, :1], self.split[family, count])[:, 0]
        out &= self.charges
        out[:, 1, self.metal_word] |= (self.metals_only(charge) & self.metal[column]) << self.metal_bit
        return out

    def metals_only(self, charge: torch.Tensor) -> torch.Tensor:
        """1 where all elements so far are metals (rule ``alloys``), else 0, int64 [rows]."""
        return (charge[:, 1, self.metal_word] >> self.metal_bit) & 1

    def unpack(self, charge: torch.Tensor) -> torch.Tensor:
        """Packed sets [..., words] as booleans [..., 2 half_width + 2]."""
        bits = (charge[..., None] >> self.bit) & 1
        return bits.flatten(-2)[..., : 2 * self.half_width + 2].bool()


def _add(sets: torch.Tensor, charges: torch.Tensor) -> torch.Tensor:
    """Packed sets [rows, sets, words] with each of a row's charges [rows, 1 + S] (how many, then which) added."""
    n_rows, n_sets, n_words = sets.shape
    order = charges[:, 0].argsort(descending=True, stable=True)
    lists = charges[order]
    at_least = (lists[:, :1] > torch.arange(lists.shape[1] - 1, device=sets.device)).sum(0).tolist()
    # between words of zeros, so that what is shifted out of a set goes nowhere
    padded = torch.nn.functional.pad(sets[order], (n_words, n_words))
    position = torch.arange(n_words, 2 * n_words, device=sets.device)
    added = torch.zeros_like(sets)
    for i, rows in enumerate(at_least):
        if rows == 0:
            break
        shift = lists[:rows, 1 + i, None, None].clamp(-WORD * n_words, WORD * n_words)
        words = shift.div(WORD, rounding_mode="floor")
        bits = shift - WORD * words
        low = (position - words).clamp(1, 3 * n_words - 1).expand(rows, n_sets, n_words)
        source = padded[:rows]
        here, below = source.gather(2, low), source.gather(2, low - 1)
        # the upper bits stay within the 63 that are used
        added[:rows] |= ((here & ((1 << (WORD - bits)) - 1)) << bits) | (below >> (WORD - bits))
    out = torch.empty_like(sets)
    out[order] = added
    return out
