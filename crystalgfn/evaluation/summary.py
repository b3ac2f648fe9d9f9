"""What an evaluation says of a set of crystals, as plain dataclasses; every number of a report is in them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any

from crystalgfn.crystallography.atoms import SkippedRecord
from crystalgfn.evaluation.metrics.compositions import smact_installed
from crystalgfn.evaluation.metrics.distributions import Distribution, Spread, distributions
from crystalgfn.evaluation.metrics.diversity import Diversity, best_rows, diversity
from crystalgfn.evaluation.metrics.stability import LABEL, Stability
from crystalgfn.evaluation.reference import Reference
from crystalgfn.utils.provenance import markdown
from crystalgfn.utils.statistics import Share, share, share_of

if TYPE_CHECKING:
    import pandas as pd


CHECKS = {
    "valid_structure": "no pair closer than 0.5 Å, own images included, and at least 0.1 Å3",
    "apart": "no pair closer than 0.7 of its sum of radii",
    "usual_volume": "volume 0.65 to 3 times that of such atoms in known crystals",
    "neutral_icsd": "neutral by ICSD's oxidation states",
    "neutral_common": "neutral by common oxidation states",
    "neutral_all": "neutral by all oxidation states",
    "valid_composition": "neutral by CDVAE's rule, or metals only",
    "smact": "valid by SMACT",
}
"""Column -> what it says, of checks that are true or false for a structure."""

NOT_INSTALLED = "not installed"


@dataclass(frozen=True)
class Evaluation:
    """What is known of a set of crystals. Shares name what they are of by their ``n``.

    Attributes:
        given: crystals that the source holds, or that were drawn of it.
        readable: share that could be read and judged.
        errors: where -> why not.
        valid: valid structure and valid composition (CDVAE's two checks), of all given.
        checks: column -> share of those read that pass; None where it could not be asked.
        notes: what figures lack, in words.
        groups: tolerance in Å -> share of the crystals whose source claims a group above P1 that have this group.
        claims_p1: crystals of which the source claims P1, which most writers of CIFs say of anything.
        unique: share of those read that match no earlier one.
        novel: share of those read that match nothing in the reference; None without one.
        good: valid, unique and novel (where there is a reference), of all given.
        swap_unique: as ``unique`` with elements exchanged; None where not asked for.
        swap_novel: as ``novel`` with elements exchanged.
        diversity: of all that were read.
        diversity_best: of the best of them by a column; None where none was named.
        best_by: that column.
        properties: distributions against the reference.
        energies: whose formation energies these are.
        stability: None where nothing was relaxed.
        seconds: of work in each stage, over all processes.
    """

    given: int
    readable: Share
    errors: dict[str, str]
    valid: Share
    checks: dict[str, Share | None]
    notes: dict[str, str]
    groups: dict[str, Share]
    claims_p1: int
    unique: Share
    novel: Share | None
    good: Share
    swap_unique: Share | None
    swap_novel: Share | None
    diversity: Diversity
    diversity_best: Diversity | None
    best_by: str | None
    properties: dict[str, Distribution]
    energies: str | None
    stability: Stability | None
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is no number is null there."""
        return plain(self)


def evaluation(
    frame: pd.DataFrame,
    errors: Sequence[SkippedRecord],
    reference: Reference | None = None,
    reference_frame: pd.DataFrame | None = None,
    stability: Stability | None = None,
    best: str | None = None,
    best_n: int = 100,
    largest: bool = False,
    seconds: Mapping[str, float] | None = None,
) -> Evaluation:
    """The figures of a table of structures.

    Args:
        frame: one row a crystal that could be read, from `EvaluationRun.table`; at least one.
        errors: those that could not.
        reference: known crystals.
        reference_frame: rows of them, from `EvaluationRun.describe_reference`.
        stability: what relaxing says.
        best: a column of numbers; the rows with the smallest are the best.
        best_n: how many.
        largest: those with the largest are.
        seconds: of work in each stage.

    Raises:
        DataError: no such column.
    """
    given = len(frame) + len(errors)
    valid = frame["valid_structure"].eq(True) & frame["valid_composition"].eq(True)
    novel = frame["novel"] if "novel" in frame else None
    good = valid & frame["unique"] & (True if novel is None else novel)
    known_groups = None if reference is None else group_counts(reference, reference_frame)
    of_best = None
    if best is not None:
        of_best = diversity(best_rows(_with(frame, best), best, best_n, largest), known_groups)
    energies = LABEL if stability is not None else None
    if energies is None and "formation_energy" in frame:
        energies = "as the source says"
    return Evaluation(
        given,
        share(len(frame), given),
        {error.where: error.reason for error in errors},
        share(int(valid.sum()), given),
        {name: _check(frame, name) for name in CHECKS},
        {} if smact_installed() else {"smact": NOT_INSTALLED},
        _agreement(frame),
        int((frame["group_claimed"] == 1).sum()),
        share_of(frame["unique"]),
        None if novel is None else share_of(novel),
        share(int(good.sum()), given),
        share_of(frame["swap_unique"]) if "swap_unique" in frame else None,
        share_of(frame["swap_novel"]) if "swap_novel" in frame else None,
        diversity(frame, known_groups),
        of_best,
        best,
        distributions(frame, reference_frame if reference_frame is not None and len(reference_frame) else None),
        energies,
        stability,
        dict(seconds or {}),
    )


def group_counts(reference: Reference, reference_frame: pd.DataFrame | None) -> dict[int, int]:
    """Space group -> known crystals: as the source names them all, else as found in those that were looked at."""
    named = [entry.group for entry in reference.entries]
    if all(named):
        return dict(Counter(named))
    found = [] if reference_frame is None or not len(reference_frame) else reference_frame["space_group"]
    return dict(Counter(int(group) for group in found if group))


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _with(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    from crystalgfn.errors import DataError

    if column not in frame:
        numbers = ", ".join(frame.select_dtypes("number").columns)
        raise DataError(f"there is no column {column} to choose the best by; there are {numbers}")
    return frame


def _check(frame: pd.DataFrame, name: str) -> Share | None:
    found = share_of(frame[name].dropna())
    return found if found.n else None


def _agreement(frame: pd.DataFrame) -> dict[str, Share]:
    claims = frame[frame["group_claimed"] > 1]
    names = [name for name in frame if name.startswith("group_") and name != "group_claimed"]
    return {name.removeprefix("group_"): share_of(claims[name] == claims["group_claimed"]) for name in names}


def tables(figures: Evaluation) -> str:
    """Headline figures, diversity, distributions and stability in Markdown."""
    parts = ["## Crystals", _shares(_headline(figures)), "## Diversity", _diversity(figures)]
    if figures.properties:
        whose = f" (formation energies: {figures.energies})" if figures.energies else ""
        parts += [f"## Properties{whose}", _properties(figures.properties)]
    if figures.stability is not None:
        parts += [f"## Stability ({figures.stability.label})", _stability(figures)]
    return "\n\n".join(parts)


def _headline(figures: Evaluation) -> dict[str, Share | str | None]:
    rows: dict[str, Share | str | None] = {
        "read": figures.readable,
        "valid structure and composition, of all given": figures.valid,
        **{words: figures.checks[name] or figures.notes.get(name) for name, words in CHECKS.items()},
    }
    for symprec, agrees in figures.groups.items():
        rows[f"group as claimed, at {symprec} Å"] = agrees if agrees.n else "no group claimed"
    rows["unique"] = figures.unique
    rows["novel"] = figures.novel or "no reference"
    if figures.swap_unique is not None:
        rows["unique, elements exchanged"] = figures.swap_unique
        rows["novel, elements exchanged"] = figures.swap_novel or "no reference"
    rows["valid, unique and novel, of all given"] = figures.good
    return rows


def _shares(rows: dict[str, Share | str | None]) -> str:
    cells = []
    for words, value in rows.items():
        if isinstance(value, Share):
            cells.append([words, f"{value.k} of {value.n}", str(value)])
        else:
            cells.append([words, "", value or "unknown"])
    return markdown(["", "crystals", "share (95 %)"], cells)


def _diversity(figures: Evaluation) -> str:
    sets = {"all": figures.diversity}
    if figures.diversity_best is not None:
        sets[f"best {figures.diversity_best.n} by {figures.best_by}"] = figures.diversity_best
    rows = []
    for name in figures.diversity.kinds:
        row = [name.replace("_", " ")]
        for one in sets.values():
            row.append(f"{one.kinds[name].distinct} ({one.kinds[name].effective:.1f})")
        rows.append(row)
    rows.append(["P1", *(str(one.p1) for one in sets.values())])
    if figures.diversity.distance is not None:
        words = [
            "" if one.distance is None else f"{one.distance:.3f} (by chance {one.noise:.3f})" for one in sets.values()
        ]
        rows.append(["distance of groups to the reference", *words])
    return markdown(["distinct (effective number)", *sets], rows)


def _properties(properties: dict[str, Distribution]) -> str:
    rows = []
    for name, one in properties.items():
        other = "" if one.reference is None else _spread(one.reference)
        distance = "" if one.wasserstein is None else f"{one.wasserstein:.3g}"
        scaled = "" if one.scaled is None else f"{one.scaled:.2f}"
        rows.append(
            [f"{name.replace('_', ' ')}, {one.unit}".rstrip(", "), _spread(one.samples), other, distance, scaled]
        )
    return markdown(["median (5-95 %)", "samples", "reference", "Wasserstein", "in std of reference"], rows)


def _stability(figures: Evaluation) -> str:
    found = figures.stability
    rows: dict[str, Share | str | None] = {
        "relaxed, with an energy above the hull": found.relaxed,
        "came to rest": found.converged,
        "stable (on or below the hull)": found.stable,
        "metastable (at most 0.1 eV/atom above)": found.metastable,
        "S.U.N.: stable, unique, novel": found.sun,
        "M.S.U.N.: metastable, unique, novel": found.msun,
    }
    spreads = {
        "eV/atom above the hull": found.e_above_hull,
        "eV/atom that relaxing brought": found.relaxation_energy,
        "displacement, Å": found.displacement,
        "change of the volume": found.volume_change,
        "seconds a crystal": found.seconds,
    }
    lines = [
        _shares(rows),
        markdown(["median (5-95 %)", ""], [[k, _spread(v) if v else ""] for k, v in spreads.items()]),
    ]
    if found.failures:
        lines.append("\n".join(f"- {n} without: {reason}" for reason, n in found.failures.items()))
    return "\n\n".join(lines)


def _spread(one: Spread) -> str:
    low, _, middle, _, high = one.quantiles
    return f"{middle:.3g} ({low:.3g}-{high:.3g})" if low >= 0 else f"{middle:.3g} ({low:.3g} to {high:.3g})"
