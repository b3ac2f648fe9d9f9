"""Energy above the convex hull: by how much a crystal is less stable than the best mixture of known compounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.properties.base import Property, check_number, check_property, describe, moved
from crystalgfn.properties.registry import load_proxy
from crystalgfn.typing import Floats


@dataclass(frozen=True, eq=False)
class Stable:
    """``log R = -beta * max(E_hull + n_sigma * std, floor)``: constant for crystals far enough below the hull.

    Attributes:
        prop: the energy above the hull, eV/atom.
        beta: per eV/atom, > 0.
        floor: below it nothing is gained, eV/atom: larger negatives are nearly always the proxy's error.
        n_sigma: how many standard errors are added, >= 0.
    """

    prop: Property
    beta: float = 20.0
    floor: float = -0.05
    n_sigma: float = 1.0

    def __post_init__(self) -> None:
        check_property("stable", self.prop)
        check_number("stable", "beta", self.beta, positive=True)
        check_number("stable", "n_sigma", self.n_sigma)
        if isinstance(self.floor, bool) or not math.isfinite(self.floor):
            raise RewardError(f"stable: floor must be a finite number, eV/atom, not {self.floor!r}.")

    def __call__(self, crystals: Crystals) -> Floats:
        """Log R of each crystal."""
        return -self.beta * self.prop.confidence_bound(crystals, self.n_sigma).clamp_min(self.floor)

    def with_beta(self, beta: float) -> Stable:
        """The same reward at another inverse temperature."""
        return replace(self, beta=beta)

    def to(self, device: torch.device | str) -> Stable:
        """The same reward on ``device``."""
        return replace(self, prop=moved(self.prop, device))

    def config(self) -> dict[str, Any]:
        """The configuration that builds it."""
        return {
            "_target_": "crystalgfn.rewards.stable",
            "beta": self.beta,
            "floor": self.floor,
            "n_sigma": self.n_sigma,
            "prop": describe(self.prop),
        }


def stable(beta: float = 20.0, floor: float = -0.05, n_sigma: float = 1.0, prop: Any = None) -> Stable:
    """Crystals near or below the convex hull; ``prop`` is the shipped energy above the hull unless given.

    See :class:`Stable`; for a hull of your own entries ``prop=energy_above_hull(hull="my_entries.parquet")``.
    """
    return Stable(load_proxy("energy_above_hull") if prop is None else prop, beta, floor, n_sigma)
