"""What a reward and a property are, and the checks that hold a user's own to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.properties.base import Property, as_values, label, name_of
from crystalgfn.properties.training_distance import domain_of
from crystalgfn.space.space import CrystalSpace
from crystalgfn.typing import Floats


@runtime_checkable
class Reward(Protocol):
    """Anything callable that maps crystals to log R, natural logarithm, float ``[B]``, finite, on their device.

    A function of one's own may also return a NumPy array or a list of numbers (`crystalgfn.properties.base.as_values`).
    """

    def __call__(self, crystals: Crystals) -> Floats:
        """Log R of each crystal."""
        ...


def properties(reward: Any) -> list[Property]:
    """The properties that a reward is made of, each once, wherever in it they are."""
    if isinstance(reward, Property):
        return [reward]
    parts = [getattr(reward, name, ()) for name in ("prop", "plausibility", "reward", "rewards")]
    found = [
        prop for part in parts for one in (part if isinstance(part, tuple) else (part,)) for prop in properties(one)
    ]
    return list({prop.name: prop for prop in found}.values())


def check_callable(reward: Any) -> None:
    """Refuse what is no reward.

    Raises:
        RewardError: an object that cannot be called.
    """
    if not callable(reward):
        raise RewardError(f"{type(reward).__name__} {str(reward)[:40]!r} is no reward; give a function of crystals.")


def check_space(reward: Any, space: CrystalSpace) -> None:
    """Refuse a space that a proxy in a reward knows nothing of (`crystalgfn.properties.training_distance.Domain`).

    Raises:
        RewardError: names the proxy, what is not in its data and what to change.
    """
    for prop in properties(reward):
        domain = domain_of(prop)
        refusal = domain and domain.refusal(space.element_numbers, space.rules.required)
        if refusal:
            raise RewardError(f"{refusal}.")


def evaluate(reward: Any, crystals: Crystals) -> Floats:
    """Log R of ``crystals``, float ``[B]`` and checked: what training calls.

    Raises:
        RewardError: no tensor, wrong shape, integer values, another device, or NaN or infinity, whose first crystal
            is named.
    """
    check_callable(reward)
    with torch.no_grad():
        values = as_values(reward(crystals), crystals)
    broken = _wrong_form(values, crystals)
    if broken:
        raise RewardError(f"The reward {name_of(reward)} {broken}.")
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        raise RewardError(f"The reward {name_of(reward)} {_not_finite(values, crystals)}.")
    return values


def check_reward(reward: Any, crystals: Crystals | None = None) -> None:
    """Hold a reward to its contract on ``crystals`` (default: seven well-known ones, one to five elements).

    The contract: log R of shape ``[B]`` with a floating dtype, finite, on the device of the crystals, the same for a
    crystal alone as in a batch, the same when called again, and the crystals are left as they were.

    Raises:
        RewardError: one sentence for each clause that is broken.
    """
    if not callable(reward):
        raise RewardError(f"A reward is called with crystals and returns log R; {name_of(reward)} cannot be called.")
    crystals = example_crystals() if crystals is None else crystals
    if len(crystals) == 0:
        raise RewardError("check_reward needs at least one crystal; it was given none.")
    given = _copy(crystals)
    with torch.no_grad():
        values = as_values(reward(given), crystals)
    broken = []
    if not _same(given, crystals):
        broken.append("changes the crystals that it is given; it must work on copies (tensor.clone())")
    form = _wrong_form(values, crystals)
    if form:
        broken.append(form)
    elif not bool(torch.isfinite(values).all()):
        broken.append(_not_finite(values, crystals))
    else:
        broken += _unsteady(reward, crystals, values)
    if broken:
        raise RewardError("\n".join(f"The reward {name_of(reward)} {sentence}." for sentence in broken))


def example_crystals() -> Crystals:
    """Seven crystals on which rewards are tried: Fe, NaCl, rutile, quartz, LiFeO2, YBa2Cu3O7 and Na2ZnSiO4."""
    rows = [
        (229, {26: 1}, (2.83, 2.83, 2.83, 90, 90, 90)),
        (225, {11: 1, 17: 1}, (5.59, 5.59, 5.59, 90, 90, 90)),
        (136, {22: 2, 8: 4}, (4.60, 4.60, 2.96, 90, 90, 90)),
        (154, {14: 3, 8: 6}, (4.92, 4.92, 5.41, 90, 90, 120)),
        (166, {3: 1, 26: 1, 8: 2}, (2.95, 2.95, 14.6, 90, 90, 120)),
        (47, {39: 1, 56: 2, 29: 3, 8: 7}, (3.82, 3.89, 11.68, 90, 90, 90)),
        (7, {11: 4, 30: 2, 14: 2, 8: 8}, (7.02, 5.44, 5.25, 90, 90.2, 90)),
    ]
    composition = torch.zeros(len(rows), 118, dtype=torch.int64)
    for i, (_, counts, _) in enumerate(rows):
        for z, n in counts.items():
            composition[i, z - 1] = n
    return Crystals(
        torch.tensor([group for group, _, _ in rows]),
        composition,
        torch.tensor([lattice for _, _, lattice in rows], dtype=torch.float64),
    )


def _wrong_form(values: Any, crystals: Crystals) -> str:
    """What is wrong with shape, dtype or device, or an empty string."""
    if not isinstance(values, torch.Tensor):
        return (
            f"returns {type(values).__name__}; it must return a tensor (or an array or list) of log R of each crystal"
        )
    if values.shape != (len(crystals),):
        shape, wanted = list(values.shape), [len(crystals)]
        return f"returns shape {shape} for {len(crystals)} crystals; it must return one log R a crystal, shape {wanted}"
    if not values.is_floating_point():
        return f"returns {values.dtype}; log R must be floating point, such as values.double()"
    device = crystals.space_group.device
    if values.device != device:
        return f"returns values on {values.device} for crystals on {device}; compute on the device of the crystals"
    return ""


def _not_finite(values: torch.Tensor, crystals: Crystals) -> str:
    """The sentence about the first value that is NaN or infinite."""
    bad = (~torch.isfinite(values)).nonzero().flatten()
    first = int(bad[0])
    value = float(values[first])
    remedy = (
        "wrap it in crystalgfn.rewards.floor(reward, log_r_min) if zero rewards are meant"
        if value == float("-inf")
        else "log R must be finite for every crystal of the space"
    )
    return (
        f"gives log R = {value} for {label(crystals, first)} ({len(bad)} of {len(values)} crystals of this batch); "
        + remedy
    )


def _unsteady(reward: Callable[[Crystals], Any], crystals: Crystals, values: torch.Tensor) -> list[str]:
    """Sentences about a value that changes with its batch or from one call to the next."""
    with torch.no_grad():
        again = as_values(reward(_copy(crystals)), crystals)
        singles = [as_values(reward(_copy(crystals[i])), crystals) for i in range(len(crystals))]
    if not isinstance(again, torch.Tensor) or again.shape != values.shape or not _close(again, values):
        return ["gives other values when it is called again with the same crystals; it must not draw random numbers"]
    for i, single in enumerate(singles):
        if not isinstance(single, torch.Tensor) or single.shape != (1,):
            shape = list(single.shape) if isinstance(single, torch.Tensor) else type(single).__name__
            return [f"returns {shape} for a batch of one crystal; it must return shape [1]"]
        if not _close(single, values[i : i + 1]):
            return [
                f"gives log R = {float(single[0]):.6g} for {label(crystals, i)} alone and {float(values[i]):.6g} in a "
                "batch; log R of a crystal must not depend on the others"
            ]
    return []


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal up to the rounding of float32."""
    return bool(torch.allclose(one.double(), other.double(), rtol=1e-4, atol=1e-4))


def _copy(crystals: Crystals) -> Crystals:
    """The same crystals in tensors of their own."""
    return Crystals(*(getattr(crystals, field.name).clone() for field in dataclasses.fields(crystals)))


def _same(one: Crystals, other: Crystals) -> bool:
    """Whether all tensors are equal, bit by bit."""
    fields = (field.name for field in dataclasses.fields(one))
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in fields)
