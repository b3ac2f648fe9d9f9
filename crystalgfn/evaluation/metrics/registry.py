"""The metrics of an evaluation: the package's own, those of installed packages, further ones, and a trial of one."""

from __future__ import annotations

import json
import keyword
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.errors import DataError
from crystalgfn.evaluation.metrics.base import BAD, FAIR, GOOD, STATED, UNKNOWN, CrystalSet, Metric, Panel, Verdict
from crystalgfn.evaluation.metrics.distributions import DistributionMetric
from crystalgfn.evaluation.metrics.diversity import DiversityMetric
from crystalgfn.evaluation.metrics.novelty import NoveltyMetric
from crystalgfn.evaluation.metrics.stability import StabilityMetric
from crystalgfn.evaluation.metrics.symmetry import SymmetryMetric
from crystalgfn.evaluation.metrics.validity import ValidityMetric

if TYPE_CHECKING:
    import pandas as pd


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


LEVELS = (GOOD, FAIR, BAD, UNKNOWN, STATED)


def check_metric(metric: Any) -> None:
    """Try a metric on rock salt, caesium chloride, a P1 crystal and a disordered one, with a reference and without.

    Args:
        metric: an object with the methods of `crystalgfn.evaluation.metrics.base.Metric`.

    Raises:
        DataError: what is wrong with it: a method or name that is missing or taken, columns that differ between
            crystals or are not plain, figures that are not JSON, a verdict or panel of another kind, rows that it
            changes, or that it cannot be sent to another process.

    Example:
        >>> from crystalgfn.evaluation.metrics.diversity import DiversityMetric
        >>> class Counted(DiversityMetric):
        ...     name = "counted"
        ...     def summary(self, samples, reference):
        ...         return {"counted": len(samples.frame)}
        ...     verdict = figure = lambda self, *given: []
        >>> check_metric(Counted())
    """
    others = [one for one in BUILT_IN if one.name != getattr(metric, "name", None)]
    if len(others) == len(BUILT_IN):
        all_metrics([metric])
    _demand(str(metric.name).isidentifier() and not keyword.iskeyword(metric.name), metric, "needs a Python name")
    try:
        pickle.dumps(metric)
    except Exception as error:
        raise DataError(f"the metric {metric.name!r} cannot be sent to another process ({error})") from error
    frame = _described(metric, others)
    samples = CrystalSet(frame=frame, given=len(frame) + 1)
    reference = CrystalSet(frame=frame.iloc[:2].assign(formation_energy=-1.0), given=2, space_groups={225: 1, 221: 1})
    for known in (None, reference):
        own = replace(samples, frame=frame if known is None else frame.assign(novel=True))
        before = own.frame.copy(deep=True)
        _check_figures(metric, own, known)
        _demand(own.frame.equals(before), metric, "changes the rows that it is given")


def _demand(right: bool, metric: Metric, words: str) -> None:
    if not right:
        raise DataError(f"the metric {getattr(metric, 'name', metric)!r} {words}")


def _described(metric: Metric, others: list[Metric]) -> pd.DataFrame:
    """Rows of the example crystals, with the metric's columns and those of the package."""
    import pandas as pd

    from crystalgfn.crystallography.atoms import Atoms, Record, all_atoms_of
    from crystalgfn.evaluation.describe import Describer

    def cubic(group: int, edge: float, *orbits: Orbit) -> Any:
        return OrbitStructure(group, (edge, edge, edge, 90.0, 90.0, 90.0), orbits).to_structure()

    salt, caesium = cubic(225, 5.64, Orbit("a", 11), Orbit("b", 17)), cubic(221, 4.1, Orbit("a", 55), Orbit("b", 17))
    low, mixed = salt.copy(), caesium.copy()
    low.perturb(0.2)
    mixed.replace_species({"Cs": {"Cs": 0.5, "K": 0.5}})
    atoms = [all_atoms_of(f"{i}.cif", one, 1) for i, one in enumerate((salt, caesium, low, mixed))]
    crystals = [Record(one.where, one) for one in atoms if isinstance(one, Atoms)]
    describer = Describer(metrics=others)
    rows, names = [], None
    for i, crystal in enumerate(crystals):
        row, own = describer.row(crystal), metric.columns(describer.crystal(crystal))
        _demand(isinstance(own, Mapping), metric, f"has columns() that give {type(own).__name__}, not a mapping")
        names = set(own) if names is None else names
        _demand(set(own) == names, metric, f"gives the columns {sorted(own)} of one crystal, {sorted(names)} of others")
        taken = sorted(set(own) & set(row))
        _demand(not taken, metric, f"has a column {taken[0] if taken else ''!r}, which another metric has")
        _demand(_plain(dict(own)), metric, f"has columns that JSON has not: {dict(own)}")
        rows.append({"index": i, **row, **own})
    frame = pd.DataFrame(rows)
    frame["unique"] = True
    return frame


def _check_figures(metric: Metric, samples: CrystalSet, reference: CrystalSet | None) -> None:
    summary = metric.summary(samples, reference)
    _check_summary(metric, summary, samples, reference)
    verdicts = metric.verdict(summary, reference)
    _demand(all(isinstance(one, Verdict) for one in verdicts), metric, "has a verdict() that gives no list of Verdict")
    wrong = [one.level for one in verdicts if one.level not in LEVELS]
    _demand(not wrong, metric, f"has a verdict of level {wrong[0] if wrong else ''!r}; there are {', '.join(LEVELS)}")
    panels = metric.figure(samples, reference, summary)
    _demand(all(isinstance(one, Panel) for one in panels), metric, "has a figure() that gives no list of Panel")
    for one in panels:
        _demand(one.draw is None or bool(one.name), metric, "has a figure without a name")
        _demand(all(len(row) == len(one.head) for row in one.rows), metric, f"has a table {one.head} with other rows")
    _draw(metric, [one for one in panels if one.draw is not None])


def _check_summary(metric: Metric, summary: Any, samples: CrystalSet, reference: CrystalSet | None) -> None:
    from crystalgfn.evaluation.summary import KEYS, plain_value

    keys = plain_value(summary)
    _demand(isinstance(keys, Mapping), metric, "has a summary() that is neither a mapping nor a dataclass")
    _demand(_plain(keys), metric, f"has a summary that JSON has not: {keys}")
    others = [one for one in BUILT_IN if one.name != metric.name]
    taken = set(KEYS).union(*(plain_value(one.summary(samples, reference)) for one in others))
    same = sorted(set(keys) & taken)
    _demand(not same, metric, f"has a figure {same[0] if same else ''!r}, and so has another metric")


def _draw(metric: Metric, panels: list[Panel]) -> None:
    try:
        import plotly.graph_objects as go
        import pymatviz  # noqa: F401
    except ImportError:
        return
    for one in panels:
        figure = None if one.draw is None else one.draw()
        _demand(isinstance(figure, go.Figure), metric, f"draws {type(figure).__name__} as {one.name}, no plotly Figure")


def _plain(value: Any) -> bool:
    from crystalgfn.utils.run_folder import _plain as number

    try:
        json.dumps(value, default=number)
    except (TypeError, ValueError):
        return False
    return True
