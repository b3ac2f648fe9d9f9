"""Everything that may follow a partial crystal, tabulated once for a space."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from crystalgfn.crystallography import realizable, space_groups
from crystalgfn.space import compositions
from crystalgfn.space.cell import SumLimits, sum_limits
from crystalgfn.space.compositions import CompositionTables
from crystalgfn.space.sum_lookahead import SumLookahead

if TYPE_CHECKING:
    from crystalgfn.space.space import CrystalSpace


@dataclass(frozen=True)
class SpaceTables:
    """What may be drawn.

    Attributes:
        composition: the tables of the compositions.
        allowed: [230, P] which count patterns each group admits: realisable, neutral, with a cell.
        below: [230, P + 1] patterns admitted before each pattern; differences count those in a range.
        sums: ranges of sums over the atoms that leave a cell, where not every composition does.
    """

    composition: CompositionTables
    allowed: np.ndarray
    below: np.ndarray
    sums: SumLimits | None = None


def build_tables(space: CrystalSpace) -> SpaceTables:
    """The tables of a space."""
    table = compositions.build(space.composition_rules)
    allowed = np.zeros((230, len(table.patterns)), dtype=bool)
    sums = None
    if len(table.patterns):
        possible = table.first.any((1, 2))
        allowed = space.group_allowed[:, None] & realisable_patterns(table.patterns) & possible
        low, high = space.volume_per_atom
        for group in np.flatnonzero(space.group_allowed):
            atoms = table.n_atoms * int(space_groups.CENTRING[group])
            allowed[group] &= space.cell_limits.feasible(int(group) + 1, atoms * low, atoms * high)
        cases = np.zeros((230, space.n_atoms[1] + 1), dtype=bool)
        group, pattern = np.nonzero(allowed)
        cases[group, table.n_atoms[pattern]] = True
        sums = sum_limits(space, cases)
        if sums is not None:
            allowed &= _sums_allowed(space, table, allowed, sums)
    below = np.concatenate([np.zeros((230, 1), np.int64), np.cumsum(allowed, axis=1, dtype=np.int64)], axis=1)
    return SpaceTables(table, allowed, below, sums)


def _sums_allowed(space: CrystalSpace, table: CompositionTables, allowed: np.ndarray, sums: SumLimits) -> np.ndarray:
    """Which patterns have a composition with sums in the group's ranges, bool [230, P]."""
    lookahead = SumLookahead(space.composition_rules, table, sums.weights, torch.device("cpu"))
    group, pattern = np.nonzero(allowed)
    ranges = sums.ranges[group, table.n_atoms[pattern]].reshape(len(group), -1)
    cases, inverse = np.unique(np.column_stack([pattern, ranges]), axis=0, return_inverse=True)
    low, high = torch.from_numpy(cases[:, 1:].reshape(len(cases), -1, 2).copy()).unbind(-1)
    reach = lookahead.possible(torch.from_numpy(cases[:, 0].astype(np.int64)), low, high).numpy()
    out = np.zeros_like(allowed)
    out[group, pattern] = reach[inverse.reshape(-1)]
    return out


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
