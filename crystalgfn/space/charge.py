"""Charge neutrality: which sums of oxidation states an element with some atoms can contribute.

Rules of mixed valence (``CrystalSpace.mixed_valence``):

* ``False``: all atoms of an element have one state of its table;
* ``"known"``: at most one element of the crystal is split over two consecutive states, and known compounds split it so
  (`crystalgfn.crystallography.elements.SPLITS`);
* ``"adjacent"``: at most one element of the crystal is split over two consecutive states with the same sign;
* ``True``: every atom has any state of its table.

State 0 never counts. Sets of charges are Python integers used as bit sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from crystalgfn.crystallography import elements

MIXED_VALENCE = (False, "known", "adjacent", True)
"""The rules, the narrowest first."""

WORD = 63
"""Bits of an int64 that are used in packed sets, so that no value is negative."""


@dataclass(frozen=True)
class ChargeRule:
    """A table of oxidation states with a rule of mixed valence.

    Attributes:
        states: for each Z - 1, its non-zero states in increasing order; None: no charge rule at all.
        mixed_valence: False, "known", "adjacent" or True.
        alloys: compositions of metals only count as neutral.
    """

    states: tuple[tuple[int, ...], ...] | None
    mixed_valence: bool | str
    alloys: bool

    def plain(self, z: int, count: int) -> tuple[int, ...]:
        """Total charges of ``count`` atoms of element ``z`` that need no split."""
        if self.states is None:
            return (0,)
        states = self.states[z - 1]
        if self.mixed_valence is True:
            return _sums(states, count)
        return tuple(count * s for s in states)

    def split(self, z: int, count: int) -> tuple[int, ...]:
        """Further total charges with the atoms split over two consecutive states of the same sign."""
        return tuple(sorted({m * s + (count - m) * t for s, t in self.pairs(z) for m in range(1, count)}))

    def pairs(self, z: int) -> tuple[tuple[int, int], ...]:
        """Consecutive states of the same sign that the atoms of element ``z`` can be split over."""
        if self.states is None or self.mixed_valence not in ("known", "adjacent"):
            return ()
        both = tuple((s, t) for s, t in pairwise(self.states[z - 1]) if s * t > 0)
        known = elements.SPLITS[elements.SYMBOLS[z - 1]]
        return both if self.mixed_valence == "adjacent" else tuple(pair for pair in both if pair in known)

    def half_width(self, zs: Sequence[int], n_atoms: int) -> int:
        """The largest |charge| that part of a neutral crystal of ``n_atoms`` can have."""
        if self.states is None:
            return 0
        table = [s for z in zs for s in self.states[z - 1]]
        up, down = max(table, default=0), -min(table, default=0)
        return 0 if up <= 0 or down <= 0 else n_atoms * up * down // (up + down)

    def neutral(self, counts: Mapping[int, int]) -> bool:
        """Whether a composition {Z: atoms} is neutral; the slow reference, one composition at a time."""
        if self.states is None or len(counts) == 1:
            return True
        if self.alloys and all(elements.METAL[z - 1] for z in counts):
            return True
        offset = 8 * sum(counts.values())
        whole, mixed = 1 << offset, 0
        for z, count in counts.items():
            plain, split = self.plain(z, count), self.split(z, count)
            mixed = _shift(mixed, plain) | _shift(whole, split)
            whole = _shift(whole, plain)
        return bool((whole | mixed) >> offset & 1)


@lru_cache(maxsize=4096)
def _sums(states: tuple[int, ...], count: int) -> tuple[int, ...]:
    if count == 1:
        return states
    return tuple(sorted({a + b for a in _sums(states, count - 1) for b in states}))


def _shift(bits: int, charges: Sequence[int]) -> int:
    out = 0
    for charge in charges:
        out |= bits << charge if charge >= 0 else bits >> -charge
    return out


def pack(bits: np.ndarray) -> np.ndarray:
    """Boolean [..., N] -> int64 [..., ceil(N / 63)]."""
    n_words = -(-bits.shape[-1] // WORD)
    padded = np.zeros((*bits.shape[:-1], n_words * WORD), dtype=bool)
    padded[..., : bits.shape[-1]] = bits
    weights = np.int64(1) << np.arange(WORD, dtype=np.int64)
    return (padded.reshape(*bits.shape[:-1], n_words, WORD) * weights).sum(-1)


def initial_charge(half_width: int, alloys: bool) -> np.ndarray:
    """The packed charge state before any element: charge 0, no split; and, with alloys, metals only. [2, words]."""
    bit = np.arange(2 * half_width + 2)
    return pack(np.stack([bit == half_width, (bit == 2 * half_width + 1) & alloys]))


def holds(sets: np.ndarray, charges: tuple[int, ...], half: int) -> np.ndarray:
    """Whether packed sets [words, rows] of charges, with 0 in bit ``half``, have one of ``charges``; bool [rows]."""
    found = np.zeros(sets.shape[1], dtype=bool)
    for word, mask in enumerate(packed(charges, half).tolist()):
        if mask:
            found |= (sets[word] & mask) != 0
    return found


@lru_cache(maxsize=4096)
def packed(charges: tuple[int, ...], half: int) -> np.ndarray:
    """A set of charges [words], with 0 in bit ``half``; what does not lie from -half to half is left out."""
    bits = np.zeros(2 * half + 2, dtype=bool)
    bits[[half + charge for charge in charges if abs(charge) <= half]] = True
    return pack(bits)


def balanced(sets: np.ndarray, charges: tuple[int, ...], valid: np.ndarray) -> np.ndarray:
    """Packed sets [words, ...] of charges to balance, with each of ``charges`` taken off; beyond the ends: dropped."""
    out = np.zeros_like(sets)
    for first, step, n in progressions(charges):
        if n == 1:
            _add_moved(out, sets, -first)
            continue
        part, k = np.zeros_like(sets), 1
        _add_moved(part, sets, -first)
        while k < n:  # part holds the first k charges; all lie on one side, so that nothing dropped would come back
            more = min(k, n - k)
            _add_moved(part, part.copy(), -step * more)
            k += more
        out |= part
    out &= valid.reshape(-1, *[1] * (sets.ndim - 1))
    return out


def _add_moved(out: np.ndarray, sets: np.ndarray, by: int) -> None:
    """Add packed sets [words, ...] to others, moved by so many charges; what leaves the words is dropped."""
    words, bits = divmod(by, WORD)
    n = len(sets)
    # the lower bits stay in their word or so many on, the upper go one on
    low, high = max(words, 0), min(words + n, n)
    if low < high:
        part = sets[low - words : high - words]
        out[low:high] |= (part & ((1 << (WORD - bits)) - 1)) << bits if bits else part
    low, high = max(words + 1, 0), min(words + 1 + n, n)
    if bits and low < high:
        out[low:high] |= sets[low - words - 1 : high - words - 1] >> (WORD - bits)


@lru_cache(maxsize=4096)
def progressions(charges: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
    """Charges as arithmetic progressions away from zero: first, step, number of members."""
    found = []
    for own in ([q for q in charges if q >= 0], [q for q in charges if q < 0]):
        rest = sorted(own, key=abs)
        while rest:
            step, n = rest[1] - rest[0] if len(rest) > 1 else 0, 1
            while n < len(rest) and rest[n] - rest[n - 1] == step:
                n += 1
            found.append((rest[0], step, n))
            rest = rest[n:]
    return tuple(found)
