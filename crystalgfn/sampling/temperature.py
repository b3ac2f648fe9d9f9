"""Inverse temperatures of a conditioned sampler, in units of the reward's own."""

from __future__ import annotations

import torch

from crystalgfn.errors import RewardError


def level_of(beta: float | None, betas: tuple[float, float] | None, own: float) -> float | None:
    """An inverse temperature in units of the reward's own; None for a sampler that is not conditioned.

    Args:
        beta: the inverse temperature; None: the reward's own.
        betas: the range that the sampler was trained for, in units of the reward's own; None: not conditioned.
        own: the reward's own.

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

    Args:
        log_z: at evenly spaced inverse temperatures over ``betas``, [G, K + 1] with G of at least 2.
        betas: the first and the last of them.
        level: where it is wanted.

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
