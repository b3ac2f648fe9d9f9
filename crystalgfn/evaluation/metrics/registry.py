"""The metrics of an evaluation: the package's own, those that installed packages offer, and further ones."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

from crystalgfn.errors import DataError
from crystalgfn.evaluation.metrics.base import Metric
from crystalgfn.evaluation.metrics.distributions import DistributionMetric
from crystalgfn.evaluation.metrics.diversity import DiversityMetric
from crystalgfn.evaluation.metrics.novelty import NoveltyMetric
from crystalgfn.evaluation.metrics.stability import StabilityMetric
from crystalgfn.evaluation.metrics.symmetry import SymmetryMetric
from crystalgfn.evaluation.metrics.validity import ValidityMetric

GROUP = "crystalgfn.metrics"
"""The group of entry points; each names a class (called without arguments) or an object with `Metric`'s methods."""
BUILT_IN: tuple[Metric, ...] = (
    ValidityMetric(),
    SymmetryMetric(),
    NoveltyMetric(),
    DiversityMetric(),
    DistributionMetric(),
    StabilityMetric(),
)


def all_metrics(further: Sequence[Any] = ()) -> tuple[Metric, ...]:
    """The metrics of the package, of installed packages (by name), and further ones, in this order.

    Raises:
        DataError: two have one name, or one is no metric.
    """
    installed = []
    for point in sorted(entry_points(group=GROUP), key=lambda one: one.name):
        loaded = point.load()
        installed.append(loaded() if isinstance(loaded, type) else loaded)
    found = (*BUILT_IN, *installed, *further)
    for one in found:
        if isinstance(one, type) or not isinstance(one, Metric):
            raise DataError(f"{one!r} is no metric; give an object with name, columns, summary, verdict and figure")
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"two metrics are called {twice!r}; give one of them another name")
    return found
