"""Replay of finished crystals: the objects are kept with their ln R, never their trajectories."""

from __future__ import annotations

import torch

from crystalgfn.crystallography.crystals import Crystals


class Replay:
    """A ring of the last crystals drawn.

    Args:
        size: how many are kept.
        bound: they are drawn again by their weights R / (Z q) when they were drawn first, held to exp(+-bound).
    """

    def __init__(self, size: int, bound: float = 0.0) -> None:
        self.size, self.bound = size, bound
        self.crystals: Crystals | None = None
        self.log_reward = self.weight = torch.zeros(0, dtype=torch.float64)

    def __len__(self) -> int:
        return 0 if self.crystals is None else len(self.crystals)

    def add(self, crystals: Crystals, log_reward: torch.Tensor, excess: torch.Tensor) -> None:
        """Keep crystals, in place of the oldest.

        Args:
            crystals: B crystals.
            log_reward: their ln R, [B].
            excess: ln R - ln Z - ln q of each, [B].
        """
        if self.size == 0:
            return
        weight = excess.double().clamp(-self.bound, self.bound).exp()
        if self.crystals is None:
            self.crystals, self.log_reward, self.weight = crystals, log_reward.double(), weight
        else:
            self.crystals = Crystals.cat([self.crystals, crystals])
            self.log_reward = torch.cat([self.log_reward, log_reward.double()])
            self.weight = torch.cat([self.weight, weight])
        if len(self.crystals) > self.size:
            self.crystals = self.crystals[-self.size :]
            self.log_reward, self.weight = self.log_reward[-self.size :], self.weight[-self.size :]

    def sample(self, n: int, generator: torch.Generator) -> tuple[Crystals, torch.Tensor]:
        """``n`` crystals with their ln R, drawn by their weights with replacement."""
        if self.crystals is None:
            raise ValueError("the replay is empty")
        cumulative = self.weight.cumsum(0)
        draw = torch.rand(n, dtype=torch.float64, generator=generator, device=generator.device).to(cumulative.device)
        index = torch.searchsorted(cumulative, draw * cumulative[-1]).clamp_max(len(self.weight) - 1)
        return self.crystals[index], self.log_reward[index]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Its contents as tensors."""
        if self.crystals is None:
            return {}
        return {**self.crystals.state_dict(), "log_reward": self.log_reward, "weight": self.weight}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """The contents of `state_dict`."""
        if state:
            self.crystals = Crystals.from_state_dict(state)
            self.log_reward, self.weight = state["log_reward"], state["weight"]
