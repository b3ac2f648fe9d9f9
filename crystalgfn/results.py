"""The table of what was drawn."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from crystalgfn.domain.crystals import Crystals
from crystalgfn.domain.space import CrystalSpace
from crystalgfn.files import write_aside
from crystalgfn.rewards.base import moved, properties
from crystalgfn.sampler import Sampler


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


def table(
    sampler: Sampler,
    crystals: Crystals,
    space: CrystalSpace | None = None,
    errors: Sequence[str | None] | None = None,
    names: Sequence[str | None] | None = None,
    beta: float | None = None,
) -> pd.DataFrame:
    """One row a crystal: parameters, the reward's properties, log q and log R, its file and why it has none.

    Args:
        sampler: what drew the crystals.
        crystals: [B].
        space: the constraint under which they were drawn.
        errors: why the atoms of a crystal could not be placed, [B].
        names: names of structure files, [B].
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
                frame[f"{prop.name}_spread"] = prop.spread(crystals).cpu().numpy()
        frame["log_q"] = sampler.log_prob(crystals, space=space, beta=beta).cpu().numpy()
        if sampler.reward is not None:
            frame["log_r"] = sampler.log_reward(crystals, beta=beta).cpu().numpy()
    frame["file"] = pd.Series(list(names) if names is not None else [None] * len(crystals), dtype="str")
    frame["error"] = pd.Series(list(errors) if errors is not None else [None] * len(crystals), dtype="str")
    return frame


def write_table(frame: pd.DataFrame, folder: str | Path) -> None:
    """``table.parquet``, and ``table.csv`` for people.

    Raises:
        CheckpointError: they cannot be written.
    """
    folder = Path(folder)
    write_aside(folder / "table.parquet", lambda path: frame.to_parquet(path, index=False))
    write_aside(folder / "table.csv", lambda path: frame.to_csv(path, index=False, float_format="%.6g"))


def make_folder(path: str | Path) -> Path:
    """The folder, made where it is missing.

    Raises:
        OSError: it cannot be made, or nothing can be written there.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):  # better found out before the work than after it
        pass
    return path
