"""Where the trajectories of a step come from: the policy, finished objects that were kept, and real ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from crystalgfn.envs.base import Environment
from crystalgfn.errors import TrainingError
from crystalgfn.gfn.config import TrainerConfig
from crystalgfn.gfn.rollout import Trajectories, rollout, teacher_forced
from crystalgfn.policy.network import PolicyNetwork
from crystalgfn.utils.random import derived_seed

#: Different inverse temperatures in one part of a batch, evenly spread over their range.
TEMPERATURES = 8


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Trajectories with their targets.

    Attributes:
        trajectories: how they were built.
        log_reward: ln of their targets (ln R at their inverse temperature, with ln omega where given), [B].
        log_reward_unweighted: ln R itself, [B].
        index: stratum and temperature as one number, int64 [B]; those alike share ln Z.
        own: sampled by the policy as it is (but for epsilon), bool [B].
    """

    trajectories: Trajectories
    log_reward: torch.Tensor
    log_reward_unweighted: torch.Tensor
    index: torch.Tensor
    own: torch.Tensor


class TrajectorySampler:
    """One stream of trajectories with random numbers of its own.

    A batch is made of one part for each stream; which process a stream runs in makes no difference to what it gives.

    Args:
        env: the environment.
        log_reward: objects -> ln R [B].
        trainer: how.
        size: trajectories a step.
        seed: of the training.
        number: of the stream.
        stratum: objects -> int64 [B].
        log_omega: given ln marginals of the strata [S]; None: one stratum, and the policy draws the first move.
        real: real objects that are trained on.

    Raises:
        TrainingError: replay of objects that cannot be kept.
    """

    def __init__(
        self,
        env: Environment,
        log_reward: Callable[[Any], torch.Tensor],
        trainer: TrainerConfig,
        size: int,
        seed: int,
        number: int,
        *,
        stratum: Callable[[Any], torch.Tensor] | None = None,
        log_omega: torch.Tensor | None = None,
        real: Any = None,
    ) -> None:
        self.env, self.log_reward, self.trainer = env, log_reward, trainer
        self.size, self.stratum, self.log_omega, self.real = size, stratum, log_omega, real
        self.generator = torch.Generator(device=env.device).manual_seed(derived_seed(seed, number))
        size = trainer.replay_size if trainer.replay_fraction > 0 else 0
        if size and env.object_type is None:
            raise TrainingError(
                f"trainer.replay_fraction={trainer.replay_fraction}: objects of {type(env).__name__} "
                "cannot be kept; set it to 0"
            )
        self.replay = Replay(env.object_type, size, trainer.replay_bound)

    def draw(self, network: PolicyNetwork, epsilon: float) -> list[Batch]:
        """The part of the next step; the first of the batches was sampled by the policy."""
        n_real = round(self.size * self.trainer.real_fraction) if self.real is not None else 0
        n_replay = round(self.size * self.trainer.replay_fraction) if len(self.replay) else 0
        n = self.size - n_real - n_replay
        beta, group = self._temperatures(n)
        exponent, own = self._exponents(n)
        trajectories = rollout(
            self.env, network, n, epsilon, self.log_omega, self.generator, condition=beta, exponent=exponent
        )
        batches = [self._batch(trajectories, beta, group, own)]
        if n_replay:
            objects, log_reward = self.replay.sample(n_replay, self.generator)
            trajectories = teacher_forced(self.env, objects, n_replay)
            batches.append(self._batch(trajectories, None, None, None, log_reward))
        if self.real is not None and n_real:
            index = torch.randint(len(self.real), (n_real,), generator=self.generator, device=self.generator.device)
            beta, group = self._temperatures(n_real)
            real = self.real[index.to(self.real.device)]
            batches.append(self._batch(teacher_forced(self.env, real, n_real, beta), beta, group))
        return batches

    def _temperatures(self, n: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Inverse temperatures [n] and which of the few different ones each is; None where there is only one."""
        if self.trainer.betas is None:
            return None, None
        low, high = self.trainer.betas
        device = self.generator.device
        offset = torch.rand(1, dtype=torch.float64, generator=self.generator, device=device)
        # over a little more than the range, so that its ends are drawn too
        level = (torch.arange(TEMPERATURES, device=device) + offset) / TEMPERATURES * 1.1 - 0.05
        group = torch.arange(n, device=device) % TEMPERATURES
        return (low + (high - low) * level.clamp(0, 1))[group], group

    def _exponents(self, n: int) -> tuple[torch.Tensor | None, torch.Tensor]:
        """By how much each of ``n`` samples is flattened, [n], or None; and which are the policy's own, bool [n]."""
        device = self.generator.device
        flat = round(n * self.trainer.tempered_fraction)
        own = torch.arange(n, device=device) < n - flat
        if not flat:
            return None, own
        low = self.trainer.inverse_temperature
        exponent = low + (1 - low) * torch.rand(n, dtype=torch.float64, generator=self.generator, device=device)
        return torch.where(own, 1.0, exponent), own

    @torch.no_grad()
    def _batch(
        self,
        trajectories: Trajectories,
        beta: torch.Tensor | None,
        group: torch.Tensor | None,
        own: torch.Tensor | None = None,
        unweighted: torch.Tensor | None = None,
    ) -> Batch:
        if unweighted is None:
            unweighted = self.log_reward(trajectories.objects).detach().double()
        log_reward = unweighted if beta is None else unweighted * beta
        index = torch.zeros(trajectories.n, dtype=torch.int64, device=self.env.device)
        if self.log_omega is not None and self.stratum is not None:
            index = self.stratum(trajectories.objects)
            log_reward = log_reward + self.log_omega[index]
        index = index if group is None else index * TEMPERATURES + group
        return Batch(
            trajectories=trajectories,
            log_reward=log_reward,
            log_reward_unweighted=unweighted,
            index=index,
            own=torch.zeros_like(trajectories.valid) if own is None else own,
        )

    def state_dict(self) -> dict[str, Any]:
        """Random numbers and replay."""
        return {"generator": self.generator.get_state(), "replay": self.replay.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The state of `state_dict`."""
        self.generator.set_state(state["generator"])
        self.replay.load_state_dict(state["replay"])


class Replay:
    """A ring of the last objects sampled.

    Args:
        kind: their class, with `cat`, `state_dict` and `from_state_dict`.
        size: how many are kept.
        bound: they are sampled again by their weights R / (Z q) when they were sampled first, held to exp(+-bound).
    """

    def __init__(self, kind: Any, size: int, bound: float = 0.0) -> None:
        self.kind, self.size, self.bound = kind, size, bound
        self.objects: Any = None
        self.log_reward = self.weight = torch.zeros(0, dtype=torch.float64)

    def __len__(self) -> int:
        return 0 if self.objects is None else len(self.objects)

    def add(self, objects: Any, log_reward: torch.Tensor, excess: torch.Tensor) -> None:
        """Keep objects with their ln R and ln R - ln Z - ln q, [B] each, in place of the oldest."""
        if self.size == 0:
            return
        weight = excess.double().clamp(-self.bound, self.bound).exp()
        if self.objects is None:
            self.objects, self.log_reward, self.weight = objects, log_reward.double(), weight
        else:
            self.objects = self.kind.cat([self.objects, objects])
            self.log_reward = torch.cat([self.log_reward, log_reward.double()])
            self.weight = torch.cat([self.weight, weight])
        if len(self.objects) > self.size:
            self.objects = self.objects[-self.size :]
            self.log_reward, self.weight = self.log_reward[-self.size :], self.weight[-self.size :]

    def sample(self, n: int, generator: torch.Generator) -> tuple[Any, torch.Tensor]:
        """``n`` objects with their ln R, sampled by their weights with replacement."""
        if self.objects is None:
            raise ValueError("the replay is empty")
        cumulative = self.weight.cumsum(0)
        draw = torch.rand(n, dtype=torch.float64, generator=generator, device=generator.device).to(cumulative.device)
        index = torch.searchsorted(cumulative, draw * cumulative[-1]).clamp_max(len(self.weight) - 1)
        return self.objects[index], self.log_reward[index]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Its contents as tensors."""
        if self.objects is None:
            return {}
        return {**self.objects.state_dict(), "log_reward": self.log_reward, "weight": self.weight}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """The contents of `state_dict`."""
        if state:
            self.objects = self.kind.from_state_dict(state)
            self.log_reward, self.weight = state["log_reward"], state["weight"]
