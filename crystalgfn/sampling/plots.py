"""Pictures: what was sampled, and how training went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from crystalgfn.structures.exchange import draw
from crystalgfn.utils.files import path_of, write_aside

if TYPE_CHECKING:
    from pymatgen.core import Structure


DRAWN, OTHER = "#1f5a94", "#b8b8b8"

SYSTEMS = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic")

EXACT = ("density", "volume per atom")
"""Properties that are computed and not predicted."""

FEW = 14
"""Elements, at most, that are shown as bars and not in a periodic table."""

ROWS, PICTURED = 10, 3
"""Best crystals in the table, and among them those that are drawn."""


def samples_picture(
    crystals: Crystals,
    path: str | Path,
    values: Sequence[float] | np.ndarray | None = None,
    reference: Crystals | None = None,
    reference_values: Sequence[float] | np.ndarray | None = None,
    label: str = "formation energy, eV/atom",
    reference_label: str = "untrained sampler",
    title: str = "",
    largest_first: bool = False,
    structures: Sequence[Structure | None] = (),
    crowded: Sequence[bool] | np.ndarray = (),
) -> None:
    """One PNG: a property's distribution, packing, symmetry, elements, and the best, with their structures.

    A panel that would show one value only is left out.

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
        structures: of each crystal, [B]; the best three that have one are drawn. Without any: none.
        crowded: which crystals have short contacts, [B]; they are not among the best.

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
    best = _best(drawn, crowded, largest_first)
    seen = _seen(best, structures)
    held = _elements_of(crystals)
    figure = Figure(figsize=(15, 12.2 if seen and held is not None else 9.2))
    FigureCanvasAgg(figure)
    _top(figure, drawn, other, label, (title or f"{len(drawn)} crystals", f"blue: sampled, grey: {reference_label}"))
    _bottom(figure, held, _with(_table, best=best.head(ROWS), label=label), seen)
    write_aside(path_of(path), lambda beside: figure.savefig(beside, format="png", dpi=110))


def _seen(best: pd.DataFrame, structures: Sequence[Structure | None]) -> list[tuple[str, Structure]]:
    """The first of the best that have a structure, each with its title."""
    seen = []
    for k, row in zip(best.index, best.to_dict("records"), strict=True):
        structure = structures[k] if len(structures) else None
        if structure is not None and len(seen) < PICTURED:
            title = f"{row['formula']}, {row['symbol']} ({row['space_group']}): {row['value']:.2f}"
            seen.append((title, structure))
    return seen


def _top(figure: Figure, drawn: pd.DataFrame, other: pd.DataFrame | None, label: str, words: tuple[str, str]) -> None:
    """The headlines, the second only beside a reference, and the panels of what was sampled."""
    height = figure.get_figheight()
    figure.suptitle(words[0], fontsize=15, fontweight="bold", y=1 - 0.25 / height)
    if other is not None:
        figure.text(0.5, 1 - 0.62 / height, words[1], ha="center", fontsize=10, color="#555555")
    panels = _panels(drawn, other, label)
    top = _columns(figure, [width for width, _ in panels], height - 1.15, height - 4.3)
    for ax, (_, draw_panel) in zip(top, panels, strict=True):
        draw_panel(ax)


def _bottom(
    figure: Figure,
    held: Callable[[Axes], None] | None,
    table: Callable[[Axes], None],
    seen: Sequence[tuple[str, Structure]],
) -> None:
    """The elements, the table, and structures with their titles: below these two, or beside the table alone."""
    top = figure.get_figheight() - 5.2
    if held is None:
        first, *places = _columns(figure, [1.25, *[0.55] * PICTURED * bool(seen)], top, top - 3.7)
        table(first)
    else:
        left, right = _columns(figure, [1.5, 1.0], top, top - 3.7)
        held(left)
        table(right)
        places = _columns(figure, [1.0] * PICTURED, 2.7, 0.15) if seen else []
    for ax in places:
        ax.set_axis_off()
    for ax, (title, structure) in zip(places, seen, strict=False):
        draw(structure, ax)
        ax.set_title(title, fontsize=11)


