"""Trajectories in both directions by one function: a policy chooses the moves, or given objects force them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
    state = env.initial(n)
    valid = torch.ones(n, dtype=torch.bool, device=env.device)
    steps: list[Step] = []

    def observe(head: str, rows: torch.Tensor) -> Observation:
        seen = env.observe(state, head, rows)
        return seen if condition is None else seen.under(condition[rows])

    for head, rows in env.turns(state):
        if not len(rows):
            continue
        options = env.options(state, head, rows)
        if isinstance(options, Discrete):
            allowed = options.mask.to(torch.int8)
            only = allowed.argmax(1)
            free = allowed.sum(1, dtype=torch.int32) > 1
            action = only.clone()
            asked = rows if forced else rows[free]
            if len(asked):
                if forced:
                    wanted = choose(state, head, rows, None, options)
                    inside = wanted.clamp(0, options.mask.shape[1] - 1)
                    possible = (wanted == inside) & options.mask.gather(1, inside[:, None]).squeeze(1)
                    valid[rows[~possible]] = False
                    action = torch.where(possible, inside, only)
                if bool(free.any()) and (record or not forced):
                    everyone = bool(free.all())
                    some = rows if everyone else rows[free]
                    choices = options if everyone else options.select(free)
                    observation = observe(head, some)
                    if not forced:
                        action[free] = choose(state, head, some, observation, choices)
                    if record:
                        steps.append(
                            Step(head=head, rows=some, observation=observation, options=choices, action=action[free])
                        )
        else:
            observation = observe(head, rows) if record or not forced else None
            action = choose(state, head, rows, observation, options)
            if forced:
                action, missed = _into(action, options, env.heads[head].slack)
                valid[rows[missed]] = False
            if record and observation is not None:
                steps.append(Step(head=head, rows=rows, observation=observation, options=options, action=action))
        env.apply(state, head, rows, action)
    return Trajectories(
        objects=env.objects(state), steps=steps, valid=valid, log_backward=env.log_backward(state), state=state
    )


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
    """Choices sampled from a policy.

    Args:
        env: the environment.
        network: the policy.
        epsilon: share of uniform choices.
        strata: ln weights [K + 1] of the first move, instead of the network's.
        generator: of the random numbers.
        exponent: flattens the policy's choices, [B] in (0, 1]: probabilities to that power.
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
