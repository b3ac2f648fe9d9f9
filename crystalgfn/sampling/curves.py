"""How a training went, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from crystalgfn.sampling.plots import DRAWN, OTHER
from crystalgfn.utils.files import path_of, write_aside

#: What the columns of a training's log are, where their names do not say it.
CURVE_TITLES = {
    "log_z": "ln Z",
    "log_reward": "mean ln R",
    "ess": "ESS of a batch while exploring",
    "crystals_per_second": "crystals a second",
}


def training_curves(metrics: str | Path, path: str | Path) -> None:
    """A PNG with the columns of a CSV log over the steps, one panel each but for those without values.

    Raises:
        ValueError: a log without steps.
        CheckpointError: the file cannot be written.
    """
    log: Any = pd.read_csv(metrics)
    columns = [
        name
        for name in log.columns
        if name not in ("step", "seconds") and pd.api.types.is_numeric_dtype(log[name]) and log[name].notna().any()
    ]
    if not columns or not len(log):
        raise ValueError(f"{metrics} holds no steps to draw.")
    rows = -(-len(columns) // 3)
    figure = Figure(figsize=(13, 3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 3, squeeze=False).flat
    window = max(1, len(log) // 50)
    for ax, name in zip(axes, columns, strict=False):
        known = log[["step", name]].dropna()
        values = pd.Series(np.asarray(known[name]), known.index)
        ax.plot(known["step"], known[name], color=OTHER, lw=0.7)
        ax.plot(known["step"], values.rolling(window, min_periods=1).mean(), color=DRAWN, lw=1.6)
        if len(known) < 3:
            ax.plot(known["step"], known[name], "o", color=DRAWN)
        if name.endswith("loss") and bool((values.to_numpy() > 0).all()):
            ax.set_yscale("log")
        ax.set_title(CURVE_TITLES.get(name, name), fontsize=10)
        ax.set_xlabel("step")
        ax.grid(alpha=0.2)
    for ax in list(figure.axes)[len(columns) :]:
        ax.set_axis_off()
    write_aside(path_of(path), lambda beside: figure.savefig(beside, format="png", dpi=100))
