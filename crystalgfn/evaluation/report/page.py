"""An evaluation as one HTML file that opens offline: figures, the best structures to be turned, all structures.

Needs plotly and pymatviz, of the extra ``[evaluate]``.
"""

from __future__ import annotations

import base64
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.crystallography.atoms import CELL
from crystalgfn.errors import NotAvailable
from crystalgfn.evaluation.describe import structure_of_row
from crystalgfn.evaluation.metrics.base import SKIPPED, CrystalSet, Panel, Selection, plain_name
from crystalgfn.evaluation.metrics.diversity import best_rows
from crystalgfn.evaluation.metrics.validity import valid_rows
from crystalgfn.evaluation.relaxation_job import relaxed_structure
from crystalgfn.evaluation.report import components, figures
from crystalgfn.evaluation.summary import Evaluation, verdict_table
from crystalgfn.structures.exchange import picture
from crystalgfn.utils.files import write_aside

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from pymatgen.core import Structure


REPORT = "report.html"


def page_libraries() -> None:
    """See that plotly and pymatviz are there.

    Raises:
        NotAvailable: one is not.
    """
    try:
        import plotly  # noqa: F401
        import pymatviz  # noqa: F401
    except ImportError as error:
        remedy = 'install them with pip install -e ".[evaluate]", or give report=false'
        raise NotAvailable(
            f"{REPORT} was not written, since it needs plotly and pymatviz ({error}); {remedy}"
        ) from error


