"""Objectives: what makes the flow into every object proportional to its reward.

Residuals are those of trajectory balance, delta = ln Z + ln P_F - ln P_B - ln R, with ln Z of the trajectory's stratum,
or of the pieces of a trajectory between two of its states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from crystalgfn.gfn.scoring import Scored

SHAPES = ("square", "linex", "cosh")
BISECTIONS = 40
"""Of the spread of a batch: what is left of it is far below float32."""


def regression_loss(delta: torch.Tensor, huber: float | None, shape: str = "square") -> torch.Tensor:
    """What a residual costs, elementwise; near 0 delta² for every shape (Hu et al. 2025).

    With t = -delta = ln w, w = R / (Z q): "square" is t²; "linex" 2 (exp(t) - t - 1), which on a policy's own draws has
    the gradient of the forward Kullback-Leibler divergence, so that what is drawn too seldom weighs exponentially;
    "cosh" 2 (cosh(t) - 1), which minds both sides.

    Args:
        delta: residuals.
        huber: size beyond which the loss goes on linearly (Huber 1964); None: nowhere.
        shape: one of `SHAPES`.
    """
    inside = delta if huber is None else delta.clamp(-huber, huber)
    if shape == "square":
        loss = inside.square()
    elif shape == "linex":
        loss = 2 * (torch.expm1(-inside) + inside)
    else:
        loss = 2 * (torch.cosh(inside) - 1)
    return loss + loss_slope(inside, None, shape).detach() * (delta - inside)


def loss_slope(delta: torch.Tensor, huber: float | None, shape: str) -> torch.Tensor:
    """The derivative of `regression_loss`, elementwise; it never falls."""
    inside = delta if huber is None else delta.clamp(-huber, huber)
    if shape == "square":
        return 2 * inside
    return -2 * torch.expm1(-inside) if shape == "linex" else 2 * torch.sinh(inside)


def least_loss(
    x: torch.Tensor, weight: torch.Tensor, group: torch.Tensor, huber: float | None, shape: str
) -> torch.Tensor:
    """For each member the c of its group that makes the weighted sum of `regression_loss(x - c)` least, float64 [B].

    The mean for the plain square. For "linex" without ``huber`` -ln of the mean of exp(-x), which of ln (P_F / R) is
    the estimate of -ln Z by importance weights. Found by bisection.

    Args:
        x: float64 [B].
        weight: of each, at least 0, in no group all 0, [B].
        group: of each, int64 [B], below B.
        huber: see `regression_loss`.
        shape: see `regression_loss`.
    """
    zeros = torch.zeros_like(x)
    if shape == "square" and huber is None:
        mean = zeros.index_add(0, group, x * weight) / zeros.index_add(0, group, weight).clamp_min(1e-30)
        return mean[group]
    low, high = (torch.zeros_like(x).scatter_reduce(0, group, x, how, include_self=False) for how in ("amin", "amax"))
    for _ in range(BISECTIONS):
        centre = (low + high) / 2
        slope = zeros.index_add(0, group, loss_slope(x - centre[group], huber, shape) * weight)
        low, high = torch.where(slope > 0, centre, low), torch.where(slope > 0, high, centre)
    return ((low + high) / 2)[group]


class Objective(ABC):
    """A loss on batches of trajectories."""

    #: whether ln Z is a parameter of its own
    learns_log_z: bool = True
    #: whether the flow into every visited state is learned beside the policy
    needs_flows: bool = False

    @abstractmethod
    def __call__(
        self,
        scored: Scored,
        log_reward: torch.Tensor,
        log_z: torch.Tensor,
        stratum: torch.Tensor,
        own: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss (scalar) and residuals [B].

        Args:
            scored: the trajectories' log-probabilities, [B].
            log_reward: ln R of each trajectory's end, with ln omega where strata are given, [B].
            log_z: ln Z of each stratum, [S].
            stratum: the stratum of each trajectory, int64 [B].
            own: which trajectories the policy drew as it is, bool [B]; None: all.
        """


def _check(huber: float | None, shape: str = "square") -> None:
    if shape not in SHAPES:
        raise ValueError(f"shape={shape!r}: choose one of {', '.join(SHAPES)}")
    if huber is not None and not huber > 0:
        raise ValueError(f"huber={huber}: give a width above 0, or null for the plain square")


