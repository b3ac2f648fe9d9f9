"""How many different things a set of crystals holds: systems, groups, elements, prototypes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.errors import DataError
from crystalgfn.evaluation.metrics.base import (
    ELEMENTS,
    CrystalSet,
    Metric,
    Panel,
    Selection,
    Verdict,
    level,
)
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
class ValueCounts:
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


@dataclass(frozen=True, kw_only=True)
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
    kinds: dict[str, ValueCounts]
    p1: Share
    distance: float | None = None
    noise: float | None = None


def count(values: Iterable[Any]) -> ValueCounts:
    """ValueCounts of values; missing ones are left out."""
    found = Counter(str(value) for value in values if value is not None and value == value)
    return _counts(found)


def _counts(found: Mapping[str, int]) -> ValueCounts:
    total = sum(found.values())
    shares = np.array(list(found.values()), dtype=np.float64) / max(total, 1)
    entropy = float(-(shares * np.log(shares)).sum()) if total else 0.0
    ordered = dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))
    return ValueCounts(ordered, len(found), entropy, float(np.exp(entropy)) if total else 0.0)


def diversity(frame: pd.DataFrame, reference: Mapping[int, int] | None = None) -> Diversity:
    """Of the rows of a table with the columns `KINDS` and ``Z``, beside {space group: known crystals that have it}."""
    groups = [int(g) for g in frame["space_group"] if g]
    kinds = {name: count(groups if name == "space_group" else frame[name]) for name in KINDS}
    present = Counter(elements.SYMBOLS[z - 1] for row in frame["Z"] for z in {int(z) for z in row})
    kinds["element"] = _counts(present)
    found = Diversity(n=len(frame), kinds=kinds, p1=share_of(g == 1 for g in groups))
    if not reference or not groups:
        return found
    distance = total_variation(Counter(groups), reference)
    return replace(found, distance=distance, noise=_noise(reference, len(groups)))


def best_rows(frame: pd.DataFrame, best: Selection) -> pd.DataFrame:
    """The rows with the smallest (or largest) numbers in a column; rows without a number are never among them.

    Raises:
        DataError: there is no such column.
    """
    if best.column not in frame:
        numbers = ", ".join(map(str, frame.select_dtypes("number").columns))
        raise DataError(f"there is no column {best.column} to choose the best by; there are {numbers}")
    known = frame.loc[np.isfinite(frame[best.column].astype(float))]
    return known.sort_values(by=[best.column], ascending=[not best.largest], kind="stable").head(best.n)


def total_variation(one: Mapping[int, int], other: Mapping[int, int]) -> float:
    """Half the sum of the differences between two histograms made to shares: 0 equal, 1 disjoint."""
    sizes = sum(one.values()), sum(other.values())
    return 0.5 * sum(abs(one.get(g, 0) / sizes[0] - other.get(g, 0) / sizes[1]) for g in set(one) | set(other))


def _noise(reference: Mapping[int, int], n: int) -> float:
    rng = np.random.default_rng(0)
    shares = np.array(list(reference.values()), dtype=np.float64)
    shares /= shares.sum()
    drawn = rng.multinomial(n, shares, size=DRAWS) / n
    return float(0.5 * np.abs(drawn - shares).sum(axis=1).mean())


DRAWS = 20
"""Of as many crystals of the reference, for the distance that chance makes."""
CHANCE = (2.0, 4.0)
"""Times the distance by chance: up to the first the space groups are good, up to the second fair."""


@dataclass(frozen=True, kw_only=True)
class DiversitySummary:
    """Diversity of all crystals that were read, and of the best of them by a column, None where none was named."""

    diversity: Diversity
    diversity_best: Diversity | None
    best_by: str | None


class DiversityMetric(Metric):
    """How many systems, space groups, elements and prototypes there are, and how near the reference they lie."""

    name = "diversity"

    def summary(self, samples: CrystalSet, reference: CrystalSet | None) -> DiversitySummary:
        """ValueCounts of all, and of the best.

        Raises:
            DataError: there is no column to choose the best by.
        """
        known = None if reference is None else reference.space_groups
        best = samples.best
        of_best = None if best is None else diversity(best_rows(samples.frame, best), known)
        return DiversitySummary(
            diversity=diversity(samples.frame, known),
            diversity_best=of_best,
            best_by=None if best is None else best.column,
        )

    def verdict(self, summary: DiversitySummary, reference: CrystalSet | None) -> list[Verdict]:
        """The distance of the space groups to the reference's, beside what chance alone makes."""
        found = summary.diversity
        if found.distance is None or found.noise is None:
            return []
        worth = level(-found.distance, -CHANCE[0] * found.noise, -CHANCE[1] * found.noise)
        chance = f"Compared with {found.noise:.3f}, what as many of the reference have by chance"
        why = f"{chance}; good up to {CHANCE[0]:g}, fair up to {CHANCE[1]:g} times that."
        name = "Distance of space groups to the reference"
        return [
            Verdict(
                name=name, figure=f"{found.distance:.3f}", detail="0: equal, 1: nothing in common", level=worth, why=why
            )
        ]

    def figure(self, samples: CrystalSet, reference: CrystalSet | None, summary: DiversitySummary) -> list[Panel]:
        """Numbers of distinct values, and the periodic table."""
        from crystalgfn.evaluation.report import figures

        sets = {"all": summary.diversity}
        if summary.diversity_best is not None:
            sets[f"best {summary.diversity_best.n} by {summary.best_by}"] = summary.diversity_best
        found = sets.values()
        rows = [
            [
                name.replace("_", " "),
                *(f"{one.kinds[name].distinct} ({one.kinds[name].effective:.1f})" for one in found),
            ]
            for name in summary.diversity.kinds
        ]
        rows.append(["P1", *(str(one.p1) for one in found)])
        if summary.diversity.distance is not None:
            rows.append(["distance of space groups to the reference", *map(_distance, found)])
        counts, n = summary.diversity.kinds["element"], summary.diversity.n
        return [
            Panel(section="Diversity", head=["distinct (effective number)", *sets], rows=rows),
            Panel(
                section=ELEMENTS, caption="How many crystals hold each element", name="elements", size="wide",
                draw=lambda: figures.periodic_table(counts.counts, n),
            ),
        ]  # fmt: skip


def _distance(one: Diversity) -> str:
    return "" if one.distance is None else f"{one.distance:.3f} (by chance {one.noise:.3f})"
