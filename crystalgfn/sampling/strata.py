"""Shares of the numbers of elements, and the inverse temperatures of a conditioned sampler."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from crystalgfn.errors import InvalidSpace, RewardError
from crystalgfn.space.space import CrystalSpace

#: The shares of 1 to 5 elements in the shipped samplers (about those of real crystals).
SHIPPED_STRATA = (0.02, 0.23, 0.40, 0.25, 0.10)


def strata_weights(space: CrystalSpace, omega: tuple[float, ...]) -> torch.Tensor:
    """ln of the marginal of each number of elements, float64 [K + 1], over those that the space has.

    Raises:
        InvalidSpace: shares that are negative, or none for the numbers of elements of the space.
    """
    k_max = space.n_elements[1]
    if len(omega) < k_max or any(not w >= 0 for w in omega):
        raise InvalidSpace(f"strata={list(omega)}: give one share of at least 0 for each of 1 to {k_max} elements")
    possible = np.zeros(k_max + 1, dtype=bool)
    table = space.tables
    possible[np.unique(table.composition.n_elements[table.allowed.any(0)])] = True
    weights = np.concatenate([[0.0], omega[:k_max]]) * possible
    if weights.sum() <= 0:
        raise InvalidSpace(f"strata={list(omega)} give no share to the numbers of elements that the space has")
    with np.errstate(divide="ignore"):
        return torch.from_numpy(np.log(weights / weights.sum()))


def given_strata(strata: Sequence[float] | str | None) -> tuple[float, ...] | None:
    """Shares as they may be given: numbers, "default" for those of the shipped samplers, or None.

    Raises:
        InvalidSpace: another word.
    """
    if isinstance(strata, str):
        if strata != "default":
            raise InvalidSpace(f"strata={strata!r}: give shares, 'default' or null")
        return SHIPPED_STRATA
    return None if strata is None else tuple(float(share) for share in strata)


def level_of(beta: float | None, betas: tuple[float, float] | None, own: float) -> float | None:
    """An inverse temperature in units of the reward's own; None for a sampler that is not conditioned.

    Raises:
        RewardError: an inverse temperature that the sampler was not trained for.
    """
    if betas is None:
        if beta is not None and beta != own:
            raise RewardError(
                f"beta={beta}: this sampler was trained at beta {own:g} alone; train one for a range of them, "
                "TrainerConfig(betas=(0, 1)) in units of the reward's own"
            )
        return None
    level = 1.0 if beta is None else beta / own
    low, high = betas
    if not low - 1e-9 <= level <= high + 1e-9:
        raise RewardError(
            f"beta={beta}: this sampler was trained for beta from {low * own:g} to {high * own:g}; choose one in "
            "between"
        )
    return level


def interpolated(log_z: torch.Tensor, betas: tuple[float, float], level: float) -> torch.Tensor:
    """ln Z of each number of elements at an inverse temperature, linear between the points of the grid.

    Returns:
        [K + 1].

    Example:
        >>> interpolated(torch.tensor([[0.0], [1.0], [4.0]]), (0.0, 2.0), 1.5)
        tensor([2.5000])
    """
    low, high = betas
    position = (level - low) / (high - low) * (len(log_z) - 1)
    left = min(int(position), len(log_z) - 2)
    return torch.lerp(log_z[left], log_z[left + 1], position - left)
