"""Figures, table and picture of claim and check."""

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
COLOURS = {"sure": "#1f5a94", "bound": "#d08a2e"}


def gap(claim: np.ndarray | pd.Series, check: np.ndarray | pd.Series) -> dict[str, Any] | None:
    """How far claims lie from checks, eV/atom, over the pairs that have both; None without any.

    ``bias`` is the mean of claim - check, so a negative one praises; ``spearman`` None where there is no ranking.
    """
    claim, check = np.asarray(claim, dtype=np.float64), np.asarray(check, dtype=np.float64)
    both = np.isfinite(claim) & np.isfinite(check)
    claim, check = claim[both], check[both]
    if not len(claim):
        return None
    difference = claim - check
    ranked = len(np.unique(claim)) > 2 and len(np.unique(check)) > 2
    return {
        "crystals": len(claim),
        "median_abs": float(np.median(np.abs(difference))),
        "mean_abs": float(np.abs(difference).mean()),
        "bias": float(difference.mean()),
        "quantiles": _quantiles(difference),
        "spearman": float(spearmanr(claim, check).statistic) if ranked else None,
    }


def summary(frame: pd.DataFrame) -> dict[str, Any]:
    """The figures of a table of crystals with claims and checks (`ClaimRun.table`)."""
    found, free = frame.e_star.notna(), frame.e_relaxed.notna()
    figures: dict[str, Any] = {
        "crystals": len(frame),
        "placed": int((frame.failure != "not placed").sum()),
        "checked": int(found.sum()),
        "at_rest": int((found & frame.converged).sum()),
        "sure": int(frame.sure.sum()),
        "relaxed": int(free.sum()),
        "relaxed_at_rest": int((free & frame.relaxed_converged).sum()),
        "failures": {str(name): int(count) for name, count in frame.failure.dropna().value_counts().items()},
        "claim_e_star": gap(frame.claim, frame.e_star),
        "claim_e_star_sure": gap(frame.claim[frame.sure], frame.e_star[frame.sure]),
        "bound_e_star": gap(frame.bound, frame.e_star),
        "claim_relaxed": gap(frame.claim, frame.e_relaxed),
    }
    if free.any():
        figures["gained_by_cell"] = _quantiles(frame.e_star[free] - frame.e_relaxed[free])
        figures["volume_ratio"] = _quantiles(frame.volume_ratio[free])
        figures["length_change"] = _quantiles((frame.length_ratio[free] - 1).abs())
    if "hull" in frame:
        figures["above_hull"] = {
            name: _above(frame[name] - frame.hull) for name in ("claim", "e_star", "e_relaxed")
        }  # fmt: skip
        figures["auc_near_hull"] = auc(frame.claim - frame.hull, frame.e_relaxed - frame.hull <= NEAR_HULL, free)
    return figures


def auc(score: pd.Series, positive: pd.Series, known: pd.Series) -> float | None:
    """Area under the ROC curve of low scores as a sign of ``positive``, among the rows that are known."""
    yes, no = score[known & positive], score[known & ~positive]
    if not len(yes) or not len(no):
        return None
    return 1 - float(mannwhitneyu(yes, no).statistic) / (len(yes) * len(no))


