"""The table of a campaign: every relaxed candidate, the lowest above the hull first, beside what is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from crystalgfn.calculators.energy_references import References, anion
from crystalgfn.discovery.phases import NEW, KnownPhases
from crystalgfn.discovery.proposer import crystals_of_choices
from crystalgfn.evaluation.metrics.base import DescribedCrystal, Metric
from crystalgfn.evaluation.metrics.compositions import amounts, composition_row
from crystalgfn.evaluation.metrics.novelty import SAME, Comparer
from crystalgfn.evaluation.metrics.symmetry import MAIN, symmetry_of
from crystalgfn.evaluation.relaxation_job import relaxed_structure
from crystalgfn.properties.base import Property

if TYPE_CHECKING:
    from pymatgen.core import Structure

STATUS = ("candidate", "known", "duplicate", "failed")
"""Of a row: new; a phase of the reference; the same as a row above; without an energy, for the reason in ``error``."""
SIGMA = 1.2533
"""Standard deviation of a normal distribution over its mean absolute deviation, sqrt(π / 2)."""
STABLE = 0.05
"""eV/atom above the hull, at most: candidates that headline figures count as near it."""


@dataclass(frozen=True, eq=False)
class RankedTable:
    """The table, and the structures of its ranked rows in their order."""

    table: pd.DataFrame
    structures: list[Structure]


def rank_relaxed(
    chosen: Mapping[int, Mapping[str, Any]],
    relaxed: Mapping[int, Mapping[str, Any]],
    phases: KnownPhases,
    references: References,
    properties: Sequence[Property] = (),
    metrics: Sequence[Metric] = (),
) -> RankedTable:
    """Rank what was relaxed.

    Structures that are the same (StructureMatcher, within a formula) count once, the lowest of them; the others are
    listed as its duplicates. ``e_above_hull_std`` is the calculator's own error: the mean absolute error of its
    formation energies on known crystals of the same anion that its references were not fitted to, times sqrt(π / 2);
    NaN where nobody measured it.

    Args:
        chosen: records of `Campaign.chosen`.
        relaxed: records of `Campaign.relaxed`.
        phases: the known ones.
        references: energy references of the calculator.
        properties: predicted of the crystals as they were sampled, one column each.
        metrics: whose columns of each relaxed structure are added.
    """
    rows: list[dict[str, Any]] = []
    structures: list[Structure] = []
    comparer, first = Comparer(SAME), {}
    for i in _lowest_first(relaxed, phases):
        structure = relaxed_structure(relaxed[i])
        row = _row(chosen[i], relaxed[i], structure, phases, references, metrics)
        reduced = comparer.reduced(structure)
        same = next((rank for rank, other in first.get(row["formula"], ()) if comparer.same(reduced, other)), None)
        if same is None:
            rows.append({"rank": len(structures) + 1, **row})
            structures.append(structure)
            first.setdefault(row["formula"], []).append((len(structures), reduced))
        else:
            rows.append({"rank": None, **row, "status": "duplicate", "duplicate_of": same})
    rows += [
        {"rank": None, **_predicted(chosen[i], one), "status": "failed"}
        for i, one in relaxed.items()
        if one["error"] is not None
    ]
    for row, values in zip(rows, _values([chosen[int(row["index"])] for row in rows], properties), strict=True):
        row.update(values)
    return RankedTable(_frame(rows), structures)


def _lowest_first(relaxed: Mapping[int, Mapping[str, Any]], phases: KnownPhases) -> list[int]:
    """Indices of those with an energy, by the energy above the hull."""
    above = {
        i: phases.above(relaxed_structure(one), one["formation_energy"])
        for i, one in relaxed.items()
        if one["error"] is None
    }
    return sorted(above, key=lambda i: (above[i], i))


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows as a table with whole ranks."""
    table = pd.DataFrame(rows, columns=None if rows else list(_EMPTY))
    for name in ("rank", "duplicate_of"):
        table[name] = (table[name] if name in table else pd.Series([None] * len(table))).astype("Int64")
    table["known"] = table["status"].eq("known")
    return table.sort_values(["rank", "duplicate_of", "index"], kind="stable").reset_index(drop=True)


_EMPTY = ("rank", "index", "round", "formula", "space_group", "status", "known_as", "e_above_hull", "formation_energy",
          "predicted_e_above_hull", "corrected_e_above_hull", "decomposition", "error")  # fmt: skip


