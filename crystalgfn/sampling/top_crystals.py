"""The best crystals that a training has sampled so far."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.properties.base import Property
from crystalgfn.typing import Floats


class BestCrystals:
    """The crystals of highest ln R, one for each pair of formula and space group.

    Args:
        properties: what is told of them beside ln R.
        size: how many are kept.
        told: of how many `lines` tells.
        device: where the properties are.
    """

    def __init__(
        self,
        properties: Sequence[Property] = (),
        size: int = 20,
        told: int = 5,
        device: torch.device | str = "cpu",
    ) -> None:
        self.properties, self.size, self.told, self.device = tuple(properties), size, told, device
        self.crystals: Crystals | None = None
        self.log_reward = torch.zeros(0, dtype=torch.float64)
        self._keys: list[tuple[str, int]] = []
        self._lines: list[str] | None = None

    def __len__(self) -> int:
        return len(self._keys)

    @torch.no_grad()
    def offer(self, objects: Crystals, log_reward: Floats) -> None:
        """Keep what is better than what is kept; costs little once few are.

        Args:
            objects: crystals [B].
            log_reward: their ln R, [B].
        """
        bar = float(self.log_reward[-1]) if len(self) >= self.size else -torch.inf
        # among several times as many as are kept, the same formula and group may come often
        top = log_reward.double().topk(min(4 * self.size, len(log_reward)))
        index = top.indices[top.values > bar]
        if not len(index):
            return
        fresh, values = objects[index].to("cpu"), log_reward[index].double().cpu()
        if self.crystals is not None:
            fresh, values = Crystals.cat([self.crystals, fresh]), torch.cat([self.log_reward, values])
        keys = list(zip(fresh.formulas(), fresh.space_group.tolist(), strict=True))
        order = sorted(range(len(keys)), key=lambda i: (-float(values[i]), keys[i]))
        first: dict[tuple[str, int], int] = {}
        for i in order:
            first.setdefault(keys[i], i)
        kept = torch.tensor(list(first.values())[: self.size])
        self.crystals, self.log_reward = fresh[kept], values[kept]
        self._keys, self._lines = [keys[i] for i in kept.tolist()], None

    def lines(self) -> list[str]:
        """Formula, group and properties of the first few."""
        if self.crystals is None:
            return []
        if self._lines is None:
            few = self.crystals[torch.arange(min(self.told, len(self)))]
            values = [(prop, self._values(prop, few)) for prop in self.properties]
            rows = zip(few.to_pandas().to_dict("records"), self.log_reward.tolist(), strict=False)
            self._lines = [
                f"{row['formula']:<16} {row['symbol']} ({row['space_group']})".ljust(34)
                + "".join(f"  {p.name.replace('_', ' ')} {v[i]:.3f} {p.unit}" for p, v in values)
                + f"  ln R {log_reward:.2f}"
                for i, (row, log_reward) in enumerate(rows)
            ]
        return self._lines

    def table(self) -> pd.DataFrame:
        """Parameters, properties and ln R of all that are kept."""
        if self.crystals is None:
            return pd.DataFrame()
        frame = self.crystals.to_pandas()
        for prop in self.properties:
            if prop.name not in frame:
                frame[prop.name] = self._values(prop, self.crystals)
        frame["log_reward"] = self.log_reward.numpy()
        return frame

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Crystals and ln R."""
        if self.crystals is None:
            return {}
        return {**self.crystals.state_dict(), "log_reward": self.log_reward}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """The state of `state_dict`, of this keeper or of another; it is added to what is kept."""
        if state:
            self.offer(Crystals.from_state_dict(state), state["log_reward"])

    @torch.no_grad()
    def _values(self, prop: Property, crystals: Crystals) -> list[float]:
        return prop(crystals.to(self.device)).cpu().tolist()
