"""Shares of a whole with what they are uncertain by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

Z95 = 1.959963984540054


@dataclass(frozen=True)
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
        if self.share is None:
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
        return Share(0, 0, None, None, None)
    p, z2 = k / n, Z95**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Share(int(k), int(n), p, 0.0 if k == 0 else middle - half, 1.0 if k == n else middle + half)


def share_of(flags: Iterable[bool | None]) -> Share:
    """The share of true ones among those that are known."""
    known = [bool(flag) for flag in flags if flag is not None and flag == flag]
    return share(sum(known), len(known))
