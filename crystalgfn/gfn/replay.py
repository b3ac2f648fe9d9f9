"""Replay of finished crystals: the objects are kept, never their trajectories."""

from __future__ import annotations

import torch

from crystalgfn.domain.crystals import Crystals


class Replay:
    """A ring of the last crystals drawn.

    Args:
        size: how many are kept.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.crystals: Crystals | None = None

    def __len__(self) -> int:
        return 0 if self.crystals is None else len(self.crystals)

    def add(self, crystals: Crystals) -> None:
        """Keep crystals, in place of the oldest."""
        if self.size == 0:
            return
        crystals = crystals[-self.size :] if len(crystals) > self.size else crystals
        if self.crystals is None:
            self.crystals = crystals
        elif len(self.crystals) + len(crystals) <= self.size:
            self.crystals = Crystals.cat([self.crystals, crystals])
        else:
            keep = self.crystals[len(self.crystals) + len(crystals) - self.size :]
            self.crystals = Crystals.cat([keep, crystals])

    def sample(self, n: int, generator: torch.Generator) -> Crystals:
        """``n`` crystals, uniform with replacement."""
        if self.crystals is None:
            raise ValueError("the replay is empty")
        index = torch.randint(len(self.crystals), (n,), generator=generator, device=generator.device)
        return self.crystals[index.to(self.crystals.device)]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Its contents as tensors."""
        if self.crystals is None:
            return {}
        c = self.crystals
        return {"space_group": c.space_group, "composition": c.composition.to(torch.int16), "lattice": c.lattice}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """The contents of `state_dict`."""
        if state:
            self.crystals = Crystals(state["space_group"], state["composition"].long(), state["lattice"])
