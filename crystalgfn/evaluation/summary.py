"""What an evaluation says of a set of crystals: the summaries of all metrics, as JSON and as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from crystalgfn.crystallography.atoms import SkippedRecord
from crystalgfn.errors import DataError
from crystalgfn.evaluation.metrics.base import CrystalSet, Metric, Panel, Verdict, judged_share
from crystalgfn.evaluation.metrics.registry import BUILT_IN
from crystalgfn.utils.provenance import markdown_table
from crystalgfn.utils.statistics import Share, share

READABLE = (0.99, 0.9)
"""Shares of the crystals given that can be read from which that is good, or fair."""
KEYS = ("given", "readable", "errors", "seconds")
"""Of ``summary.json`` besides those of the metrics."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation:
    """What is known of a set of crystals; ``evaluation["validity"]`` is the summary of a metric.

    Attributes:
        given: crystals that the source holds, or that were chosen of it.
        readable: share that could be read and judged.
        errors: where -> why not.
        samples: the crystals that could.
        reference: known crystals; None without any.
        metrics: in the order of their summaries.
        summaries: name of a metric -> its summary.
        seconds: of work in each stage, over all processes.
    """

    given: int
    readable: Share
    errors: dict[str, str]
    samples: CrystalSet
    reference: CrystalSet | None
    metrics: Sequence[Metric]
    summaries: Mapping[str, Any]
    seconds: dict[str, float]

    def __getitem__(self, metric: str) -> Any:
        return self.summaries[metric]

    def to_dict(self) -> dict[str, Any]:
        """For JSON, the keys of all summaries side by side; what is no number is null there.

        Raises:
            DataError: two metrics have figures of one name.
        """
        found: dict[str, Any] = {
            "given": self.given,
            "readable": plain_value(self.readable),
            "errors": dict(self.errors),
        }
        for metric in self.metrics:
            own = plain_value(self.summaries[metric.name])
            same = next((key for key in own if key in found or key in KEYS), None)
            if same is not None:
                raise DataError(f"the metric {metric.name!r} has a figure {same!r}, and so has another; rename it")
            found |= own
        return {**found, "seconds": dict(self.seconds)}

    def verdicts(self) -> list[Verdict]:
        """The figures of all metrics with what they are worth."""
        found = [judged_share("Readable", self.readable, READABLE)]
        for metric in self.metrics:
            found += metric.verdict(self.summaries[metric.name], self.reference)
        return found

    def panels(self) -> dict[str, list[Panel]]:
        """Section of the report -> its texts, tables and figures."""
        found: dict[str, list[Panel]] = {}
        for metric in self.metrics:
            for panel in metric.figure(self.samples, self.reference, self.summaries[metric.name]):
                found.setdefault(panel.section, []).append(panel)
        return found

    def text(self) -> str:
        """All figures and tables in Markdown."""
        parts = ["## Crystals", markdown_table(*verdict_table(self.verdicts()))]
        for section, panels in self.panels().items():
            tables = [one for one in panels if one.head]
            parts += [f"## {section}"] if tables else []
            for one in tables:
                parts += [one.caption] * bool(one.caption) + [markdown_table(one.head, one.rows)]
        return "\n\n".join(parts)


def evaluation(
    samples: CrystalSet,
    errors: Sequence[SkippedRecord] = (),
    reference: CrystalSet | None = None,
    metrics: Sequence[Metric] = BUILT_IN,
    seconds: Mapping[str, float] | None = None,
) -> Evaluation:
    """The summaries of all metrics, of samples that have their columns (at least one crystal) and of known crystals.

    Raises:
        DataError: there is no column to choose the best crystals by.
    """
    return Evaluation(
        given=samples.given,
        readable=share(len(samples.frame), samples.given),
        errors={error.where: error.reason for error in errors},
        samples=samples,
        reference=reference,
        metrics=metrics,
        summaries={metric.name: metric.summary(samples, reference) for metric in metrics},
        seconds=dict(seconds or {}),
    )


def verdict_table(found: Sequence[Verdict]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of all figures."""
    return ["", "figure", "crystals", "verdict"], [[one.name, one.figure, one.detail, one.level] for one in found]


def plain_value(value: Any) -> Any:
    """A value as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain_value(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
