"""What a property of a crystal is, and how objects are described in saved configurations."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.typing import Floats


@runtime_checkable
class Property(Protocol):
    """A quantity of crystals in ``unit``, with a standard error for what is predicted rather than known.

    Accepts every crystal, all 118 elements included; what it has never seen shows in ``std``.
    """

    @property
    def name(self) -> str:
        """What it is called in tables."""
        ...

    @property
    def unit(self) -> str:
        """Unit of its values."""
        ...

    def __call__(self, crystals: Crystals) -> Floats:
        """The mean value of each crystal, float ``[B]``."""
        ...

    def std(self, crystals: Crystals) -> Floats:
        """The standard error of each value, at least 0, float ``[B]``."""
        ...

    def confidence_bound(self, crystals: Crystals, n_sigma: float) -> Floats:
        """``mean + n_sigma * std``, float ``[B]``.

        Pessimistic with n_sigma > 0 for what should be small, with n_sigma < 0 for what should be large.
        """
        ...


def describe(thing: Any) -> Any:
    """The ``_target_`` dictionary from which `crystalgfn.utils.instantiate` builds a reward or property.

    Raises:
        RewardError: it has no ``config()``, as a user's own function has not.
    """
    config = getattr(thing, "config", None)
    if not callable(config):
        raise RewardError(
            f"{name_of(thing)} cannot be described in a configuration: it has no config() method. "
            "Give it one that returns a dictionary with _target_ and its arguments, or pass the reward on loading."
        )
    return config()


def moved(thing: Any, device: torch.device | str) -> Any:
    """``thing.to(device)`` where it has such a method, else ``thing``: a plain function holds no tensors to move."""
    to = getattr(thing, "to", None)
    return to(device) if callable(to) else thing


def name_of(thing: Any) -> str:
    """How errors call a reward: a function by its name, an object by its class."""
    return getattr(thing, "__qualname__", None) or type(thing).__name__


def label(crystals: Crystals, index: int) -> str:
    """One crystal in words: formula, space group, lattice."""
    one = crystals[index]
    a, b, c, alpha, beta, gamma = (float(x) for x in one.lattice[0])
    return (
        f"{one.formulas()[0]}, space group {int(one.space_group[0])}, "
        f"a b c = {a:.4g} {b:.4g} {c:.4g} Å, alpha beta gamma = {alpha:.4g} {beta:.4g} {gamma:.4g}°"
    )


def as_values(values: Any, crystals: Crystals) -> Any:
    """What a user's function returned, as a tensor on the crystals' device.

    NumPy arrays and lists of numbers (tensors or NumPy numbers among them) become float64; a tensor stays as it is, and
    so does what is neither, for the check that follows to name.
    """
    if isinstance(values, torch.Tensor):
        return values
    try:
        array = np.asarray([float(value) for value in values] if isinstance(values, list | tuple) else values)
        if array.dtype.kind not in "fiu" or (array.ndim == 0 and not isinstance(values, np.ndarray)):
            return values
        return torch.as_tensor(array.astype(np.float64), device=crystals.device)
    except (TypeError, ValueError):
        return values


def check_space_groups(where: str, crystals: Crystals) -> None:
    """Refuse crystals of space groups that there are not.

    Raises:
        RewardError: names the first of them, and its place in the batch.
    """
    wrong = ((crystals.space_group < 1) | (crystals.space_group > 230)).nonzero().flatten()
    if len(wrong):
        i = int(wrong[0])
        raise RewardError(
            f"{where}: crystal {i} ({crystals[i].formulas()[0]}) has space group {int(crystals.space_group[i])}; "
            "space groups are the numbers 1-230"
        )


def check_property(where: str, prop: Any) -> None:
    """Refuse what is no property.

    Raises:
        RewardError: another object.
    """
    if not isinstance(prop, Property):
        raise RewardError(
            f"{where}: {type(prop).__name__} is not a property (it needs name, unit, std and confidence_bound); "
            "wrap a function of crystals in crystalgfn.rewards.function(fn, name, unit)."
        )


def check_number(where: str, name: str, value: Any, positive: bool = False, hint: str = "") -> None:
    """Refuse a setting that is no finite number of at least 0 (above 0 with ``positive``).

    Raises:
        RewardError: names the setting and the value.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (positive and value == 0):
        rule = "greater than 0" if positive else "at least 0"
        raise RewardError(f"{where}: {name} must be a finite number {rule}, not {value!r}{hint}.")
