"""How far placed atoms are from a relaxed structure, placed in several ways, on the same crystals, by a calculator.

Cells are kept. A crystal counts only where every way gave a structure and the calculator relaxed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.benchmarks.csp.outside import Pyxtal
from crystalgfn.benchmarks.csp.run import CSPQuery
from crystalgfn.calculators.base import Calculator
from crystalgfn.calculators.registry import DEFAULT
from crystalgfn.calculators.relaxation import relax
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.symmetry import symmetry
from crystalgfn.evaluation.relaxation_job import displacement
from crystalgfn.structures.build import build_structures
from crystalgfn.structures.refiner.refiner import DiffusionRefiner
from crystalgfn.utils.progress import Bar
from crystalgfn.utils.provenance import markdown_table

if TYPE_CHECKING:
    from pymatgen.core import Structure

WAYS = {"pyxtal": "by pyxtal", "random": "at random", "refiner": "by the refiner"}
"""How atoms can be placed: pyxtal's random crystals as they come, our own placement at random, the refiner."""
SYMPREC = 0.1
"""Å; of the group after relaxation."""
MAX_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class PlacementOutcome:
    """One crystal, placed in one way.

    Attributes:
        energy_above_relaxed: energy before relaxation over that after it, eV/atom.
        rmsd: root mean square displacement of the atoms, Å.
        steps: of the relaxation.
        converged: whether it converged.
        symmetry_preserved: whether the space group afterwards is the one asked for.
        energy: after relaxation, the calculator's total energy, eV/atom.
        reason: why there are no figures; None where there are.
    """

    energy_above_relaxed: float = float("nan")
    rmsd: float = float("nan")
    steps: int = 0
    converged: bool = False
    symmetry_preserved: bool = False
    energy: float = float("nan")
    reason: str | None = None


def place(
    way: str, crystals: Crystals, refiner: DiffusionRefiner, seed: int = 0, progress: bool = False
) -> list[tuple[Structure | None, str]]:
    """A structure of each crystal by one of `WAYS`, or None and why there is none."""
    if way != "pyxtal":
        built = build_structures(crystals, 1, refiner if way == "refiner" else None, seed=seed, progress=progress)
        return [(one.structure, one.error or "") for one in built]
    found: list[tuple[Structure | None, str]] = []
    for i in Bar(range(len(crystals)), description="placing with pyxtal", shown=progress):
        what = CSPQuery(
            space_group=int(crystals.space_group[i]),
            counts=crystals.counts(i),
            lattice=crystals.lattice[i].cpu().numpy(),
        )
        made = Pyxtal()(what, 1, seed + i)
        found.append((made[0], "") if made else (None, "pyxtal finds no crystal"))
    return found


def measure_placement(
    crystals: Crystals,
    placed: Sequence[tuple[Structure | None, str]],
    calculator: Calculator | str = DEFAULT,
    progress: bool = False,
) -> list[PlacementOutcome]:
    """Relax with a calculator what `place` gave for each crystal [B], in its cell, and compare.

    Raises:
        NotAvailable: the calculator's package is not installed.
    """
    found = [PlacementOutcome(reason=reason) for _, reason in placed]
    starts = [(i, one.get_primitive_structure()) for i, (one, _) in enumerate(placed) if one is not None]
    relaxed = relax([structure for _, structure in starts], calculator, MAX_STEPS, progress=progress)
    for (i, before), after in zip(starts, relaxed, strict=True):
        if after.structure is None:
            found[i] = PlacementOutcome(reason=after.error or "no energy")
            continue
        numbers = np.array([site.specie.Z for site in after.structure])
        group = symmetry((after.structure.lattice.matrix, after.structure.frac_coords, numbers), SYMPREC)
        found[i] = PlacementOutcome(
            energy_above_relaxed=after.start_energy - after.energy,
            rmsd=displacement(before, after.structure),
            steps=after.steps,
            converged=after.converged,
            symmetry_preserved=group is not None and group.number == int(crystals.space_group[i]),
            energy=after.energy,
        )
    return found


def placement_table(ways: dict[str, Sequence[PlacementOutcome]], calculator: str) -> str:
    """Markdown: medians and shares over the crystals that all ways have figures for; ``calculator``: its name."""
    both = [i for i in range(len(next(iter(ways.values())))) if all(own[i].reason is None for own in ways.values())]
    columns = [
        "atoms placed", "crystals", "failed", "above the relaxed one, eV/atom: median", "mean", "RMSD, Å: median",
        "steps: median", "converged, %", "space group kept, %", "energy after, eV/atom: median",
    ]  # fmt: skip
    rows = [_row(name, own, both) for name, own in ways.items()]
    words = f"{calculator}, not DFT; cells kept; crystals that every way placed and it relaxed."
    parts = [markdown_table(columns, rows), words]
    if len(ways) == 2 and both:
        one, other = ([own[i] for i in both] for own in ways.values())
        better = np.mean([b.energy_above_relaxed < a.energy_above_relaxed for a, b in zip(one, other, strict=True)])
        lower = np.mean([b.energy < a.energy + 1e-3 for a, b in zip(one, other, strict=True)])
        parts.append(
            f"{list(ways)[1]} is nearer to the relaxed structure for {100 * better:.0f} % of the crystals, and no "
            f"higher after relaxation for {100 * lower:.0f} %."
        )
    return "\n\n".join(parts)


def _row(name: str, own: Sequence[PlacementOutcome], both: Sequence[int]) -> list[Any]:
    some = [own[i] for i in both]

    def values(field: str) -> np.ndarray:
        return np.array([getattr(one, field) for one in some], dtype=np.float64)

    above = values("energy_above_relaxed")
    middles = [float(np.median(values(field))) for field in ("rmsd", "steps")]
    shares = [100 * float(np.mean(values(field))) for field in ("converged", "symmetry_preserved")]
    failed = sum(one.reason is not None for one in own)
    # a median, since atoms that fall into each other have any energy
    energy = float(np.median(values("energy")))
    return [name, len(some), failed, float(np.median(above)), float(above.mean()), *middles, *shares, energy]
