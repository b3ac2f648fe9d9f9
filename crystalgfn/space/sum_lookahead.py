"""Look-ahead for limits on sums over the atoms, such as mass: which partial compositions can end in given ranges.

For every position in the order of the elements, multiset of counts left and charge still to balance, the least and the
greatest completion of each sum are tabulated. If they are in the ranges (for one of the sums, if one of the two is),
the ranges can be reached; if a least one is above its range or a greatest one below, they cannot; in between, the next
elements are tried in turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch

from crystalgfn.errors import InvalidSpace
from crystalgfn.space.charge import progressions
from crystalgfn.space.charge_lookahead import ChargeSets, Multisets, to_tensor
from crystalgfn.space.compositions import CompositionRules, CompositionTables, rest_of


@dataclass(frozen=True)
class SumConfig:
    """Bounds on memory and work.

    Attributes:
        chunk: options looked at together, at most.
        chunk_values: values of the tables looked at together.
        table_values: values of all tables, beyond which a space is refused.
        work: values looked at while a space is built, beyond which it is refused.
    """

    chunk: int = 50_000
    chunk_values: int = 6_000_000
    table_values: int = 150_000_000
    work: int = 450_000_000


CONFIG = SumConfig()
ROUNDING = 1e-7
"""Relative error of the tables' values; what lies so near the end of a range is looked at one element deeper."""
REMEDY = "the limits on density and volumes (or sums over atoms) are too narrow together for these elements and atoms: "


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
    """

    def __init__(
        self, rules: CompositionRules, table: CompositionTables, weights: np.ndarray, device: torch.device
    ) -> None:
        put = partial(to_tensor, device=device)
        self.sets = ChargeSets(table, rules.charge.alloys, device)
        self.finish, self.after, self.first = put(table.finish), put(table.after), put(table.first)
        self.multisets, self.leftover = Multisets(table, device), put(table.leftover)
        own = weights[:, np.array(rules.zs) - 1]
        self.weights = put(own.T)
        # least and greatest weight of the elements that may still follow each column; 0 after the last
        ends = [f(own[:, ::-1], axis=1)[:, ::-1][:, 1:].T for f in (np.minimum.accumulate, np.maximum.accumulate)]
        self.lightest, self.heaviest = (put(np.concatenate([x, np.zeros_like(own[:, :1]).T])) for x in ends)
        self.atoms = put(_atoms(table))
        self.completions = _Completions(rules, table, own, device)
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
        balanced = (self.finish[rows.left] & rows.charge[:, None, None]).ne(0).any(-1).any(-1)
        return balanced & self.after[rows.last + 1][:, None, :]

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
        error = ROUNDING * torch.maximum(least.abs(), greatest.abs()).nan_to_num(posinf=0.0)
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


def _atoms(table: CompositionTables) -> np.ndarray:
    """Atoms in each multiset of counts, int64."""
    following = np.arange(len(table.slot_count))
    total = np.zeros(len(following), dtype=np.int64)
    while (table.slot_count[following, 0] > 0).any():
        count = table.slot_count[following, 0]
        total += count
        following = np.where(count > 0, table.slot_next[following, 0], following)
    return total


class _Completions:
    """Least and greatest sums of completions, by position in the order of the elements, multiset and charge.

    Only charges that some completion balances have a place: from the lowest to the highest of a position and multiset.

    Args:
        rules, table: of the compositions.
        weights: of each sum, [J, E].
        device: where the tables live.

    Raises:
        InvalidSpace: they would take too much memory.
    """

    def __init__(
        self, rules: CompositionRules, table: CompositionTables, weights: np.ndarray, device: torch.device
    ) -> None:
        shape, n_sums = (len(rules.zs) + 1, len(table.finish)), len(weights)
        low, size = (np.zeros(shape, dtype=np.int64) for _ in range(2))
        for e, whole, mixed, _ in _extremes(rules, table, weights[0]):
            there = np.isfinite(np.minimum(whole, mixed))
            low[e], size[e] = (
                there.argmax(1),
                there.any(1) * (there.shape[1] - there.argmax(1) - there[:, ::-1].argmax(1)),
            )
        end = 2 * np.cumsum(size.ravel())
        if 2 * n_sums * end[-1] > CONFIG.table_values:
            raise InvalidSpace(
                f"{REMEDY}their tables would take {2 * n_sums * end[-1] * 4 / 1e9:.1f} GB; give fewer elements, fewer "
                "atoms, or drop one of the limits"
            )
        start = end.reshape(shape) - 2 * size
        values = np.empty((end[-1], 2 * n_sums), dtype=np.float32)
        metals = np.empty((*shape, 2 * n_sums))
        for j, weight in enumerate([*weights, *-weights]):
            for e, whole, mixed, metal in _extremes(rules, table, weight):
                charge = np.arange(whole.shape[1])
                there = (charge >= low[e, :, None]) & (charge < (low + size)[e, :, None])
                both = np.stack([np.minimum(whole, mixed), whole], axis=1)
                place = slice(start[e, 0], start[e, -1] + 2 * size[e, -1])
                values[place, j] = both[np.broadcast_to(there[:, None], both.shape)]
                metals[e, :, j] = metal
        tensors = (torch.from_numpy(x).to(device) for x in (low, size, start, values, metals))
        self.low, self.size, self.start, self.values, self.metals = tensors
        self.n_sums = n_sums

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


def _extremes(rules: CompositionRules, table: CompositionTables, weights: np.ndarray) -> Iterator[tuple]:
    """Least sum of the weights [E] of completions by the charge that they balance, from the last position to the first.

    Yields:
        The position; without a split element [M, W], with one [M, W], of metals only [M].
    """
    half, n_small, n_el = table.half_width, len(table.finish), len(rules.zs)
    width = 2 * half + 1
    count, following = table.slot_count[:n_small], table.slot_next[:n_small]
    empty = count[:, 0] == 0
    if table.automaton is not None:
        empty &= table.automaton.accept[table.automaton.state[:n_small]]
    whole, mixed, metals = (np.full(shape, np.inf) for shape in ((n_small, width), (n_small, width), (n_small,)))
    whole[empty, half] = 0.0
    metals[empty] = 0.0
    pairs = {c: np.nonzero(count == c) for c in np.unique(count[count > 0]).tolist()}
    yield n_el, whole[:, ::-1], mixed[:, ::-1], metals
    for e in range(n_el - 1, -1, -1):
        z = rules.zs[e]
        skip = e not in rules.required
        new = [x.copy() if skip else np.full_like(x, np.inf) for x in (whole, mixed, metals)]
        for c, (rows, slots) in pairs.items():
            rest = rest_of(table.automaton, rows, following[rows, slots], e, c)
            keep = rest >= 0
            rows, rest = rows[keep], rest[keep]
            added = c * weights[e]
            plain, split = rules.charge.plain(z, c), rules.charge.split(z, c)
            new[0][rows] = np.minimum(new[0][rows], _shifted(whole[rest], plain) + added)
            new[1][rows] = np.minimum(new[1][rows], _shifted(mixed[rest], plain) + added)
            new[1][rows] = np.minimum(new[1][rows], _shifted(whole[rest], split) + added)
            if rules.metal[e]:
                new[2][rows] = np.minimum(new[2][rows], metals[rest] + added)
        whole, mixed, metals = new
        yield e, whole[:, ::-1], mixed[:, ::-1], metals


def _shifted(values: np.ndarray, charges: tuple[int, ...]) -> np.ndarray:
    """The smallest value [rows, W] over moves by each charge."""
    out = np.full_like(values, np.inf)
    for first, step, n in progressions(charges):
        part, k = _moved(values, first), 1
        while k < n:  # part is over the first k charges
            more = min(k, n - k)
            np.minimum(part, _moved(part, step * more), out=part)
            k += more
        np.minimum(out, part, out=out)
    return out


def _moved(values: np.ndarray, by: int) -> np.ndarray:
    """Values [rows, W] moved by a charge; infinite where nothing comes to lie."""
    out, width = np.full_like(values, np.inf), values.shape[1]
    if by >= 0:
        out[:, by:] = values[:, : max(width - by, 0)]
    else:
        out[:, :by] = values[:, -by:]
    return out
