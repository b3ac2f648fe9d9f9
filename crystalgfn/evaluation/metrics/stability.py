"""Relaxation and energies above a reference's hull, with a calculator: a second opinion, not DFT.

Potentials overestimate how many crystals are stable; no figure here is one of DFT.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.atoms import CELL
from crystalgfn.evaluation.metrics.base import (
    PROPERTIES,
    REPORTED,
    SKIPPED,
    CrystalSet,
    Metric,
    Panel,
    Verdict,
    judged_share,
    plain_name,
    stated_share,
)
from crystalgfn.evaluation.metrics.compositions import composition_row
from crystalgfn.evaluation.metrics.distributions import ValueStatistics, median_and_range, statistics_of
from crystalgfn.properties.convex_hull import MOST, ExactHull
from crystalgfn.properties.scaled_hull import ScaledHull
from crystalgfn.utils.statistics import Share, share, share_of

METASTABLE = 0.1
"""eV/atom above the hull, at most."""
LIMITS = {
    "relaxed": (0.95, 0.8),
    "stable": (0.1, 0.02),
    "metastable": (0.5, 0.2),
    "sun": (0.1, 0.02),
    "msun": (0.5, 0.2),
}
"""Shares from which a figure is good, or fair; conventions, not physics."""
SOURCES = {
    "e_above_hull": ("source_energy_above_hull", "source_e_above_hull"),
    "formation_energy": ("source_formation_energy", "source_formation_energy_per_atom"),
}
"""Column of what relaxing found -> columns of what a source may say of it, eV/atom."""


def relaxation_row(record: Mapping[str, Any], hull: ExactHull | None) -> dict[str, Any]:
    """The columns of a relaxation: the record's fields and ``e_above_hull``, eV/atom.

    Against a hull on another scale ``e_above_hull_mp2020`` is what it is on the Materials Project's.

    A composition with an element that no entry of the hull holds has no energy above it, since any compound would pass.
    """
    row = {name: value for name, value in record.items() if name not in ("index", "error", "relaxed_cell")}
    row["relax_error"] = record["error"]
    for name, value in zip(CELL, record.get("relaxed_cell") or [None] * len(CELL), strict=True):
        row[f"relaxed_{name}"] = value
    row["relax_seconds"] = row.pop("seconds")
    if record["error"] is None and hull is not None:
        numbers, counts = np.unique(record["relaxed_Z"], return_counts=True)
        missing = [elements.SYMBOLS[z - 1] for z in numbers.tolist() if z not in hull.known_elements]
        if missing:
            row["relax_error"] = f"no entry of the hull holds {missing[0]}, so its energy above it says nothing"
        elif len(numbers) > MOST:
            row["relax_error"] = f"the hull covers crystals of at most {MOST} elements, and this one has {len(numbers)}"
        else:
            composition = composition_row(zip(numbers.tolist(), counts.tolist(), strict=True))
            energy = torch.tensor([record["formation_energy"]], dtype=torch.float64)
            row["e_above_hull"] = float(hull.above(composition[None], energy))
            if isinstance(hull, ScaledHull):
                row["e_above_hull_mp2020"] = float(hull.published.above(composition[None], energy))
    return row


def relaxation_frame(records: Mapping[int, Mapping[str, Any] | None], hull: ExactHull | None) -> pd.DataFrame:
    """A row of `relaxation_row` an index; None: the crystal could not be read."""
    unread = {"error": "could not be read", "seconds": np.nan}
    rows = [{"index": i, **relaxation_row(unread if one is None else one, hull)} for i, one in records.items()]
    frame = pd.DataFrame(rows)
    for name in ("e_above_hull", "formation_energy", "start_energy", "displacement", "volume_ratio", "strain"):
        frame[name] = frame[name].astype(float) if name in frame else np.nan
    frame["calculator"] = frame["calculator"].astype("str") if "calculator" in frame else None
    frame["converged"] = frame["converged"].eq(True) if "converged" in frame else False
    return frame


@dataclass(frozen=True, kw_only=True)
class Stability:
    """Stability after relaxation. Fractions are relative to all selected structures; failures count as not stable.

    Attributes:
        label: what the energies are of.
        chosen: crystals that were to be relaxed.
        failures: reason -> how many have no energy above the hull.
        relaxed: share with an energy.
        converged: share whose relaxation converged.
        stable: on or below the hull.
        metastable: at most 0.1 eV/atom above it.
        sun: stable, unique and novel; unique and novel once relaxed.
        msun: metastable (or stable), unique and novel.
        e_above_hull: eV/atom.
        relaxation_energy: eV/atom, before less after.
        displacement: Å.
        volume_change: relaxed volume over the first, less 1.
        seconds: for one crystal.
        hull_entries: entries that the hull is made of.
    """

    label: str
    chosen: int
    failures: dict[str, int]
    relaxed: Share
    converged: Share
    stable: Share
    metastable: Share
    sun: Share | None
    msun: Share | None
    e_above_hull: ValueStatistics | None
    relaxation_energy: ValueStatistics | None
    displacement: ValueStatistics | None
    volume_change: ValueStatistics | None
    seconds: ValueStatistics | None
    hull_entries: int


def label_of(frame: pd.DataFrame) -> str:
    """Whose the energies of relaxed rows are: "SevenNet-l3i5, not DFT"."""
    names = frame["calculator"].dropna().unique()
    return f"{' and '.join(sorted(names)) or 'no calculator'}, not DFT"


def stability(frame: pd.DataFrame, hull_entries: int) -> Stability:
    """The summary of rows that were chosen for relaxation, beside a hull of so many entries.

    The rows have the columns of `relaxation_row`, and ``relaxed_unique`` and ``relaxed_novel``.
    """
    n = len(frame)

    def numbers(name: str) -> np.ndarray:
        return frame[name].to_numpy(dtype=np.float64)

    above = numbers("e_above_hull")
    stable, metastable = above <= 0.0, above <= METASTABLE  # NaN is neither
    new = frame["relaxed_unique"].eq(True).to_numpy() & frame["relaxed_novel"].eq(True).to_numpy()
    return Stability(
        label=label_of(frame),
        chosen=n,
        failures=dict(Counter(_short(reason) for reason in frame["relax_error"].dropna()).most_common()),
        relaxed=share(int(np.isfinite(above).sum()), n),
        converged=share_of(frame["converged"].eq(True)),
        stable=share(int(stable.sum()), n),
        metastable=share(int(metastable.sum()), n),
        sun=share(int((stable & new).sum()), n),
        msun=share(int((metastable & new).sum()), n),
        e_above_hull=_statistics(above),
        relaxation_energy=_statistics(numbers("start_energy") - numbers("formation_energy")),
        displacement=_statistics(numbers("displacement")),
        volume_change=_statistics(numbers("volume_ratio") - 1),
        seconds=_statistics(numbers("relax_seconds")),
        hull_entries=hull_entries,
    )


def _short(reason: str) -> str:
    """The same for all crystals that failed in the same way."""
    return reason.partition(" (")[0].partition(";")[0]


def _statistics(values: np.ndarray) -> ValueStatistics | None:
    known = values[np.isfinite(values)]
    return statistics_of(known) if len(known) else None


@dataclass(frozen=True, kw_only=True)
class StabilitySummary:
    """Attribute ``stability``: None where nothing was relaxed."""

    stability: Stability | None


class StabilityMetric(Metric):
    """Energies above the hull of relaxed crystals, and the stable, unique and novel among them."""

    name = "stability"

    def summary(self, samples: CrystalSet, reference: CrystalSet | None) -> StabilitySummary:
        """Of the crystals that were chosen for relaxation."""
        rows = samples.relaxations
        found = None if rows is None else stability(rows, samples.hull_entries)
        return StabilitySummary(stability=found)

    def verdict(self, summary: StabilitySummary, reference: CrystalSet | None) -> list[Verdict]:
        """By limits, with a caution where the hull decides."""
        found = summary.stability
        if found is None:
            return []
        note = f" The hull is of {found.hull_entries:,} entries; potentials and hulls with gaps make too many stable."
        rows = {
            "Stable": (found.stable, "stable"),
            "Metastable (0.1 eV/atom)": (found.metastable, "metastable"),
            "S.U.N.": (found.sun, "sun"),
            "M.S.U.N.": (found.msun, "msun"),
        }
        return [
            judged_share(f"Energy above the hull found, {found.label}", found.relaxed, LIMITS["relaxed"]),
            stated_share(f"Converged, {found.label}", found.converged),
            *(
                judged_share(f"{name}, {found.label}", one, LIMITS[kind], note=note)
                for name, (one, kind) in rows.items()
            ),
        ]

    def figure(self, samples: CrystalSet, reference: CrystalSet | None, summary: StabilitySummary) -> list[Panel]:
        """Energies above the hull, why some have none, and what the source says beside what was computed."""
        found, panels = summary.stability, []
        if found is not None:
            panels = _of_relaxations(samples, found)
            pairs = [_beside_source(samples, name, found.label) for name in SOURCES]
            panels += [one for one in pairs if one is not None]
        if not any(one.section == REPORTED for one in panels):
            text = "No crystal has both an energy that its source names and one that was computed here (relax=true)."
            panels.append(Panel(section=REPORTED, caption=text))
        return panels


def _of_relaxations(samples: CrystalSet, found: Stability) -> list[Panel]:
    from crystalgfn.evaluation.report import figures

    rows = {
        "eV/atom above the hull": found.e_above_hull,
        "relaxation energy, eV/atom": found.relaxation_energy,
        "displacement, Å": found.displacement,
        "change of the volume": found.volume_change,
        "seconds a crystal": found.seconds,
    }
    lines = [[words, median_and_range(one) if one else ""] for words, one in rows.items()]
    panels = [Panel(section="Stability", caption=f"Energies: {found.label}.", head=["median (5-95 %)", ""], rows=lines)]
    if found.failures:
        reasons = list(found.failures.items())
        panels.append(Panel(section=SKIPPED, head=["no energy above the hull, since", "crystals"], rows=reasons))
    above = samples.values("e_above_hull")
    if np.isfinite(above).any():
        words, caption = "energy above the hull, eV/atom", f"Energy above the hull ({found.label})"
        panels.append(
            Panel(
                section=PROPERTIES, caption=caption, name="e_above_hull",
                draw=lambda: figures.histogram(above, np.zeros(0), words),
            )
        )  # fmt: skip
    return panels


def _beside_source(samples: CrystalSet, name: str, label: str) -> Panel | None:
    from crystalgfn.evaluation.report import figures

    frame = samples.frame
    column = next((one for one in SOURCES[name] if one in frame), None)
    if column is None or name not in frame:
        return None
    reported, found = samples.values(column), samples.values(name)
    both = np.isfinite(reported) & np.isfinite(found)
    if not both.any():
        return None
    reported, found, names = reported[both], found[both], frame["formula"][both].tolist()
    gap = found - reported
    said = f"{len(gap)} crystals: mean difference {gap.mean():+.3f}, absolute {np.abs(gap).mean():.3f} eV/atom"
    axes = "by the source, eV/atom", f"{label}, eV/atom"
    return Panel(
        section=REPORTED, caption=f"{plain_name(name).capitalize()}, {label}. {said}", name=f"reported_{name}",
        size="two", draw=lambda: figures.agreement(reported, found, names, *axes),
    )  # fmt: skip