@dataclass(frozen=True)
class TrajectoryBalance(Objective):
    """Trajectory balance (Malkin et al. 2022, eq. 14): mean of delta².

    Attributes:
        huber: residual beyond which the loss grows linearly; None: never.
        shape: of the loss up to there, see `regression_loss`.
    """

    huber: float | None = None
    shape: str = "square"

    def __post_init__(self) -> None:
        _check(self.huber, self.shape)

    def __call__(
        self,
        scored: Scored,
        log_reward: torch.Tensor,
        log_z: torch.Tensor,
        stratum: torch.Tensor,
        own: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and residuals."""
        delta = log_z[stratum].double() + scored.log_ratio(log_reward)
        return regression_loss(delta, self.huber, self.shape).mean(), delta


@dataclass(frozen=True)
class VarGrad(Objective):
    """Log-variance loss (Richter et al. 2020; Zhang et al. 2023): ln Z is what makes the batch's loss least.

    For each stratum; for the plain square that is the mean, for other shapes see `least_loss`. It is taken over the
    policy's own draws where a stratum has some (others may be far from the target still), and a constant for the
    gradient, which on own draws alone changes nothing.

    Attributes:
        huber: residual beyond which the loss grows linearly; None: never.
        shape: of the loss up to there, see `regression_loss`.
    """

    huber: float | None = None
    shape: str = "square"
    learns_log_z = False

    def __post_init__(self) -> None:
        _check(self.huber, self.shape)

    def __call__(
        self,
        scored: Scored,
        log_reward: torch.Tensor,
        log_z: torch.Tensor,
        stratum: torch.Tensor,
        own: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and residuals."""
        log_ratio = scored.log_ratio(log_reward)
        known = log_ratio.detach()
        _, group = stratum.unique(return_inverse=True)
        total = torch.zeros(len(stratum), dtype=known.dtype, device=known.device)
        weight = torch.ones_like(known)
        if own is not None:
            has = torch.zeros_like(total).index_add(0, group, own.to(known.dtype)) > 0
            weight = (own | ~has[group]).to(known.dtype)
        delta = log_ratio - least_loss(known, weight, group, self.huber, self.shape)
        return regression_loss(delta, self.huber, self.shape).mean(), delta


#: What samplers are trained with unless told otherwise.
DEFAULT = VarGrad(huber=2.0, shape="linex")


@dataclass(frozen=True)
class SubTrajectoryBalance(Objective):
    """SubTB(lambda) (Madan et al. 2023, eq. 5): every piece of a trajectory balances, longer ones by powers of lambda.

    The flow of the first state is Z, of the last R; those between are learned. Only for environments in which every
    object has one path (P_B = 1).

    Attributes:
        lam: weight of a piece with one more move, relative to one with one fewer, above 0.
        huber: residual beyond which the loss grows linearly; None: never.
    """

    lam: float = 0.9
    huber: float | None = None
    needs_flows = True

    def __post_init__(self) -> None:
        _check(self.huber)
        if not self.lam > 0:
            raise ValueError(f"lam={self.lam}: give a factor above 0, such as 0.9")

    def __call__(
        self,
        scored: Scored,
        log_reward: torch.Tensor,
        log_z: torch.Tensor,
        stratum: torch.Tensor,
        own: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and residuals (those of the whole trajectories)."""
        if scored.steps is None or scored.flows is None or scored.asked is None:
            raise ValueError("SubTrajectoryBalance needs the flows of the states; score with a flow head")
        log_z = log_z[stratum].double()
        whole = log_z + scored.log_ratio(log_reward)
        steps, asked = scored.steps.double(), scored.asked
        before = torch.cat([torch.zeros_like(steps[:, :1]), steps.cumsum(1)], 1)  # ln P_F of the moves before a state
        first = asked & (asked.cumsum(1) == 1)
        flow = torch.where(first, log_z[:, None], log_z[:, None] + scored.flows.double())
        end = (log_reward + scored.log_backward)[:, None].double()
        potential = torch.cat([flow, end], 1) - before
        here = torch.cat([asked, torch.ones_like(asked[:, :1])], 1)
        position = here.cumsum(1)
        distance = position[:, None, :] - position[:, :, None]
        pairs = here[:, :, None] & here[:, None, :] & (distance > 0)
        weight = torch.where(pairs, self.lam ** distance.double(), 0.0)
        loss = regression_loss(potential[:, :, None] - potential[:, None, :], self.huber)
        total = (weight * loss).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1e-30)
        return total.mean(), whole