def _columns(figure: Figure, widths: Sequence[float], top: float, bottom: float) -> list[Axes]:
    """Axes side by side between two heights in inches."""
    height = figure.get_figheight()
    grid = figure.add_gridspec(
        1,
        len(widths),
        width_ratios=widths,
        left=0.055,
        right=0.985,
        top=top / height,
        bottom=bottom / height,
        wspace=0.4,
    )
    return [figure.add_subplot(grid[0, k]) for k in range(len(widths))]


def _panels(drawn: pd.DataFrame, other: pd.DataFrame | None, label: str) -> list[tuple[float, Callable[[Axes], None]]]:
    """Width and drawing of each panel that shows more than one value."""
    panels: list[tuple[float, Callable[[Axes], None]]] = [
        (1.25, _with(_distribution, drawn=drawn, other=other, label=label)),
        (1.1, _with(_packing, drawn=drawn, other=other, label=label)),
    ]
    numbers = [str(k) for k in range(1, max(5, *map(int, drawn["number of elements"])) + 1)]
    for column, names, width in (("crystal system", SYSTEMS, 0.9), ("number of elements", numbers, 0.7)):
        if len(set(drawn[column])) > 1:
            grey = None if other is None else pd.Series(other[column])
            panels.append((width, _with(_bars, drawn=pd.Series(drawn[column]), other=grey, names=names)))
    return panels


def _with(function: Callable[..., None], **values: Any) -> Callable[[Axes], None]:
    """A drawing whose values are known."""
    return lambda ax: function(ax, **values)


def title_of(label: str) -> str:
    """The standard title of a property from its name and unit.

    Example:
        >>> title_of("energy above hull, eV/atom"), title_of("density, g/cm3")
        ('Predicted energy above hull', 'Density')
    """
    name = label.split(",")[0].strip()
    return name.capitalize() if name in EXACT else f"Predicted {name}"


def _frame(crystals: Crystals, values: Sequence[float] | np.ndarray | None) -> pd.DataFrame:
    frame = crystals.to_pandas()
    if values is not None:
        if len(values) != len(crystals):
            raise ValueError(f"{len(values)} values for {len(crystals)} crystals: a picture needs one a crystal.")
        frame["value"] = np.asarray(values, dtype=float)
    frame["number of elements"] = [str(k) for k in crystals.n_elements.tolist()]
    names = [
        space_groups.CRYSTAL_LATTICE_SYSTEMS[space_groups.CRYSTAL_LATTICE_SYSTEM[n - 1]] for n in frame["space_group"]
    ]
    frame["crystal system"] = [name.split("-")[0] for name in names]
    return frame


def _distribution(ax: Axes, drawn: pd.DataFrame, other: pd.DataFrame | None, label: str) -> None:
    """Histograms of the property, with the medians in words."""
    both = [drawn["value"]] + ([other["value"]] if other is not None and "value" in other else [])
    low, high = np.percentile(np.concatenate(both), [0.5, 99.5])
    pad = 0.05 * (high - low) or 0.5
    bins = np.linspace(low - pad, high + pad, 40)
    for values, colour, alpha in zip(both, (DRAWN, OTHER), (0.75, 0.7), strict=False):
        weights = np.full(len(values), 1 / len(values))
        median = f"median {np.median(values):.2f}"
        ax.hist(np.clip(values, bins[0], bins[-1]), bins, weights=weights, color=colour, alpha=alpha, label=median)
    ax.set_xlabel(label)
    ax.set_ylabel("share of crystals")
    ax.legend(frameon=False, fontsize=9)
    ax.set_title(title_of(label), fontsize=11)


def _packing(ax: Axes, drawn: pd.DataFrame, other: pd.DataFrame | None, label: str) -> None:
    """The property against the volume per atom."""
    if other is not None and "value" in other:
        ax.scatter(other["volume_per_atom"], other["value"], s=6, color=OTHER, alpha=0.5, lw=0)
    size = float(np.clip(4000 / len(drawn), 4, 22))
    ax.scatter(drawn["volume_per_atom"], drawn["value"], s=size, color=DRAWN, lw=0, alpha=0.9)
    widest = pd.concat([drawn, other])["volume_per_atom"] if other is not None else drawn["volume_per_atom"]
    ax.set_xlim(0, 1.05 * np.percentile(widest, 99.5))
    low, high = np.percentile(drawn["value"], [0.5, 99.5])
    pad = 0.35 * (high - low) or 0.5
    ax.set_ylim(low - pad, high + pad)
    ax.set_xlabel("volume per atom, Å³")
    ax.set_ylabel(label)
    ax.set_title("Packing", fontsize=11)


