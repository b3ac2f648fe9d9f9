"""How far the properties of a set of crystals lie from those of known ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

PROPERTIES = {
    "density": "g/cm3",
    "volume_per_atom": "Å3",
    "n_elements": "",
    "n_atoms": "in the primitive cell",
    "formation_energy": "eV/atom",
}
"""Column -> unit of what is compared."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Spread:
    """One property of one set: how many values, mean, standard deviation, quantiles at `QUANTILES`."""

    n: int
    mean: float
    std: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class Distribution:
    """One property of the samples beside the reference.

    Attributes:
        unit: of the property.
        samples: its values there.
        reference: its values in the reference, None without one.
        wasserstein: distance between the two (order 1), in the unit.
        scaled: the same over the standard deviation of the reference.
    """

    unit: str
    samples: Spread
    reference: Spread | None = None
    wasserstein: float | None = None
    scaled: float | None = None


def distributions(frame: pd.DataFrame, reference: pd.DataFrame | None = None) -> dict[str, Distribution]:
    """Every property of `PROPERTIES` that the samples have values of."""
    found = {}
    for name, unit in PROPERTIES.items():
        own = _values(frame, name)
        if not len(own):
            continue
        other = np.zeros(0) if reference is None else _values(reference, name)
        if not len(other):
            found[name] = Distribution(unit, spread(own))
            continue
        distance = wasserstein(own, other)
        scale = float(other.std())
        scaled = distance / scale if scale > 0 else None
        found[name] = Distribution(unit, spread(own), spread(other), distance, scaled)
    return found


def wasserstein(one: np.ndarray, other: np.ndarray) -> float:
    """Wasserstein distance of order 1: the area between the two cumulative distributions."""
    both = np.sort(np.concatenate([one, other]))
    shares = [np.searchsorted(np.sort(values), both[:-1], side="right") / len(values) for values in (one, other)]
    return float((np.abs(shares[0] - shares[1]) * np.diff(both)).sum())


def spread(values: Sequence[float] | np.ndarray) -> Spread:
    """Mean, standard deviation and quantiles of at least one value."""
    values = np.asarray(values, dtype=np.float64)
    quantiles = tuple(float(q) for q in np.quantile(values, QUANTILES))
    return Spread(len(values), float(values.mean()), float(values.std()), quantiles)


def _values(frame: pd.DataFrame, name: str) -> np.ndarray:
    if name not in frame:
        return np.zeros(0)
    values = frame[name].to_numpy(dtype=np.float64)
    return values[np.isfinite(values)]
