"""A property that is a probability, such as a model's of being synthesizable, as a reward."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from crystalgfn.domain.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.rewards.base import Property, describe, label, moved
from crystalgfn.typing import Floats


@dataclass(frozen=True, eq=False)
class Probability:
    """``log R = weight * ln(max(p - k * spread, smallest))``: R is the probability to the power of ``weight``.

    Attributes:
        prop: a property with values from 0 to 1.
        weight: how much it counts, > 0.
        smallest: what smaller probabilities count as, so that no crystal has none; in (0, 1].
        k: how many standard errors of pessimism, >= 0.
    """

    prop: Property
    weight: float = 1.0
    smallest: float = 1e-3
    k: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.prop, Property):
            raise RewardError(
                f"probability: {type(self.prop).__name__} is not a property; wrap a function of crystals in "
                "crystalgfn.rewards.function(fn, name)."
            )
        for name, limit in (("weight", math.inf), ("smallest", 1.0 + 1e-12)):
            if not 0 < getattr(self, name) < limit:
                raise RewardError(f"probability: {name} must be greater than 0 and finite, not {getattr(self, name)}.")
        if not 0 <= self.k < math.inf:
            raise RewardError(f"probability: k must be a finite number at least 0, not {self.k}.")

    def __call__(self, crystals: Crystals) -> Floats:
        """Log R of each crystal.

        Raises:
            RewardError: a value that is no probability; names the crystal.
        """
        value = self.prop(crystals)
        wrong = (~((value >= 0) & (value <= 1))).nonzero().flatten()
        if len(wrong):
            first = int(wrong[0])
            raise RewardError(
                f"probability: {self.prop.name} is {float(value[first]):g} for {label(crystals, first)}; "
                "a probability lies between 0 and 1."
            )
        return self.weight * self.prop.bound(crystals, -self.k).clamp(min=self.smallest, max=1.0).log()

    def to(self, device: Any) -> Probability:
        """The same reward on ``device``."""
        return replace(self, prop=moved(self.prop, device))

    def config(self) -> dict[str, Any]:
        """What hydra rebuilds it from."""
        return {
            "_target_": "crystalgfn.rewards.probability",
            "prop": describe(self.prop),
            "weight": self.weight,
            "smallest": self.smallest,
            "k": self.k,
        }


def probability(prop: Any, weight: float = 1.0, smallest: float = 1e-3, k: float = 1.0) -> Probability:
    """The probability itself, to a power, as the reward; see :class:`Probability`."""
    return Probability(prop, weight, smallest, k)
