"""Tables of structure prediction, from `crystalgfn.evaluation.csp_figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crystalgfn.evaluation.record import markdown

AT = (1, 5, 20)
"""Numbers of structures that the tables have columns for."""
FAULTS = 200
"""Crystals and structures that could not be read are listed, so many at most; the records have all."""
METRICS = {
    "rate": ("match rate", "%", 100, 1),
    "filtered": ("filtered", "%", 100, 1),
    "metre": ("METRe", "%", 100, 1),
    "rmse": ("RMSE", "", 1, 4),
    "crmse": ("cRMSE", "", 1, 4),
}
"""Name in the figures -> name in the tables, unit, factor and digits."""
MADE = {
    "valid": ("valid, %", 100),
    "empty": ("no structure, %", 100),
    "faulty": ("unreadable, %", 100),
    "seconds": ("s / structure", 1),
    "cpu_seconds": ("CPU s / structure", 1),
}
NOTES = """Intervals: 95 %, percentiles of 1,000 bootstrap resamples of the crystals; at 0 and 100 % they have no width.
Match: pymatgen's StructureMatcher (stol 0.5, angle_tol 10, ltol 0.3); every crystal counts; filtered: DiffCSP's
protocol. METRe: share of the crystals matched by any structure made for their formula, of polymorphs too. RMSE: over
the crystals found; cRMSE: over all, as for METRe, misses with 0.5. Valid: no pair of atoms closer than 0.7 of the sum
of their radii."""


def tables(found: Mapping[str, Any]) -> str:
    """Markdown of `figures`."""
    parts = []
    for name in dict.fromkeys(row["slice"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["slice"] == name]
        parts += [f"## {name[:1].upper()}{name[1:]}", markdown(*columns(rows, found["k"]))]
        parts += [NOTES] if len(parts) == 2 else []
    return "\n\n".join(filter(None, [*parts, further_tables(found)]))


def further_tables(found: Mapping[str, Any]) -> str:
    """Markdown of what is not in the main table: polymorphs, rates by kind of crystal, what went wrong."""
    parts = []
    if found["recall"]:
        parts += [
            "## Polymorphs of a formula that are found, %",
            markdown(*recall_columns(found["recall"], found["k"])),
        ]
    for name, words in (("by_freedom", "free coordinates"), ("by_system", "lattice system")):
        rows = found[name]
        if rows:
            heads = ["task", "method", *rows[0]["bins"]]
            cells = [[row["task"], row["method"], *map(_bin, row["bins"].values())] for row in rows]
            parts += [f"## By {words} (match rate at 1 / {found['k']})", markdown(heads, cells)]
    for name, words in (("unread", "Crystals that could not be asked for"), ("faults", "What methods said")):
        if found.get(name):
            parts += [f"## {words}", "\n".join(f"- {line}" for line in _listed(found[name]))]
    return "\n\n".join(parts)


def columns(rows: Sequence[Mapping[str, Any]], k: int, lead: Sequence[str] = ()) -> tuple[list[str], list[list[Any]]]:
    """Heads and cells of the main table; ``lead``: keys of further columns at the left."""
    heads = [*lead, "task", "method", "crystals"]
    ends = sorted({1, k})
    wanted = [(name, at) for name in METRICS for at in (at_of(k) if name == "rate" else ends)]
    wanted = [(name, at) for name, at in wanted if any(name in row for row in rows)]
    for name, at in wanted:
        words, unit, _, _ = METRICS[name]
        heads.append(f"{words} @{at}" + (f", {unit}" if unit else ""))
    heads += [words for words, _ in MADE.values()]
    cells = []
    for row in rows:
        line = [row[name] for name in (*lead, "task", "method", "crystals")]
        line += [_cell(row.get(name), at, *METRICS[name][2:]) for name, at in wanted]
        cells.append(line + [None if row[name] is None else factor * row[name] for name, (_, factor) in MADE.items()])
    return heads, cells


def recall_columns(rows: Sequence[Mapping[str, Any]], k: int) -> tuple[list[str], list[list[Any]]]:
    """Heads and cells of the table of polymorphs."""
    heads = ["task", "method", "formulas", "polymorphs", *(f"@{at}, %" for at in at_of(k))]
    lead = [[row[name] for name in ("task", "method", "formulas", "polymorphs")] for row in rows]
    return heads, [
        [*own, *(_cell(row["recall"], at, 100, 1) for at in at_of(k))] for own, row in zip(lead, rows, strict=True)
    ]


def at_of(k: int) -> list[int]:
    """Numbers of structures that columns are for: those of `AT` up to the ones asked for, and these."""
    return sorted({at for at in AT if at < k} | {k})


def _listed(lines: Sequence[str]) -> list[str]:
    more = [f"and {len(lines) - FAULTS:,} more"] if len(lines) > FAULTS else []
    return [*lines[:FAULTS], *more]


def _bin(one: Sequence[Any]) -> str:
    n, first, last = one
    return f"{100 * first:.1f} / {100 * last:.1f} ({n})" if n else ""


def _cell(metric: Mapping[str, Sequence[float | None]] | None, at: int, factor: float, digits: int) -> str | None:
    if metric is None or metric["value"][at - 1] is None:
        return None
    value, low, high = (f"{factor * metric[part][at - 1]:.{digits}f}" for part in ("value", "low", "high"))
    return f"{value} ({low}-{high})"
