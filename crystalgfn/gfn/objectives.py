"""Objectives: what makes the flow into every object proportional to its reward.

All see one residual a trajectory, delta = ln Z + ln P_F - ln P_B - ln R, with ln Z of its stratum.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch


def robust(delta: torch.Tensor, huber: float | None) -> torch.Tensor:
    """delta², or beyond ``huber`` its linear continuation (Huber 1964), elementwise."""
    if huber is None:
        return delta.square()
    size = delta.abs()
    return torch.where(size <= huber, size.square(), huber * (2 * size - huber))


class Objective(ABC):
    """A loss on batches of trajectories."""

    #: whether ln Z is a parameter of its own
    learns_log_z: bool = True

    @abstractmethod
    def __call__(
        self, log_ratio: torch.Tensor, log_z: torch.Tensor, stratum: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss (scalar) and residuals [B].

        Args:
            log_ratio: ln P_F - ln P_B - ln R of each trajectory, [B].
            log_z: ln Z of each stratum, [S].
            stratum: the stratum of each trajectory, int64 [B].
        """


def _check(huber: float | None) -> None:
    if huber is not None and not huber > 0:
        raise ValueError(f"huber={huber}: give a width above 0, or null for the plain square")


@dataclass(frozen=True)
class TrajectoryBalance(Objective):
    """Trajectory balance (Malkin et al. 2022, eq. 14): mean of delta².

    Attributes:
        huber: residual beyond which the loss grows linearly; None: never.
    """

    huber: float | None = None

    def __post_init__(self) -> None:
        _check(self.huber)

    def __call__(
        self, log_ratio: torch.Tensor, log_z: torch.Tensor, stratum: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and residuals."""
        delta = log_z[stratum].to(log_ratio.dtype) + log_ratio
        return robust(delta, self.huber).mean(), delta


@dataclass(frozen=True)
class VarGrad(Objective):
    """Log-variance loss (Richter et al. 2020; Zhang et al. 2023): ln Z is the batch's mean of its stratum.

    Attributes:
        huber: residual beyond which the loss grows linearly; None: never.
    """

    huber: float | None = None
    learns_log_z = False

    def __post_init__(self) -> None:
        _check(self.huber)

    def __call__(
        self, log_ratio: torch.Tensor, log_z: torch.Tensor, stratum: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and residuals."""
        total = torch.zeros(len(log_z), dtype=log_ratio.dtype, device=log_ratio.device)
        number = total.index_add(0, stratum, torch.ones_like(log_ratio))
        mean = total.index_add(0, stratum, log_ratio) / number.clamp_min(1)
        delta = log_ratio - mean[stratum]
        return robust(delta, self.huber).mean(), delta
