"""Tables, figures and page of the structure prediction benchmark."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.benchmarks.csp.scores import PredictionRecord, Scores
from crystalgfn.crystallography import space_groups
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
    heads = [*lead, "task", "method", "crystals"]
    ends = sorted({1, k})
    wanted = [(name, at) for name in METRICS for at in (at_of(k) if name == "rate" else ends)]
    wanted = [(name, at) for name, at in wanted if any(name in row for row in rows)]
    for name, at in wanted:
        words, unit, _, _ = METRICS[name]
        heads.append(f"{words} @{at}" + (f", {unit}" if unit else ""))
    heads += [words for words, _ in MADE.values()]
    cells = []
    for row in rows:
        line = [row[name] for name in (*lead, "task", "method", "crystals")]
        line += [_cell(row.get(name), at, *METRICS[name][2:]) for name, at in wanted]
        cells.append(line + [None if row[name] is None else factor * row[name] for name, (_, factor) in MADE.items()])
    return heads, cells


def recall_columns(rows: Sequence[Mapping[str, Any]], k: int) -> tuple[list[str], list[list[Any]]]:
    """Heads and cells of the table of polymorphs."""
    heads = ["task", "method", "formulas", "polymorphs", *(f"@{at}, %" for at in at_of(k))]
    lead = [[row[name] for name in ("task", "method", "formulas", "polymorphs")] for row in rows]
    return heads, [
        [*own, *(_cell(row["recall"], at, 100, 1) for at in at_of(k))] for own, row in zip(lead, rows, strict=True)
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
    if metric is None or metric["value"][at - 1] is None:
        return None
    value, low, high = (f"{factor * metric[part][at - 1]:.{digits}f}" for part in ("value", "low", "high"))
    return f"{value} ({low}-{high})"


ANY_GROUP = "T4"
"""The task that tells the formula only, so that all its polymorphs may be predicted."""

METASTABLE = 0.02
"""eV/atom above the hull; crystals above it are the metastable slice. 0.1, the usual limit, MP-20 ends below."""

CHALCOGENS, OTHER_ANIONS = {"S", "Se", "Te"}, {"O", "N", "F", "Cl", "Br", "I"}

FREEDOM = {"0": (0, 0), "1-2": (1, 2), "3-5": (3, 5), "6-14": (6, 14), "> 14": (15, 10**6)}
"""Bins of the number of free coordinates."""


def csp_figures(records: Sequence[PredictionRecord], baseline: str = "templates") -> dict[str, Any]:
    """Everything that tables and page are made of, as JSON has it.

    Keys: ``k``; ``rows``, one for each slice, task and method, with the intervals of `Scores.intervals`; ``recall``;
    ``faults``; ``by_freedom`` and ``by_system``.
    """
    scores = _scores(records)
    rows, recall = [], []
    for (task, method), own in scores.items():
        where = _slices(own.records, scores.get((task, baseline)), baseline)
        for name, positions in where.items():
            part = own.select(positions)
            if part.records:
                metrics = {metric: one.columns() for metric, one in part.intervals().items()}
                about = {"slice": name, "task": task, "method": method, "crystals": len(positions)}
                rows.append({**about, **metrics, **part.made()})
        formulas, polymorphs, found = own.recalled()
        if formulas and task == ANY_GROUP:
            about = {"task": task, "method": method, "formulas": formulas, "polymorphs": polymorphs}
            recall.append({**about, "recall": found.columns()})
    return {
        "k": max((record["k"] for record in records), default=0),
        "rows": rows,
        "recall": recall,
        "faults": _faults(records),
        "by_freedom": _by(scores, {name: _between(*limits) for name, limits in FREEDOM.items()}),
        "by_system": _by(scores, {name: _of_system(name) for name in space_groups.CRYSTAL_LATTICE_SYSTEMS}),
    }


def chalcogenide(formula: str) -> bool:
    """Whether a formula has S, Se or Te, and no O, N or halogen that could be its anion instead."""
    present = set(re.findall(r"[A-Z][a-z]?", formula))
    return bool(present & CHALCOGENS) and not present & OTHER_ANIONS


def _scores(records: Sequence[PredictionRecord]) -> dict[tuple[str, str], Scores]:
    pairs = dict.fromkeys((r["task"], r["method"]) for r in records)
    return {pair: Scores.of([r for r in records if (r["task"], r["method"]) == pair]) for pair in pairs}


def _slices(records: Sequence[PredictionRecord], baseline: Scores | None, name: str) -> dict[str, list[int]]:
    """Positions of the crystals of each slice."""
    own = {} if baseline is None else {r["where"]: r["rms"] for r in baseline.records}
    tests: dict[str, Callable[[PredictionRecord], bool]] = {
        "all crystals": lambda r: True,
        "chalcogenides": lambda r: chalcogenide(r["formula"]),
        f"metastable (over {METASTABLE} eV/atom above the hull)": lambda r: (r.get("e_above_hull") or 0) > METASTABLE,
        f"without one of the {name}": lambda r: own.get(r["where"]) == [],
        f"first of the {name} is wrong": lambda r: bool(own.get(r["where"])) and own[r["where"]][0] is None,
    }
    return {words: [i for i, r in enumerate(records) if test(r)] for words, test in tests.items()}


def _faults(records: Sequence[PredictionRecord]) -> list[str]:
    """Structures that could not be read, and why crystals have none."""
    found = []
    for record in records:
        who = f"{record['method']}, {record['task']}, {record['where']}"
        found += [f"{who}: {reason}" for reason in record.get("faults", ())]
        found += [f"{who}: {record['error']}"] if record["error"] is not None else []
    return found


def _between(low: int, high: int) -> Callable[[PredictionRecord], bool]:
    return lambda record: low <= record["free"] <= high


def _of_system(name: str) -> Callable[[PredictionRecord], bool]:
    return lambda record: record["system"] == name


def _by(
    scores: Mapping[tuple[str, str], Scores], bins: Mapping[str, Callable[[PredictionRecord], bool]]
) -> list[dict[str, Any]]:
    """Match rates at 1 and K in bins of the crystals; bins without a crystal are left out."""
    used = {name: test for name, test in bins.items() if any(test(r) for own in scores.values() for r in own.records)}
    rows = []
    for (task, method), own in scores.items():
        parts = {}
        for name, test in used.items():
            hits = np.isfinite(own.own[[test(record) for record in own.records]])
            parts[name] = [len(hits), *(float(hits[:, i].mean()) for i in (0, -1))] if len(hits) else [0, None, None]
        rows.append({"task": task, "method": method, "bins": parts})
    return rows


PAGE = "csp.html"

ALL = "all crystals"
"""The slice whose curves are drawn."""

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
        return "<p>There are no curves, since plotly is not installed: pip install 'crystalgfn[evaluate]'.</p>"
    words = {task: f"{task}: match rate, 95 % shaded" for task in drawn}
    words |= {f"polymorphs_{row['task']}": f"{row['task']}: polymorphs of a formula found" for row in found["recall"]}
    boxes = "".join(components.box(name, words[name]) for name in drawn)
    return f'<p>Press a name to show or hide its curve.</p><div class="figures two">{boxes}</div>'


def _percent(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else 100 * value for value in values]


def _short(value: Any) -> Any:
    return float(f"{value:.3g}") if isinstance(value, float) else value
