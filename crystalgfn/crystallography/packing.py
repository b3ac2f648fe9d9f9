"""Exact packing: which counts of atoms the Wyckoff positions of a group can hold.

Counts are atoms per primitive cell. A position without a free parameter holds one orbit of one element; a position with
one holds any number of orbits. In primitive counts the 230 groups have 112 different signatures (fixed multiplicities
with their numbers, free multiplicities), and fixed positions in use at most 27 states a signature.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np

from crystalgfn.crystallography import space_groups


@dataclass(frozen=True)
class Signature:
    """What decides packing: ``fixed`` pairs (primitive multiplicity, number of positions), ``free`` multiplicities."""

    fixed: tuple[tuple[int, int], ...]
    free: tuple[int, ...]


def signature(space_group: int) -> Signature:
    """The signature of the group with this number (1-230)."""
    fixed: dict[int, int] = {}
    for position in space_groups.WYCKOFF[space_group - 1]:
        if not position.free:
            fixed[position.primitive_multiplicity] = fixed.get(position.primitive_multiplicity, 0) + 1
    free = sorted({p.primitive_multiplicity for p in space_groups.WYCKOFF[space_group - 1] if p.free})
    return Signature(tuple(sorted(fixed.items())), tuple(free))


class Packing:
    """Exact packing on one signature.

    ``states`` [S, F]: how many fixed positions of each multiplicity are in use; state 0 is none. ``filled`` [n + 1]:
    whether n atoms fit on free positions alone. Both grow with ``max_count``, the largest count of one element.
    """

    def __init__(self, signature: Signature, max_count: int) -> None:
        self.signature = signature
        self.max_count = max_count
        self.multiplicities = np.array([m for m, _ in signature.fixed], dtype=np.int64)
        states = list(itertools.product(*(range(n + 1) for _, n in signature.fixed)))
        self.states = np.array(states, dtype=np.int64).reshape(len(states), len(signature.fixed))
        self.filled = np.zeros(max_count + 1, dtype=bool)
        self.filled[0] = True
        for m in signature.free:
            for n in range(m, max_count + 1):
                self.filled[n] |= self.filled[n - m]
        used = self.states[None] - self.states[:, None]
        weight = used @ self.multiplicities
        weight[(used < 0).any(axis=2)] = max_count + 1
        rest = np.arange(max_count + 1)[:, None, None] - weight
        self.step = np.where(rest >= 0, self.filled[np.clip(rest, 0, max_count)], False)
        """[max_count + 1, S, S] bool: whether one element with so many atoms can lead from state to state."""
        bits = 1 << np.arange(len(self.states), dtype=np.int64)
        self.step_bits = self.step @ bits
        """[max_count + 1, S]: the same, the reachable states as a bit set."""
        self._move, self._dead = self._automaton()

    def advance(self, states: int, count: int) -> int:
        """The bit set of states that an element with ``count`` atoms can lead to from a bit set of states."""
        reached = 0
        for s, targets in enumerate(self.step_bits[count].tolist()):
            if states >> s & 1:
                reached |= targets
        return reached

    def _automaton(self) -> tuple[np.ndarray, int]:
        """Transitions [sets, max_count + 1] between the sets of states that counts can lead to from state 0."""
        index, todo, rows = {1: 0}, [1], []
        for states in todo:  # grows while it is read
            member = (states >> np.arange(len(self.states)) & 1).astype(bool)
            targets = np.bitwise_or.reduce(self.step_bits[:, member], axis=1).tolist()
            row = []
            for target in targets:
                if target not in index:
                    index[target] = len(index)
                    todo.append(target)
                row.append(index[target])
            rows.append(row)
        return np.array(rows, dtype=np.int32), index.get(0, -1)

    def fits(self, patterns: np.ndarray) -> np.ndarray:
        """Whether each row of counts [P, K] (zeros anywhere) can be packed exactly: bool [P]."""
        current = np.zeros(len(patterns), dtype=np.int32)
        for column in patterns.T:
            current = self._move[current, column]
        return current != self._dead


@cache
def packing(space_group: int, max_count: int) -> Packing:
    """The packing of the group with this number for counts up to ``max_count``, shared between equal signatures."""
    return _packing(signature(space_group), max_count)


@cache
def _packing(key: Signature, max_count: int) -> Packing:
    return Packing(key, max_count)
