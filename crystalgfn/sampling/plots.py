"""Pictures: what was sampled, and how training went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.utils.files import path_of, write_aside

DRAWN, OTHER = "#1f5a94", "#b8b8b8"
#: What the columns of a training's log are, where their names do not say it.
CURVES = {
    "log_z": "ln Z",
    "log_reward": "mean ln R",
    "ess": "ESS of a batch while exploring",
    "crystals_per_second": "crystals a second",
}
SYSTEMS = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic")


def samples_picture(
    crystals: Crystals,
    path: str | Path,
    values: Sequence[float] | np.ndarray | None = None,
    reference: Crystals | None = None,
    reference_values: Sequence[float] | np.ndarray | None = None,
    label: str = "formation energy, eV/atom",
    reference_label: str = "untrained",
    title: str = "",
    largest_first: bool = False,
) -> None:
    """One PNG: a property's distribution, volumes, symmetry, numbers of elements, which elements, the best ten.

    Args:
        crystals: what was drawn, [B].
        path: the file to write.
        values: a property of each crystal, [B]; without it density takes its place.
        reference: other crystals to compare with, drawn in grey.
        reference_values: the same property of those.
        label: name and unit of the property.
        reference_label: what the other crystals are.
        title: the headline.
        largest_first: whether large values are the good ones.

    Raises:
        ValueError: no crystals, or not one value a crystal.
        CheckpointError: the file cannot be written.
    """
    if len(crystals) == 0:
        raise ValueError("a picture needs at least one crystal.")
    if values is None:
        values, label, largest_first = crystals.density.cpu().numpy(), "density, g/cm³", True
        reference_values = None if reference is None else reference.density.cpu().numpy()
    drawn = _frame(crystals, values)
    other = None if reference is None else _frame(reference, reference_values)

    figure = Figure(figsize=(15, 9.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title or f"{len(drawn)} crystals", fontsize=15, fontweight="bold")
    top, bottom = np.asarray(figure.subfigures(2, 1, height_ratios=(1, 1.15)), dtype=object)
    axes = top.subplots(1, 4, width_ratios=(1.25, 1.25, 1, 0.75))
    _distribution(axes[0], drawn, other, label, reference_label)
    _volumes(axes[1], drawn, other, label)
    numbers = [str(k) for k in range(1, max(5, int(crystals.n_elements.max())) + 1)]
    for ax, column, names in ((axes[2], "crystal system", SYSTEMS), (axes[3], "different elements", numbers)):
        _bars(ax, pd.Series(drawn[column]), None if other is None else pd.Series(other[column]), names, reference_label)
    left, right = bottom.subplots(1, 2, width_ratios=(1.5, 1))
    _elements(left, crystals)
    _best(right, drawn, label, largest_first)
    write_aside(path_of(path), lambda beside: figure.savefig(beside, format="png", dpi=110))


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
        ax.set_title(CURVES.get(name, name), fontsize=10)
        ax.set_xlabel("step")
        ax.grid(alpha=0.2)
    for ax in list(figure.axes)[len(columns) :]:
        ax.set_axis_off()
    write_aside(path_of(path), lambda beside: figure.savefig(beside, format="png", dpi=100))


def _frame(crystals: Crystals, values: Sequence[float] | np.ndarray | None) -> pd.DataFrame:
    frame = crystals.to_pandas()
    if values is not None:
        if len(values) != len(crystals):
            raise ValueError(f"{len(values)} values for {len(crystals)} crystals: a picture needs one a crystal.")
        frame["value"] = np.asarray(values, dtype=float)
    frame["different elements"] = [str(k) for k in crystals.n_elements.tolist()]
    names = [
        space_groups.CRYSTAL_LATTICE_SYSTEMS[space_groups.CRYSTAL_LATTICE_SYSTEM[n - 1]] for n in frame["space_group"]
    ]
    frame["crystal system"] = [name.split("-")[0] for name in names]
    return frame


def _distribution(ax: Axes, drawn: pd.DataFrame, other: pd.DataFrame | None, label: str, reference_label: str) -> None:
    """Histograms of the property, with the medians in words."""
    both = [drawn["value"]] + ([other["value"]] if other is not None and "value" in other else [])
    low, high = np.percentile(np.concatenate(both), [0.5, 99.5])
    pad = 0.05 * (high - low) or 0.5
    bins = np.linspace(low - pad, high + pad, 40)
    for values, colour, name, alpha in zip(
        both, (DRAWN, OTHER), ("sampled", reference_label), (0.75, 0.7), strict=False
    ):
        weights = np.full(len(values), 1 / len(values))
        median = f"{name}: median {np.median(values):.2f}"
        ax.hist(np.clip(values, bins[0], bins[-1]), bins, weights=weights, color=colour, alpha=alpha, label=median)
    ax.set_xlabel(label)
    ax.set_ylabel("share of crystals")
    ax.legend(frameon=False, fontsize=9)
    ax.set_title("what the reward looks at", fontsize=11)


def _volumes(ax: Axes, drawn: pd.DataFrame, other: pd.DataFrame | None, label: str) -> None:
    """The property against the volume per atom."""
    if other is not None and "value" in other:
        ax.scatter(other["volume_per_atom"], other["value"], s=6, color=OTHER, alpha=0.5, lw=0)
    size = float(np.clip(4000 / len(drawn), 4, 22))
    points = ax.scatter(
        drawn["volume_per_atom"], drawn["value"], s=size, c=drawn["n_atoms"], cmap="viridis", lw=0, alpha=0.9
    )
    widest = pd.concat([drawn, other])["volume_per_atom"] if other is not None else drawn["volume_per_atom"]
    ax.set_xlim(0, 1.05 * np.percentile(widest, 99.5))
    low, high = np.percentile(drawn["value"], [0.5, 99.5])
    pad = 0.35 * (high - low) or 0.5
    ax.set_ylim(low - pad, high + pad)
    ax.set_xlabel("volume per atom, Å³")
    ax.set_ylabel(label)
    ax.figure.colorbar(points, ax=ax, label="atoms in the primitive cell", shrink=0.85)
    ax.set_title("how dense it packs", fontsize=11)


def _bars(ax: Axes, drawn: pd.Series, other: pd.Series | None, names: Sequence[str], reference_label: str) -> None:
    """Shares as horizontal bars, the reference's as grey marks."""
    ax.barh(names, drawn.value_counts(normalize=True).reindex(names, fill_value=0), color=DRAWN, alpha=0.85)
    if other is not None:
        marks = other.value_counts(normalize=True).reindex(names, fill_value=0)
        ax.scatter(marks, names, marker="|", s=260, color="#666666", lw=2.2, zorder=3)
    ax.invert_yaxis()
    ax.set_xlabel("share" + (f"  ( | {reference_label})" if other is not None else ""))
    ax.set_title(str(drawn.name), fontsize=11)


