"""From properties to rewards, and from rewards to rewards; everything in log space.

The classes are frozen; the lower-case functions build them, and are what code and configurations name:
``cg.rewards.boltzmann(prop, beta=8)`` and ``_target_: crystalgfn.rewards.boltzmann`` are the same thing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.properties.base import Property, as_values, check_number, check_property, describe, moved
from crystalgfn.rewards.base import Reward
from crystalgfn.typing import Floats

DIRECTIONS = ("minimise", "maximise")


@dataclass(frozen=True, eq=False)
class Boltzmann:
    """``log R = -beta * (mean + n_sigma * std)``, or ``+beta * (mean - n_sigma * std)`` to maximise.

    Attributes:
        prop: the property.
        beta: inverse temperature in 1 / unit of the property, > 0.
        n_sigma: how many standard errors of pessimism, >= 0; what the property does not know well is taken to be worse.
        direction: "minimise" or "maximise" the property.
    """

    prop: Property
    beta: float
    n_sigma: float = 1.0
    direction: str = "minimise"

    def __post_init__(self) -> None:
        check_property("boltzmann", self.prop)
        if self.direction not in DIRECTIONS:
            raise RewardError(f"boltzmann: direction must be 'minimise' or 'maximise', not {self.direction!r}.")
        check_number("boltzmann", "beta", self.beta, positive=True, hint="; direction='maximise' wants large values")
        check_number("boltzmann", "n_sigma", self.n_sigma)

    def __call__(self, crystals: Crystals) -> Floats:
        """Log R of each crystal."""
        if self.direction == "minimise":
            return -self.beta * self.prop.confidence_bound(crystals, self.n_sigma)
        return self.beta * self.prop.confidence_bound(crystals, -self.n_sigma)

    def with_beta(self, beta: float) -> Boltzmann:
        """The same reward at another inverse temperature."""
        return replace(self, beta=beta)

    def to(self, device: torch.device | str) -> Boltzmann:
        """The same reward on ``device``."""
        return replace(self, prop=moved(self.prop, device))

    def config(self) -> dict[str, Any]:
        """The configuration that builds it."""
        return {
            "_target_": "crystalgfn.rewards.boltzmann",
            "prop": describe(self.prop),
            "beta": self.beta,
            "n_sigma": self.n_sigma,
            "direction": self.direction,
        }


@dataclass(frozen=True, eq=False)
class Target:
    """``log R = -(|x - value| + n_sigma * std)² / (2 width²)``: a Gaussian around a wanted value, with pessimism.

    Attributes:
        prop: the property x.
        value: the wanted value, in the property's unit.
        width: standard deviation of the Gaussian, in the same unit, > 0.
        n_sigma: how many standard errors the value is taken to be further off, >= 0.
    """

    prop: Property
    value: float
    width: float
    n_sigma: float = 1.0

    def __post_init__(self) -> None:
        check_property("target", self.prop)
        if not math.isfinite(self.value):
            raise RewardError(f"target: value must be finite, not {self.value}.")
        check_number("target", "width", self.width, positive=True)
        check_number("target", "n_sigma", self.n_sigma)

    def __call__(self, crystals: Crystals) -> Floats:
        """Log R of each crystal."""
        # The farther end of [mean - n_sigma * std, mean + n_sigma * std] from the wanted value.
        low, high = (
            self.prop.confidence_bound(crystals, -self.n_sigma),
            self.prop.confidence_bound(crystals, self.n_sigma),
        )
        distance = torch.maximum((low - self.value).abs(), (high - self.value).abs())
        return -0.5 * (distance / self.width) ** 2

    def to(self, device: torch.device | str) -> Target:
        """The same reward on ``device``."""
        return replace(self, prop=moved(self.prop, device))

    def config(self) -> dict[str, Any]:
        """The configuration that builds it."""
        return {
            "_target_": "crystalgfn.rewards.target",
            "prop": describe(self.prop),
            "value": self.value,
            "width": self.width,
            "n_sigma": self.n_sigma,
        }


@dataclass(frozen=True, eq=False)
class Weighted:
    """``log R = Σ weight_i * log R_i``: a product of powers, so that a larger weight makes its reward count more.

    Attributes:
        rewards: at least one reward.
        weights: as many finite numbers >= 0, not all of them 0.
    """

    rewards: tuple[Reward, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.rewards:
            raise RewardError("at least one reward is needed, and none was given.")
        for reward in self.rewards:
            _check_callable("weighted", reward)
        if len(self.weights) != len(self.rewards):
            raise RewardError(
                f"weighted: one weight a reward is needed; there are {len(self.rewards)} rewards and "
                f"{len(self.weights)} weights."
            )
        for weight in self.weights:
            check_number("weighted", "every weight", weight)
        if not any(self.weights):
            raise RewardError("weighted: all weights are 0, so every crystal would have the same reward.")

    def __call__(self, crystals: Crystals) -> Floats:
        """Log R of each crystal."""
        # A weight of 0 leaves its reward out: 0 times -inf would be NaN.
        parts = [
            w * as_values(reward(crystals), crystals)
            for reward, w in zip(self.rewards, self.weights, strict=True)
            if w > 0
        ]
        return torch.stack(parts).sum(0)

    def to(self, device: torch.device | str) -> Weighted:
        """The same reward on ``device``."""
        return replace(self, rewards=tuple(moved(reward, device) for reward in self.rewards))

    def config(self) -> dict[str, Any]:
        """The configuration that builds it."""
        return {
            "_target_": "crystalgfn.rewards.weighted",
            "rewards": [describe(reward) for reward in self.rewards],
            "weights": list(self.weights),
        }


@dataclass(frozen=True, eq=False)
class Floor:
    """``log R = max(log R, log_r_min)``: no crystal below a smallest reward, zero rewards (-inf) included; NaN stays.

    Attributes:
        reward: the reward.
        log_r_min: the smallest log R, finite.
    """

    reward: Reward
    log_r_min: float

    def __post_init__(self) -> None:
        _check_callable("floor", self.reward)
        if not math.isfinite(self.log_r_min):
            raise RewardError(f"floor: log_r_min must be finite, not {self.log_r_min}.")

    def __call__(self, crystals: Crystals) -> Floats:
        """Log R of each crystal."""
        return as_values(self.reward(crystals), crystals).clamp(min=self.log_r_min)

    def to(self, device: torch.device | str) -> Floor:
        """The same reward on ``device``."""
        return replace(self, reward=moved(self.reward, device))

    def config(self) -> dict[str, Any]:
        """The configuration that builds it."""
        return {
            "_target_": "crystalgfn.rewards.floor",
            "reward": describe(self.reward),
            "log_r_min": self.log_r_min,
        }


def boltzmann(prop: Any, beta: float, n_sigma: float = 1.0, direction: str = "minimise") -> Boltzmann:
    """``R = exp(-beta * property)``, at the pessimistic end of what the property knows; see :class:`Boltzmann`.

    Raises:
        RewardError: no property, a ``beta`` that is not above 0, a negative ``n_sigma``, or another direction.
    """
    return Boltzmann(prop, beta, n_sigma, direction)


def target(prop: Any, value: float, width: float, n_sigma: float = 1.0) -> Target:
    """A Gaussian of ``width`` around ``value``; see :class:`Target`.

    Raises:
        RewardError: no property, a ``value`` that is not finite, a ``width`` not above 0, or a negative ``n_sigma``.
    """
    return Target(prop, value, width, n_sigma)


def weighted(
    rewards: Mapping[Any, float] | Sequence[Any] = (),
    weights: Mapping[str, float] | Sequence[float] | None = None,
    **named: Any,
) -> Weighted:
    """The product of the rewards, each to the power of its weight.

    ``weighted({reward: weight, ...})``, ``weighted([reward, ...], [weight, ...])``, or, in configurations, each reward
    under a name of its own: ``weighted(weights={"energy": 1, "gap": 0.5}, energy=reward, gap=reward)``. (A list of
    rewards in a configuration needs ``_convert_: all`` beside its ``_target_``.)

    Raises:
        RewardError: no reward, not one weight a reward, a negative weight, all weights 0.
    """
    if isinstance(rewards, Mapping):
        if weights is not None or named:
            raise RewardError("weighted: give {reward: weight} or rewards and weights, not both.")
        rewards, weights = list(rewards), list(rewards.values())
    if weights is None:
        raise RewardError("weighted: weights are missing; for equal weights use product(...).")
    if isinstance(weights, Mapping):
        if rewards or set(weights) != set(named):
            raise RewardError(
                f"weighted: the names of the weights ({', '.join(weights)}) and of the rewards "
                f"({', '.join(named) or 'none'}) must be the same."
            )
        return Weighted(tuple(named.values()), tuple(weights[name] for name in named))
    return Weighted((*rewards, *named.values()), tuple(weights))


def product(*rewards: Any, **named: Any) -> Weighted:
    """The product of rewards: ``product(one, other)``, or in configurations each under a name of its own.

    Raises:
        RewardError: no reward.
    """
    rewards = (*rewards, *named.values())
    return Weighted(rewards, (1.0,) * len(rewards))


def floor(reward: Any, log_r_min: float) -> Floor:
    """``max(log R, log_r_min)``; see :class:`Floor`.

    Raises:
        RewardError: what is no reward (a property is none), or a ``log_r_min`` that is not finite.
    """
    return Floor(reward, log_r_min)


def _check_callable(where: str, reward: Any) -> None:
    if not callable(reward):
        raise RewardError(f"{where}: a reward must be callable with crystals; {reward!r} is not.")
    if isinstance(reward, Property):
        raise RewardError(
            f"{where}: {reward.name} is a property in {reward.unit}, not a reward; "
            "make one of it with boltzmann(prop, beta) or target(prop, value, width)."
        )