def write_page(path: Path, found: Evaluation, about: Mapping[str, Any] | None = None) -> None:
    """Write the page, aside and then renamed; arguments as of `report_page`.

    Raises:
        NotAvailable: plotly or pymatviz is not installed.
        CheckpointError: the file cannot be written.
    """
    text = report_page(found, about)
    write_aside(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def report_page(found: Evaluation, about: Mapping[str, Any] | None = None) -> str:
    """The whole page; ``about``: ``command``, ``machine`` and ``settings`` as in ``summary.json``.

    Raises:
        NotAvailable: plotly or pymatviz is not installed.
    """
    page_libraries()
    from plotly.offline import get_plotlyjs

    about = about or {}
    verdicts, panels = found.verdicts(), found.panels()
    best, list_of_best = _best(found.samples)
    skipped = components.error_section(found.errors, found.given) + components.panels(panels.pop(SKIPPED, []))
    panels, drawn = _drawn(panels)
    sections = {
        "Best structures": list_of_best,
        "Headline": components.cards(verdicts),
        **{section: components.panels(own) for section, own in panels.items()},
        SKIPPED: skipped,
        "All structures": _all(found.samples.frame),
        "All figures": components.html_table(*verdict_table(verdicts)),
        "How it was made": _made(found, about),
    }  # fmt: skip
    return assemble(
        Path(str(about.get("settings", {}).get("samples") or "crystals")).name,
        _lead(found, about),
        sections,
        {name: json.loads(fig.to_json() or "") for name, fig in drawn.items()},
        components.rows(found.samples.frame),
        best,
        get_plotlyjs(),
    )


def _drawn(panels: Mapping[str, Sequence[Panel]]) -> tuple[dict[str, list[Panel]], dict[str, go.Figure]]:
    """The panels without those whose figure shows one value only, and the figures by name."""
    drawn = {one.name: one.draw() for own in panels.values() for one in own if one.draw is not None}
    drawn = {name: fig for name, fig in drawn.items() if figures.tells(fig)}
    kept = {section: [one for one in own if one.draw is None or one.name in drawn] for section, own in panels.items()}
    return {section: own for section, own in kept.items() if own}, drawn


def _lead(found: Evaluation, about: Mapping[str, Any]) -> str:
    names = about.get("settings", {}).get("reference") or "the reference"
    files = ", ".join(Path(name).name for name in ([names] if isinstance(names, str) else names))
    known = found.reference
    beside = "without a reference" if known is None else f"beside {len(known.frame):,} known crystals of {files}"
    energies = f" Energies: {found.samples.energies}." if found.samples.energies else " No energies."
    return escape(f"{found.given:,} crystals, {beside}.{energies}")


def _best(samples: CrystalSet) -> tuple[list[dict[str, Any]], str]:
    rows, best, how = choose_best(samples)
    pictures, items = [], []
    for rank, row in enumerate(rows.to_dict("records"), 1):
        structure, relaxed = row_structure(row)
        group = components.group_name(row["space_group"])
        pictures.append(json.loads(gallery_picture(structure).to_json() or ""))
        value = None if best is None else row[best.column]
        energy = "" if best is None or value is None else f", {escape(plain_name(best.column))} {value:.3f}"
        name = file_name(rank, row)
        link = f'<a class="cif" download="{escape(name)}" href="{cif_link(structure)}">CIF</a>'
        thumb = f'<img alt="" src="{picture(conventional_structure(structure))}">' if rank <= THUMBS else ""
        items.append(
            f'<li><button type="button" data-best="{rank - 1}">{thumb}<b>{rank}. {escape(str(row["formula"]))}</b> '
            f"{escape(group)}<small>{escape(str(row['where']))}{', relaxed' if relaxed else ''}{energy}</small>"
            f"</button>{link}</li>"
        )
    return pictures, (
        f"<p>{len(items)} crystals: {escape(how)}. {_doubt(rows)}</p>"
        "<p>Choose one; turn it with mouse or finger.</p>"
        f'<div class="best"><div id="viewer" aria-label="structure in 3D"></div><ol>{"".join(items)}</ol></div>'
    )


def _all(frame: pd.DataFrame) -> str:
    more = f" The first {components.ROWS:,} of {len(frame):,} are here; all are in structures.parquet."
    return table_place(
        f"Press a heading to sort.{more if len(frame) > components.ROWS else ''} Find by words, or by numbers "
        "such as <code>density&gt;4 n_elements=3 Li</code>."
    )


def _made(found: Evaluation, about: Mapping[str, Any]) -> str:
    seconds = [[name, value] for name, value in found.seconds.items()]
    return "".join(
        [
            made(about),
            "<h3>Seconds of work, over all processes</h3>",
            components.html_table(["stage", "s"], seconds),
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
        figures: plotly's JSON, by the names of `components.box`.
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
            parts += [f"<h3>{words}</h3>", components.html_table(["", ""], rows)]
    return "".join(parts)


BEST, THUMBS = 20, 3
MOST_SITES = 100
"""Larger conventional cells are shown as primitive ones."""
ORDER = ("e_above_hull", "source_energy_above_hull", "source_e_above_hull", "formation_energy")
"""The first of these columns that has numbers orders the structures where the user names none."""
CELL_LINES = {"edge": {"color": "#555d68", "width": 3, "dash": "solid"}, "node": {"size": 1}}
WIDEST = 1.25
"""Of the view, what the longest side of a structure takes up."""
FAR_BELOW = -0.2
"""eV/atom; energies farther below the hull are doubted in words."""


def choose_best(samples: CrystalSet) -> tuple[pd.DataFrame, Selection | None, str]:
    """At most `BEST` rows, best first; what they are ordered by, if anything; and how they were chosen, in words."""
    frame = samples.frame
    good = valid_rows(frame) & frame["unique"].eq(True) & frame["no_short_contacts"].eq(True)
    words = "valid, unique, without short contacts"
    if "novel" in frame:
        good, words = good & frame["novel"].eq(True), f"{words}, novel"
    pool = frame.loc[good]
    if not len(pool):
        pool, words = frame, f"any, since none is {words}"
    best = samples.best
    if best is None:
        column = next((name for name in ORDER if name in pool and bool(pool[name].notna().any())), None)
        best = None if column is None else Selection(column)
    if best is None:
        return pool.head(BEST), None, f"{words}; there are no energies to order them by, so in the order of the source"
    order = "largest" if best.largest else "smallest"
    how = f"{words}, {order} {best.column} first ({_whose(best.column, samples)})"
    ordered = best_rows(pool, replace(best, n=len(pool))).drop_duplicates(["formula", "space_group"])
    return ordered.head(BEST), best, how


def _doubt(rows: pd.DataFrame) -> str:
    """A sentence on energies that are too good; empty where none is."""
    if "e_above_hull" not in rows:
        return ""
    far = int(np.count_nonzero(rows["e_above_hull"] < FAR_BELOW))
    reason = "more likely errors of the potential, or a hull that lacks known phases, than discoveries"
    return f"{far} of them lie more than {-FAR_BELOW:g} eV/atom below the hull: {reason}." if far else ""


def _whose(column: str, samples: CrystalSet) -> str:
    """Whose figures those of a column are."""
    if column in ("e_above_hull", "formation_energy", "start_energy"):
        return samples.energies or "as the source says"
    return "as the source says" if column.startswith("source_") else "found here"


def row_structure(row: dict[str, Any]) -> tuple[Structure, bool]:
    """The structure of a row, relaxed where it was relaxed, and whether it was."""
    if row.get("relaxed_Z") is not None and np.ndim(row["relaxed_Z"]):
        cell = [row[f"relaxed_{name}"] for name in CELL]
        return relaxed_structure({**row, "relaxed_cell": cell}), True
    sites = row.get("sites")
    return structure_of_row({**row, "sites": sites if isinstance(sites, str) else None}), False


def cif_link(structure: Structure) -> str:
    """A ``data:`` address of the CIF, so that no server is asked."""
    from pymatgen.io.cif import CifWriter

    text = str(CifWriter(structure))
    return "data:chemical/x-cif;base64," + base64.b64encode(text.encode()).decode()


def file_name(rank: int, row: dict[str, Any]) -> str:
    """Of a downloaded CIF: rank, formula and group, of plain characters."""
    return re.sub(r"[^\w.()-]", "_", f"{rank:02d}_{row['formula']}_{int(row['space_group'] or 0)}") + ".cif"


def gallery_picture(structure: Structure) -> go.Figure:
    """The conventional cell with all atoms on its faces (pymatviz), which can be turned."""
    from pymatviz.structure.figures import structure_3d

    shown = conventional_structure(structure)
    size = float(np.clip(100 / max(shown.lattice.abc), 5, 16))  # of atoms, in pixels: a long cell is drawn smaller
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of radii that no table has
        fig = structure_3d(
            shown, show_cell=CELL_LINES, show_cell_faces=False, subplot_title=False, atom_size=size,
            site_labels="legend", hover_text=lambda site: f"<b>{site.species_string}</b>",
        )  # fmt: skip
    traces: Any = fig.data
    spans = np.array([np.ptp(np.concatenate([np.asarray(trace[axis]) for trace in traces])) for axis in "xyz"])
    ratio = dict(zip("xyz", np.maximum(spans / spans.max(), 0.05) * WIDEST, strict=True))
    fig.update_scenes(aspectmode="manual", aspectratio=ratio)
    fig.update_layout(
        template="none", width=None, height=None, autosize=True, margin={"l": 0, "r": 0, "t": 0, "b": 0},
        scene={"camera": {"projection": {"type": "orthographic"}, "eye": {"x": 1.6, "y": 0.7, "z": 0.5}}},
        legend={"x": 0.01, "y": 0.99, "xanchor": "left", "yanchor": "top", "orientation": "h", "font": {"size": 13}},
    )  # fmt: skip
    return fig


def conventional_structure(structure: Structure) -> Structure:
    """The conventional cell, or the structure itself where spglib finds none or it is large."""
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer, SymmetryUndeterminedError

    try:
        found = SpacegroupAnalyzer(structure, symprec=0.01).get_conventional_standard_structure()
    except (SymmetryUndeterminedError, ValueError, TypeError):
        return structure
    return found if len(found) <= MOST_SITES else structure
