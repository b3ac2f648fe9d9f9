"""The figures of a report: histograms beside the reference, periodic table, space groups, volumes, agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.elements import NUMBER

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

OWN, KNOWN = "#2563c9", "#8a8f98"
"""Colours of the samples and of the reference."""
BINS = 40
MOST_BARS = 60
"""Whole numbers with a larger range than that are binned as others are."""
TAIL = 0.005
"""Share on each side that the outermost bars take up, so that one outlier does not flatten the rest."""
SYSTEMS = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic")
COLOURS = dict(zip(SYSTEMS, ("#b0466f", "#7a4fb0", "#2f62c4", "#1d8f86", "#3f9142", "#c08a1b", "#c4512d"), strict=True))
HEAT = [[0, "#f3f5f8"], [0.001, "#dbe9fb"], [0.5, "#7fb2ee"], [1, "#2f78d0"]]


def histogram(own: np.ndarray, other: np.ndarray, words: str) -> go.Figure:
    """Shares of the samples as bars, of the reference (maybe without values) as a line; ``words`` of the axis."""
    import plotly.graph_objects as go

    own, other = (values[np.isfinite(values)] for values in (own, other))
    both = np.concatenate([own, other])
    edges, beyond = _edges(both)
    middles = (edges[:-1] + edges[1:]) / 2
    fig = go.Figure()
    fig.add_bar(x=middles, y=_shares(own, edges), width=np.diff(edges), name="samples", marker_color=OWN, opacity=0.75)
    if len(other):
        line = {"color": "#444a52", "width": 2, "shape": "hvh"}
        fig.add_scatter(x=middles, y=_shares(other, edges), mode="lines", line=line, name="reference")
    fig.update_layout(bargap=0, xaxis_title=words + (" (ends: and beyond)" if beyond else ""))
    return styled(fig, "share")


def _edges(values: np.ndarray) -> tuple[np.ndarray, bool]:
    """Edges of bars, and whether values lie outside."""
    low, high = float(values.min()), float(values.max())
    if (values == np.rint(values)).all() and high - low < MOST_BARS:
        return np.arange(low - 0.5, high + 1.0), False
    near, far = np.quantile(values, [TAIL, 1 - TAIL])
    if far - near > 0.5 * (high - low):
        near, far = low, high
    if far <= near:
        near, far = near - 0.5, near + 0.5
    return np.linspace(near, far, BINS + 1), bool(low < near or high > far)


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return counts / max(len(values), 1)


def systems(frame: pd.DataFrame, reference: pd.DataFrame | None) -> go.Figure:
    """Shares of the crystal systems."""
    import plotly.graph_objects as go

    fig = go.Figure()
    for name, colour, table in (("samples", OWN, frame), ("reference", KNOWN, reference)):
        if table is not None:
            shares = table["crystal_system"].value_counts(normalize=True)
            fig.add_bar(x=SYSTEMS, y=[shares.get(one, 0.0) for one in SYSTEMS], name=name, marker_color=colour)
    return styled(fig, "share")


def periodic_table(counts: Mapping[str, int], n: int) -> go.Figure:
    """How many of n crystals hold each element, {symbol: crystals}, on pymatviz's table of places.

    The heat map of pymatviz 0.18 itself calls a function of plotly that plotly 7 no longer has.
    """
    import plotly.graph_objects as go
    from pymatviz.utils.data import df_ptable

    places = df_ptable.loc[[symbol for symbol in df_ptable.index if symbol in NUMBER]]
    rows, columns = places["row"].astype(int), places["column"].astype(int)
    names = np.full((rows.max() + 1, 19), "", dtype=object)
    heat, hover = np.full(names.shape, np.nan), names.copy()
    for symbol, row, column in zip(places.index, rows, columns, strict=True):
        k = counts.get(symbol, 0)
        names[row, column] = f"<b>{symbol}</b><br>{k or '-'}"
        heat[row, column] = k
        hover[row, column] = f"{places['name'][symbol]}: in {k:,} of {n:,} crystals ({k / max(n, 1):.1%})"
    fig = go.Figure()
    fig.add_heatmap(
        z=heat, text=names, hovertext=hover, texttemplate="%{text}", hovertemplate="%{hovertext}<extra></extra>",
        xgap=2, ygap=2, colorscale=HEAT, hoverongaps=False, textfont={"size": 12},
        colorbar={"orientation": "h", "x": 0.38, "y": 0.98, "len": 0.4, "thickness": 12, "title": "crystals"},
    )  # fmt: skip
    fig.update_layout(
        template="none", margin={"l": 4, "r": 4, "t": 4, "b": 4}, font={"size": 12}, meta=n,
        xaxis={"visible": False, "range": [0.5, 18.5]}, yaxis={"visible": False, "range": [rows.max() + 0.5, 0.5]},
    )  # fmt: skip
    return sized(fig, 480)


def sunburst(numbers: Sequence[int], title: str) -> go.Figure:
    """Crystal systems and the groups in them (pymatviz)."""
    from pymatviz.sunburst.spacegroup import spacegroup_sunburst

    fig = spacegroup_sunburst(
        [int(one) for one in numbers], show_counts=False, color="crystal_system", color_discrete_map=COLOURS
    )
    trace: Any = fig.data[0]
    trace.update(
        labels=[_group_name(label) for label in trace.labels], texttemplate="%{label}<br>%{value:.0f}",
        hovertemplate="%{label}: %{value:.0f} crystals, %{percentRoot:.1%}<extra></extra>",
    )  # fmt: skip
    fig.update_layout(uniformtext={"minsize": 9, "mode": "hide"})
    fig.update_layout(title={"text": title, "x": 0.5, "font": {"size": 15}}, margin={"l": 4, "r": 4, "t": 40, "b": 4})
    return sized(fig, 440)


def _group_name(label: Any) -> str:
    return f"{label} {space_groups.SYMBOL[int(label) - 1]}" if str(label).isdigit() else str(label)


def volumes(frame: pd.DataFrame, limits: tuple[float, float]) -> go.Figure:
    """Volume an atom against the volume that such atoms usually take up, one point a crystal."""
    import plotly.graph_objects as go

    usual = frame["volume_per_atom"] / frame["relative_volume"]
    top = float(np.max([usual, frame["volume_per_atom"]])) * 1.05
    fig = go.Figure()
    for ratio in (*limits, 1.0):
        ends = [0, min(top, top / ratio)]
        dash = "solid" if ratio == 1 else "dot"
        fig.add_scatter(
            x=ends, y=[ratio * x for x in ends], mode="lines", name=f"{ratio:g} times", hoverinfo="skip",
            line={"color": "#444a52", "dash": dash, "width": 1.5},
        )  # fmt: skip
    fig.add_scatter(
        x=usual, y=frame["volume_per_atom"], mode="markers", text=frame["formula"], name="crystals",
        marker={"color": OWN, "size": 5, "opacity": 0.5},
        hovertemplate="%{text}: %{y:.1f}, usual %{x:.1f} Å3<extra></extra>",
    )  # fmt: skip
    fig.update_layout(xaxis_title="usual volume of these atoms, Å3 an atom")
    return styled(fig, "volume, Å3 an atom")


def agreement(reported: np.ndarray, found: np.ndarray, names: Sequence[str], words: str, label: str) -> go.Figure:
    """What the source says against what was computed; on the line they agree."""
    import plotly.graph_objects as go

    low, high = float(min(reported.min(), found.min())), float(max(reported.max(), found.max()))
    fig = go.Figure()
    line = {"color": "#444a52", "dash": "dot"}
    fig.add_scatter(x=[low, high], y=[low, high], mode="lines", line=line, name="equal", hoverinfo="skip")
    fig.add_scatter(
        x=reported, y=found, mode="markers", text=list(names), name="crystals", marker={"color": OWN, "size": 7},
        hovertemplate="%{text}: source %{x:.3f}, found %{y:.3f}<extra></extra>",
    )  # fmt: skip
    fig.update_layout(xaxis_title=words)
    return styled(fig, label)


def tells(fig: go.Figure) -> bool:
    """Whether a figure shows more than one value: not for a single bar, space group or set of elements."""
    traces: Any = fig.data
    kinds = {one.type for one in traces}
    if "bar" in kinds:  # beside it the line of a reference
        return len({x for one in traces for x, y in zip(one.x, one.y, strict=True) if y > 0}) > 1
    if "heatmap" in kinds:
        held = np.asarray(traces[0].z, dtype=float)
        return bool((held[held > 0] != fig.layout.meta).any())
    return "sunburst" not in kinds or len(traces[0].labels) > 2


def styled(fig: go.Figure, axis: str) -> go.Figure:
    """The look that all plots share."""
    grid = {"gridcolor": "#e5e7eb", "linecolor": "#9aa1ab", "zeroline": False, "automargin": True}
    fig.update_layout(
        template="none", yaxis_title=axis, xaxis=grid, yaxis=grid, margin={"l": 55, "r": 10, "t": 10, "b": 45},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}, font={"size": 13},
    )  # fmt: skip
    return sized(fig, 320)


def sized(fig: go.Figure, height: int) -> go.Figure:
    """As wide as the page lets it be."""
    fig.update_layout(
        width=None, height=height, autosize=True, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)"
    )
    return fig
