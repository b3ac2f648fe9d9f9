"""Everything that may follow a partial crystal, tabulated once for a space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from crystalgfn.crystallography import space_groups
from crystalgfn.space import compositions
from crystalgfn.space.cell import SumLimits, sum_limits
from crystalgfn.space.compositions import CompositionTables
from crystalgfn.space.patterns import admitted
from crystalgfn.space.rules import MaskRules
from crystalgfn.space.sum_lookahead import SumLookahead


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


def build_tables(rules: MaskRules) -> SpaceTables:
    """The tables of the rules of a space.

    Raises:
        InvalidSpace: limits that cannot be looked ahead within bounds on memory and work; what to loosen.
    """
    own = rules.composition
    rows = admitted(own.n_elements, own.atoms_per_element, own.n_atoms, len(own.zs), own.patterns)
    width = max((row[0] for row in rows), default=1)
    patterns = np.array([row + (0,) * (own.n_elements[1] - len(row)) for row in rows], dtype=np.int64)
    patterns = patterns.reshape(len(rows), own.n_elements[1])
    allowed = _with_cells(rules, patterns) if rows else np.zeros((230, 0), dtype=bool)
    kept = allowed.any(0)  # the others need no tables
    table = compositions.composition_tables(own, patterns[kept], width)
    allowed = allowed[:, kept] & table.first.any((1, 2))
    sums = None
    if kept.any():
        cases = np.zeros((230, rules.n_atoms[1] + 1), dtype=bool)
        group, pattern = np.nonzero(allowed)
        cases[group, table.n_atoms[pattern]] = True
        sums = sum_limits(rules, cases)
        if sums is not None:
            allowed &= _sums_allowed(rules, table, allowed, sums)
    below = np.concatenate([np.zeros((230, 1), np.int64), np.cumsum(allowed, axis=1, dtype=np.int64)], axis=1)
    return SpaceTables(table, allowed, below, sums)


def _with_cells(rules: MaskRules, patterns: np.ndarray) -> np.ndarray:
    """Which patterns each group admits by the rules on them and by the cells that are left, bool [230, P]."""
    allowed = np.repeat(rules.groups[:, None], len(patterns), axis=1)
    for rule in rules.pattern_rules:
        allowed &= rule(patterns)
    low, high = rules.volume_per_atom
    n_atoms = patterns.sum(1)
    for group in np.flatnonzero(rules.groups):
        atoms = n_atoms * int(space_groups.CENTRING[group])
        allowed[group] &= rules.cell.feasible(int(group) + 1, atoms * low, atoms * high)
    return allowed


def _sums_allowed(rules: MaskRules, table: CompositionTables, allowed: np.ndarray, sums: SumLimits) -> np.ndarray:
    """Which patterns have a composition with sums in the group's ranges, bool [230, P]."""
    lookahead = SumLookahead(rules.composition, table, sums.weights, torch.device("cpu"))
    group, pattern = np.nonzero(allowed)
    ranges = sums.ranges[group, table.n_atoms[pattern]].reshape(len(group), -1)
    cases, inverse = np.unique(np.column_stack([pattern, ranges]), axis=0, return_inverse=True)
    low, high = torch.from_numpy(cases[:, 1:].reshape(len(cases), -1, 2).copy()).unbind(-1)
    reach = lookahead.possible(torch.from_numpy(cases[:, 0].astype(np.int64)), low, high).numpy()
    out = np.zeros_like(allowed)
    out[group, pattern] = reach[inverse.reshape(-1)]
    return out
