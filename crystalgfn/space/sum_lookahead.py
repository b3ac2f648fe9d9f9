"""Look-ahead for limits on sums over the atoms, such as mass: which partial compositions can end in given ranges.

For every position in the order of the elements, multiset of counts left and charge still to balance, the least and the
greatest completion of each sum are tabulated. If they are in the ranges (for one of the sums, if one of the two is),
the ranges can be reached; if a least one is above its range or a greatest one below, they cannot; in between, the next
elements are tried in turn.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch

from crystalgfn.errors import InvalidSpace
from crystalgfn.space.charge_lookahead import ChargeSets, Multisets, to_tensor
from crystalgfn.space.completions import CONFIG, REMEDY, CompletionTables, atoms_left, completion_tables
from crystalgfn.space.compositions import CompositionRules, CompositionTables

ROUNDING = 1e-6
"""Error of the tables' values, of the largest that so many atoms can have; what lies so near the end of a range is
looked at one element deeper."""


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Partial compositions: packed charges, last column, counts and ranges of sums left, whether of one element."""

    charge: torch.Tensor
    last: torch.Tensor
    left: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    pure: torch.Tensor

    def select(self, keep: torch.Tensor) -> _Rows:
        return _Rows(**{f.name: getattr(self, f.name)[keep] for f in fields(self)})


