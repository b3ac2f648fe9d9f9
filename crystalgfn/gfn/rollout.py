"""Trajectories in both directions by one function: a policy chooses the moves, or given objects force them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from crystalgfn.envs.base import Continuous, Discrete, Environment, Observation, Options
from crystalgfn.policy.distributions import MaskedCategorical
from crystalgfn.policy.network import PolicyNetwork
from crystalgfn.typing import Booleans

#: (state, head, rows, observation or None where nothing is recorded, options) -> actions [rows]
Choose = Callable[[Any, str, torch.Tensor, Observation | None, Options], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Step:
    """The decisions of one head: rows [n] of the batch, what they saw, could do and did."""

    head: str
    rows: torch.Tensor
    observation: Observation
    options: Options
    action: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """Finished trajectories.

    Attributes:
        objects: what they built.
        steps: all decisions with more than one option, for scoring; no log-probability is stored.
        valid: False where a forced move was not among the options, bool [B].
        log_backward: ln P_B of the trajectories given their ends, float64 [B].
        state: the last states.
    """

    objects: Any
    steps: list[Step]
    valid: Booleans
    log_backward: torch.Tensor
    state: Any

    @property
    def n(self) -> int:
        """Trajectories."""
        return len(self.valid)


@torch.no_grad()
def unroll(
    env: Environment,
    n: int,
    choose: Choose,
    forced: bool = False,
    record: bool = True,
    condition: torch.Tensor | None = None,
) -> Trajectories:
    """``n`` trajectories from the first move to the last.

    Args:
        env: the environment.
        n: number of trajectories.
        choose: what to do; see `Choose`.
        forced: the actions may be impossible (given objects outside the space); such rows go on somewhere, invalid.
        record: keep the steps.
        condition: what a conditioned policy is asked for, [n].

    Returns:
        The trajectories; a move with a single option is made without asking and not recorded.
    """
    going = _Unrolling(
        env=env,
        state=env.initial(n),
        choose=choose,
        forced=forced,
        record=record,
        condition=condition,
        valid=torch.ones(n, dtype=torch.bool, device=env.device),
    )
    for head, rows in env.turns(going.state):
        if len(rows):
            options = env.options(going.state, head, rows)
            if isinstance(options, Discrete):
                action = going.choice(head, rows, options)
            else:
                action = going.draw(head, rows, options)
            env.apply(going.state, head, rows, action)
    return Trajectories(
        objects=env.objects(going.state),
        steps=going.steps,
        valid=going.valid,
        log_backward=env.log_backward(going.state),
        state=going.state,
    )


@dataclass(kw_only=True)
class _Unrolling:
    """Trajectories on their way, and how they go on; see `unroll`."""

    env: Environment
    state: Any
    choose: Choose
    forced: bool
    record: bool
    condition: torch.Tensor | None
    valid: torch.Tensor
    steps: list[Step] = field(default_factory=list)

    def observe(self, head: str, rows: torch.Tensor) -> Observation:
        seen = self.env.observe(self.state, head, rows)
        return seen if self.condition is None else seen.under(self.condition[rows])

    def choice(self, head: str, rows: torch.Tensor, options: Discrete) -> torch.Tensor:
        """The actions of a choice."""
        allowed = options.mask.to(torch.int8)
        only = allowed.argmax(1)
        free = allowed.sum(1, dtype=torch.int32) > 1
        action = self._wanted(head, rows, options, only) if self.forced else only.clone()
        if (self.record or not self.forced) and bool(free.any()):
            everyone = bool(free.all())
            some = rows if everyone else rows[free]
            choices = options if everyone else options.select(free)
            observation = self.observe(head, some)
            if not self.forced:
                action[free] = self.choose(self.state, head, some, observation, choices)
            if self.record:
                self.steps.append(
                    Step(head=head, rows=some, observation=observation, options=choices, action=action[free])
                )
        return action

    def _wanted(self, head: str, rows: torch.Tensor, options: Discrete, only: torch.Tensor) -> torch.Tensor:
        """Forced actions; in place of impossible ones, which make rows invalid, the first that is possible."""
        wanted = self.choose(self.state, head, rows, None, options)
        inside = wanted.clamp(0, options.mask.shape[1] - 1)
        possible = (wanted == inside) & options.mask.gather(1, inside[:, None]).squeeze(1)
        self.valid[rows[~possible]] = False
        return torch.where(possible, inside, only)

    def draw(self, head: str, rows: torch.Tensor, options: Continuous) -> torch.Tensor:
        """The values of a continuous draw."""
        observation = self.observe(head, rows) if self.record or not self.forced else None
        action = self.choose(self.state, head, rows, observation, options)
        if self.forced:
            action, missed = _into(action, options, self.env.heads[head].slack)
            self.valid[rows[missed]] = False
        if self.record and observation is not None:
            self.steps.append(Step(head=head, rows=rows, observation=observation, options=options, action=action))
        return action


def _into(value: torch.Tensor, options: Continuous, slack: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Given values moved to the nearest point of the open set, and which were too far from it."""
    ends = options.pieces
    value = value.to(ends.dtype)
    clipped = torch.minimum(torch.maximum(torch.nan_to_num(value)[:, None], ends[..., 0]), ends[..., 1])
    distance = torch.where(ends[..., 1] > ends[..., 0], (clipped - value[:, None]).abs(), torch.inf)
    nearest = clipped.gather(1, torch.nan_to_num(distance, nan=torch.inf).argmin(1, keepdim=True)).squeeze(1)
    return nearest, ~((nearest - value).abs() <= slack)


def policy_choice(
    env: Environment,
    network: PolicyNetwork,
    epsilon: float = 0.0,
    strata: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
    exponent: torch.Tensor | None = None,
) -> Choose:
    """Choices sampled from a policy, a share ``epsilon`` of them uniform.

    ``strata`` [K + 1] are ln weights of the first move, instead of the network's; probabilities are taken to the power
    of ``exponent`` [B], in (0, 1].
    """

    def choose(
        state: Any, head: str, rows: torch.Tensor, observation: Observation | None, options: Options
    ) -> torch.Tensor:
        if strata is not None and head == "n_elements" and isinstance(options, Discrete):
            fixed = strata[: options.mask.shape[1]].expand(len(options.mask), -1)
            return MaskedCategorical.of(fixed, options.mask).sample(0.0, generator)
        if observation is None:
            raise ValueError(f"a policy cannot choose {head} of states that it does not see")
        distribution = network.distribution(env.heads[head], network.trunk(observation), options)
        if exponent is not None:
            distribution = distribution.tempered(exponent[rows])
        return distribution.sample(epsilon, generator)

    return choose


def rollout(
    env: Environment,
    network: PolicyNetwork,
    n: int,
    epsilon: float = 0.0,
    strata: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
    record: bool = True,
    condition: torch.Tensor | None = None,
    exponent: torch.Tensor | None = None,
) -> Trajectories:
    """``n`` trajectories of a policy, under conditions [n] if it is a conditioned one; see `policy_choice`."""
    choose = policy_choice(env, network, epsilon, strata, generator, exponent)
    return unroll(env, n, choose, record=record, condition=condition)


def teacher_forced(env: Environment, objects: Any, n: int, condition: torch.Tensor | None = None) -> Trajectories:
    """The trajectories that lead to given objects."""
    plan = env.replay(objects)

    def choose(
        state: Any, head: str, rows: torch.Tensor, observation: Observation | None, options: Options
    ) -> torch.Tensor:
        return env.forced(plan, state, head, rows)

    return unroll(env, n, choose, forced=True, condition=condition)
