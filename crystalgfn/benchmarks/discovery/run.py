"""The benchmark: each method in each system, kept as it is done; figures of each, and of all systems together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crystalgfn.benchmarks.discovery.methods import METHODS, DiscoverySettings, Relaxations
from crystalgfn.benchmarks.discovery.systems import HeldBackSystem
from crystalgfn.discovery.phases import SAME_ENERGY, KnownPhase, formula_key_of
from crystalgfn.evaluation.metrics.compositions import amounts
from crystalgfn.evaluation.metrics.novelty import SAME, Comparer
from crystalgfn.utils.progress import Bar
from crystalgfn.utils.provenance import markdown_table
from crystalgfn.utils.run_folder import Journal
from crystalgfn.utils.statistics import bootstrap_mean

NEAR = 0.05
"""eV/atom above the hull of all phases, at most."""
KEPT = "discovery.jsonl"
SUMMED = ("targets", "relaxations", "evaluations", "seconds")


def run_discovery(
    systems: Sequence[HeldBackSystem],
    settings: DiscoverySettings,
    methods: Sequence[str],
    out: Path,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """A record of each method in each system; what the folder holds already is not done again.

    A method that was interrupted goes on in its own folder, ``<out>/<system>/<method>``.

    Args:
        systems: of `choose_systems`.
        settings: that all methods share.
        methods: names of `METHODS`.
        out: the folder.
        progress: shows a bar.

    Raises:
        CalculatorError: the calculator relaxes nothing in a system.
    """
    journal = Journal(out / KEPT, ("system", "method"))
    pairs = [(system, name) for system in systems for name in methods]
    done = sum((system.name, name) in journal for system, name in pairs)
    with Bar(total=len(pairs), initial=done, description="discovering", shown=progress, smoothing=0) as bar:
        for system, name in pairs:
            if (system.name, name) in journal:
                continue
            bar.note(f"{system.name}, {name}")
            start = time.perf_counter()
            relaxed = METHODS[name](system, settings, out / system.name / name)
            seconds = round(time.perf_counter() - start, 3)
            journal.add({"system": system.name, "method": name, **score_discovery(system, relaxed), "seconds": seconds})
            bar.update()
    return [journal.records[system.name, name] for system, name in pairs]


def score_discovery(system: HeldBackSystem, relaxed: Relaxations) -> dict[str, Any]:
    """What a method found in a system.

    ``found`` are the targets that a relaxed structure is by StructureMatcher, or whose formula it has within 0.02
    eV/atom; ``near`` are relaxed structures, each once, within 0.05 eV/atom of the hull of all phases, the targets
    included; ``best`` is the lowest energy of each target's formula over the target's, eV/atom.
    """
    structures, energies = relaxed.structures, relaxed.energies
    comparer = Comparer(SAME)
    reduced = [comparer.reduced(one) for one in structures]
    keys = [formula_key_of(tuple(amounts(one).items())) for one in structures]
    met = {target.identifier: _meets(target, comparer, reduced, keys, energies) for target in system.targets}
    return {
        "targets": len(system.targets),
        "found": [name for name, (is_found, _) in met.items() if is_found],
        "best": {name: gap for name, (_, gap) in met.items()},
        "relaxations": relaxed.spent,
        "evaluations": relaxed.evaluations,
        "near": _distinct_near(system, relaxed, comparer, reduced, keys),
        "rank_correlation": relaxed.rank_correlation,
    }


def _meets(
    target: KnownPhase, comparer: Comparer, reduced: Sequence[Any], keys: Sequence[str], energies: Sequence[float]
) -> tuple[bool, float | None]:
    """Whether a target was found, and the lowest energy of its formula over its own."""
    own = [i for i, key in enumerate(keys) if key == formula_key_of(target.amounts)]
    truth = None if target.entry is None else comparer.reduced(target.entry.structure())
    near = [abs(energies[i] - target.energy) <= SAME_ENERGY for i in own]
    same = [truth is not None and comparer.same(reduced[i], truth) for i in own]
    return any(near) or any(same), min((energies[i] - target.energy for i in own), default=None)


def _distinct_near(
    system: HeldBackSystem, relaxed: Relaxations, comparer: Comparer, reduced: Sequence[Any], keys: Sequence[str]
) -> int:
    structures, energies = relaxed.structures, relaxed.energies
    kept: list[int] = []
    for i, (structure, energy) in enumerate(zip(structures, energies, strict=True)):
        if system.everything.above(structure, energy) <= NEAR and not any(
            keys[i] == keys[j] and comparer.same(reduced[i], reduced[j]) for j in kept
        ):
            kept.append(i)
    return len(kept)


def discovery_figures(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each method over all systems; the share found per relaxation near the hull has a bootstrap over systems."""
    names = dict.fromkeys(one["method"] for one in records)
    figures = {name: _figures([one for one in records if one["method"] == name]) for name in names}
    return {"methods": figures, "records": [dict(one) for one in records]}


def _figures(own: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of one method."""
    totals = pd.DataFrame([{name: one[name] for name in SUMMED} for one in own]).sum()
    found, targets = sum(len(one["found"]) for one in own), int(totals["targets"])
    gaps = [gap for one in own for gap in one["best"].values() if gap is not None]
    ranks = pd.Series([one["rank_correlation"] for one in own], dtype=float).dropna()
    rate = bootstrap_mean(np.array([[one["near"] / max(one["relaxations"], 1)] for one in own]))
    return {
        "systems": len(own),
        "targets": targets,
        "found": found,
        "share_found": found / max(targets, 1),
        "near_per_relaxation": {name: float(getattr(rate, name)[0]) for name in ("value", "low", "high")},
        "median_rank_correlation": float(ranks.median()) if len(ranks) else None,
        "formulas_met": len(gaps),
        "median_gap_of_met_formulas": float(np.median(gaps)) if gaps else None,
        "relaxations": int(totals["relaxations"]),
        "evaluations": int(totals["evaluations"]),
        "seconds": round(float(totals["seconds"]), 1),
    }


def discovery_tables(figures: Mapping[str, Any]) -> str:
    """A table of the methods, and one of the systems."""
    head = [
        "method", "stable phases found", "share", "within 0.05 eV/atom per relaxation", "95 %", "relaxations",
        "evaluations", "rank correlation", "s",
    ]  # fmt: skip
    rows = [
        [
            name, f"{one['found']} of {one['targets']}", one["share_found"], one["near_per_relaxation"]["value"],
            f"{one['near_per_relaxation']['low']:.2f}-{one['near_per_relaxation']['high']:.2f}", one["relaxations"],
            one["evaluations"], one["median_rank_correlation"], one["seconds"],
        ]
        for name, one in figures["methods"].items()
    ]  # fmt: skip
    each = [
        [one["system"], one["method"], f"{len(one['found'])} of {one['targets']}", one["near"], one["relaxations"]]
        for one in figures["records"]
    ]
    names = ["system", "method", "found", "within 0.05 eV/atom", "relaxations"]
    return f"{markdown_table(head, rows)}\n\n{markdown_table(names, each)}"