def _bars(ax: Axes, drawn: pd.Series, other: pd.Series | None, names: Sequence[str]) -> None:
    """Shares as horizontal bars, the reference's as grey marks; names that neither has are left out."""
    shares = [one.value_counts(normalize=True) for one in (drawn, other) if one is not None]
    shown = [name for name in names if any(name in one.index for one in shares)]
    ax.barh(shown, shares[0].reindex(shown, fill_value=0), color=DRAWN, alpha=0.85)
    for marks in shares[1:]:
        ax.scatter(marks.reindex(shown, fill_value=0), shown, marker="|", s=260, color="#888888", lw=2.2, zorder=3)
    ax.invert_yaxis()
    ax.set_xlabel("share of crystals")
    ax.set_title(str(drawn.name).capitalize(), fontsize=11)


def _elements_of(crystals: Crystals) -> Callable[[Axes], None] | None:
    """What draws the elements: nothing where all crystals have the same, bars for few, else a periodic table."""
    held = crystals.composition.cpu() > 0
    if bool((held == held[0]).all()):
        return None
    share = held.double().mean(0).numpy()
    return _with(_element_bars if np.count_nonzero(share) <= FEW else _periodic_table, share=share)


def _element_bars(ax: Axes, share: np.ndarray) -> None:
    order = np.argsort(-share)[: np.count_nonzero(share)]
    ax.bar([elements.SYMBOLS[z] for z in order], 100 * share[order], color=DRAWN, alpha=0.85)
    ax.set_ylabel("% of crystals")
    ax.set_title("Elements", fontsize=11)


def _periodic_table(ax: Axes, share: np.ndarray) -> None:
    """The periodic table, each element shaded by the share of crystals that it is in."""
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
    ax.set_title("Elements, % of crystals", fontsize=11)


def _best(drawn: pd.DataFrame, crowded: Sequence[bool] | np.ndarray, largest_first: bool) -> pd.DataFrame:
    """The crystals from the best on, without those with short contacts, one of each formula and space group."""
    free = drawn.loc[~np.asarray(crowded, dtype=bool)] if len(crowded) else drawn
    return free.sort_values(by=["value"], ascending=[not largest_first]).drop_duplicates(["formula", "space_group"])


def _table(ax: Axes, best: pd.DataFrame, label: str) -> None:
    """Formulas with their space group."""
    ax.set_axis_off()
    ax.set_title(f"Best {len(best)} by {label.split(',')[0]}", fontsize=11)
    if not len(best):
        ax.text(0.5, 0.5, "all have short contacts", ha="center")
        return
    rows = [
        [
            row["formula"],
            f"{row['symbol']} ({row['space_group']})",
            f"{row['n_atoms']}",
            f"{row['volume_per_atom']:.1f}",
            f"{row['value']:.2f}",
        ]
        for row in best.to_dict("records")
    ]
    heads = ["formula", "space group", "atoms", "Å³/atom", label.split(",")[-1].strip()]
    grid = ax.table(rows, colLabels=heads, loc="upper center", cellLoc="left", colWidths=(0.32, 0.28, 0.11, 0.15, 0.14))
    grid.auto_set_font_size(False)
    grid.set_fontsize(10)
    grid.scale(1, 1.6)
    for (row, _), cell in grid.get_celld().items():
        cell.set_edgecolor("#dddddd")
        cell.PAD = 0.04
        cell.set_text_props(fontweight="bold" if row == 0 else "normal", fontsize=9 if row == 0 else 10, ha="left")


def _place(z: int) -> tuple[float, float]:
    """Row and column of an element; lanthanides and actinides below the table."""
    if 57 <= z <= 71:
        return 8.3, z - 57 + 3
    if 89 <= z <= 103:
        return 9.3, z - 89 + 3
    return float(elements.ROW[z - 1]), float(elements.GROUP[z - 1])