def _elements(ax: Axes, crystals: Crystals) -> None:
    """The periodic table, each element shaded by the share of crystals that it is in."""
    share = (crystals.composition > 0).double().mean(0).cpu().numpy()
    norm = PowerNorm(0.5, 0, share.max())  # so that rare elements still show
    colours = colormaps["GnBu"]
    for z, symbol in enumerate(elements.SYMBOLS[:103], start=1):
        row, column = _place(z)
        shade = colours(norm(share[z - 1])) if share[z - 1] > 0 else "#f4f4f4"
        ax.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, facecolor=shade, edgecolor="white"))
        dark = share[z - 1] > 0 and norm(share[z - 1]) > 0.55
        ink = "white" if dark else "#333333" if share[z - 1] > 0 else "#aaaaaa"
        ax.text(column, row - 0.1, symbol, ha="center", va="center", fontsize=9, color=ink)
        if share[z - 1] > 0:
            ax.text(column, row + 0.28, f"{100 * share[z - 1]:.3g}", ha="center", va="center", fontsize=5.5, color=ink)
    ax.set_xlim(0.4, 18.6)
    ax.set_ylim(9.9, 0.4)
    ax.set_aspect("equal")
    ax.set_axis_off()
    ax.set_title("per cent of the crystals that hold an element", fontsize=11)


def _best(ax: Axes, drawn: pd.DataFrame, label: str, largest_first: bool) -> None:
    """The ten best formulas with their group, as a table; a formula once."""
    order = drawn.sort_values("value", ascending=not largest_first).drop_duplicates("formula").head(10)
    rows = [
        [
            row["formula"],
            f"{row['symbol']} ({row['space_group']})",
            f"{row['n_atoms']}",
            f"{row['volume_per_atom']:.1f}",
            f"{row['value']:.2f}",
        ]
        for row in order.to_dict("records")
    ]
    heads = ["formula", "space group", "atoms", "Å³/atom", label.split(",")[-1].strip()]
    grid = ax.table(rows, colLabels=heads, loc="center", cellLoc="left", colWidths=(0.36, 0.26, 0.11, 0.14, 0.13))
    grid.auto_set_font_size(False)
    grid.set_fontsize(10)
    grid.scale(1, 1.6)
    for (row, _), cell in grid.get_celld().items():
        cell.set_edgecolor("#dddddd")
        cell.set_text_props(fontweight="bold" if row == 0 else "normal")
    ax.set_axis_off()
    ax.set_title(f"best ten by {label.split(',')[0]}", fontsize=11)


def _place(z: int) -> tuple[float, float]:
    """Row and column of an element; lanthanides and actinides below the table."""
    if 57 <= z <= 71:
        return 8.3, z - 57 + 3
    if 89 <= z <= 103:
        return 9.3, z - 89 + 3
    return float(elements.ROW[z - 1]), float(elements.GROUP[z - 1])
