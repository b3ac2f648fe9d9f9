"""Bootstrap errors of statistics, and shares with their intervals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt

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
def resamples(n: int, seed: int = 0) -> np.ndarray:
    """How often each of ``n`` is drawn when ``n`` are drawn with replacement, float64 [`RESAMPLES`, n]."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)


def bootstrap_mean(values: np.ndarray, among: np.ndarray | None = None, seed: int = 0) -> Interval:
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


Z95 = 1.959963984540054


@dataclass(frozen=True, kw_only=True)
class Share:
    """k of n, with Wilson's interval (95 %) for the share that lies behind it (Wilson, JASA 22, 209, 1927).

    Attributes:
        k: how many have it.
        n: of how many.
        share: k / n; None where n is 0, as are the limits.
        low: lower limit.
        high: upper limit.
    """

    k: int
    n: int
    share: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.share is None or self.low is None or self.high is None:
            return "none of 0"
        return f"{100 * self.share:.1f} % ({100 * self.low:.1f}-{100 * self.high:.1f})"


def share(k: int, n: int) -> Share:
    """The share of k in n.

    Raises:
        ValueError: more than all, or less than none.
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n}: give counts with 0 <= k <= n")
    if n == 0:
        return Share(k=0, n=0, share=None, low=None, high=None)
    p, z2 = k / n, Z95**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Share(
        k=int(k), n=int(n), share=p, low=0.0 if k == 0 else middle - half, high=1.0 if k == n else middle + half
    )


def share_of(flags: Iterable[bool | None]) -> Share:
    """The share of true ones among those that are known."""
    known = [bool(flag) for flag in flags if flag is not None and flag == flag]
    return share(sum(known), len(known))
