"""How far placed atoms are from rest, placed in several ways, on the same crystals, by CHGNet.

CHGNet, not DFT. Cells are kept. A crystal counts only where every way gave a structure and CHGNet relaxed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.benchmarks.csp.outside import Pyxtal
from crystalgfn.benchmarks.csp.run import CSPQuery
from crystalgfn.calculators.chgnet import relax
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.symmetry import symmetry
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


@dataclass(frozen=True)
class PlacementOutcome:
    """One crystal, placed in one way.

    Attributes:
        above: energy before relaxation over that after it, eV/atom.
        moved: root mean square displacement of the atoms, Å.
        steps: of the relaxation.
        converged: whether it came to rest.
        kept: whether the group afterwards is the one asked for.
        energy: after relaxation, CHGNet's total energy, eV/atom.
        reason: why there are no figures; None where there are.
    """

    above: float = float("nan")
    moved: float = float("nan")
    steps: int = 0
    converged: bool = False
    kept: bool = False
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
        what = CSPQuery(int(crystals.space_group[i]), crystals.counts(i), crystals.lattice[i].cpu().numpy(), None)
        made = Pyxtal()(what, 1, seed + i)
        found.append((made[0], "") if made else (None, "pyxtal finds no crystal"))
    return found


def measure(
    crystals: Crystals,
    placed: Sequence[tuple[Structure | None, str]],
    max_steps: int = MAX_STEPS,
    progress: bool = False,
) -> list[PlacementOutcome]:
    """Relax what was placed, each crystal in its cell, and compare.

    Args:
        crystals: [B].
        placed: of `place`, [B].
        max_steps: of the relaxation.
        progress: shows a bar.

    Raises:
        NotAvailable: CHGNet is not installed.
    """
    found = [PlacementOutcome(reason=reason) for _, reason in placed]
    starts = [(i, one.get_primitive_structure()) for i, (one, _) in enumerate(placed) if one is not None]
    relaxed = relax([structure for _, structure in starts], max_steps, progress=progress)
    for (i, before), after in zip(starts, relaxed, strict=True):
        if after.structure is None:
            found[i] = PlacementOutcome(reason=after.error or "no energy")
            continue
        gaps = after.structure.frac_coords - before.frac_coords
        moved = (gaps - np.rint(gaps)) @ before.lattice.matrix
        moved -= moved.mean(axis=0)
        numbers = np.array([site.specie.Z for site in after.structure])
        group = symmetry((after.structure.lattice.matrix, after.structure.frac_coords, numbers), SYMPREC)
        found[i] = PlacementOutcome(
            after.start_energy - after.energy,
            float(np.sqrt((moved**2).sum(axis=1).mean())),
            after.steps,
            after.converged,
            group is not None and group.number == int(crystals.space_group[i]),
            after.energy,
        )
    return found


def table(ways: dict[str, Sequence[PlacementOutcome]]) -> str:
    """Markdown: medians and shares over the crystals that all ways have figures for, failures beside."""
    both = [i for i in range(len(next(iter(ways.values())))) if all(own[i].reason is None for own in ways.values())]
    columns = [
        "atoms placed", "crystals", "failed", "above the relaxed one, eV/atom: median", "mean", "moved, Å: median",
        "steps: median", "at rest, %", "group kept, %", "energy after, eV/atom: median",
    ]  # fmt: skip
    rows = []
    for name, own in ways.items():
        some = [own[i] for i in both]
        above, moved, steps, energy = (
            np.array([getattr(o, f) for o in some]) for f in ("above", "moved", "steps", "energy")
        )
        shares = [100 * float(np.mean([getattr(o, f) for o in some])) for f in ("converged", "kept")]
        failed = sum(o.reason is not None for o in own)
        middle = [float(np.median(above)), float(above.mean()), float(np.median(moved)), float(np.median(steps))]
        # a median, since atoms that fall into each other have any energy
        rows.append([name, len(some), failed, *middle, *shares, float(np.median(energy))])
    words = "CHGNet, not DFT; cells kept; crystals that every way placed and CHGNet relaxed."
    parts = [markdown_table(columns, rows), words]
    if len(ways) == 2 and both:
        one, other = ([own[i] for i in both] for own in ways.values())
        better = np.mean([b.above < a.above for a, b in zip(one, other, strict=True)])
        lower = np.mean([b.energy < a.energy + 1e-3 for a, b in zip(one, other, strict=True)])
        parts.append(
            f"{list(ways)[1]} is nearer to rest for {100 * better:.0f} % of the crystals, and as low or lower after "
            f"relaxation for {100 * lower:.0f} %."
        )
    return "\n\n".join(parts)


def figures(ways: dict[str, Sequence[PlacementOutcome]]) -> dict[str, list[dict[str, Any]]]:
    """All outcomes, for machines."""
    return {name: [asdict(outcome) for outcome in own] for name, own in ways.items()}
