"""Pieces of HTML that a report is made of; whatever comes from the user's files is escaped here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from crystalgfn.crystallography import space_groups
from crystalgfn.evaluation.metrics.base import BAD, FAIR, GOOD, STATED, UNKNOWN, Panel, Verdict
from crystalgfn.evaluation.metrics.validity import valid_rows

MARKS = {GOOD: "✓", FAIR: "~", BAD: "✗", UNKNOWN: "?"}
ERRORS = 200
"""Crystals that could not be read are listed, so many at most."""
ROWS = 2000
"""Rows of the table of all structures, at most."""

FIRST = ("Valid structure", "No short contacts", "Unique", "Novel", "Valid, unique", "Stable", "Metastable", "Relaxed")
"""How the names of the headline figures begin that are shown at once; the others are folded away."""
FEW_CARDS = 8
"""So many are all shown at once."""

COLUMNS = {
    "where": "where",
    "formula": "formula",
    "group": "space group",
    "crystal_system": "system",
    "group_claimed": "space group (source)",
    "n_elements": "elements",
    "n_atoms": "atoms",
    "volume_per_atom": "Å3/atom",
    "density": "g/cm3",
    "ratio": "closest/radii",
    "relative_volume": "volume/usual",
    "valid": "valid",
    "neutral_icsd": "neutral (ICSD)",
    "unique": "unique",
    "novel": "novel",
    "e_above_hull": "eV/atom above hull",
    "formation_energy": "formation eV/atom",
    "converged": "converged",
}
"""Column of the frame -> heading in the table of all structures; the source's own numbers follow."""


def cards(found: Sequence[Verdict]) -> str:
    """The headline figures, each with a mark, a word and a colour; what is only stated is left out."""
    found = [one for one in found if one.level != STATED]
    counts = {level: sum(one.level == level for one in found) for level in (GOOD, FAIR, BAD)}
    said = ", ".join(f'<b class="{level}">{MARKS[level]} {n} {level}</b>' for level, n in counts.items())
    first = _first(found)
    rest = [one for one in found if one not in first]
    more = f"<details><summary>{len(rest)} more</summary>{_cards(rest)}</details>" if rest else ""
    return f"<p>{said}. The limits are conventions of this report.</p>{_cards(first)}{more}"


def _first(found: Sequence[Verdict]) -> Sequence[Verdict]:
    """The figures that are not folded away."""
    chosen = [one for one in found if one.name.startswith(FIRST)]
    return chosen if chosen and len(found) > FEW_CARDS else found


def _cards(found: Sequence[Verdict]) -> str:
    parts = [
        f'<div class="card {one.level}"><div class="name">{escape(one.name)}</div>'
        f'<div class="number">{escape(one.figure)} <span class="mark">{MARKS[one.level]} {one.level}</span></div>'
        f'<div class="detail">{escape(one.detail)}</div><div class="why">{escape(one.why)}</div></div>'
        for one in found
    ]
    return f'<div class="cards">{"".join(parts)}</div>'


def error_section(reasons: Mapping[str, str], given: int) -> str:
    """What could not be judged."""
    if not reasons:
        return f"<p>None: all {given:,} crystals could be read and judged.</p>"
    rows = [[where, reason] for where, reason in list(reasons.items())[:ERRORS]]
    more = f" The first {ERRORS} are listed, all in summary.json." if len(reasons) > ERRORS else ""
    said = f"<p>{len(reasons):,} of {given:,} crystals could not be judged.{more}</p>"
    return said + html_table(["where", "why"], rows)


def panels(found: Sequence[Panel]) -> str:
    """A section: texts, tables, then the places of figures."""
    texts = [_caption(one) for one in found if one.draw is None and not one.head]
    tables = [_caption(one) + html_table(one.head, one.rows) for one in found if one.head]
    return "".join([*texts, *tables]) + _figures([one for one in found if one.draw is not None])


def _caption(one: Panel) -> str:
    return f"<p>{escape(one.caption)}</p>" if one.caption else ""


def _figures(drawn: Sequence[Panel]) -> str:
    if not drawn:
        return ""
    two = " two" if any(one.size == "two" for one in drawn) else ""
    boxes = "".join(box(one.name, one.caption, "wide" if one.size == "wide" else "") for one in drawn)
    return f'<div class="figures{two}">{boxes}</div>'


def html_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A plain table in a box that scrolls sideways where the page is narrow."""
    top = "".join(f"<th>{escape(str(one))}</th>" for one in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(_text(one))}</td>" for one in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def markdown(text: str) -> str:
    """The headings, tables and lists of a text report."""
    parts = []
    for block in text.split("\n\n"):
        lines = block.strip().splitlines()
        if not lines:
            continue
        if lines[0].startswith("#"):
            parts.append(f"<h3>{escape(lines[0].lstrip('# '))}</h3>")
        elif lines[0].startswith("|"):
            cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
            parts.append(html_table(cells[0], cells[2:]))
        else:
            parts.append("".join(f"<p>{escape(line.removeprefix('- '))}</p>" for line in lines))
    return "".join(parts)


def box(name: str, title: str, kind: str = "") -> str:
    """The place of a figure."""
    return (
        f'<figure class="{kind}"><figcaption>{escape(title)}</figcaption>'
        f'<div class="inner"><div class="plot" data-figure="{escape(name)}"></div></div></figure>'
    )


def data(value: Any) -> str:
    """JSON for a script element: no ``<`` that could end it."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def rows(frame: pd.DataFrame) -> dict[str, Any]:
    """The table of all structures: headings, whether each column is of numbers, rows."""
    shown = frame.head(ROWS).copy()
    shown["valid"] = valid_rows(shown)
    shown["group"] = [group_name(number) for number in shown["space_group"]]
    source = [str(name) for name in shown if str(name).startswith("source_")]
    own = {name: name.removeprefix("source_").replace("_", " ") + " (source)" for name in source}
    heads = {name: words for name, words in {**COLUMNS, **own}.items() if name in shown}
    columns = [[_rounded(value) for value in shown[name].astype(object)] for name in heads]
    return {
        "keys": list(heads),
        "heads": list(heads.values()),
        "rows": [list(row) for row in zip(*columns, strict=True)],
    }


def group_name(number: Any) -> str:
    """Number and symbol of a space group."""
    if number is None or number != number or not number:
        return "none found"
    return f"{int(number)} {space_groups.SYMBOL[int(number) - 1]}"


def _rounded(value: Any) -> Any:
    """What JSON has, numbers to five digits: more would only make the file larger; None for what is unknown."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or pd.isna(value) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, float):
        return float(f"{value:.5g}")
    return value if isinstance(value, str | int) else str(value)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
