"""An evaluation as one HTML file that opens offline: figures, pictures, the best structures, all structures.

Needs plotly and pymatviz, of the extra ``[evaluate]``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.errors import NotAvailable
from crystalgfn.evaluation import summary as summary_text
from crystalgfn.evaluation.metrics.distributions import PROPERTIES
from crystalgfn.evaluation.report import components, gallery
from crystalgfn.evaluation.report import figures as html_figures
from crystalgfn.evaluation.report.verdicts import plain_name, verdicts
from crystalgfn.evaluation.summary import Evaluation
from crystalgfn.utils.files import write_aside

if TYPE_CHECKING:
    import pandas as pd


REPORT = "report.html"

CLAIMS = {
    "e_above_hull": ("source_energy_above_hull", "source_e_above_hull"),
    "formation_energy": ("source_formation_energy", "source_formation_energy_per_atom"),
}
"""Column of what relaxing found -> columns of what a source may claim, eV/atom."""

LATTICE = {
    "edges": "Cell edges",
    "angles": "Cell angles",
    "relative_volume": "Relative volume (0.65 to 3 is usual)",
    "ratio": "Closest pair of atoms (below 0.7 is too close)",
    "systems": "Crystal systems",
    "volumes": "Volume of each crystal",
}


def libraries() -> None:
    """See that plotly and pymatviz are there.

    Raises:
        NotAvailable: one is not.
    """
    try:
        import plotly  # noqa: F401
        import pymatviz  # noqa: F401
    except ImportError as error:
        remedy = "install them with pip install 'crystalgfn[evaluate]', or give report=false"
        raise NotAvailable(
            f"{REPORT} was not written, since it needs plotly and pymatviz ({error}); {remedy}"
        ) from error


def write(path: Path, *given: Any, **named: Any) -> None:
    """Write the page, aside and then renamed; arguments as of `page`.

    Raises:
        NotAvailable: plotly or pymatviz is not installed.
        CheckpointError: the file cannot be written.
    """
    text = page(*given, **named)
    write_aside(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def page(
    frame: pd.DataFrame,
    figures: Evaluation,
    reference: pd.DataFrame | None = None,
    about: Mapping[str, Any] | None = None,
    largest: bool = False,
) -> str:
    """The whole page.

    Args:
        frame: the rows of ``structures.parquet``.
        figures: of them.
        reference: rows of known crystals, from `EvaluationRun.describe_reference`.
        about: ``command``, ``machine`` and ``settings`` as in ``summary.json``.
        largest: the best structures are those with the largest numbers.

    Raises:
        NotAvailable: plotly or pymatviz is not installed.
    """
    libraries()
    from plotly.offline import get_plotlyjs

    about = about or {}
    known = reference if reference is not None and len(reference) else None
    drawn: dict[str, Any] = {}
    best, list_of_best = _best(frame, figures, largest)
    failures = figures.stability.failures if figures.stability else {}
    sections = {
        "Headline": components.cards(verdicts(figures, known)),
        "Not judged": components.errors(figures.errors, failures, figures.given),
        "Best structures": list_of_best,
        "Properties": _properties(frame, figures, known, drawn),
        "Elements": _elements(figures, known, drawn),
        "Symmetry": _symmetry(frame, known, drawn),
        "Lattice and volume": _lattice(frame, known, drawn),
        "Claim against check": _claims(frame, figures, drawn),
        "All structures": _all(frame),
        "All figures": components.markdown(summary_text.tables(figures)),
        "How it was made": _made(figures, about),
    }  # fmt: skip
    return assemble(
        Path(str(about.get("settings", {}).get("samples") or "crystals")).name,
        _lead(figures, known, about),
        sections,
        {name: json.loads(fig.to_json()) for name, fig in drawn.items()},
        components.rows(frame),
        best,
        get_plotlyjs(),
    )


def _lead(figures: Evaluation, known: pd.DataFrame | None, about: Mapping[str, Any]) -> str:
    names = about.get("settings", {}).get("reference") or "the reference"
    files = ", ".join(Path(name).name for name in ([names] if isinstance(names, str) else names))
    beside = "without a reference" if known is None else f"beside {len(known):,} known crystals of {files}"
    energies = f" Energies: {figures.energies}." if figures.energies else " No energies."
    return escape(f"{figures.given:,} crystals, {beside}.{energies}")


def _values(table: pd.DataFrame | None, name: str) -> np.ndarray:
    if table is None or name not in table:
        return np.zeros(0)
    return table[name].to_numpy(dtype=np.float64)


def _properties(frame: pd.DataFrame, figures: Evaluation, known: pd.DataFrame | None, drawn: dict[str, Any]) -> str:
    boxes = []
    for name, unit in PROPERTIES.items():
        own = _values(frame, name)
        if not np.isfinite(own).any():
            continue
        words = plain_name(name)
        whose = f" ({figures.energies})" if name == "formation_energy" else ""
        drawn[name] = html_figures.histogram(own, _values(known, name), f"{words}, {unit}".rstrip(", "))
        boxes.append(components.box(name, words.capitalize() + whose))
    if figures.stability is not None and np.isfinite(_values(frame, "e_above_hull")).any():
        words = "energy above the hull, eV/atom"
        drawn["e_above_hull"] = html_figures.histogram(frame["e_above_hull"].to_numpy(float), np.zeros(0), words)
        boxes.append(components.box("e_above_hull", f"Energy above the hull ({figures.stability.label})"))
    note = "" if "formation_energy" in drawn else "<p>No formation energies are known of these crystals.</p>"
    beside = "Bars: samples; line: reference." if known is not None else "There is no reference to compare with."
    return f'<p>{beside}</p>{note}<div class="figures">{"".join(boxes)}</div>'


def _elements(figures: Evaluation, known: pd.DataFrame | None, drawn: dict[str, Any]) -> str:
    drawn["elements"] = html_figures.periodic_table(figures.diversity.kinds["element"], figures.diversity.n)
    return components.box("elements", "How many crystals hold each element", "wide")


def _symmetry(frame: pd.DataFrame, known: pd.DataFrame | None, drawn: dict[str, Any]) -> str:
    boxes = []
    for name, words, table in (("sunburst", "samples", frame), ("sunburst_known", "reference", known)):
        numbers = [] if table is None else [int(one) for one in table["space_group"] if one]
        if numbers:
            drawn[name] = html_figures.sunburst(numbers, f"{len(numbers):,} {words}")
            boxes.append(components.box(name, f"Space groups of the {words}: press a system to look into it"))
    return f'<div class="figures two">{"".join(boxes)}</div>' if boxes else "<p>No group was found of any crystal.</p>"


def _lattice(frame: pd.DataFrame, known: pd.DataFrame | None, drawn: dict[str, Any]) -> str:
    found = html_figures.lattice(frame, known)
    drawn.update(found)
    return f'<div class="figures">{"".join(components.box(name, LATTICE[name]) for name in found)}</div>'


def _claims(frame: pd.DataFrame, figures: Evaluation, drawn: dict[str, Any]) -> str:
    rows = [[f"{tolerance} Å", f"{one.k} of {one.n}", str(one)] for tolerance, one in figures.groups.items() if one.n]
    head = ["tolerance", "crystals", "share (95 %)"]
    parts = ["<p>Space groups found, against those claimed above P1:</p>", components.table(head, rows)]
    if not rows:
        parts = ["<p>The source claims no space group above P1.</p>"]
    boxes = []
    for name, claims in CLAIMS.items():
        column = next((one for one in claims if one in frame), None)
        if column is None or name not in frame or figures.stability is None:
            continue
        both = frame[np.isfinite(_values(frame, column)) & np.isfinite(_values(frame, name))]
        if len(both):
            claimed, found = both[column].to_numpy(float), both[name].to_numpy(float)
            label = figures.stability.label
            axes = "claimed, eV/atom", f"{label}, eV/atom"
            drawn[f"claim_{name}"] = html_figures.claims(claimed, found, both["formula"].tolist(), *axes)
            gap = found - claimed
            said = f"{len(both)} crystals: mean difference {gap.mean():+.3f}, absolute {np.abs(gap).mean():.3f} eV/atom"
            boxes.append(components.box(f"claim_{name}", f"{plain_name(name).capitalize()}, {label}. {said}"))
    if boxes:
        return "".join(parts) + f'<div class="figures two">{"".join(boxes)}</div>'
    return "".join(parts) + (
        "<p>No crystal has both an energy that its source claims and one that was computed here (relax=true), "
        "so there are no energies to compare.</p>"
    )


def _best(frame: pd.DataFrame, figures: Evaluation, largest: bool) -> tuple[list[dict[str, Any]], str]:
    rows, how = gallery.choose(frame, figures, largest)
    pictures, items = [], []
    for rank, row in enumerate(rows.to_dict("records"), 1):
        structure, relaxed = gallery.structure(row)
        group = components.group_name(row["space_group"])
        pictures.append(json.loads(gallery.picture(structure).to_json()))
        column = figures.best_by or next((n for n in gallery.ORDER if n in row and row[n] == row[n]), None)
        energy = f"{row[column]:.3f}" if column is not None and row[column] is not None else ""
        name = gallery.file_name(rank, row)
        link = f'<a class="cif" download="{escape(name)}" href="{gallery.cif_link(structure)}">CIF</a>'
        items.append(
            f'<li><button type="button" data-best="{rank - 1}"><b>{rank}. {escape(str(row["formula"]))}</b> '
            f"{escape(group)}<small>{escape(str(row['where']))}{', relaxed' if relaxed else ''}"
            f"{f', {escape(plain_name(column))} {energy}' if energy else ''}</small></button>{link}</li>"
        )
    return pictures, (
        f"<p>{len(items)} crystals: {escape(how)}. {gallery.doubt(rows)}</p>"
        "<p>Choose one; turn it with mouse or finger.</p>"
        f'<div class="best"><div id="viewer" aria-label="structure in 3D"></div><ol>{"".join(items)}</ol></div>'
    )


def _all(frame: pd.DataFrame) -> str:
    more = f" The first {components.ROWS:,} of {len(frame):,} are here; all are in structures.parquet."
    return table_place(
        f"Press a heading to sort.{more if len(frame) > components.ROWS else ''} Find by words, or by numbers "
        "such as <code>density&gt;4 n_elements=3 Li</code>."
    )


def _made(figures: Evaluation, about: Mapping[str, Any]) -> str:
    seconds = [[name, value] for name, value in figures.seconds.items()]
    return "".join(
        [
            made(about),
            "<h3>Seconds of work, over all processes</h3>",
            components.table(["stage", "s"], seconds),
        ]
    )


def assemble(
    title: str,
    lead: str,
    sections: Mapping[str, str],
    figures: Mapping[str, Any],
    rows: Mapping[str, Any],
    best: Sequence[Any] = (),
    plotly: str = "",
) -> str:
    """The page.

    Args:
        title: plain text.
        lead: HTML under the title.
        sections: heading -> HTML.
        figures: plotly's JSON, by the names of `html_parts.box`.
        rows: ``keys``, ``heads`` and ``rows`` of the table that `table_place` holds.
        best: plotly's JSON of structures that can be turned.
        plotly: the text of plotly's library; none where there is no figure.
    """
    names = {name: name.lower().replace(" ", "-") for name in sections}
    values = {
        "title": escape(title),
        "lead": lead,
        "links": "".join(f'<a href="#{names[name]}">{escape(name)}</a>' for name in sections),
        "sections": "".join(f'<section id="{names[n]}"><h2>{escape(n)}</h2>{t}</section>' for n, t in sections.items()),
        "figures": components.data(figures),
        "best": components.data(best),
        "rows": components.data(rows),
        "plotly": plotly.replace("</script", "<\\/script"),
    }
    folder = Path(__file__).parent
    values |= {name: (folder / f"page.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    parts = (folder / "page.html").read_text(encoding="utf-8").split("{{")
    ends = (part.split("}}", 1) for part in parts[1:])
    return parts[0] + "".join(values[name] + rest for name, rest in ends)


def table_place(words: str) -> str:
    """The place of the table of rows, with what it is searched by; ``words``: HTML above it."""
    return (
        f"<p>{words}</p>"
        '<div class="tools"><input id="find" type="search" placeholder="find" aria-label="find">'
        '<span id="flags"></span><span id="count"></span></div>'
        '<div class="scroll"><table id="all"><thead></thead><tbody></tbody></table></div>'
        '<button type="button" id="more">more rows</button>'
    )


def made(about: Mapping[str, Any]) -> str:
    """``command``, ``machine`` and ``settings``, those that are there."""
    parts = [f"<pre>{escape(str(about['command']))}</pre>"] if "command" in about else []
    for name, words in (("machine", "Machine and versions"), ("settings", "Settings")):
        if name in about:
            rows = [[key, "" if value is None else value] for key, value in about[name].items()]
            parts += [f"<h3>{words}</h3>", components.table(["", ""], rows)]
    return "".join(parts)
