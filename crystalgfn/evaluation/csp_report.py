"""Match rates of structure prediction and tables of them, from the records of ``crystalgfn.evaluation.csp``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from crystalgfn.evaluation.record import markdown
from crystalgfn.tables import groups

AT = (1, 5, 20)
"""Numbers of structures that match rates are reported at."""
FREEDOM = {"0": (0, 0), "1-2": (1, 2), "3-5": (3, 5), "6-14": (6, 14), "> 14": (15, 10**6)}
"""Bins of the number of free coordinates."""


def rate(records: Iterable[Mapping[str, Any]], k: int, filtered: bool = False) -> float:
    """Share of the crystals found within the first ``k`` structures; ``filtered``: by DiffCSP's protocol."""
    hits = [_best(record, k, filtered) is not None for record in records]
    return float(np.mean(hits)) if hits else float("nan")


def rmse(records: Iterable[Mapping[str, Any]], k: int, filtered: bool = False) -> float:
    """Mean over the crystals found of the smallest rms displacement within the first ``k`` structures."""
    found = [value for record in records if (value := _best(record, k, filtered)) is not None]
    return float(np.mean(found)) if found else float("nan")


def figures(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Match rates and RMSE at 1, 5 and 20 of every task and method."""
    pairs = dict.fromkeys((r["task"], r["method"]) for r in records)
    found = []
    for task, method in pairs:
        part = [r for r in records if r["task"] == task and r["method"] == method]
        rates = {f"rate_{k}": rate(part, k) for k in AT} | {f"filtered_{k}": rate(part, k, True) for k in AT}
        found.append({"task": task, "method": method, "crystals": len(part), **rates, "rmse_1": rmse(part, 1)})
    return found


def _best(record: Mapping[str, Any], k: int, filtered: bool) -> float | None:
    pairs = zip(record["rms"][:k], record["valid"][:k], strict=True)
    return min((rms for rms, valid in pairs if rms is not None and (valid or not filtered)), default=None)


def tables(records: Sequence[Mapping[str, Any]], baseline: str = "templates") -> str:
    """Markdown: match rates of every task and method, by freedom and by crystal system.

    Also on the crystals for which ``baseline`` offers nothing, and on those where its first structure is wrong.
    """
    pairs = list(dict.fromkeys((r["task"], r["method"]) for r in records))
    parts = ["## All crystals", _rates(records, pairs)]
    for task in dict.fromkeys(task for task, _ in pairs):
        own = {r["where"]: r for r in records if r["task"] == task and r["method"] == baseline}
        none = {where for where, r in own.items() if not r["rms"]}
        wrong = {where for where, r in own.items() if r["rms"] and r["rms"][0] is None}
        for words, chosen in ((f"without one of the {baseline}", none), (f"first of the {baseline} is wrong", wrong)):
            part = [r for r in records if r["where"] in chosen and r["task"] == task]
            if part:
                parts += [f"## {task}: {words}", _rates(part, [p for p in pairs if p[0] == task])]
    freedom = {name: [r for r in records if low <= r["free"] <= high] for name, (low, high) in FREEDOM.items()}
    parts += ["## By free coordinates (match rate at 1 / 20)", _by(pairs, freedom)]
    systems = {name: [r for r in records if r["system"] == name] for name in groups.CRYSTAL_LATTICE_SYSTEMS}
    systems = {name: part for name, part in systems.items() if part}
    parts += ["## By lattice system (match rate at 1 / 20)", _by(pairs, systems)]
    return "\n\n".join(parts)


def _rates(records: Sequence[Mapping[str, Any]], pairs: Sequence[tuple[str, str]]) -> str:
    columns = ["task", "method", "crystals", *(f"@{k}, %" for k in AT), *(f"filtered @{k}, %" for k in (AT[0], AT[-1]))]
    columns += [f"RMSE @{AT[0]}", f"RMSE @{AT[-1]}", "no structure, %", "s a structure"]
    rows = []
    for task, method in pairs:
        part = [r for r in records if r["task"] == task and r["method"] == method]
        made = sum(len(r["rms"]) for r in part)
        rates = [100 * rate(part, k) for k in AT] + [100 * rate(part, k, True) for k in (AT[0], AT[-1])]
        empty = 100 * float(np.mean([not r["rms"] for r in part])) if part else float("nan")
        seconds = sum(r["seconds"] for r in part) / max(1, made)
        rows.append([task, method, len(part), *rates, rmse(part, AT[0]), rmse(part, AT[-1]), empty, seconds])
    return markdown(columns, rows)


def _by(pairs: Sequence[tuple[str, str]], bins: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    rows = []
    for task, method in pairs:
        row: list[Any] = [task, method]
        for records in bins.values():
            part = [r for r in records if r["task"] == task and r["method"] == method]
            row.append(f"{100 * rate(part, 1):.1f} / {100 * rate(part, AT[-1]):.1f} ({len(part)})" if part else "")
        rows.append(row)
    return markdown(["task", "method", *bins], rows)