def _row(
    chosen: Mapping[str, Any],
    done: Mapping[str, Any],
    structure: Structure,
    phases: KnownPhases,
    references: References,
    metrics: Sequence[Metric],
) -> dict[str, Any]:
    symmetry = symmetry_of(structure, (MAIN,))
    near = phases.neighbours(structure, done["formation_energy"])
    found = {
        **_predicted(chosen, done),
        "space_group": symmetry.groups[MAIN],
        "prototype": symmetry.prototype,
        "e_above_hull": phases.above(structure, done["formation_energy"]),
        "e_above_hull_std": calculator_error(structure, references),
        "e_above_hull_mp2020": phases.published.above(structure, done["formation_energy"]),
        "formation_energy": done["formation_energy"],
        "decomposition": near.decomposition,
        "nearest_phase": near.nearest,
        "known_as": near.known_as,
        "status": "candidate" if near.known_as == NEW else "known",
        "converged": done["converged"],
        "volume_ratio": done["volume_ratio"],
    }
    crystal = DescribedCrystal(
        where=str(done["index"]), structure=structure, primitive=symmetry.primitive, symmetry=symmetry, symprec=MAIN
    )
    for metric in metrics:
        found |= {name: value for name, value in metric.columns(crystal).items() if name not in found}
    return found


def _predicted(chosen: Mapping[str, Any], done: Mapping[str, Any]) -> dict[str, Any]:
    """What was known before the relaxation, and why it has no energy."""
    return {
        "index": done["index"],
        "round": chosen["round"] + 1,
        "formula": chosen["labels"]["formula"],
        "sampled_space_group": chosen["space_group"],
        "origin": chosen["origin"],
        "predicted_e_above_hull": chosen["predicted"],
        "corrected_e_above_hull": chosen["corrected"],
        "corrected_std": chosen["std"],
        "calculator": done["calculator"],
        "error": done["error"],
    }


def _values(chosen: Sequence[Mapping[str, Any]], properties: Sequence[Property]) -> list[dict[str, float]]:
    """The properties of the crystals as they were sampled."""
    if not chosen:
        return []
    crystals, _ = crystals_of_choices(chosen)
    columns = {
        f"predicted_{prop.name}": prop(crystals).double().tolist()
        for prop in properties
        if prop.name != "energy_above_hull"
    }
    return [{name: own[k] for name, own in columns.items()} for k in range(len(chosen))]


def calculator_error(structure: Structure, references: References) -> float:
    """Standard error of a calculator's formation energy, eV/atom, see `rank_relaxed`."""
    checks = references.checks
    kind = anion(composition_row(amounts(structure).items()).numpy())
    found = checks.get(kind) or checks.get("all")
    return float("nan") if found is None else SIGMA * float(found["mae"])


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with a rank."""
    return table.loc[table["rank"].notna()]


def summary_of(table: pd.DataFrame, rounds: Sequence[Mapping[str, Any]], phases: KnownPhases) -> dict[str, Any]:
    """The figures of a campaign; energies in eV/atom.

    ``rank_correlation`` is Spearman's between predicted (as the proxy says, and corrected before each relaxation) and
    relaxed energies above the hull, of all and of the last round with at least four.
    """
    own = ranked(table)
    new, counts = own.loc[own["status"].eq("candidate")], Counter(table["status"])
    above = new["e_above_hull"].astype(float)
    with_energy = table.loc[table["error"].isna()]
    stable = {one.identifier for one in phases.stable}
    return {
        "relaxed": len(table),
        "failed": counts["failed"],
        "duplicates": counts["duplicate"],
        "known": counts["known"],
        "new": len(new),
        "new_stable": int((above <= 0).sum()),
        "new_within_0.05": int((above <= STABLE).sum()),
        "best_new": float(above.min()) if len(new) else None,
        "known_stable": len(stable),
        "known_stable_found": len(set(own["known_as"]) & stable),
        "rank_correlation": {
            "predicted": _correlation(with_energy, "predicted_e_above_hull"),
            "corrected": _correlation(with_energy, "corrected_e_above_hull"),
            "corrected_last_round": _last(with_energy),
        },
        "rounds": [
            {
                "round": one["round"] + 1,
                **{name: one[name] for name in ("drawn", "ess", "placed", "without_energy", "correction")},
                "chosen": len(one["chosen"]),
            }
            for one in rounds
        ],
    }


def _last(frame: pd.DataFrame) -> float | None:
    rounds, sizes = np.unique(frame["round"].to_numpy(dtype=int), return_counts=True)
    large = rounds[sizes >= 4]
    return _correlation(frame.loc[frame["round"] == large[-1]], "corrected_e_above_hull") if len(large) else None


def _correlation(frame: pd.DataFrame, name: str) -> float | None:
    """Spearman's rank correlation with the relaxed energy; None of fewer than three or of equal values."""
    if len(frame) < 3:
        return None
    one, other = frame[name].rank().to_numpy(), frame["e_above_hull"].rank().to_numpy()
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])
