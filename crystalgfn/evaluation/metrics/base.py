"""What a metric is: columns of each crystal, figures of all, a verdict on them, and what a report shows of them.

Evaluation, summary and report are loops over metrics. One more is one file with a class that has the four methods of
`Metric`; `crystalgfn.check_metric` tries it, and docs/how-to/add-a-metric.md shows one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from crystalgfn.utils.statistics import Share

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from pymatgen.core import Structure

    from crystalgfn.evaluation.metrics.symmetry import Symmetry

GOOD, FAIR, BAD, UNKNOWN = "good", "fair", "bad", "unknown"
STATED = "stated"
"""The level of a figure that is not judged; it stands in the tables, not among the headline figures."""
BELOW = (0.05, 0.2)
"""How far a share may lie below the reference's to be good, or fair."""
PROPERTIES, LATTICE, SYMMETRY, ELEMENTS = "Properties", "Lattice and volume", "Symmetry", "Elements"
SKIPPED, REPORTED = "Not judged", "Reported and computed"
"""Sections of the report that several metrics add to."""


@dataclass(frozen=True, kw_only=True)
class DescribedCrystal:
    """One crystal as metrics see it.

    Attributes:
        where: its place in its source.
        structure: as the source has it.
        primitive: its primitive cell at the tightest tolerance, or the cell as it is where spglib finds no symmetry.
        symmetry: space groups at all tolerances, prototype, point group.
        symprec: the tolerance in Å whose space group counts.
        group_claimed: space group that the source names; 0 where it names none.
        values: numbers that the source has of it, by their columns.
    """

    where: str
    structure: Structure
    primitive: Structure
    symmetry: Symmetry
    symprec: float
    group_claimed: int = 0
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def space_group(self) -> int:
        """Found at the main tolerance; 0 where there is none."""
        return self.symmetry.groups[self.symprec]


@dataclass(frozen=True)
class Selection:
    """The best of a set of crystals: the ``n`` rows with the smallest (or largest) numbers in a column."""

    column: str
    n: int = 100
    largest: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class CrystalSet:
    """A set of described crystals: the samples, or the reference that they are compared with.

    Attributes:
        frame: one row a crystal that could be read, with the columns of all metrics.
        given: crystals of the source, those that could not be read included.
        space_groups: space group -> crystals, where the source names them itself; else those of the frame.
        energies: whose the formation energies are; None where there are none.
        relaxations: one row a crystal that was chosen for relaxation, failed ones included; None where none was.
        hull_entries: of the hull that energies are compared with.
        best: which crystals are looked at apart from the others.
    """

    frame: pd.DataFrame
    given: int
    space_groups: Mapping[int, int] = field(default_factory=dict)
    energies: str | None = None
    relaxations: pd.DataFrame | None = None
    hull_entries: int = 0
    best: Selection | None = None

    def values(self, *names: str) -> np.ndarray:
        """The numbers of some columns, pooled; none of a column that is not there."""
        there = [name for name in names if name in self.frame]
        return self.frame[there].to_numpy(dtype=np.float64).ravel()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One figure and what it is worth.

    Attributes:
        name: what it is of.
        figure: the number.
        detail: counts and interval.
        level: good, fair, bad, unknown, or stated where it is not judged.
        why: what it is compared with.
    """

    name: str
    figure: str
    detail: str = ""
    level: str = STATED
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A piece of a report: a text, a table, or a figure.

    Attributes:
        section: the heading under which it stands.
        caption: of the table or figure; or the text.
        head: of a table; none: it is no table.
        rows: of the table.
        name: of a figure, unique in the report.
        draw: makes the figure; called only where plotly and pymatviz are installed.
        size: of the figure: "" (three beside each other), "two" or "wide".
    """

    section: str
    caption: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    name: str = ""
    draw: Callable[[], go.Figure] | None = None
    size: str = ""


@runtime_checkable
class Metric(Protocol):
    """One kind of figure that an evaluation gives; an object that can be sent to other processes."""

    name: str
    """A Python name, unique among metrics."""

    def columns(self, sample: DescribedCrystal) -> Mapping[str, Any]:
        """Columns of one crystal, the same names for each; values as JSON has them, None where one is unknown.

        Those of crystals of the reference are asked for in the same way. None, where a metric adds no column.
        """
        return {}

    def summary(self, samples: CrystalSet, reference: CrystalSet | None) -> Any:
        """Figures of all crystals: a mapping or a dataclass, whose fields become keys of ``summary.json``."""
        ...

    def verdict(self, summary: Any, reference: CrystalSet | None) -> list[Verdict]:
        """The headline figures of a summary, each with what it is compared with."""
        ...

    def figure(self, samples: CrystalSet, reference: CrystalSet | None, summary: Any) -> list[Panel]:
        """Texts, tables and figures of a report; a table is in the text report too. None, where there is none."""
        return []


def judged_share(
    name: str, share: Share | None, limits: tuple[float, float], beside: Share | None = None, note: str = ""
) -> Verdict:
    """The verdict on a share by ``limits``, from which it is good, and fair; unknown without a share of any crystal.

    Where there is a share ``beside`` it, of the reference, it is good down to 0.05 below that, fair down to 0.2 below.
    ``note`` is a sentence that is added.
    """
    if share is None or share.share is None:
        return Verdict(name=name, figure="unknown", detail="", level=UNKNOWN, why="Nothing to judge it by.")
    good, fair = limits
    why = f"Limits: good from {100 * good:g} %, fair from {100 * fair:g} %."
    if beside is not None and beside.share is not None:
        good, fair = beside.share - BELOW[0], beside.share - BELOW[1]
        why = f"Compared with {percent(beside)} of {beside.n:,} crystals of the reference."
    return Verdict(
        name=name,
        figure=percent(share),
        detail=interval_text(share),
        level=level(share.share, good, fair),
        why=why + note,
    )


def stated_share(name: str, share: Share | None, otherwise: str = "unknown") -> Verdict:
    """A share that is not judged; ``otherwise``: what is said where there is none."""
    if share is None or share.share is None:
        return Verdict(name=name, figure=otherwise)
    return Verdict(name=name, figure=percent(share), detail=interval_text(share))


def values_of(crystals: CrystalSet | None, *names: str) -> np.ndarray:
    """The numbers of some columns, pooled; none where there are no crystals."""
    return np.zeros(0) if crystals is None else crystals.values(*names)


def level(value: float, good: float, fair: float) -> str:
    """Good from one limit on, fair from the other."""
    return GOOD if value >= good else FAIR if value >= fair else BAD


def percent(share: Share) -> str:
    """The share of at least one crystal, in percent."""
    return "none of 0" if share.share is None else f"{100 * share.share:.1f} %"


def interval_text(share: Share) -> str:
    """Counts and Wilson's interval."""
    if share.low is None or share.high is None:
        return "none of 0"
    return f"{share.k:,} of {share.n:,}; 95 %: {100 * share.low:.1f}-{100 * share.high:.1f} %"


def plain_name(column: str) -> str:
    """A column in words."""
    words = {
        "n_elements": "number of elements",
        "n_atoms": "atoms in the cell",
        "e_above_hull": "energy above the hull",
        "source_energy_above_hull": "energy above the hull (source)",
        "source_e_above_hull": "energy above the hull (source)",
    }
    return words.get(column, column.replace("_", " "))
