"""Tables of crystals: all that were sampled, and the best that a training has sampled so far."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.properties.base import Property
from crystalgfn.rewards.base import properties
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.space.space import CrystalSpace
from crystalgfn.typing import Floats
from crystalgfn.utils.files import path_of, write_aside


def results_table(
    sampler: Sampler,
    crystals: Crystals,
    space: CrystalSpace | None = None,
    errors: Sequence[str | None] | None = None,
    names: Sequence[str | None] | None = None,
    origins: Sequence[str | None] | None = None,
    closest: Sequence[float] | None = None,
    energies: Sequence[float] | None = None,
    calculator: str | None = None,
    beta: float | None = None,
) -> pd.DataFrame:
    """One row a crystal: parameters, the reward's properties, log q and log R, its file and why it has none.

    Args:
        sampler: what drew the crystals.
        crystals: [B].
        space: the constraint under which they were drawn.
        errors: why the atoms of a crystal could not be placed, [B].
        names: names of structure files, [B].
        origins: where the atoms come from, see `crystalgfn.structures.build.BuildResult`, [B].
        closest: the smallest distance of two atoms over the sum of their radii, NaN without atoms, [B].
        energies: total energies of the structures, eV/atom, NaN without one, [B]; None: the table has no such column.
        calculator: name of what gave the energies.
        beta: the inverse temperature at which they were drawn; None: the reward's own.

    Raises:
        RewardError: a reward that breaks its contract on these crystals.
    """
    frame = crystals.to_pandas()
    frame.insert(2, "n_elements", crystals.n_elements.cpu().numpy())
    with torch.no_grad():
        for prop in properties(sampler.reward):
            if prop.name not in frame:
                frame[prop.name] = prop(crystals).cpu().numpy()
                frame[f"{prop.name}_spread"] = prop.std(crystals).cpu().numpy()
        frame["log_q"] = sampler.log_prob(crystals, space=space, beta=beta).cpu().numpy()
        if sampler.reward is not None:
            frame["log_r"] = sampler.log_reward(crystals, beta=beta).cpu().numpy()
    for column, values in (("file", names), ("origin", origins), ("error", errors)):
        frame[column] = pd.Series([None] * len(crystals) if values is None else list(values), dtype="str")
    frame["closest"] = pd.Series([] if closest is None else list(closest), dtype="float64")
    if energies is not None:
        frame["energy"] = pd.Series(list(energies), dtype="float64")
        frame["calculator"] = pd.Series([calculator] * len(crystals), dtype="str")
    return frame


def write_table(frame: pd.DataFrame, folder: str | Path) -> None:
    """``table.parquet``, and ``table.csv`` for people.

    Raises:
        CheckpointError: they cannot be written.
    """
    folder = path_of(folder)
    write_aside(folder / "table.parquet", lambda path: frame.to_parquet(path, index=False))
    write_aside(folder / "table.csv", lambda path: frame.to_csv(path, index=False, float_format="%.6g"))


class BestCrystals:
    """The crystals of highest ln R, one for each pair of formula and space group."""

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
        """Keep of crystals with their ln R [B] what is better than what is kept; costs little once few are."""
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
