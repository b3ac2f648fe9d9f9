"""A reward of somebody else's class that can be saved with a sampler: it knows what it was built from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from crystalgfn.domain.crystals import Crystals
from crystalgfn.rewards.base import moved


class Configured:
    """A reward that has no ``config()`` of its own, with the configuration that it was built from.

    Args:
        reward: crystals -> log R.
        configuration: the ``_target_`` and arguments that build it again.
    """

    def __init__(self, reward: Callable[[Crystals], torch.Tensor], configuration: dict[str, Any]) -> None:
        self.reward, self._configuration = reward, configuration
        self.__qualname__ = getattr(reward, "__qualname__", type(reward).__name__)  # what errors call it

    def __call__(self, crystals: Crystals) -> torch.Tensor:
        """Log R of each crystal, as the reward gives it; `crystalgfn.rewards.evaluate` checks it."""
        return self.reward(crystals)

    def to(self, device: torch.device | str) -> Configured:
        """The same reward on ``device``."""
        return Configured(moved(self.reward, device), self._configuration)

    def config(self) -> dict[str, Any]:
        """What hydra rebuilds it from."""
        return self._configuration
