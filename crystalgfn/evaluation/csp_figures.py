"""All figures of structure prediction, from the records of ``crystalgfn.evaluation.csp``: what tables and page show."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from crystalgfn.evaluation.csp_scores import Record, Scores
from crystalgfn.tables import groups

ANY_GROUP = "T4"
"""The task that tells the formula only, so that all its polymorphs may be answered."""
METASTABLE = 0.02
"""eV/atom above the hull; crystals above it are the metastable slice. 0.1, the usual limit, MP-20 ends below."""
CHALCOGENS, OTHER_ANIONS = {"S", "Se", "Te"}, {"O", "N", "F", "Cl", "Br", "I"}
FREEDOM = {"0": (0, 0), "1-2": (1, 2), "3-5": (3, 5), "6-14": (6, 14), "> 14": (15, 10**6)}
"""Bins of the number of free coordinates."""


def figures(records: Sequence[Record], baseline: str = "templates") -> dict[str, Any]:
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
        "by_freedom": _by(scores, {name: _between(*limits) for name, limits in FREEDOM.items()}),
        "by_system": _by(scores, {name: _of_system(name) for name in groups.CRYSTAL_LATTICE_SYSTEMS}),
    }


def chalcogenide(formula: str) -> bool:
    """Whether a formula has S, Se or Te, and no O, N or halogen that could be its anion instead."""
    present = set(re.findall(r"[A-Z][a-z]?", formula))
    return bool(present & CHALCOGENS) and not present & OTHER_ANIONS


def _scores(records: Sequence[Record]) -> dict[tuple[str, str], Scores]:
    pairs = dict.fromkeys((r["task"], r["method"]) for r in records)
    return {pair: Scores.of([r for r in records if (r["task"], r["method"]) == pair]) for pair in pairs}


def _slices(records: Sequence[Record], baseline: Scores | None, name: str) -> dict[str, list[int]]:
    """Positions of the crystals of each slice."""
    own = {} if baseline is None else {r["where"]: r["rms"] for r in baseline.records}
    tests: dict[str, Callable[[Record], bool]] = {
        "all crystals": lambda r: True,
        "chalcogenides": lambda r: chalcogenide(r["formula"]),
        f"metastable (over {METASTABLE} eV/atom above the hull)": lambda r: (r.get("e_above_hull") or 0) > METASTABLE,
        f"without one of the {name}": lambda r: own.get(r["where"]) == [],
        f"first of the {name} is wrong": lambda r: bool(own.get(r["where"])) and own[r["where"]][0] is None,
    }
    return {words: [i for i, r in enumerate(records) if test(r)] for words, test in tests.items()}


def _faults(records: Sequence[Record]) -> list[str]:
    """Structures that could not be read, and why crystals have none."""
    found = []
    for record in records:
        who = f"{record['method']}, {record['task']}, {record['where']}"
        found += [f"{who}: {reason}" for reason in record.get("faults", ())]
        found += [f"{who}: {record['error']}"] if record["error"] is not None else []
    return found


def _between(low: int, high: int) -> Callable[[Record], bool]:
    return lambda record: low <= record["free"] <= high


def _of_system(name: str) -> Callable[[Record], bool]:
    return lambda record: record["system"] == name


def _by(scores: Mapping[tuple[str, str], Scores], bins: Mapping[str, Callable[[Record], bool]]) -> list[dict[str, Any]]:
    """Match rates at 1 and K in bins of the crystals; bins without a crystal are left out."""
    used = {name: test for name, test in bins.items() if any(test(r) for own in scores.values() for r in own.records)}
    rows = []
    for (task, method), own in scores.items():
        parts = {}
        for name, test in used.items():
            hits = np.isfinite(own.own[[test(record) for record in own.records]])
            parts[name] = [len(hits), *(float(hits[:, i].mean()) for i in (0, -1))] if len(hits) else [0, None, None]
        rows.append({"task": task, "method": method, "bins": parts})
    return rows
