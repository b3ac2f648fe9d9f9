"""How many different things a set of crystals holds: systems, groups, elements, prototypes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.utils.statistics import Share, share_of

if TYPE_CHECKING:
    import pandas as pd

KINDS = (
    "crystal_system",
    "lattice_system",
    "point_symmetry",
    "point_group",
    "space_group",
    "prototype",
    "chemical_system",
    "formula",
)
"""Columns whose values are counted, one a crystal; elements are counted besides."""


@dataclass(frozen=True)
class Counts:
    """How often each value comes.

    Attributes:
        counts: value -> how often, most frequent first.
        distinct: number of values.
        shannon: entropy in nats.
        effective: its exponential, the number of equally frequent values with this entropy.
    """

    counts: dict[str, int]
    distinct: int
    shannon: float
    effective: float


@dataclass(frozen=True)
class Diversity:
    """A set of crystals.

    Attributes:
        n: crystals.
        kinds: column -> its counts; "element" counts the crystals that an element is in.
        p1: share of crystals without any symmetry but translations.
        distance: total variation distance of the histogram of space groups to the reference's, None without one.
        noise: what that distance is in the mean for as many crystals drawn from the reference itself.
    """

    n: int
    kinds: dict[str, Counts]
    p1: Share
    distance: float | None = None
    noise: float | None = None


def count(values: Iterable[Any]) -> Counts:
    """Counts of values; missing ones are left out."""
    found = Counter(str(value) for value in values if value is not None and value == value)
    return _counts(found)


def _counts(found: Mapping[str, int]) -> Counts:
    total = sum(found.values())
    shares = np.array(list(found.values()), dtype=np.float64) / max(total, 1)
    entropy = float(-(shares * np.log(shares)).sum()) if total else 0.0
    ordered = dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))
    return Counts(ordered, len(found), entropy, float(np.exp(entropy)) if total else 0.0)


def diversity(frame: pd.DataFrame, reference: Mapping[int, int] | None = None, seed: int = 0) -> Diversity:
    """Of the rows of a table of structures.

    Args:
        frame: with the columns `KINDS` and ``Z``.
        reference: space group -> how many known crystals have it.
        seed: of the draws that the noise of the distance is estimated from.
    """
    kinds = {name: count(v for v in frame[name] if name != "space_group" or v) for name in KINDS}
    present = Counter(elements.SYMBOLS[z - 1] for row in frame["Z"] for z in {int(z) for z in row})
    kinds["element"] = _counts(present)
    groups = [int(g) for g in frame["space_group"] if g]
    distance = noise = None
    if reference and groups:
        distance = total_variation(Counter(groups), reference)
        noise = _noise(reference, len(groups), seed)
    return Diversity(len(frame), kinds, share_of(g == 1 for g in groups), distance, noise)


def best_rows(frame: pd.DataFrame, column: str, n: int, largest: bool = False) -> pd.DataFrame:
    """The n rows with the smallest (or largest) numbers in a column; rows without a number are never among them."""
    known = frame[np.isfinite(frame[column].astype(float))]
    return known.sort_values(column, ascending=not largest, kind="stable").head(n)


def total_variation(one: Mapping[int, int], other: Mapping[int, int]) -> float:
    """Half the sum of the differences between two histograms made to shares: 0 where equal, 1 where apart."""
    sizes = sum(one.values()), sum(other.values())
    return 0.5 * sum(abs(one.get(g, 0) / sizes[0] - other.get(g, 0) / sizes[1]) for g in set(one) | set(other))


def _noise(reference: Mapping[int, int], n: int, seed: int, draws: int = 20) -> float:
    rng = np.random.default_rng(seed)
    shares = np.array(list(reference.values()), dtype=np.float64)
    shares /= shares.sum()
    drawn = rng.multinomial(n, shares, size=draws) / n
    return float(0.5 * np.abs(drawn - shares).sum(axis=1).mean())
