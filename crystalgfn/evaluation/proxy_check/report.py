"""Figures, table and picture of a proxy's validation: predicted beside reference energies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import mannwhitneyu, spearmanr

from crystalgfn.utils.files import write_aside
from crystalgfn.utils.provenance import markdown_table

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NEAR_HULL, ON_HULL = 0.1, 0.02
"""eV/atom above the hull."""
COLOURS = {"is_converged": "#1f5a94", "upper_bound": "#d08a2e"}


def gap(predicted: np.ndarray | pd.Series, reference: np.ndarray | pd.Series) -> dict[str, Any] | None:
    """How far predictions lie from references, eV/atom, over the pairs that have both; None without any.

    ``bias`` is the mean of predicted - reference: negative where predictions are too stable;
    ``spearman`` None where there is no ranking.
    """
    ours, theirs = np.asarray(predicted, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    both = np.isfinite(ours) & np.isfinite(theirs)
    ours, theirs = ours[both], theirs[both]
    if not len(ours):
        return None
    difference = ours - theirs
    ranked = len(np.unique(ours)) > 2 and len(np.unique(theirs)) > 2
    return {
        "crystals": len(ours),
        "median_abs": float(np.median(np.abs(difference))),
        "mean_abs": float(np.abs(difference).mean()),
        "bias": float(difference.mean()),
        "quantiles": _quantiles(difference),
        "spearman": float(np.asarray(spearmanr(ours, theirs))[0]) if ranked else None,
    }


def summary(frame: pd.DataFrame) -> dict[str, Any]:
    """The figures of a table of crystals with predictions and references (`ProxyCheck.table`)."""
    found, free = frame.e_star.notna(), frame.e_relaxed.notna()
    figures: dict[str, Any] = {
        "crystals": len(frame),
        "calculator": calculators(frame),
        "placed": int((frame.failure != "not placed").sum()),
        "checked": int(found.sum()),
        "atoms_converged": int((found & frame.atoms_converged).sum()),
        "is_converged": int(frame.is_converged.sum()),
        "relaxed": int(free.sum()),
        "cell_converged": int((free & frame.cell_converged).sum()),
        "failures": {str(name): int(count) for name, count in frame.failure.dropna().value_counts().items()},
        "predicted_e_star": gap(frame.predicted, frame.e_star),
        "predicted_e_star_converged": gap(frame.predicted[frame.is_converged], frame.e_star[frame.is_converged]),
        "confidence_bound_e_star": gap(frame.confidence_bound, frame.e_star),
        "predicted_relaxed": gap(frame.predicted, frame.e_relaxed),
    }
    if free.any():
        figures["gained_by_cell"] = _quantiles(frame.e_star[free] - frame.e_relaxed[free])
        figures["volume_ratio"] = _quantiles(frame.volume_ratio[free])
        figures["length_change"] = _quantiles((frame.length_ratio[free] - 1).abs())
    if "hull" in frame:
        figures["above_hull"] = {
            name: _above(frame[name] - frame.hull) for name in ("predicted", "e_star", "e_relaxed")
        }  # fmt: skip
        figures["auc_near_hull"] = auc(frame.predicted - frame.hull, frame.e_relaxed - frame.hull <= NEAR_HULL, free)
    return figures


def calculators(frame: pd.DataFrame) -> str:
    """The name of what gave the energies of a table."""
    return " and ".join(sorted(frame.calculator.dropna().unique())) or "none"


def auc(score: pd.Series, positive: pd.Series, known: pd.Series) -> float | None:
    """Area under the ROC curve of low scores as a sign of ``positive``, among the rows that are known."""
    yes, no = score[known & positive], score[known & ~positive]
    if not len(yes) or not len(no):
        return None
    return 1 - float(mannwhitneyu(yes, no).statistic) / (len(yes) * len(no))


ROWS = {
    "predicted_e_star": "predicted - E*",
    "predicted_e_star_converged": "predicted - E*, where the search converged",
    "confidence_bound_e_star": "confidence bound - E*",
    "predicted_relaxed": "predicted - fully relaxed",
}
"""Key of `summary` -> words."""
LATTICE_ROWS = {
    "gained_by_cell": "E* - fully relaxed, eV/atom",
    "volume_ratio": "relaxed over sampled volume",
    "length_change": "largest relative change of a length",
}


def prediction_tables(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    n = figures["crystals"]
    counts = [
        ("sampled", n),
        ("placed", figures["placed"]),
        ("with E* at the sampled lattice", figures["checked"]),
        ("of these converged", figures["atoms_converged"]),
        ("of these E* itself rather than an upper bound", figures["is_converged"]),
        ("with the cell relaxed too", figures["relaxed"]),
        ("of these converged", figures["cell_converged"]),
    ]
    parts = [markdown_table(("crystals", "", "share"), [(name, count, f"{count / n:.0%}") for name, count in counts])]
    if figures["failures"]:
        parts.append(markdown_table(("without E*", "crystals"), list(figures["failures"].items())))
        parts.append(
            f"The {n - figures['checked']} crystals without E* are in no row below; their predictions are not "
            "confirmed. Crowded: every placement has short contacts; collapsed: atoms run into each other."
        )
    rows = [(words, *_gap_row(figures[key])) for key, words in ROWS.items() if figures[key]]
    if rows:
        head = ("eV/atom", "crystals", "median of |.|", "mean of |.|", "mean", *_percent(), "Spearman")
        parts.append(markdown_table(head, rows))
    rows = [
        (words, *(_signed(figures[key][q]) for q in _percent()))
        for key, words in LATTICE_ROWS.items()
        if key in figures
    ]
    if rows:
        parts.append(markdown_table(("the cell relaxed", *_percent()), rows))
    return "\n\n".join(parts + (_above_hull(figures) if "above_hull" in figures else []))


def _above_hull(figures: dict[str, Any]) -> list[str]:
    head = ("above the hull, eV/atom", "crystals", "median", f"at most {NEAR_HULL}", f"at most {ON_HULL}", "below 0")
    words = {"predicted": "predicted", "e_star": "E*", "e_relaxed": "fully relaxed"}
    rows = [(words[name], *_above_row(one)) for name, one in figures["above_hull"].items() if one]
    parts = [markdown_table(head, rows)]
    if figures["auc_near_hull"] is not None:
        parts.append(
            f"Predicted energies above the hull tell the crystals that relax to at most {NEAR_HULL} eV/atom above it "
            f"from the others with an area under the ROC curve of {figures['auc_near_hull']:.2f} (0.5: not at all)."
        )
    return parts


def prediction_picture(frame: pd.DataFrame, path: Path, title: str = "") -> None:
    """A PNG: predicted against E* and against the fully relaxed energy, how the volume changes.

    Raises:
        CheckpointError: the file cannot be written.
    """
    figure = Figure(figsize=(15, 5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title or f"{len(frame)} crystals", fontsize=13, fontweight="bold")
    left, middle, right = figure.subplots(1, 3)
    names = calculators(frame)
    _against(left, frame, "e_star", f"{names}, lowest at the sampled lattice (E*), eV/atom")
    _against(middle, frame, "e_relaxed", f"{names}, cell relaxed too, eV/atom")
    ratios = frame.volume_ratio.dropna()
    if len(ratios):
        right.hist(np.clip(ratios, 0.5, 1.5), np.linspace(0.5, 1.5, 41), color=COLOURS["is_converged"], alpha=0.8)
        right.axvline(1, color="#333333", lw=1)
    right.set_xlabel("relaxed over sampled volume (clipped to 0.5 - 1.5)")
    right.set_ylabel("crystals")
    write_aside(path, lambda beside: figure.savefig(beside, format="png", dpi=110))


def _against(ax: Axes, frame: pd.DataFrame, column: str, label: str) -> None:
    known = frame.loc[frame[column].notna()]
    for name, part, words in (
        ("is_converged", known.loc[known.is_converged], "E* itself"),
        ("upper_bound", known.loc[~known.is_converged], "upper bound of E*"),
    ):
        if len(part):
            ax.errorbar(
                part[column], part.predicted, yerr=part["std"], fmt="o", ms=4, lw=0.7, alpha=0.8,
                color=COLOURS[name], label=f"{words} ({len(part)})",
            )  # fmt: skip
    if len(known):
        ends = [min(known[column].min(), known.predicted.min()), max(known[column].max(), known.predicted.max())]
        ax.plot(ends, ends, color="#333333", lw=1)
        one = gap(known.predicted, known[column])
        if one is not None:
            ax.set_title(f"median |gap| {one['median_abs']:.2f}, bias {one['bias']:+.2f} eV/atom", fontsize=10)
        ax.legend(frameon=False, fontsize=9)
    ax.set_xlabel(label)
    ax.set_ylabel("predicted by the proxy (bars: standard error), eV/atom")


def _quantiles(values: np.ndarray | pd.Series) -> dict[str, float]:
    return {name: float(np.quantile(values, q)) for name, q in zip(_percent(), QUANTILES, strict=True)}


def _percent() -> list[str]:
    return [f"{q:.0%}" for q in QUANTILES]


def _gap_row(one: dict[str, Any]) -> list[Any]:
    rank = "" if one["spearman"] is None else _signed(one["spearman"])
    parts = (one["median_abs"], one["mean_abs"], one["bias"], *one["quantiles"].values())
    return [one["crystals"], *map(_signed, parts), rank]


def _signed(value: float) -> str:
    return f"{value:.3f}"


def _above(values: pd.Series) -> dict[str, Any] | None:
    values = values.dropna()
    if not len(values):
        return None
    shares = {"near": NEAR_HULL, "on": ON_HULL}
    return {
        "crystals": len(values),
        "median": float(values.median()),
        **{name: float((values <= limit).mean()) for name, limit in shares.items()},
        "below": float((values < 0).mean()),
    }


def _above_row(one: dict[str, Any]) -> list[Any]:
    return [one["crystals"], _signed(one["median"]), *(f"{one[name]:.0%}" for name in ("near", "on", "below"))]
