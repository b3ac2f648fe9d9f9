"""Count patterns: the non-increasing counts of atoms of a composition, and which of them a space group can hold."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from crystalgfn.crystallography import realizable


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


def admitted(
    n_elements: tuple[int, int],
    atoms_per_element: tuple[int, int],
    n_atoms: tuple[int, int],
    n_available: int,
    given: tuple[tuple[int, ...], ...] | None,
) -> list[tuple[int, ...]]:
    """The count patterns within limits, by number of elements, then lexicographically."""
    (k_low, k_high), (low, high), (n_low, n_high) = n_elements, atoms_per_element, n_atoms
    k_high = min(k_high, n_available)
    if given is not None:
        inside = {
            row
            for row in given
            if k_low <= len(row) <= k_high and n_low <= sum(row) <= n_high and row[0] <= high and row[-1] >= low
        }
        return sorted(inside, key=lambda row: (len(row), row))
    rows = []
    for k in range(k_low, k_high + 1):
        rows += [tuple(int(c) for c in row) for row in enumerate_patterns(k, low, high, n_low, n_high)]
    return rows


def trie(patterns: np.ndarray, c_max: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Children [T, C + 1] and ranges of patterns [T, K + 1] of all prefixes."""
    n_rows, k_max = patterns.shape
    ids: dict[tuple[int, ...], int] = {(): 0}
    nodes = np.zeros((n_rows, k_max + 1), dtype=np.int64)  # of the first counts of each pattern
    for p, row in enumerate(patterns.tolist()):
        for depth in range(1, k_max + 1):
            if row[depth - 1] == 0:
                break
            nodes[p, depth] = ids.setdefault(tuple(row[:depth]), len(ids))
    child = np.full((len(ids), c_max + 1), -1, dtype=np.int64)
    low, high = np.full((len(ids), k_max + 1), n_rows), np.zeros((len(ids), k_max + 1), dtype=np.int64)
    length = (patterns > 0).sum(1)
    for depth in range(k_max + 1):
        rows = np.flatnonzero(length >= depth)
        node = nodes[rows, depth]
        if depth:
            child[nodes[rows, depth - 1], patterns[rows, depth - 1]] = node
        np.minimum.at(low, (node, length[rows]), rows)
        np.maximum.at(high, (node, length[rows]), rows + 1)
    return child, np.where(high > 0, low, 0), high


def realisable_patterns(patterns: np.ndarray) -> np.ndarray:
    """Which patterns of counts each group admits, [P, K] -> bool [230, P].

    Up to 20 atoms and five elements: some assignment of Wyckoff positions has exactly the group. Beyond: the counts
    fit on Wyckoff positions exactly.
    """
    table = realizable.patterns()
    keys = {tuple(row[row > 0].tolist()): i for i, row in enumerate(table)}
    rows = np.array([keys.get(tuple(row[row > 0].tolist()), -1) for row in patterns], dtype=np.int64)
    out = np.zeros((230, len(patterns)), dtype=bool)
    known = rows >= 0
    out[:, known] = realizable.REALISABLE[:, rows[known]]
    if (~known).any():
        out[:, ~known] = realizable.fit_patterns(patterns[~known])
    return out


def realisable_compositions(group: np.ndarray, composition: np.ndarray) -> np.ndarray:
    """The same for crystals: group index (0-229) [B] and composition [B, 118] -> bool [B]."""
    if not len(group):
        return np.zeros(0, dtype=bool)
    counts = -np.sort(-composition, axis=1)
    counts = counts[:, : max(1, int((counts > 0).sum(1).max()))]
    patterns, inverse = np.unique(counts, axis=0, return_inverse=True)
    return _cached_patterns(patterns.tobytes(), patterns.shape, str(patterns.dtype))[group, inverse.reshape(-1)]


@lru_cache(maxsize=8)
def _cached_patterns(data: bytes, shape: tuple[int, int], dtype: str) -> np.ndarray:
    return realisable_patterns(np.frombuffer(data, dtype=dtype).reshape(shape))


def _slots(index: dict[tuple[int, ...], int], k_max: int) -> tuple[np.ndarray, np.ndarray]:
    count = np.zeros((len(index), k_max), dtype=np.int64)
    following = np.full((len(index), k_max), -1, dtype=np.int64)
    for row, m in index.items():
        for slot, c in enumerate(sorted(set(row), reverse=True)):
            at = row.index(c)
            count[m, slot] = c
            following[m, slot] = index[row[:at] + row[at + 1 :]]
    return count, following
