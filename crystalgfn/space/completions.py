"""Tables of the least and the greatest sums over the atoms that completions of a composition can have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from crystalgfn.errors import InvalidSpace
from crystalgfn.space.charge import progressions
from crystalgfn.space.compositions import CompositionRules, CompositionTables, rest_of


@dataclass(frozen=True, kw_only=True)
class SumConfig:
    """Bounds on memory and work.

    Attributes:
        chunk: options looked at together, at most.
        chunk_values: values of the tables looked at together.
        table_values: values of all tables, beyond which a space is refused.
        kept: share of the charges of all positions and multisets that have a value, about; measured in spaces of 73
            elements and 24 to 40 atoms.
        work: values looked at while a space is built, beyond which it is refused.
    """

    chunk: int = 50_000
    chunk_values: int = 6_000_000
    table_values: int = 85_000_000
    kept: float = 0.4
    work: int = 450_000_000


CONFIG = SumConfig()
REMEDY = "the limits on density and volumes (or sums over atoms) are too narrow together for these elements and atoms: "


@dataclass(frozen=True, kw_only=True)
class CompletionTables:
    """Least and greatest sums of completions, by position in the order of the elements, multiset and charge.

    Only charges that some completion balances have a place: from the lowest to the highest of a position and multiset.

    Attributes:
        low, size: the lowest charge of each position and multiset and how many follow, [E + 1, R].
        start: where their values begin: those with at most one split element, then those without, [E + 1, R].
        values: least sums, then least sums of the negative weights, single precision [N, 2 J].
        metals: the same of completions with metals only, whatever the charge, [E + 1, R, 2 J].
    """

    low: np.ndarray
    size: np.ndarray
    start: np.ndarray
    values: np.ndarray
    metals: np.ndarray


def completion_tables(rules: CompositionRules, table: CompositionTables, weights: np.ndarray) -> CompletionTables:
    """The tables for weights of each sum [J, E].

    Raises:
        InvalidSpace: they would take too much memory.
    """
    shape, signed = (len(rules.zs) + 1, table.n_left), np.concatenate([weights, -weights])
    low, size, metals = (
        np.zeros(shape, dtype=np.int64),
        np.zeros(shape, dtype=np.int64),
        np.empty((*shape, len(signed))),
    )
    expected = CONFIG.kept * len(signed) * len(rules.zs) * table.n_left * (2 * table.half_width + 1)
    _check_size(expected)  # before the work
    reached = _reached(rules, table)
    blocks: list[np.ndarray] = []
    for e, whole, mixed, metal in _extremes(rules, table, signed):
        best = np.minimum(whole, mixed)
        there = np.isfinite(best[0]) & reached
        low[e] = there.argmax(1)
        size[e] = there.any(1) * (there.shape[1] - low[e] - there[:, ::-1].argmax(1))
        metals[e] = metal.T
        row = np.repeat(np.arange(len(there)), size[e])
        offset = np.arange(len(row)) - np.repeat(np.cumsum(size[e]) - size[e], size[e])
        source, place = row * there.shape[1] + low[e, row] + offset, np.arange(len(row)) + np.cumsum(size[e])[row]
        block = np.empty((2 * len(row), len(signed)), dtype=np.float32)
        block[place - size[e, row]] = best.reshape(len(signed), -1)[:, source].T
        block[place] = whole.reshape(len(signed), -1)[:, source].T
        blocks.append(block)
        _check_size(sum(one.size for one in blocks))
    end = 2 * np.cumsum(size.ravel())
    values, filled = np.empty((end[-1], len(signed)), dtype=np.float32), 0
    while blocks:  # the first position comes last; each is given back at once
        block = blocks.pop()
        values[filled : filled + len(block)] = block
        filled += len(block)
    return CompletionTables(low=low, size=size, start=end.reshape(shape) - 2 * size, values=values, metals=metals)


def _check_size(values: float) -> None:
    if values > CONFIG.table_values:
        raise InvalidSpace(
            f"{REMEDY}their tables would take more than {CONFIG.table_values * 4 / 1e9:.1f} GB; give fewer elements, "
            "fewer atoms, or drop one of the limits"
        )


def atoms_left(table: CompositionTables) -> np.ndarray:
    """Atoms in each multiset of counts, int64 [M]."""
    following = np.arange(len(table.slot_count))
    total = np.zeros(len(following), dtype=np.int64)
    while (table.slot_count[following, 0] > 0).any():
        count = table.slot_count[following, 0]
        total += count
        following = np.where(count > 0, table.slot_next[following, 0], following)
    return total


def _reached(rules: CompositionRules, table: CompositionTables) -> np.ndarray:
    """Which charges the atoms can have that are placed before each multiset is left, bool [R, W]."""
    charge = np.arange(-table.half_width, table.half_width + 1)
    states = [0] if rules.charge.states is None else [s for z in rules.zs for s in rules.charge.states[z - 1]]
    atoms = rules.n_atoms[1] - atoms_left(table)[: table.n_left, None]
    return (charge >= atoms * min(0, *states)) & (charge <= atoms * max(0, *states))


def _extremes(rules: CompositionRules, table: CompositionTables, weights: np.ndarray) -> Iterator[tuple]:
    """Least sums of weights [J, E] of completions by the charge that they balance, from the last position to the first.

    Yields:
        The position; without a split element [J, R, W], with one [J, R, W], of metals only [J, R].
    """
    half, n_left, n_el, n_sums = table.half_width, table.n_left, len(rules.zs), len(weights)
    count, following = table.slot_count[:n_left], table.slot_next[:n_left]
    empty = count[:, 0] == 0
    if table.automaton is not None:
        empty &= table.automaton.accept[table.automaton.state[:n_left]]
    whole, mixed = (np.full((n_sums, n_left, 2 * half + 1), np.inf, dtype=np.float32) for _ in range(2))
    metals = np.full((n_sums, n_left), np.inf)
    whole[:, empty, half] = 0.0
    metals[:, empty] = 0.0
    pairs = {c: np.nonzero(count == c) for c in np.unique(count[count > 0]).tolist()}
    left = np.zeros(n_left, dtype=np.int64)
    for _ in range(count.shape[1]):
        left = np.where(count[:, 0] > 0, 1 + left[following[:, 0]], 0)
    yield n_el, whole, mixed, metals
    for e in range(n_el - 1, -1, -1):
        z = rules.zs[e]
        skip = e not in rules.required
        new = [x.copy() if skip else np.full_like(x, np.inf) for x in (whole, mixed, metals)]
        for c, (rows, slots) in pairs.items():
            rest = rest_of(table.automaton, rows, following[rows, slots], e, c)
            # the required elements before this one have had their counts
            keep = (rest >= 0) & (left[rows] <= rules.n_elements[1] - sum(one < e for one in rules.required))
            rows, rest = rows[keep], rest[keep]
            plain, split = rules.charge.plain(z, c), rules.charge.split(z, c)
            for j, added in enumerate((c * weights[:, e]).astype(np.float32)):  # one by one, which stay in the cache
                one, two = whole[j].take(rest, axis=0) + added, mixed[j].take(rest, axis=0) + added
                new[0][j][rows] = np.minimum(new[0][j].take(rows, axis=0), _balanced([(one, plain)]))
                new[1][j][rows] = np.minimum(new[1][j].take(rows, axis=0), _balanced([(two, plain), (one, split)]))
            if rules.metal[e]:
                new[2][:, rows] = np.minimum(new[2][:, rows], metals[:, rest] + c * weights[:, e, None])
        whole, mixed, metals = new
        yield e, whole, mixed, metals


def _balanced(pairs: list[tuple[np.ndarray, tuple[int, ...]]]) -> np.ndarray:
    """The smallest of values [R, W] by the charge to balance, with each of the charges beside them taken off."""
    out = np.full_like(pairs[0][0], np.inf)
    for values, charges in pairs:
        for first, step, n in progressions(charges):
            if n == 1:
                _lower(out, values, -first)
                continue
            part, k = np.full_like(values, np.inf), 1
            _lower(part, values, -first)
            while k < n:  # part is over the first k charges
                more = min(k, n - k)
                _lower(part, part.copy(), -step * more)
                k += more
            np.minimum(out, part, out=out)
    return out


def _lower(out: np.ndarray, values: np.ndarray, by: int) -> None:
    """Put values [..., W], moved by a charge, where they are smaller."""
    width = values.shape[-1]
    if abs(by) < width:
        mine, theirs = slice(max(by, 0), width + min(by, 0)), slice(max(-by, 0), width - max(by, 0))
        np.minimum(out[..., mine], values[..., theirs], out=out[..., mine])
