"""Tables, figures and page of the structure prediction benchmark."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalgfn.benchmarks.csp.scores import ALL
from crystalgfn.evaluation.report import components
from crystalgfn.evaluation.report import figures as html_figures
from crystalgfn.evaluation.report import page as template
from crystalgfn.utils.files import write_aside
from crystalgfn.utils.provenance import markdown_table

if TYPE_CHECKING:
    import plotly.graph_objects as go


AT = (1, 5, 20)
"""Numbers of structures that the tables have columns for."""
FAULTS = 200
"""Crystals and structures that could not be read are listed, so many at most; the records have all."""
METRICS = {
    "rate": ("match rate", "%", 100, 1),
    "filtered": ("filtered", "%", 100, 1),
    "metre": ("METRe", "%", 100, 1),
    "rmse": ("RMSE", "", 1, 4),
    "crmse": ("cRMSE", "", 1, 4),
}
"""Name in the figures -> name in the tables, unit, factor and digits."""
MADE = {
    "valid": ("valid, %", 100),
    "empty": ("no structure, %", 100),
    "faulty": ("unreadable, %", 100),
    "seconds": ("s / structure", 1),
    "cpu_seconds": ("CPU s / structure", 1),
}
NOTES = """Intervals: 95 %, percentiles of 1,000 bootstrap resamples of the crystals; at 0 and 100 % they have no width.
Match: pymatgen's StructureMatcher (stol 0.5, angle_tol 10, ltol 0.3); every crystal counts; filtered: DiffCSP's
protocol. METRe: share of the crystals matched by any structure made for their formula, of polymorphs too. RMSE: over
the crystals found; cRMSE: over all, as for METRe, misses with 0.5. Valid: no pair of atoms closer than 0.7 of the sum
of their radii."""


def csp_tables(found: Mapping[str, Any]) -> str:
    """Markdown of `csp_figures`."""
    parts = []
    for name in dict.fromkeys(row["slice"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["slice"] == name]
        parts += [f"## {name[:1].upper()}{name[1:]}", markdown_table(*columns(rows, found["k"]))]
        parts += [NOTES] if len(parts) == 2 else []
    return "\n\n".join(filter(None, [*parts, further_tables(found)]))


def further_tables(found: Mapping[str, Any]) -> str:
    """Markdown of what is not in the main table: polymorphs, rates by kind of crystal, what went wrong."""
    parts = []
    if found["recall"]:
        parts += [
            "## Polymorphs of a formula that are found, %",
            markdown_table(*recall_columns(found["recall"], found["k"])),
        ]
    for name, words in (("by_freedom", "free coordinates"), ("by_system", "lattice system")):
        rows = found[name]
        if rows:
            heads = ["task", "method", *rows[0]["bins"]]
            cells = [[row["task"], row["method"], *map(_bin, row["bins"].values())] for row in rows]
            parts += [f"## By {words} (match rate at 1 / {found['k']})", markdown_table(heads, cells)]
    for name, words in (("skipped", "Crystals that could be no targets"), ("faults", "What methods said")):
        if found.get(name):
            parts += [f"## {words}", "\n".join(f"- {line}" for line in _listed(found[name]))]
    return "\n\n".join(parts)


def columns(rows: Sequence[Mapping[str, Any]], k: int, lead: Sequence[str] = ()) -> tuple[list[str], list[list[Any]]]:
    """Heads and cells of the main table; ``lead``: keys of further columns at the left."""
    lead = (*lead, "task", "method", "crystals")
    there = [name for name in METRICS if any(name in row for row in rows)]
    wanted = [(name, at) for name in there for at in (at_of(k) if name == "rate" else sorted({1, k}))]
    heads = [", ".join(filter(None, (f"{METRICS[name][0]} @{at}", METRICS[name][1]))) for name, at in wanted]

    def cells(row: Mapping[str, Any]) -> list[Any]:
        metrics = [_cell(row.get(name), at, *METRICS[name][2:]) for name, at in wanted]
        made = [None if row[name] is None else factor * row[name] for name, (_, factor) in MADE.items()]
        return [*(row[name] for name in lead), *metrics, *made]

    return [*lead, *heads, *(words for words, _ in MADE.values())], [cells(row) for row in rows]


def recall_columns(rows: Sequence[Mapping[str, Any]], k: int) -> tuple[list[str], list[list[Any]]]:
    """Heads and cells of the table of polymorphs."""
    heads = ["task", "method", "formulas", "polymorphs", *(f"@{at}, %" for at in at_of(k))]
    return heads, [
        [*(row[name] for name in heads[:4]), *(_cell(row["recall"], at, 100, 1) for at in at_of(k))] for row in rows
    ]


def at_of(k: int) -> list[int]:
    """Numbers of structures that columns are for: those of `AT` below the number asked for, and that."""
    return sorted({at for at in AT if at < k} | {k})


def _listed(lines: Sequence[str]) -> list[str]:
    more = [f"and {len(lines) - FAULTS:,} more"] if len(lines) > FAULTS else []
    return [*lines[:FAULTS], *more]


def _bin(one: Sequence[Any]) -> str:
    n, first, last = one
    return f"{100 * first:.1f} / {100 * last:.1f} ({n})" if n else ""


def _cell(metric: Mapping[str, Sequence[float | None]] | None, at: int, factor: float, digits: int) -> str | None:
    found = [None] if metric is None else [metric[part][at - 1] for part in ("value", "low", "high")]
    if found[0] is None:
        return None
    value, low, high = (f"{factor * (one or 0.0):.{digits}f}" for one in found)
    return f"{value} ({low}-{high})"


COLOURS = ("#2563c9", "#c4512d", "#1d8f86", "#7a4fb0", "#c08a1b", "#3f9142", "#b0466f", "#444a52")
"""Of the methods, again from the first where there are more."""
HIDDEN = {"filtered": "dot", "metre": "dash"}
"""Metrics whose curves are shown when their names are pressed, and how they are drawn."""


def write_csp_page(path: Path, found: Mapping[str, Any]) -> None:
    """Write the page, aside and then renamed.

    Raises:
        CheckpointError: the file cannot be written.
    """
    text = csp_page(found)
    write_aside(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def csp_page(found: Mapping[str, Any]) -> str:
    """The whole page of what ``csp.json`` holds: `csp_figures` with ``command``, ``machine``, ``settings``."""
    drawn, library = _curves(found)
    heads, cells = columns(found["rows"], found["k"], lead=("slice",))
    said = " Find by words: <code>T2 chalcogenides</code>."
    notes = f"<p>{escape(NOTES)}</p>"
    sections = {
        "All figures": template.table_place(f"Press a heading to sort.{said}") + notes,
        "Curves": _boxes(drawn, found),
        "More tables": components.markdown(further_tables(found)) or "<p>There are none.</p>",
        "How it was made": template.made(found),
    }
    return template.assemble(
        f"structure prediction on {Path(str(found.get('data', 'real crystals'))).name}",
        escape(f"{found.get('crystals', 0):,} crystals; at most {found['k']} structures of each method for each."),
        sections,
        {name: json.loads(fig.to_json() or "") for name, fig in drawn.items()},
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
        drawn[task] = match_rate_curves([row for row in rows if row["task"] == task], ("rate", *HIDDEN))
    for task in dict.fromkeys(row["task"] for row in found["recall"]):
        drawn[f"polymorphs_{task}"] = match_rate_curves(
            [row for row in found["recall"] if row["task"] == task], ("recall",)
        )
    return drawn, get_plotlyjs()


def match_rate_curves(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> go.Figure:
    """Shares in percent over the number of structures: the first metric with its interval, the others hidden."""
    import plotly.graph_objects as go

    fig = go.Figure()
    for i, row in enumerate(rows):
        colour = COLOURS[i % len(COLOURS)]
        for metric in [name for name in metrics if name in row]:
            values = row[metric]
            at = list(range(1, len(values["value"]) + 1))
            name = row["method"] if metric == metrics[0] else f"{row['method']}, {METRICS[metric][0]}"
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
        return '<p>There are no curves, since plotly is not installed: pip install -e ".[evaluate]".</p>'
    words = {task: f"{task}: match rate, 95 % shaded" for task in drawn}
    words |= {f"polymorphs_{row['task']}": f"{row['task']}: polymorphs of a formula found" for row in found["recall"]}
    boxes = "".join(components.box(name, words[name]) for name in drawn)
    return f'<p>Press a name to show or hide its curve.</p><div class="figures two">{boxes}</div>'


def _percent(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else 100 * value for value in values]


def _short(value: Any) -> Any:
    return float(f"{value:.3g}") if isinstance(value, float) else value
