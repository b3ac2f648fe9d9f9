"""What a training keeps of the objects that it samples."""

from __future__ import annotations

from typing import Any, Protocol

import pandas as pd
import torch


class Keeper(Protocol):
    """What a training keeps of the objects that it draws."""

    def offer(self, objects: Any, log_reward: torch.Tensor) -> None:
        """Objects with their ln R [B]."""

    def lines(self) -> list[str]:
        """A few words on each of the best, best first."""

    def table(self) -> pd.DataFrame:
        """A row for each that is kept, best first."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What is kept, as tensors."""

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """The state of `state_dict`."""
