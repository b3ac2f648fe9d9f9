"""The table of what was sampled."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.rewards.base import properties
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.space.space import CrystalSpace
from crystalgfn.utils.files import write_aside


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
