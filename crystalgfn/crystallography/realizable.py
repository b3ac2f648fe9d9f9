"""Which compositions a space group holds: exact Wyckoff fit, and realisable symmetry without a supergroup."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np

from crystalgfn.crystallography import space_groups
from crystalgfn.utils import files

DATA = files.SHIPPED / "tables"

MAX_ATOMS = 20

MAX_PARTS = 5

STATUSES: tuple[str, ...] = ("does not fit", "realisable", "proven not", "exhausted", "not found")
"""Meaning of the values of ``status()``. Proven not: even with every position in use that the counts allow, each orbit
a species of its own, the group is a larger one. Exhausted: every assignment was tried. Not found: only some were."""


@cache
def patterns(max_atoms: int = MAX_ATOMS, max_parts: int = MAX_PARTS) -> np.ndarray:
    """All patterns [P, max_parts] of 1 to ``max_atoms`` atoms in at most ``max_parts`` counts, sorted."""
    rows: list[tuple[int, ...]] = []

    def extend(prefix: tuple[int, ...], left: int) -> None:
        if prefix:
            rows.append(prefix + (0,) * (max_parts - len(prefix)))
        if len(prefix) < max_parts:
            for count in range(1, min(left, prefix[-1] if prefix else left) + 1):
                extend((*prefix, count), left - count)

    extend((), max_atoms)
    table = np.array(sorted(rows), dtype=np.int64).reshape(-1, max_parts)
    table.flags.writeable = False
    return table


def fit_patterns(counts: np.ndarray) -> np.ndarray:
    """Exact Wyckoff fit of patterns [P, K] (atoms per primitive cell, zeros allowed) in every group: bool [230, P].

    Positions without a free parameter are used at most once over all elements. Any number of atoms; ValueError for
    negative counts.
    """
    counts = np.asarray(counts, dtype=np.int64)
    if counts.ndim != 2 or (counts.size and counts.min() < 0):
        raise ValueError(f"patterns are non-negative counts [P, K], not an array of shape {counts.shape}")
    largest = int(counts.max(initial=1))
    answers: dict[int, np.ndarray] = {}
    fits = np.empty((230, len(counts)), dtype=bool)
    for group in range(230):
        pack = packing(group + 1, largest)
        if id(pack) not in answers:
            answers[id(pack)] = pack.fits(counts)
        fits[group] = answers[id(pack)]
    return fits


@cache
def status() -> np.ndarray:
    """[230, 1124] index into ``STATUSES`` for each group and each row of ``patterns()``."""
    with np.load(DATA / "realisable.npz") as file:
        table = file["status"]
    table.flags.writeable = False
    return table


def pattern_rows(counts: np.ndarray) -> np.ndarray:
    """Rows of ``patterns()`` for patterns [P, K] with K <= 5: int64 [P], -1 outside the table."""
    counts = np.asarray(counts, dtype=np.int64)
    weights = (MAX_ATOMS + 1) ** np.arange(MAX_PARTS - 1, -1, -1, dtype=np.int64)
    codes = patterns() @ weights
    wanted = counts @ weights[: counts.shape[1]]
    rows = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    return np.where((codes[rows] == wanted) & (counts.max(axis=1, initial=0) <= MAX_ATOMS), rows, -1)


def realisable(space_group: int, counts: tuple[int, ...]) -> bool:
    """Whether the group (1-230) can hold these counts of atoms per primitive cell (any order) and be no larger group.

    Exact up to 20 atoms and 5 elements; above that only the Wyckoff fit is answered (see the module's docstring).
    """
    sorted_counts = sorted((int(c) for c in counts if c), reverse=True)
    if not 1 <= space_group <= 230 or not sorted_counts or sorted_counts[-1] < 0:
        raise ValueError(f"space group {space_group} with counts {tuple(counts)}: 1-230 and at least one atom, please")
    if sum(sorted_counts) <= MAX_ATOMS and len(sorted_counts) <= MAX_PARTS:
        row = int(pattern_rows(np.array([sorted_counts]))[0])
        return bool(_table()[space_group - 1, row])
    return bool(packing(space_group, sorted_counts[0]).fits(np.array([sorted_counts]))[0])


@cache
def _table() -> np.ndarray:
    table = status() == STATUSES.index("realisable")
    table.flags.writeable = False
    return table


def __getattr__(name: str) -> np.ndarray:
    if name == "REALISABLE":  # [230, 1124] bool, read on first use
        return _table()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
