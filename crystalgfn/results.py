"""The table of what was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from crystalgfn.domain.crystals import Crystals
from crystalgfn.domain.space import CrystalSpace
from crystalgfn.files import aside
from crystalgfn.rewards import Property
from crystalgfn.sampler import Sampler


def properties(reward: Any) -> list[Property]:
    """The properties that a reward is made of, each once, wherever in it they are."""
    if isinstance(reward, Property):
        return [reward]
    parts = [getattr(reward, name, ()) for name in ("prop", "reward", "rewards")]
    found = [
        prop for part in parts for one in (part if isinstance(part, tuple) else (part,)) for prop in properties(one)
    ]
    return list({prop.name: prop for prop in found}.values())


def table(
    sampler: Sampler,
    crystals: Crystals,
    space: CrystalSpace | None = None,
    beta: float | None = None,
    errors: Sequence[str | None] | None = None,
    names: Sequence[str | None] | None = None,
) -> pd.DataFrame:
    """One row a crystal: parameters, the reward's properties, log q and log R, its file and why it has none.

    Args:
        sampler: what drew the crystals.
        crystals: [B].
        space: the constraint under which they were drawn.
        beta: the inverse temperature under which they were drawn.
        errors: why the atoms of a crystal could not be placed, [B].
        names: names of structure files, [B].

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
        OSError: they cannot be written.
    """
    with aside(Path(folder) / "table.parquet") as path:
        frame.to_parquet(path, index=False)
    with aside(Path(folder) / "table.csv") as path:
        frame.to_csv(path, index=False, float_format="%.6g")
