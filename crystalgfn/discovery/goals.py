"""Goals of a discovery: limits of predicted properties, by which candidates are left out before anything is placed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from numbers import Real

import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.properties.base import Property
from crystalgfn.properties.registry import load_proxy
from crystalgfn.rewards.base import check_space
from crystalgfn.space.space import CrystalSpace
from crystalgfn.typing import Booleans


@dataclass(frozen=True, kw_only=True, eq=False)
class Goal:
    """A predicted property within limits, both included.

    Attributes:
        prop: the property.
        low, high: limits in its unit; infinite where there is none.
    """

    prop: Property
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g} <= {self.prop.name} <= {self.high:g}"

    def holds(self, crystals: Crystals) -> Booleans:
        """Which crystals are predicted to be within, bool [B]."""
        values = self.prop(crystals)
        return (values >= self.low) & (values <= self.high)


def goals_of(limits: Mapping[str, Sequence[float | None]] | Sequence[Goal], space: CrystalSpace) -> tuple[Goal, ...]:
    """Goals from limits by the name or folder of a proxy; ``None`` in the place of a limit: there is none.

    Raises:
        RewardError: there is no such proxy, it knows nothing of the space, or its limits are no two numbers in order.

    Example:
        >>> [one.high for one in goals_of({"band_gap": [1.2, 1.8]}, CrystalSpace())]
        [1.8]
    """
    if not isinstance(limits, Mapping):
        return tuple(limits)
    found = []
    for name, pair in limits.items():
        low, high = _limits(name, pair)
        prop = load_proxy(name)
        check_space(prop, space)
        found.append(Goal(prop=prop, low=low, high=high))
    return tuple(found)


def _limits(name: str, pair: object) -> tuple[float, float]:
    """The least and the largest value, infinite where there is none."""
    values = list(pair) if isinstance(pair, Sequence) and not isinstance(pair, str) else []
    if len(values) == 2 and all(one is None or isinstance(one, Real) for one in values):
        low, high = (end if one is None else float(one) for one, end in zip(values, (-inf, inf), strict=True))
        if low <= high:  # and neither is NaN
            return low, high
    raise RewardError(f"goals: {name}={pair}: give the least and the largest value such as [1.2,1.8], null for none")


def met(goals: Sequence[Goal], crystals: Crystals) -> Booleans:
    """Which crystals meet all goals, bool [B]."""
    found = torch.ones(len(crystals), dtype=torch.bool)
    for goal in goals:
        found &= goal.holds(crystals).cpu()
    return found


def meeting(goals: Sequence[Goal], crystals: Crystals) -> Crystals:
    """The crystals that meet all goals, in their order."""
    return crystals[met(goals, crystals)] if goals else crystals
