"""A discovery as one HTML page that opens offline: five figures, the ranked list, phase diagram, how it was made."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from crystalgfn.errors import DataError
from crystalgfn.evaluation.metrics.base import BAD, FAIR, GOOD, UNKNOWN, Verdict
from crystalgfn.evaluation.report import components, figures, page
from crystalgfn.structures.exchange import picture
from crystalgfn.utils.files import write_aside

if TYPE_CHECKING:
    from crystalgfn.discovery.found import Found

LISTED = 50
"""Ranks of the list at the top."""
COLUMNS = {
    "rank": "rank",
    "formula": "formula",
    "space_group": "space group",
    "prototype": "prototype",
    "e_above_hull": "eV/atom above hull",
    "e_above_hull_std": "±",
    "known_as": "known as",
    "nearest_phase": "nearest known phase",
    "decomposition": "decomposes to",
    "corrected_e_above_hull": "predicted",
    "status": "status",
}
"""Column -> heading of the list."""


def write_discovery_page(found: Found) -> Path:
    """Write the page, aside and then renamed.

    Raises:
        NotAvailable: plotly or pymatviz is not installed.
        CheckpointError: the file cannot be written.
    """
    page.page_libraries()
    path, text = found.out / page.REPORT, discovery_page(found)
    write_aside(path, lambda aside: aside.write_text(text, encoding="utf-8"))
    return path


def discovery_page(found: Found) -> str:
    """The whole page."""
    from plotly.offline import get_plotlyjs

    drawn = _figures(found)
    viewer, pictures = _viewer(found)
    sections = {
        "Headline": components.cards(headlines(found.summary)),
        "Ranked candidates": _list(found) + viewer,
        **{name: f'<div class="figures">{components.box(key, name, "wide")}</div>' for name, (key, _) in drawn.items()},
        "Rounds": components.html_table(*_rounds(found)),
        "Failed": _failed(found.table),
        "All relaxed": page.table_place("Press a heading to sort. Find by words, or by numbers as in n&lt;3."),
        "How it was made": page.made(
            {"command": found.about["command"], "machine": found.about["machine"], "settings": found.about["settings"]}
        ),
    }
    own = found.summary
    lead = (
        f"{own['relaxed']} relaxations with {found.about['calculator']}, which is not DFT; the hull is of "
        f"{len(found.phases.phases):,} phases of {Path(found.phases.name).name}. Potentials make too many stable."
    )
    return page.assemble(
        f"Discovery in {found.about['space']}",
        escape(lead),
        sections,
        {key: json.loads(fig.to_json() or "") for key, fig in drawn.values()},
        _rows(found.table),
        pictures,
        get_plotlyjs(),
    )


def headlines(summary: dict[str, Any]) -> list[Verdict]:
    """The five figures."""
    relaxed, ranks = summary["relaxed"], summary["rank_correlation"]
    last = ranks["corrected_last_round"] if ranks["corrected_last_round"] is not None else ranks["corrected"]
    best, total = summary["best_new"], summary["known_stable"]
    return [
        Verdict(
            name="New, at most 0.05 eV/atom above the hull",
            figure=f"{summary['new_within_0.05']} of {relaxed} relaxed",
            detail=f"{summary['new_stable']} on or below it",
            level=_level(summary["new_within_0.05"] / max(relaxed, 1), 0.3, 0.1),
            why="Limits: good from 30 %, fair from 10 %.",
        ),
        Verdict(
            name="Best new candidate",
            figure="none" if best is None else f"{best:+.3f} eV/atom",
            detail="energy above the hull",
            level=UNKNOWN if best is None else _level(-best, 0.0, -0.1),
            why="Limits: good on or below the hull, fair to 0.1 eV/atom.",
        ),
        Verdict(
            name="Known stable phases met",
            figure=f"{summary['known_stable_found']} of {total}",
            detail=f"{summary['known']} known phases in all; they do not count as new",
            level=UNKNOWN if not total else _level(summary["known_stable_found"] / total, 0.3, 0.1),
            why="Limits: good from 30 %, fair from 10 %.",
        ),
        Verdict(
            name="Rank correlation of predicted and relaxed energy",
            figure="unknown" if last is None else f"{last:.2f}",
            detail="last round, corrected before its relaxations",
            level=UNKNOWN if last is None else _level(last, 0.6, 0.3),
            why="Limits: good from 0.6, fair from 0.3.",
        ),
        Verdict(
            name="Relaxed with an energy",
            figure=f"{relaxed - summary['failed']} of {relaxed}",
            detail=f"{summary['duplicates']} the same as others",
            level=_level(1 - summary["failed"] / max(relaxed, 1), 0.95, 0.8),
            why="Limits: good from 95 %, fair from 80 %.",
        ),
    ]


def _level(value: float, good: float, fair: float) -> str:
    return GOOD if value >= good else FAIR if value >= fair else BAD


def _list(found: Found) -> str:
    rows = found.ranked.head(LISTED)
    if not len(rows):
        return "<p>Nothing was relaxed to an energy.</p>"
    shown = {name: words for name, words in COLUMNS.items() if name in rows}
    body = []
    for row in rows.to_dict("records"):
        body.append([components.group_name(row[name]) if name == "space_group" else _said(row[name]) for name in shown])
    more = f"<p>The first {LISTED} of {len(found)}; all are in table.csv.</p>" if len(found) > LISTED else ""
    return components.html_table(list(shown.values()), body) + more


def _said(value: Any) -> Any:
    return "" if value is None or value is pd.NA else round(value, 4) if isinstance(value, float) else value


def _viewer(found: Found) -> tuple[str, list[Any]]:
    """The best structures, to be turned, with their CIFs."""
    pictures, items = [], []
    rows = found.ranked.head(page.BEST).to_dict("records")
    for rank, (row, structure) in enumerate(zip(rows, found.structures, strict=False), 1):
        pictures.append(json.loads(page.gallery_picture(structure).to_json() or ""))
        link = f'<a class="cif" download="{page.file_name(rank, row)}" href="{page.cif_link(structure)}">CIF</a>'
        thumb = f'<img alt="" src="{picture(page.conventional_structure(structure))}">' if rank <= page.THUMBS else ""
        items.append(
            f'<li><button type="button" data-best="{rank - 1}">{thumb}<b>{rank}. {escape(str(row["formula"]))}</b> '
            f"{escape(components.group_name(row['space_group']))}<small>{row['e_above_hull']:+.3f} eV/atom, "
            f"{escape(str(row['known_as']))}</small></button>{link}</li>"
        )
    if not items:
        return "", []
    place = f'<div class="best"><div id="viewer" aria-label="structure in 3D"></div><ol>{"".join(items)}</ol></div>'
    return f"<p>Choose one; turn it with mouse or finger.</p>{place}", pictures


def _figures(found: Found) -> dict[str, tuple[str, Any]]:
    """Heading -> name and figure."""
    drawn: dict[str, tuple[str, Any]] = {}
    try:
        diagram = found.phase_diagram()
    except (DataError, ValueError, ArithmeticError, IndexError):  # too many elements, or a slice that holds nothing
        diagram = None
    if diagram is not None:
        from pymatgen.analysis.phase_diagram import PDPlotter

        plot: Any = PDPlotter(diagram, show_unstable=0.2, backend="plotly").get_plot()  # a figure of plotly's
        drawn["Phase diagram"] = ("phases", figures.sized(plot, 620))
    own = found.table.loc[found.table["error"].isna()]
    if len(own):
        predicted, relaxed = (own[name].to_numpy(np.float64) for name in ("corrected_e_above_hull", "e_above_hull"))
        names = own["formula"].tolist()
        axes = "predicted, eV/atom above the hull", f"{found.about['calculator']}, eV/atom above the hull"
        drawn["Predicted and relaxed"] = ("agreement", figures.agreement(predicted, relaxed, names, *axes))
    if found.structures:
        drawn["Powder pattern of the best"] = ("pattern", _pattern(found))
    return drawn


def _pattern(found: Found) -> Any:
    import plotly.graph_objects as go

    pattern = found.powder_pattern(1)
    fig = go.Figure(go.Bar(x=pattern.x, y=pattern.y, width=0.25))
    fig.update_layout(xaxis_title="2θ, degrees, Cu Kα", yaxis_title="intensity")
    return figures.sized(fig, 320)


def _rounds(found: Found) -> tuple[list[str], list[list[Any]]]:
    head = ["round", "sampled", "ESS of the correction", "placed", "chosen", "correction"]
    rows = []
    for one in found.summary["rounds"]:
        correction = ", ".join(f"{name} {value}" for name, value in one["correction"].items())
        rows.append([one["round"], one["drawn"], f"{one['ess']:.2f}", one["placed"], one["chosen"], correction])
    return head, rows


def _failed(table: pd.DataFrame) -> str:
    rows = table.loc[table["status"].eq("failed")]
    if not len(rows):
        return "<p>None.</p>"
    return components.html_table(["formula", "why"], list(map(list, zip(rows["formula"], rows["error"], strict=True))))


def _rows(table: pd.DataFrame) -> dict[str, Any]:
    heads = [name.replace("_", " ") for name in table]
    columns = [[_plain(value) for value in table[name].astype(object)] for name in table]
    return {"keys": list(table), "heads": heads, "rows": [list(row) for row in zip(*columns, strict=True)]}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return None
    return float(f"{value:.5g}") if isinstance(value, float) else value if isinstance(value, str | int) else str(value)
