"""How an evaluation judges crystals, and what of it a folder must go on with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from crystalgfn.calculators.base import Calculator
from crystalgfn.calculators.registry import DEFAULT
from crystalgfn.crystallography.atoms import Record, SkippedRecord
from crystalgfn.evaluation.metrics.base import Metric
from crystalgfn.evaluation.metrics.novelty import Tolerances
from crystalgfn.evaluation.metrics.symmetry import MAIN, SYMPRECS
from crystalgfn.evaluation.reference import Reference
from crystalgfn.structures.ground_state import MAX_FORCE


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """How crystals are judged.

    Attributes:
        symprecs: tolerances in Å at which space groups are looked for.
        symprec: the one whose space groups and prototypes are counted.
        tolerances: of the comparisons.
        swap: also compare with elements exchanged.
        n: samples that are judged, at most, drawn at random; None: all.
        reference_n: known crystals that properties are compared with, at most, drawn at random.
        relax_n: samples that are relaxed, at most, drawn at random; None: all.
        steps: of a relaxation, at most.
        max_force: eV/Å at which it has converged.
        calculator: relaxes, see `crystalgfn.calculators.registry.load_calculator`.
        energy_references: file of its energy references; None: those that come with the package.
        energy: the reference's column of formation energies, eV/atom.
        scale: of energies above the hull, see `crystalgfn.properties.energy_scale`.
        seed: of what is drawn at random.
    """

    symprecs: tuple[float, ...] = SYMPRECS
    symprec: float = MAIN
    tolerances: Tolerances = Tolerances()
    swap: bool = False
    n: int | None = None
    reference_n: int = 5000
    relax_n: int | None = None
    steps: int = 100
    max_force: float = MAX_FORCE
    calculator: Calculator | str = DEFAULT
    energy_references: str | None = None
    energy: str = "formation_energy_per_atom"
    scale: str = "charge"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n", "reference_n", "relax_n", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: give a whole number of at least 1")
        for name, values in (("symprecs", self.symprecs), ("symprec", [self.symprec]), ("max_force", [self.max_force])):
            if not values or min(values) <= 0:
                raise ValueError(f"{name}={list(values)}: give numbers above 0")


def some(total: int, n: int | None, seed: int) -> list[int]:
    """At most n of ``range(total)``, drawn at random, ascending."""
    if n is None or n >= total:
        return list(range(total))
    return sorted(np.random.default_rng(seed).choice(total, n, replace=False).tolist())


def settings_of(
    plan: EvaluationPlan,
    names: Mapping[str, str | None],
    samples: Sequence[Record | SkippedRecord],
    reference: Reference | None,
    metrics: Sequence[Metric],
) -> dict[str, Any]:
    """What the rows and the comparisons depend on; a folder goes on with the same only."""
    own = ("symprecs", "symprec", "swap", "reference_n", "n", "seed", "energy")
    values = {name: getattr(plan, name) for name in own}
    known = 0 if reference is None else len(reference.entries)
    content = {"samples_content": _digest(samples), "reference_entries": known}
    return {**names, **values, **asdict(plan.tolerances), **content, "metrics": [metric.name for metric in metrics]}


def _digest(samples: Sequence[Record | SkippedRecord]) -> str:
    """Of what the samples are."""
    digest = hashlib.sha256()
    for item in samples:
        digest.update(item.where.encode())
        if isinstance(item, SkippedRecord):
            continue
        atoms = item.known_atoms
        for part in (atoms.lattice, atoms.points, atoms.numbers, atoms.occupancies):
            digest.update(b"" if part is None else np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
