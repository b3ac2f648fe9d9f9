"""Match rates and RMSE of the predictions of one method on one task, at every number of structures k = 1 ... K.

Match rates and RMSE of each crystal's own structures; and METRe and cRMSE (Martirossyan et al., All that structure
matches does not glitter, arXiv 2509.12178, 2025), where every crystal is compared with all structures predicted for its
reduced formula, so that it does not matter which of two polymorphs a structure was made for: METRe is the share of the
reference crystals that any of them matches, cRMSE the mean over all reference crystals of the smallest rms, with
stol where none matches. No rms of a match exceeds stol, so a miss is never better than a match.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crystalgfn.evaluation.metrics.matching import TOLERANCES
from crystalgfn.structures.ground_state import CLOSEST
from crystalgfn.utils.statistics import Interval, bootstrap_mean

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
        everyone = None if self.everyone is None else self.everyone[rows]
        records = [self.records[i] for i in rows]
        return Scores(
            records=records,
            own=self.own[rows],
            filtered=self.filtered[rows],
            everyone=everyone,
            recall=self.recall[rows],
        )

    def intervals(self, seed: int = 0) -> dict[str, Interval]:
        """``rate``, ``filtered``, ``rmse``, and where records allow ``metre`` and ``crmse``, each at k = 1 ... K."""
        hits = np.isfinite(self.own)
        found = {
            "rate": bootstrap_mean(hits.astype(float), seed=seed),
            "filtered": bootstrap_mean(np.isfinite(self.filtered).astype(float), seed=seed),
            "rmse": bootstrap_mean(self.own, hits, seed),
        }
        if self.everyone is not None:
            matched = np.isfinite(self.everyone)
            found["metre"] = bootstrap_mean(matched.astype(float), seed=seed)
            found["crmse"] = bootstrap_mean(np.where(matched, self.everyone, STOL), seed=seed)
        return found

    def recalled(self, seed: int = 0) -> tuple[int, int, Interval]:
        """Formulas with two or more known polymorphs, how many polymorphs these have, and the mean share found."""
        rows: dict[str, list[int]] = defaultdict(list)
        for i, record in enumerate(self.records):
            if len(record.get("polymorphs", ())) > 1:
                rows[record["formula"]].append(i)
        k = self.own.shape[1]
        shares = _stack([self.recall[some].mean(axis=0) for some in rows.values()], k)
        polymorphs = sum(len(self.records[some[0]]["polymorphs"]) for some in rows.values())
        return len(rows), polymorphs, bootstrap_mean(shares, seed=seed)

    def made(self) -> dict[str, float | int | None]:
        """Of what was returned.

        ``valid``: share of the structures with no pair closer than 0.7 of the sum of radii, own images included;
        ``empty``: share of the crystals without a structure; ``faulty``: share of the structures that cannot be read;
        ``seconds`` and ``cpu_seconds`` a structure. None where it is not known.
        """
        structures = sum(len(record["rms"]) for record in self.records)
        ratios = [one for record in self.records for one in record.get("ratio", ()) if one is not None]
        faults = sum(len(record.get("faults", ())) for record in self.records)
        empty = sum(len(record["rms"]) == len(record.get("faults", ())) for record in self.records)
        found: dict[str, float | int | None] = {
            "structures": structures,
            "valid": float(np.mean(np.array(ratios) >= CLOSEST)) if ratios else None,
            "empty": empty / len(self.records) if self.records else None,
            "faulty": faults / structures if structures else None,
        }
        for name in ("seconds", "cpu_seconds"):
            spent = [record.get(name) for record in self.records]
            known = structures > 0 and None not in spent
            found[name] = sum(spent) / structures if known else None
        return found


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