def tables(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    n = figures["crystals"]
    counts = [
        ("drawn", n),
        ("placed", figures["placed"]),
        ("with E* at the drawn lattice", figures["checked"]),
        ("of these at rest", figures["at_rest"]),
        ("of these E* itself rather than an upper bound", figures["sure"]),
        ("with the cell relaxed too", figures["relaxed"]),
        ("of these at rest", figures["relaxed_at_rest"]),
    ]
    parts = [markdown_table(("crystals", "", "share"), [(name, count, f"{count / n:.0%}") for name, count in counts])]
    if figures["failures"]:
        parts.append(markdown_table(("without E*", "crystals"), list(figures["failures"].items())))
        parts.append(
            f"The {n - figures['checked']} crystals without E* are in no gap below, their claims not confirmed. "
            "Crowded: no placement keeps the atoms apart; collapsed: they do not stay apart."
        )
    names = {
        "claim_e_star": "claim - E*",
        "claim_e_star_sure": "claim - E*, where E* is sure",
        "bound_e_star": "bound - E*",
        "claim_relaxed": "claim - fully relaxed",
    }
    rows = [(name, *_gap_row(figures[key])) for key, name in names.items() if figures[key]]
    head = ("eV/atom", "crystals", "median of |.|", "mean of |.|", "mean", *_percent(), "Spearman")
    if rows:
        parts.append(markdown_table(head, rows))
    lattice = {
        "gained_by_cell": "E* - fully relaxed, eV/atom",
        "volume_ratio": "relaxed over drawn volume",
        "length_change": "largest relative change of a length",
    }
    rows = [(name, *(_signed(figures[key][q]) for q in _percent())) for key, name in lattice.items() if key in figures]
    if rows:
        parts.append(markdown_table(("the cell relaxed", *_percent()), rows))
    if "above_hull" in figures:
        limits = (f"at most {NEAR_HULL}", f"at most {ON_HULL}", "below 0")
        head = ("above the hull, eV/atom", "crystals", "median", *limits)
        words = {"claim": "claim", "e_star": "E*", "e_relaxed": "fully relaxed"}
        rows = [(words[name], *_above_row(one)) for name, one in figures["above_hull"].items() if one]
        parts.append(markdown_table(head, rows))
        if figures["auc_near_hull"] is not None:
            parts.append(
                f"Claims above the hull tell the crystals that relax to at most {NEAR_HULL} eV/atom above it from the "
                f"others with an area under the ROC curve of {figures['auc_near_hull']:.2f} (0.5: not at all)."
            )
    return "\n\n".join(parts)


def picture(frame: pd.DataFrame, path: Path, title: str = "") -> None:
    """A PNG: claim against E*, claim against the fully relaxed energy, how the volume changes.

    Raises:
        CheckpointError: the file cannot be written.
    """
    figure = Figure(figsize=(15, 5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title or f"{len(frame)} crystals", fontsize=13, fontweight="bold")
    left, middle, right = figure.subplots(1, 3)
    _against(left, frame, "e_star", "CHGNet, lowest at the drawn lattice (E*), eV/atom")
    _against(middle, frame, "e_relaxed", "CHGNet, cell relaxed too, eV/atom")
    ratios = frame.volume_ratio.dropna()
    if len(ratios):
        right.hist(np.clip(ratios, 0.5, 1.5), np.linspace(0.5, 1.5, 41), color=COLOURS["sure"], alpha=0.8)
        right.axvline(1, color="#333333", lw=1)
    right.set_xlabel("relaxed over drawn volume (held to 0.5 - 1.5)")
    right.set_ylabel("crystals")
    write_aside(path, lambda beside: figure.savefig(beside, format="png", dpi=110))


def _against(ax: Axes, frame: pd.DataFrame, column: str, label: str) -> None:
    known = frame[frame[column].notna()]
    for name, part, words in (
        ("sure", known[known.sure], "E* itself"),
        ("bound", known[~known.sure], "upper bound of E*"),
    ):
        if len(part):
            ax.errorbar(
                part[column], part.claim, yerr=part.spread, fmt="o", ms=4, lw=0.7, alpha=0.8,
                color=COLOURS[name], label=f"{words} ({len(part)})",
            )  # fmt: skip
    if len(known):
        ends = [min(known[column].min(), known.claim.min()), max(known[column].max(), known.claim.max())]
        ax.plot(ends, ends, color="#333333", lw=1)
        one = gap(known.claim, known[column])
        ax.set_title(f"median |gap| {one['median_abs']:.2f}, bias {one['bias']:+.2f} eV/atom", fontsize=10)
        ax.legend(frameon=False, fontsize=9)
    ax.set_xlabel(label)
    ax.set_ylabel("claim of the proxy (bars: its spread), eV/atom")


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
