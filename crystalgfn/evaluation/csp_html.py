"""Structure prediction as one HTML file that opens offline: a table to sort and search, curves over k, what was run.

Curves need plotly, of the extra ``[evaluate]``; without it the page says so in their place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalgfn.evaluation import csp_report, html_figures, html_page, html_parts
from crystalgfn.files import write_aside

if TYPE_CHECKING:
    import plotly.graph_objects as go

PAGE = "csp.html"
ALL = "all crystals"
"""The slice whose curves are drawn."""
COLOURS = ("#2563c9", "#c4512d", "#1d8f86", "#7a4fb0", "#c08a1b", "#3f9142", "#b0466f", "#444a52")
"""Of the methods, again from the first where there are more."""
HIDDEN = {"filtered": "dot", "metre": "dash"}
"""Metrics whose curves are shown when their names are pressed, and how they are drawn."""


def write(path: Path, found: Mapping[str, Any]) -> None:
    """Write the page, aside and then renamed.

    Raises:
        CheckpointError: the file cannot be written.
    """
    text = page(found)
    write_aside(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def page(found: Mapping[str, Any]) -> str:
    """The whole page of what ``csp.json`` holds: `csp_figures.figures` with ``command``, ``machine``, ``settings``."""
    drawn, library = _curves(found)
    heads, cells = csp_report.columns(found["rows"], found["k"], lead=("slice",))
    said = " Find by words: <code>T2 chalcogenides</code>."
    notes = f"<p>{escape(csp_report.NOTES)}</p>"
    sections = {
        "All figures": html_page.table_place(f"Press a heading to sort.{said}") + notes,
        "Curves": _boxes(drawn, found),
        "More tables": html_parts.markdown(csp_report.further_tables(found)) or "<p>There are none.</p>",
        "How it was made": html_page.made(found),
    }
    return html_page.assemble(
        f"structure prediction on {Path(str(found.get('data', 'real crystals'))).name}",
        escape(f"{found.get('crystals', 0):,} crystals; at most {found['k']} structures of each method for each."),
        sections,
        {name: json.loads(fig.to_json()) for name, fig in drawn.items()},
        {"keys": heads, "heads": heads, "rows": [[_short(one) for one in row] for row in cells]},
        plotly=library,
    )


def _curves(found: Mapping[str, Any]) -> tuple[dict[str, go.Figure], str]:
    """Figures by the task, of polymorphs too, and the text of plotly's library; nothing where it is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        return {}, ""
    drawn = {}
    rows = [row for row in found["rows"] if row["slice"] == ALL]
    for task in dict.fromkeys(row["task"] for row in rows):
        drawn[task] = curves([row for row in rows if row["task"] == task], ("rate", *HIDDEN))
    for task in dict.fromkeys(row["task"] for row in found["recall"]):
        drawn[f"polymorphs_{task}"] = curves([row for row in found["recall"] if row["task"] == task], ("recall",))
    return drawn, get_plotlyjs()


def curves(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> go.Figure:
    """Shares in percent over the number of structures: the first metric with its interval, the others hidden."""
    import plotly.graph_objects as go

    fig = go.Figure()
    for i, row in enumerate(rows):
        colour = COLOURS[i % len(COLOURS)]
        for metric in [name for name in metrics if name in row]:
            values = row[metric]
            at = list(range(1, len(values["value"]) + 1))
            name = row["method"] if metric == metrics[0] else f"{row['method']}, {csp_report.METRICS[metric][0]}"
            fig.add_scatter(
                x=at, y=_percent(values["value"]), mode="lines+markers", name=name, legendgroup=name,
                line={"color": colour, "dash": HIDDEN.get(metric, "solid")}, marker={"size": 5},
                visible=True if metric == metrics[0] else "legendonly",
                customdata=list(zip(_percent(values["low"]), _percent(values["high"]), strict=True)),
                hovertemplate="%{y:.1f} (%{customdata[0]:.1f}-%{customdata[1]:.1f}) at %{x}",
            )  # fmt: skip
            if metric == metrics[0]:
                fig.add_scatter(
                    x=at + at[::-1], y=_percent(values["low"]) + _percent(values["high"])[::-1], fill="toself",
                    mode="lines", line={"width": 0}, fillcolor=colour, opacity=0.12, hoverinfo="skip",
                    legendgroup=name, showlegend=False,
                )  # fmt: skip
    fig.update_layout(xaxis_title="structures of each method, k")
    return html_figures.styled(fig, "%").update_yaxes(range=[0, 102])


def _boxes(drawn: Mapping[str, go.Figure], found: Mapping[str, Any]) -> str:
    if not drawn:
        return "<p>There are no curves, since plotly is not installed: pip install 'crystalgfn[evaluate]'.</p>"
    words = {task: f"{task}: match rate, 95 % shaded" for task in drawn}
    words |= {f"polymorphs_{row['task']}": f"{row['task']}: polymorphs of a formula found" for row in found["recall"]}
    boxes = "".join(html_parts.box(name, words[name]) for name in drawn)
    return f'<p>Press a name to show or hide its curve.</p><div class="figures two">{boxes}</div>'


def _percent(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else 100 * value for value in values]


def _short(value: Any) -> Any:
    return float(f"{value:.3g}") if isinstance(value, float) else value
