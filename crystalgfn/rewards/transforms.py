"""From properties to rewards, and from rewards to rewards; everything in log space.

The classes are frozen; the lower-case names build them, and are what code and configurations name:
``cg.rewards.boltzmann(prop, beta=8)`` and ``_target_: crystalgfn.rewards.boltzmann`` are the same thing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.properties.base import Property, as_values, check_number, check_property, describe, moved
from crystalgfn.properties.registry import load_proxy
from crystalgfn.rewards.base import Reward
from crystalgfn.typing import Floats

DIRECTIONS = ("minimise", "maximise")
SMALLEST_PLAUSIBILITY = 1e-4


@dataclass(frozen=True, eq=False)
class Transform:
    """What rewards have in common that are frozen dataclasses of properties, rewards and numbers."""

    def to(self, device: torch.device | str) -> Self:
        """The same reward on ``device``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: _on(value, device) for name, value in values.items()})

    def config(self) -> dict[str, Any]:
        """The configuration that builds it."""
        values = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return {"_target_": f"crystalgfn.rewards.{type(self).__name__.lower()}", **values}

    def with_beta(self, beta: float) -> Self:
        """The same reward at another inverse temperature; only of those that have one."""
        return replace(self, beta=beta)


def _on(value: Any, device: torch.device | str) -> Any:
    return tuple(moved(one, device) for one in value) if isinstance(value, tuple) else moved(value, device)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, int | float | str) else describe(value)


@dataclass(frozen=True, eq=False)
class Boltzmann(Transform):
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


boltzmann = Boltzmann


@dataclass(frozen=True, eq=False)
class Target(Transform):
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
        if not isinstance(self.value, int | float) or not math.isfinite(self.value):
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


target = Target


@dataclass(frozen=True, eq=False, kw_only=True)
class Stable(Transform):
    """``log R = -beta * (max(E, floor) + max(too_low - E, 0)) + weight * ln max(p - n_sigma * std, 1e-4)``.

    E is the energy above the hull plus ``n_sigma`` standard errors. The first term is constant below ``floor``, and
    below ``too_low`` it counts against the crystal: new compounds lie hardly ever so far below the hull of all that are
    known, so a claim that low is an error of the energy or a gap of the hull. The second term, with the probability
    p that a crystal is known rather than drawn, is there if ``plausibility`` is given. With ``relaxed``, another
    prediction E' of the energy above the hull, ``-beta * max(E' + n_sigma * std, relaxed_floor)`` is added.

    Attributes:
        prop: the energy above the hull, eV/atom.
        beta: per eV/atom, > 0.
        floor: below it nothing is gained, eV/atom: larger negatives are nearly always the proxy's error.
        n_sigma: how many standard errors are added, >= 0.
        too_low: eV/atom, at most the floor; None: no claim is too low.
        plausibility: a probability in 0 to 1; None: the first term alone.
        weight: of its logarithm, >= 0.
        relaxed: the energy above the hull after relaxation, eV/atom; None: no such term.
        relaxed_floor: below it nothing is gained, eV/atom.
    """

    prop: Property
    beta: float = 20.0
    floor: float = -0.05
    n_sigma: float = 1.0
    too_low: float | None = None
    plausibility: Property | None = None
    weight: float = 2.0
    relaxed: Property | None = None
    relaxed_floor: float = 0.05

    def __post_init__(self) -> None:
        check_property("stable", self.prop)
        for one in (self.plausibility, self.relaxed):
            if one is not None:
                check_property("stable", one)
        check_number("stable", "weight", self.weight)
        check_number("stable", "beta", self.beta, positive=True)
        check_number("stable", "n_sigma", self.n_sigma)
        for name in ("floor", "relaxed_floor"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise RewardError(f"stable: {name} must be a finite number, eV/atom, not {value!r}.")
        if self.too_low is not None and not self.too_low <= self.floor:
            raise RewardError(f"stable: too_low must be at most the floor, {self.floor} eV/atom, not {self.too_low!r}.")

    def __call__(self, crystals: Crystals) -> Floats:
        """Log R of each crystal."""
        above = self.prop.confidence_bound(crystals, self.n_sigma)
        log_r = -self.beta * above.clamp_min(self.floor)
        if self.too_low is not None:
            log_r = log_r - self.beta * (self.too_low - above).clamp_min(0)
        if self.relaxed is not None:
            log_r = log_r - self.beta * self.relaxed.confidence_bound(crystals, self.n_sigma).clamp_min(
                self.relaxed_floor
            )
        if self.plausibility is None or self.weight == 0:
            return log_r
        p = self.plausibility.confidence_bound(crystals, -self.n_sigma)
        return log_r + self.weight * p.clamp_min(SMALLEST_PLAUSIBILITY).log()


def stable(
    beta: float = 20.0,
    floor: float = -0.05,
    n_sigma: float = 1.0,
    prop: Any = None,
    too_low: float | None = None,
    plausibility: Any = None,
    weight: float = 2.0,
    relaxed: Any = None,
    relaxed_floor: float = 0.05,
) -> Stable:
    """Crystals near or below the convex hull; ``prop`` is the shipped energy above the hull unless given.

    See :class:`Stable`; for a hull of your own entries ``prop=energy_above_hull(hull="my_entries.parquet")``.
    """
    prop = load_proxy("energy_above_hull") if prop is None else prop
    return Stable(
        prop=prop,
        beta=beta,
        floor=floor,
        n_sigma=n_sigma,
        too_low=too_low,
        plausibility=plausibility,
        weight=weight,
        relaxed=relaxed,
        relaxed_floor=relaxed_floor,
    )


@dataclass(frozen=True, eq=False)
class Weighted(Transform):
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


@dataclass(frozen=True, eq=False)
class Floor(Transform):
    """``log R = max(log R, log_r_min)``: no crystal below a smallest reward, zero rewards (-inf) included; NaN stays.

    Attributes:
        reward: the reward.
        log_r_min: the smallest log R, finite.
    """

    reward: Reward
    log_r_min: float

    def __post_init__(self) -> None:
        _check_callable("floor", self.reward)
        if not isinstance(self.log_r_min, int | float) or not math.isfinite(self.log_r_min):
            raise RewardError(f"floor: log_r_min must be finite, not {self.log_r_min}.")

    def __call__(self, crystals: Crystals) -> Floats:
        """Log R of each crystal."""
        return as_values(self.reward(crystals), crystals).clamp(min=self.log_r_min)


floor = Floor


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


def _check_callable(where: str, reward: Any) -> None:
    if not callable(reward):
        raise RewardError(f"{where}: a reward must be callable with crystals; {reward!r} is not.")
    if isinstance(reward, Property):
        raise RewardError(
            f"{where}: {reward.name} is a property in {reward.unit}, not a reward; "
            "make one of it with boltzmann(prop, beta) or target(prop, value, width)."
        )
