"""How far the properties of a set of crystals lie from those of known ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import wasserstein_distance

from crystalgfn.crystallography.atoms import CELL
from crystalgfn.evaluation.metrics.base import (
    LATTICE,
    PROPERTIES,
    CrystalSet,
    Metric,
    Panel,
    Verdict,
    level,
    plain_name,
    values_of,
)

if TYPE_CHECKING:
    import pandas as pd

COMPARED = {
    "density": "g/cm3",
    "volume_per_atom": "Å3",
    "n_elements": "",
    "n_atoms": "in the primitive cell",
    "formation_energy": "eV/atom",
}
"""Column -> unit of what is compared."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class ValueStatistics:
    """One property of one set: how many values, mean, standard deviation, quantiles at `QUANTILES`."""

    n: int
    mean: float
    std: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class PropertyDistribution:
    """One property of the samples beside the reference.

    Attributes:
        unit: of the property.
        samples: its values there.
        reference: its values in the reference, None without one.
        wasserstein: distance between the two (order 1), in the unit.
        scaled: the same over the standard deviation of the reference.
    """

    unit: str
    samples: ValueStatistics
    reference: ValueStatistics | None = None
    wasserstein: float | None = None
    scaled: float | None = None


def distributions(frame: pd.DataFrame, reference: pd.DataFrame | None = None) -> dict[str, PropertyDistribution]:
    """Every property of `COMPARED` that the samples have values of."""
    found = {}
    for name, unit in COMPARED.items():
        own = _values(frame, name)
        if not len(own):
            continue
        other = np.zeros(0) if reference is None else _values(reference, name)
        if not len(other):
            found[name] = PropertyDistribution(unit=unit, samples=statistics_of(own))
            continue
        distance = float(wasserstein_distance(own, other))
        scale = float(other.std())
        scaled = distance / scale if scale > 0 else None
        found[name] = PropertyDistribution(
            unit=unit, samples=statistics_of(own), reference=statistics_of(other), wasserstein=distance, scaled=scaled
        )
    return found


def statistics_of(values: Sequence[float] | np.ndarray) -> ValueStatistics:
    """Mean, standard deviation and quantiles of at least one value."""
    values = np.asarray(values, dtype=np.float64)
    quantiles = tuple(float(q) for q in np.quantile(values, QUANTILES))
    return ValueStatistics(len(values), float(values.mean()), float(values.std()), quantiles)


def _values(frame: pd.DataFrame, name: str) -> np.ndarray:
    if name not in frame:
        return np.zeros(0)
    values = frame[name].to_numpy(dtype=np.float64)
    return values[np.isfinite(values)]


SCALED = (0.25, 1.0)
"""Standard deviations of the reference: Wasserstein distances up to the first are good, up to the second fair."""


@dataclass(frozen=True, kw_only=True)
class DistributionSummary:
    """Column -> distribution beside the reference's; ``energies``: whose formation energies these are, None without."""

    properties: dict[str, PropertyDistribution]
    energies: str | None


class DistributionMetric(Metric):
    """How the properties of samples are distributed, and how far from those of the reference."""

    name = "distributions"

    def summary(self, samples: CrystalSet, reference: CrystalSet | None) -> DistributionSummary:
        """Statistics and distances."""
        known = None if reference is None else reference.frame
        return DistributionSummary(properties=distributions(samples.frame, known), energies=samples.energies)

    def verdict(self, summary: DistributionSummary, reference: CrystalSet | None) -> list[Verdict]:
        """The Wasserstein distance of each property that the reference has too."""
        return [found for name, one in summary.properties.items() if (found := _judged(name, one)) is not None]

    def figure(self, samples: CrystalSet, reference: CrystalSet | None, summary: DistributionSummary) -> list[Panel]:
        """A table, histograms beside the reference, edges and angles of the primitive cells."""
        whose = f" (formation energies: {summary.energies})" if summary.energies else ""
        head = [f"median (5-95 %){whose}", "samples", "reference", "Wasserstein", "in std of reference"]
        beside = "There is no reference to compare with."
        found = [
            Panel(section=PROPERTIES, caption="Bars: samples; line: reference." if reference is not None else beside)
        ]
        if "formation_energy" not in summary.properties:
            found.append(Panel(section=PROPERTIES, caption="No formation energies are known of these crystals."))
        if summary.properties:
            rows = [_row(name, one) for name, one in summary.properties.items()]
            found.append(Panel(section=PROPERTIES, head=head, rows=rows))
        for name, one in summary.properties.items():
            words = plain_name(name)
            caption = words.capitalize() + (f" ({summary.energies})" if name == "formation_energy" else "")
            found.append(_histogram(samples, reference, [name], f"{words}, {one.unit}".rstrip(", "), caption, name))
        edges, angles = ([f"cell_{name}" for name in names] for names in (CELL[:3], CELL[3:]))
        lengths, degrees = "edges of the primitive cell, Å", "angles of the primitive cell, °"
        found.append(_histogram(samples, reference, edges, lengths, "Cell edges", "edges", LATTICE))
        found.append(_histogram(samples, reference, angles, degrees, "Cell angles", "angles", LATTICE))
        return found


def _histogram(
    samples: CrystalSet, reference: CrystalSet | None, columns: Sequence[str], words: str, caption: str, name: str,
    section: str = PROPERTIES,
) -> Panel:  # fmt: skip
    from crystalgfn.evaluation.report import figures

    own, known = samples.values(*columns), values_of(reference, *columns)
    return Panel(section=section, caption=caption, name=name, draw=lambda: figures.histogram(own, known, words))


def _judged(name: str, one: PropertyDistribution) -> Verdict | None:
    if one.scaled is None or one.reference is None:
        return None
    middles = f"median {one.samples.quantiles[2]:.3g}, reference {one.reference.quantiles[2]:.3g} {one.unit}".rstrip()
    why = f"Wasserstein, in standard deviations of the reference; good up to {SCALED[0]:g}, fair up to {SCALED[1]:g}."
    worth = level(-one.scaled, -SCALED[0], -SCALED[1])
    return Verdict(
        name=f"Distance: {plain_name(name)}", figure=f"{one.scaled:.2f}", detail=middles, level=worth, why=why
    )


def _row(name: str, one: PropertyDistribution) -> list[str]:
    other = "" if one.reference is None else median_and_range(one.reference)
    distance = "" if one.wasserstein is None else f"{one.wasserstein:.3g}"
    scaled = "" if one.scaled is None else f"{one.scaled:.2f}"
    return [
        f"{name.replace('_', ' ')}, {one.unit}".rstrip(", "),
        median_and_range(one.samples),
        other,
        distance,
        scaled,
    ]


def median_and_range(one: ValueStatistics) -> str:
    """Median, 5 and 95 %."""
    low, _, middle, _, high = one.quantiles
    return f"{middle:.3g} ({low:.3g}-{high:.3g})" if low >= 0 else f"{middle:.3g} ({low:.3g} to {high:.3g})"
