"""Replay of finished objects: they are kept with their ln R, never their trajectories."""

from __future__ import annotations

from typing import Any

import torch


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
        """Keep objects, in place of the oldest.

        Args:
            objects: B of them.
            log_reward: their ln R, [B].
            excess: ln R - ln Z - ln q of each, [B].
        """
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
