"""Wyckoff letters for given counts: random draws and full enumeration, both by exact packing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from crystalgfn.tables import groups
from crystalgfn.tables.packing import packing

Letters = tuple[tuple[str, ...], ...]
"""The letters of each element, one an orbit, in the order of ``groups.WYCKOFF``."""


class LetterPacking:
    """The assignments of Wyckoff letters to elements that hold counts of atoms per primitive cell exactly.

    Positions without a free parameter are used at most once over all elements.
    """

    def __init__(self, space_group: int, max_count: int) -> None:
        self.packing = packing(space_group, max_count)
        positions = groups.WYCKOFF[space_group - 1]
        self.rank = {p.letter: i for i, p in enumerate(positions)}
        self.fixed = [(p.letter, p.primitive_multiplicity) for p in positions if not p.free]
        self.free = [(p.letter, p.primitive_multiplicity) for p in positions if p.free]
        self.multiplicity = {p.letter: p.primitive_multiplicity for p in positions}
        self._slot = {int(m): i for i, m in enumerate(self.packing.multiplicities)}
        self._index = {tuple(s): i for i, s in enumerate(self.packing.states.tolist())}

    def state(self, letters: Letters) -> int:
        """The packing state after these letters: the index in ``packing.states`` of the fixed positions in use."""
        used = [0] * len(self._slot)
        fixed = dict(self.fixed)
        for letter in (letter for element in letters for letter in element):
            if letter in fixed:
                used[self._slot[fixed[letter]]] += 1
        return self._index[tuple(used)]

    def sample(
        self, counts: tuple[int, ...], rng: np.random.Generator, end: int = -1, weights: np.ndarray | None = None
    ) -> Letters | None:
        """One random assignment, None where the counts do not fit.

        Args:
            counts: atoms of each element per primitive cell.
            rng: the source of randomness.
            end: the packing states to end in as a bit set; -1 for any.
            weights: [positions] relative weights of the group's free letters, in the order of ``groups.WYCKOFF``.
        """
        open_states = [end]
        for count in reversed(counts):
            targets = self.packing.step_bits[count].tolist()
            open_states.append(sum(1 << s for s, bits in enumerate(targets) if bits & open_states[-1]))
        open_states.reverse()
        if not open_states[0] & 1:
            return None
        state, unused, answer = 0, {m: [f for f, n in self.fixed if n == m] for m in self._slot}, []
        for count, still_open in zip(counts, open_states[1:], strict=True):
            reachable = int(self.packing.step_bits[count, state]) & still_open
            choices = [s for s in range(len(self.packing.states)) if reachable >> s & 1]
            target = choices[rng.integers(len(choices))]
            chosen: list[str] = []
            for m, slot in self._slot.items():
                for _ in range(self.packing.states[target, slot] - self.packing.states[state, slot]):
                    chosen.append(unused[m].pop(rng.integers(len(unused[m]))))
                    count -= m
            while count:
                possible = [f for f, m in self.free if m <= count and self.packing.filled[count - m]]
                if weights is None:
                    letter = possible[rng.integers(len(possible))]
                else:
                    p = weights[[self.rank[f] for f in possible]]
                    letter = possible[rng.choice(len(possible), p=p / p.sum())]
                chosen.append(letter)
                count -= self.multiplicity[letter]
            state = target
            answer.append(tuple(sorted(chosen, key=self.rank.__getitem__)))
        return tuple(answer)

    def enumerate(self, counts: tuple[int, ...]) -> Iterator[Letters]:
        """Every assignment, once up to exchange of neighbouring elements with equal counts."""
        yield from self._elements(counts, (), frozenset())

    def _elements(self, counts: tuple[int, ...], done: Letters, used: frozenset[str]) -> Iterator[Letters]:
        if len(done) == len(counts):
            yield done
            return
        at = len(done)
        floor = done[-1] if at and counts[at] == counts[at - 1] else ()
        for letters in self._element(counts[at], used):
            if [self.rank[f] for f in letters] >= [self.rank[f] for f in floor]:
                yield from self._elements(counts, (*done, letters), used | set(letters))

    def _element(self, count: int, used: frozenset[str]) -> Iterator[tuple[str, ...]]:
        positions = sorted(
            [(self.rank[f], f, m, False) for f, m in self.fixed if f not in used]
            + [(self.rank[f], f, m, True) for f, m in self.free]
        )

        def extend(at: int, left: int, chosen: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
            if left == 0:
                yield chosen
                return
            for i in range(at, len(positions)):
                _, letter, m, free = positions[i]
                if m <= left:
                    yield from extend(i if free else i + 1, left - m, (*chosen, letter))

        yield from extend(0, count, ())


@cache
def letter_packing(space_group: int, max_count: int) -> LetterPacking:
    """The shared ``LetterPacking`` of a group for counts up to ``max_count``."""
    return LetterPacking(space_group, max_count)
