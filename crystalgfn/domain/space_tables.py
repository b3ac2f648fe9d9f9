"""Everything that may follow a partial crystal, tabulated once for a space."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from crystalgfn.domain import compositions
from crystalgfn.domain.cell import MARGIN
from crystalgfn.domain.compositions import CompositionTables
from crystalgfn.domain.mass import MassLookahead
from crystalgfn.domain.units import DENSITY_UNIT
from crystalgfn.tables import groups, realisable

if TYPE_CHECKING:
    from crystalgfn.domain.space import CrystalSpace


@dataclass(frozen=True)
class SpaceTables:
    """What may be drawn.

    Attributes:
        composition: the tables of the compositions.
        allowed: [230, P] which count patterns each group admits: realisable, neutral, with a cell.
        below: [230, P + 1] patterns admitted before each pattern; differences count those in a range.
        mass_range: [230, n_atoms + 1, 2] masses (u) of the primitive cell that leave a cell, where density is limited.
    """

    composition: CompositionTables
    allowed: np.ndarray
    below: np.ndarray
    mass_range: np.ndarray | None = None


def build_tables(space: CrystalSpace) -> SpaceTables:
    """The tables of a space."""
    table = compositions.build(space.composition_rules)
    allowed = np.zeros((230, len(table.patterns)), dtype=bool)
    mass_range = None
    if len(table.patterns):
        possible = table.first.any((1, 2))
        allowed = space.group_allowed[:, None] & realisable_patterns(table.patterns) & possible
        low, high = space.volume_per_atom
        for group in np.flatnonzero(space.group_allowed):
            atoms = table.n_atoms * int(groups.CENTRING[group])
            allowed[group] &= space.cell_limits.feasible(int(group) + 1, atoms * low, atoms * high)
        if space.density is not None:
            mass_range = _mass_range(space)
            allowed &= _mass_allowed(space, table, allowed, mass_range)
    below = np.concatenate([np.zeros((230, 1), np.int64), np.cumsum(allowed, axis=1, dtype=np.int64)], axis=1)
    return SpaceTables(table, allowed, below, mass_range)


def _mass_range(space: CrystalSpace) -> np.ndarray:
    """Masses [230, n_atoms + 1, 2] of primitive cells for which density and volume limits leave a cell."""
    atoms = np.arange(space.n_atoms[1] + 1)
    out = np.empty((230, len(atoms), 2))
    for group in range(230):
        centring = int(groups.CENTRING[group])
        smallest, largest = space.cell_limits.volumes(group + 1)
        low = np.maximum(atoms * centring * space.volume_per_atom[0], smallest)
        high = np.minimum(atoms * centring * space.volume_per_atom[1], largest)
        out[group, :, 0] = space.density[0] * low * (1 + MARGIN) / (DENSITY_UNIT * centring)
        out[group, :, 1] = space.density[1] * high * (1 - MARGIN) / (DENSITY_UNIT * centring)
    return out


def _mass_allowed(
    space: CrystalSpace, table: CompositionTables, allowed: np.ndarray, mass_range: np.ndarray
) -> np.ndarray:
    """Which patterns have a composition in the group's range of masses, bool [230, P]."""
    lookahead = MassLookahead(space.composition_rules, table, torch.device("cpu"))
    group, pattern = np.nonzero(allowed)
    ranges = mass_range[group, table.n_atoms[pattern]]
    cases, inverse = np.unique(np.column_stack([pattern, ranges]), axis=0, return_inverse=True)
    low, high = (torch.from_numpy(cases[:, i].copy()) for i in (1, 2))
    reach = lookahead.possible(torch.from_numpy(cases[:, 0].astype(np.int64)), low, high).numpy()
    out = np.zeros_like(allowed)
    out[group, pattern] = reach[inverse.reshape(-1)]
    return out


def realisable_patterns(patterns: np.ndarray) -> np.ndarray:
    """Which patterns of counts each group admits, [P, K] -> bool [230, P].

    Up to 20 atoms and five elements: some assignment of Wyckoff positions has exactly the group. Beyond: the counts
    fit on Wyckoff positions exactly.
    """
    table = realisable.patterns()
    keys = {tuple(row[row > 0].tolist()): i for i, row in enumerate(table)}
    rows = np.array([keys.get(tuple(row[row > 0].tolist()), -1) for row in patterns], dtype=np.int64)
    out = np.zeros((230, len(patterns)), dtype=bool)
    known = rows >= 0
    out[:, known] = realisable.REALISABLE[:, rows[known]]
    if (~known).any():
        out[:, ~known] = realisable.fit_patterns(patterns[~known])
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
