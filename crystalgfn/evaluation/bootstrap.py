"""Percentile intervals of means by the bootstrap (Efron, Ann. Statist. 7, 1, 1979), all columns at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Interval:
    """Means and the limits that 95 % of the resampled ones lie within; NaN where there is nothing to average.

    Attributes:
        value: [K].
        low: [K].
        high: [K].
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def columns(self) -> dict[str, list[float | None]]:
        """For JSON: None where there is nothing."""
        return {
            name: [round(float(x), 6) if np.isfinite(x) else None for x in getattr(self, name)]
            for name in ("value", "low", "high")
        }


@lru_cache(maxsize=8)
def resamples(n: int, times: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each of ``n`` is drawn when ``n`` are drawn with replacement, float64 [times, n]."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=times).astype(np.float64)


def mean(values: np.ndarray, among: np.ndarray | None = None, seed: int = 0) -> Interval:
    """Means over rows.

    Args:
        values: [n, K].
        among: bool [n, K], the entries that are averaged over; None: all. Resamples without one are passed over.
        seed: of the resamples; the same rows are drawn for every ``values`` of as many rows, so methods that are
            compared are compared on the same crystals.
    """
    n, k = values.shape
    if n == 0:
        nothing = np.full(k, np.nan)
        return Interval(nothing, nothing, nothing)
    among = np.ones(values.shape) if among is None else among.astype(np.float64)
    values = np.where(among > 0, values, 0.0)
    weights = np.vstack([np.ones(n), resamples(n, seed=seed)])
    with np.errstate(invalid="ignore"):
        found = (weights @ values) / (weights @ among)
    whole, drawn = found[0], found[1:]
    low, high = np.full(k, np.nan), np.full(k, np.nan)
    known = np.isfinite(whole)  # where the whole has none, no resample has one
    tail = (1 - LEVEL) / 2
    for column in np.flatnonzero(known):
        some = drawn[:, column]
        low[column], high[column] = np.quantile(some[np.isfinite(some)], [tail, 1 - tail])
    return Interval(whole, low, high)
