"""Match rates and RMSE of the predictions of one method on one task, at every number of structures k = 1 ... K.

Match rates and RMSE of each crystal's own structures; and METRe and cRMSE (Martirossyan et al., All that structure
matches does not glitter, arXiv 2509.12178, 2025), where every crystal is compared with all structures predicted for its
reduced formula, so that it does not matter which of two polymorphs a structure was made for: METRe is the share of the
reference crystals that any of them matches, cRMSE the mean over all reference crystals of the smallest rms, with
stol where none matches. No rms of a match exceeds stol, so a miss is never better than a match.
"""

from __future__ import annotations

import operator
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.distances import CLOSEST
from crystalgfn.evaluation.metrics.matching import TOLERANCES
from crystalgfn.utils.statistics import Interval, bootstrap_mean

if TYPE_CHECKING:
    pass


STOL = float(TOLERANCES["stol"])
PredictionRecord = Mapping[str, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """Predictions of one method on one task; K is the number of structures asked for.

    Attributes:
        records: n of `crystalgfn.benchmarks.csp.run.predict_target`.
        own: smallest rms within the first k structures made for the crystal, inf where none matches, [n, K].
        filtered: the same of structures that are valid by DiffCSP's protocol, [n, K].
        everyone: the same of all structures made for the crystal's formula, [n, K]; None where records lack it.
        recall: share of the polymorphs of the crystal's formula that the first k structures match, [n, K]; NaN where
            only one is known, or the record does not say.
    """

    records: Sequence[PredictionRecord]
    own: np.ndarray
    filtered: np.ndarray
    everyone: np.ndarray | None
    recall: np.ndarray

    @staticmethod
    def of(records: Sequence[PredictionRecord]) -> Scores:
        """Of all predictions of one method on one task."""
        k = max((record["k"] for record in records), default=0)
        own = _stack([best(record["rms"], k) for record in records], k)
        kept = [[r if v else None for r, v in zip(one["rms"], one["valid"], strict=True)] for one in records]
        filtered = _stack([best(values, k) for values in kept], k)
        return Scores(
            records=records,
            own=own,
            filtered=filtered,
            everyone=_everyone(records, k),
            recall=_stack([_recall(one, k) for one in records], k),
        )

    def select(self, rows: Sequence[int]) -> Scores:
        """Some of the crystals, by position; structures made for others of their formulas still count."""
        return replace(
            self,
            records=[self.records[i] for i in rows],
            own=self.own[rows],
            filtered=self.filtered[rows],
            everyone=None if self.everyone is None else self.everyone[rows],
            recall=self.recall[rows],
        )

    def intervals(self) -> dict[str, Interval]:
        """``rate``, ``filtered``, ``rmse``, and where records allow ``metre`` and ``crmse``, each at k = 1 ... K."""
        hits = np.isfinite(self.own)
        found = {
            "rate": bootstrap_mean(hits.astype(float)),
            "filtered": bootstrap_mean(np.isfinite(self.filtered).astype(float)),
            "rmse": bootstrap_mean(self.own, hits),
        }
        if self.everyone is not None:
            matched = np.isfinite(self.everyone)
            found["metre"] = bootstrap_mean(matched.astype(float))
            found["crmse"] = bootstrap_mean(np.where(matched, self.everyone, STOL))
        return found

    def recalled(self) -> tuple[int, int, Interval]:
        """Formulas with two or more known polymorphs, how many polymorphs these have, and the mean share found."""
        rows: dict[str, list[int]] = defaultdict(list)
        for i, record in enumerate(self.records):
            if len(record.get("polymorphs", ())) > 1:
                rows[record["formula"]].append(i)
        k = self.own.shape[1]
        shares = _stack([self.recall[some].mean(axis=0) for some in rows.values()], k)
        polymorphs = sum(len(self.records[some[0]]["polymorphs"]) for some in rows.values())
        return len(rows), polymorphs, bootstrap_mean(shares)

    def made(self) -> dict[str, float | int | None]:
        """Of what was returned.

        ``valid``: share of the structures with no pair closer than 0.7 of the sum of radii, own images included;
        ``empty``: share of the crystals without a structure; ``faulty``: share of the structures that cannot be read;
        ``seconds`` and ``cpu_seconds`` a structure. None where it is not known.
        """
        returned = [len(record["rms"]) for record in self.records]
        faulty = [len(record.get("faults", ())) for record in self.records]
        ratios = [one for record in self.records for one in record.get("ratio", ()) if one is not None]

        def spent(name: str) -> float | None:
            seconds = [record[name] for record in self.records if record.get(name) is not None]
            return _share(sum(seconds), sum(returned)) if len(seconds) == len(self.records) else None

        return {
            "structures": sum(returned),
            "valid": _share(sum(ratio >= CLOSEST for ratio in ratios), len(ratios)),
            "empty": _share(sum(map(operator.eq, returned, faulty)), len(self.records)),
            "faulty": _share(sum(faulty), sum(returned)),
            "seconds": spent("seconds"),
            "cpu_seconds": spent("cpu_seconds"),
        }


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def best(values: Sequence[float | None], k: int) -> np.ndarray:
    """The smallest of the first 1 ... k values, inf where there is none, [k]."""
    flat = np.full(k, np.inf)
    for i, value in enumerate(values[:k]):
        flat[i] = np.inf if value is None else value
    return np.minimum.accumulate(flat)


def _stack(rows: Sequence[np.ndarray], k: int) -> np.ndarray:
    return np.array(rows, dtype=np.float64).reshape(len(rows), k)


def _everyone(records: Sequence[PredictionRecord], k: int) -> np.ndarray | None:
    """Best of what was made for any crystal of the same formula; None where a record does not say."""
    same = defaultdict(list)
    for record in records:
        same[record["formula"]].append(record)
    found = []
    for record in records:
        where = record["where"]
        others = [one for one in same[record["formula"]] if one["where"] != where]
        if "known" not in record or any(where not in one.get("known", ()) for one in others):
            return None
        parts = [record["rms"], *(one["known"][where] for one in others)]
        found.append(np.min([best(part, k) for part in parts], axis=0))
    return _stack(found, k)


def _recall(record: PredictionRecord, k: int) -> np.ndarray:
    names = record.get("polymorphs", ())
    if len(names) < 2:
        return np.full(k, np.nan)
    values = {record["where"]: record["rms"], **record["known"]}
    return np.mean([np.isfinite(best(values[name], k)) for name in names], axis=0)


ANY_GROUP = "T4"
"""The task that tells the formula only, so that all its polymorphs may be predicted."""
METASTABLE = 0.02
"""eV/atom above the hull; crystals above it are the metastable slice. 0.1, the usual limit, MP-20 ends below."""
CHALCOGENS, OTHER_ANIONS = {"S", "Se", "Te"}, {"O", "N", "F", "Cl", "Br", "I"}
ALL = "all crystals"
"""The slice of every crystal."""
FREEDOM = {"0": (0, 0), "1-2": (1, 2), "3-5": (3, 5), "6-14": (6, 14), "> 14": (15, 10**6)}
"""Bins of the number of free coordinates."""


def csp_figures(records: Sequence[PredictionRecord], baseline: str = "templates") -> dict[str, Any]:
    """Everything that tables and page are made of, as JSON has it.

    Keys: ``k``; ``rows``, one for each slice, task and method, with the intervals of `Scores.intervals`; ``recall``;
    ``faults``; ``by_freedom`` and ``by_system``.
    """
    scores = _scores(records)
    rows, recall = [], []
    for (task, method), own in scores.items():
        where = _slices(own.records, scores.get((task, baseline)), baseline)
        for name, positions in where.items():
            part = own.select(positions)
            if part.records:
                metrics = {metric: one.columns() for metric, one in part.intervals().items()}
                about = {"slice": name, "task": task, "method": method, "crystals": len(positions)}
                rows.append({**about, **metrics, **part.made()})
        formulas, polymorphs, found = own.recalled()
        if formulas and task == ANY_GROUP:
            about = {"task": task, "method": method, "formulas": formulas, "polymorphs": polymorphs}
            recall.append({**about, "recall": found.columns()})
    return {
        "k": max((record["k"] for record in records), default=0),
        "rows": rows,
        "recall": recall,
        "faults": _faults(records),
        "by_freedom": _by(scores, FREEDOM, _freedom),
        "by_system": _by(scores, space_groups.CRYSTAL_LATTICE_SYSTEMS, lambda record: record["system"]),
    }


def chalcogenide(formula: str) -> bool:
    """Whether a formula has S, Se or Te, and no O, N or halogen that could be its anion instead."""
    present = set(re.findall(r"[A-Z][a-z]?", formula))
    return bool(present & CHALCOGENS) and not present & OTHER_ANIONS


def _scores(records: Sequence[PredictionRecord]) -> dict[tuple[str, str], Scores]:
    pairs = dict.fromkeys((r["task"], r["method"]) for r in records)
    return {pair: Scores.of([r for r in records if (r["task"], r["method"]) == pair]) for pair in pairs}


def _slices(records: Sequence[PredictionRecord], baseline: Scores | None, name: str) -> dict[str, list[int]]:
    """Positions of the crystals of each slice."""
    own = {} if baseline is None else {r["where"]: r["rms"] for r in baseline.records}
    tests: dict[str, Callable[[PredictionRecord], bool]] = {
        ALL: lambda r: True,
        "chalcogenides": lambda r: chalcogenide(r["formula"]),
        f"metastable (over {METASTABLE} eV/atom above the hull)": lambda r: (r.get("e_above_hull") or 0) > METASTABLE,
        f"without one of the {name}": lambda r: own.get(r["where"]) == [],
        f"first of the {name} is wrong": lambda r: bool(own.get(r["where"])) and own[r["where"]][0] is None,
    }
    return {words: [i for i, r in enumerate(records) if test(r)] for words, test in tests.items()}


def _faults(records: Sequence[PredictionRecord]) -> list[str]:
    """Structures that could not be read, and why crystals have none."""
    found = []
    for record in records:
        who = f"{record['method']}, {record['task']}, {record['where']}"
        found += [f"{who}: {reason}" for reason in record.get("faults", ())]
        found += [f"{who}: {record['error']}"] if record["error"] is not None else []
    return found


def _freedom(record: PredictionRecord) -> str:
    return next(name for name, (low, high) in FREEDOM.items() if low <= record["free"] <= high)


def _by(
    scores: Mapping[tuple[str, str], Scores], bins: Iterable[str], bin_of: Callable[[PredictionRecord], str]
) -> list[dict[str, Any]]:
    """Match rates at 1 and K in bins of the crystals; bins without a crystal are left out."""
    used = {bin_of(record) for own in scores.values() for record in own.records}
    rows = []
    for (task, method), own in scores.items():
        parts = {}
        for name in (one for one in bins if one in used):
            hits = np.isfinite(own.own[[bin_of(record) == name for record in own.records]])
            parts[name] = [len(hits), *(float(hits[:, i].mean()) for i in (0, -1))] if len(hits) else [0, None, None]
        rows.append({"task": task, "method": method, "bins": parts})
    return rows
