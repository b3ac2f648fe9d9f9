"""The best structures of a report: which they are, their pictures that can be turned, and their CIFs."""

from __future__ import annotations

import base64
import re
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.crystallography.atoms import CELL
from crystalgfn.evaluation.describe import structure_of_row
from crystalgfn.evaluation.metrics.base import CrystalSet, Selection
from crystalgfn.evaluation.metrics.diversity import best_rows
from crystalgfn.evaluation.metrics.validity import valid_rows
from crystalgfn.evaluation.relaxation_job import relaxed_structure

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from pymatgen.core import Structure

BEST = 20
MOST_SITES = 100
"""Larger conventional cells are shown as primitive ones."""
ORDER = ("e_above_hull", "source_energy_above_hull", "source_e_above_hull", "formation_energy")
"""The first of these columns that has numbers orders the structures where the user names none."""


CELL_LINES = {"edge": {"color": "#555d68", "width": 3, "dash": "solid"}, "node": {"size": 1}}
WIDEST = 1.25
"""Of the view, what the longest side of a structure takes up."""
FAR_BELOW = -0.2
"""eV/atom; energies farther below the hull are doubted in words."""


def choose(samples: CrystalSet) -> tuple[pd.DataFrame, Selection | None, str]:
    """At most `BEST` rows, best first; what they are ordered by, if anything; and how they were chosen, in words."""
    frame = samples.frame
    good = valid_rows(frame) & frame["unique"].eq(True)
    words = "valid and unique"
    if "novel" in frame:
        good, words = good & frame["novel"].eq(True), "valid, unique and novel"
    pool = frame[good]
    if not len(pool):
        pool, words = frame, f"any, since none is {words}"
    best = samples.best
    if best is None:
        column = next((name for name in ORDER if name in pool and bool(pool[name].notna().any())), None)
        best = None if column is None else Selection(column)
    if best is None:
        return pool.head(BEST), None, f"{words}; there are no energies to order them by, so in the order of the source"
    order = "largest" if best.largest else "smallest"
    how = f"{words}, {order} {best.column} first ({whose(best.column, samples)})"
    return best_rows(pool, replace(best, n=BEST)), best, how


def doubt(rows: pd.DataFrame) -> str:
    """A sentence on energies that are too good; empty where none is."""
    if "e_above_hull" not in rows:
        return ""
    far = int((rows["e_above_hull"] < FAR_BELOW).sum())
    reason = "more likely errors of the potential, or a hull that lacks known phases, than discoveries"
    return f"{far} of them lie more than {-FAR_BELOW:g} eV/atom below the hull: {reason}." if far else ""


def whose(column: str, samples: CrystalSet) -> str:
    """Whose figures those of a column are."""
    if column in ("e_above_hull", "formation_energy", "start_energy"):
        return samples.energies or "as the source says"
    return "as the source says" if column.startswith("source_") else "found here"


def structure(row: dict[str, Any]) -> tuple[Structure, bool]:
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
    import pymatviz

    shown = conventional_structure(structure)
    size = float(np.clip(100 / max(shown.lattice.abc), 5, 16))  # of atoms, in pixels: a long cell is drawn smaller
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of radii that no table has
        fig = pymatviz.structure_3d(
            shown, show_cell=CELL_LINES, show_cell_faces=False, subplot_title=False, atom_size=size,
            site_labels="legend", hover_text=lambda site: f"<b>{site.species_string}</b>",
        )  # fmt: skip
    spans = np.array([np.ptp(np.concatenate([np.asarray(trace[axis]) for trace in fig.data])) for axis in "xyz"])
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