class SumLookahead:
    """Exact masks for ranges of sums over the atoms.

    Args:
        rules, table: of the compositions.
        weights: what an atom of each element adds to each sum, [J, 118].
        device: where the tables live.
        completions: of these weights, where they are made already.
    """

    def __init__(
        self,
        rules: CompositionRules,
        table: CompositionTables,
        weights: np.ndarray,
        device: torch.device,
        completions: CompletionTables | None = None,
    ) -> None:
        put = partial(to_tensor, device=device)
        self.sets = ChargeSets(table, rules.charge.alloys, device)
        self.finish, self.after, self.first = put(table.finish).flatten(0, 1), put(table.after), put(table.first)
        self.multisets, self.leftover = Multisets(table, device), put(table.leftover)
        own = weights[:, np.array(rules.zs) - 1]
        self.weights, self.largest = put(own.T), put(np.abs(own).max(1))
        # least and greatest weight of the elements that may still follow each column; 0 after the last
        ends = [f(own[:, ::-1], axis=1)[:, ::-1][:, 1:].T for f in (np.minimum.accumulate, np.maximum.accumulate)]
        self.lightest, self.heaviest = (put(np.concatenate([x, np.zeros_like(own[:, :1]).T])) for x in ends)
        self.atoms = put(atoms_left(table))
        self.tables = completion_tables(rules, table, own) if completions is None else completions
        self.completions = _Completions(self.tables, device)
        self.values = 2 * (2 * table.half_width + 2) * (1 + 2 * len(own))  # charges of an option, and their sums
        self.chunk = max(1, min(CONFIG.chunk, CONFIG.chunk_values // self.values))
        self.work: int | None = None  # what is left of it; None: not bounded

    def first_options(self, pattern: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """What whole patterns may begin with so that the sums can end in [low, high] [rows, J]; bool [rows, S, E]."""
        return self._keep(self.first[pattern], self._whole(pattern, low, high))

    def next_options(
        self, charge: torch.Tensor, last: torch.Tensor, left: torch.Tensor, low: torch.Tensor, high: torch.Tensor
    ) -> torch.Tensor:
        """The same for partial compositions whose last element is in column ``last``; ranges are of what is left."""
        rows = _Rows(
            charge=charge, last=last, left=left, low=low, high=high, pure=torch.zeros_like(last, dtype=torch.bool)
        )
        return self._keep(self._may(rows), rows)

    def possible(self, pattern: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """Whether whole patterns [rows] have a composition with sums in [low, high]; bool [rows].

        Raises:
            InvalidSpace: that takes more work than a space may.
        """
        self.work = CONFIG.work
        found = self._any(self.first[pattern], self._whole(pattern, low, high))
        self.work = None
        return found

    def _whole(self, pattern: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> _Rows:
        left = self.leftover[pattern]
        pure = self.multisets.count[self.multisets.next[left, 0], 0] == 0  # one element: neutral whatever its states
        charge = self.sets.initial.expand(len(pattern), -1, -1)
        return _Rows(charge=charge, last=torch.full_like(left, -1), left=left, low=low, high=high, pure=pure)

    def _may(self, rows: _Rows) -> torch.Tensor:
        common = torch.zeros(1, dtype=torch.int64, device=rows.left.device)
        for table, word in zip(self.finish, rows.charge.flatten(1).unbind(1), strict=True):
            common = common | (table.index_select(0, rows.left) & word[:, None, None])
        return (common != 0) & self.after[rows.last + 1][:, None, :]

    def _keep(self, may: torch.Tensor, rows: _Rows) -> torch.Tensor:
        """Those of the options ``may`` [rows, S, E] from which the ranges can be reached."""
        out = torch.zeros_like(may)
        options = may.nonzero()
        inside, open_ = self._by_weights(options, rows)
        out[tuple(options[inside].T)] = True
        options = options[open_]
        for start in range(0, len(options), self.chunk):
            part = options[start : start + self.chunk]
            sure, unsure, moved = self._reach(part, rows)
            if bool(unsure.any()):
                deeper = moved.select(unsure)
                sure[unsure] = self._any(self._may(deeper), deeper)
            out[part[:, 0], part[:, 1], part[:, 2]] = sure
        return out

    def _by_weights(self, options: torch.Tensor, rows: _Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Of options that can be finished: which are in the ranges whatever follows, and which are undecided yet."""
        row, slot, column = options.unbind(1)
        left = rows.left[row]
        spent = self.weights[column] * self.multisets.count[left, slot, None]
        low, high = rows.low[row] - spent, rows.high[row] - spent
        atoms = self.atoms[self.multisets.next[left, slot], None]
        least, greatest = atoms * self.lightest[column], atoms * self.heaviest[column]
        inside = ((least >= low) & (greatest <= high)).all(1)
        return inside, ~inside & (least <= high).all(1) & (greatest >= low).all(1)

    def _any(self, may: torch.Tensor, rows: _Rows) -> torch.Tensor:
        """Whether any of the options reaches the ranges, bool [rows]; a few are tried first, then the others."""
        found = torch.zeros(len(may), dtype=torch.bool, device=may.device)
        flat = may.flatten(1)
        # options in an order that spreads over elements and counts, the same for every row
        order = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(0)).to(flat.device)
        rank = flat[:, order].cumsum(1).masked_fill(~flat[:, order], 0)
        doubtful: list[torch.Tensor] = []
        for first, last in ((1, 4), (5, 24), (25, flat.shape[1])):
            hit = ((rank >= first) & (rank <= last) & ~found[:, None]).nonzero()
            for start in range(0, len(hit), self.chunk):
                row, place = hit[start : start + self.chunk].unbind(1)
                option = order[place]
                part = torch.stack([row, option // may.shape[2], option % may.shape[2]], 1)
                sure, unsure, _ = self._reach(part, rows)
                found[row[sure]] = True
                doubtful.append(part[unsure])
        rest = torch.cat(doubtful) if doubtful else flat.new_zeros(0, 3, dtype=torch.int64)
        step = min(500, max(1, self.chunk // 10))
        while True:  # what is still open has no certain option: look one element deeper
            rest = rest[~found[rest[:, 0]]]
            if not len(rest):
                return found
            part, rest = rest[:step], rest[step:]
            _, _, moved = self._reach(part, rows)
            reached = self._any(self._may(moved), moved)
            found[part[reached, 0]] = True
            step = min(2 * step, max(1, self.chunk // 10))

    def _reach(self, part: torch.Tensor, rows: _Rows) -> tuple[torch.Tensor, torch.Tensor, _Rows]:
        """Of options (row, slot, column): which surely reach the ranges, which may, and the compositions after them."""
        if self.work is not None:
            self.work -= len(part) * self.values
            if self.work < 0:
                raise InvalidSpace(f"{REMEDY}the search for compositions within them takes too long; widen one")
        row, slot, column = part.unbind(1)
        left = rows.left[row]
        count, rest = self.multisets.count[left, slot], self.multisets.rest(left, slot, column)
        spent = self.weights[column] * count[:, None]
        low, high = rows.low[row] - spent, rows.high[row] - spent
        charge = self.sets.after(rows.charge[row], column, count)
        pure = rows.pure[row]
        least, greatest = self.completions.ends(column + 1, rest, self.sets.unpack(charge))
        least, greatest = (torch.where(pure[:, None], 0.0, x) for x in (least, greatest))
        error = ROUNDING * self.atoms[rest, None] * self.largest
        least_in = (least >= low + error) & (least <= high - error)
        greatest_in = (greatest >= low + error) & (greatest <= high - error)
        # all completions are in all ranges but one, and one of them in that too
        sure = (least_in | greatest_in).all(1) & ((~(least_in & greatest_in)).sum(1) <= 1)
        unsure = ~sure & (least <= high + error).all(1) & (greatest >= low - error).all(1)
        return (
            sure,
            unsure,
            _Rows(charge=charge, last=column, left=rest, low=low, high=high, pure=torch.zeros_like(pure)),
        )


class _Completions:
    """Least and greatest sums of completions, looked up."""

    def __init__(self, tables: CompletionTables, device: torch.device) -> None:
        put = partial(to_tensor, device=device)
        self.low, self.size, self.start = put(tables.low), put(tables.size), put(tables.start)
        self.values, self.metals = put(tables.values), put(tables.metals)
        self.n_sums = tables.values.shape[1] // 2

    def ends(
        self, position: torch.Tensor, rest: torch.Tensor, charges: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Least and greatest sums [rows, J] over completions; inf and -inf where there is none.

        Args:
            position: of the first element that may follow, [rows].
            rest: multisets left, [rows].
            charges: reached, as `ChargeSets.unpack` has them, [rows, 2, W + 1].
        """
        row, split, charge = charges[..., :-1].nonzero().unbind(1)
        size = self.size[position, rest][row]
        place = charge - self.low[position, rest][row]
        inside = (place >= 0) & (place < size)
        at = (self.start[position, rest][row] + split * size + place)[inside]
        found = torch.where(charges[:, 1, -1:], self.metals[position, rest], torch.inf)
        values = self.values[at].double()
        found.scatter_reduce_(0, row[inside, None].expand_as(values), values, "amin")
        return found[:, : self.n_sums], -found[:, self.n_sums :]
