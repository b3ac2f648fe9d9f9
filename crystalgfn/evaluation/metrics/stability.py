"""Relaxation and energies above a reference's hull, with CHGNet: a second opinion, not DFT.

Potentials overestimate how many crystals are stable; no figure here is one of DFT. Needs the extra ``[relax]``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.standardize import nearest_ratio
from crystalgfn.data.structures import CELL
from crystalgfn.evaluation.metrics.compositions import amounts, composition_row
from crystalgfn.evaluation.metrics.distributions import Spread, spread
from crystalgfn.properties.convex_hull import MOST, ExactHull
from crystalgfn.structures.ground_state import MAX_FORCE
from crystalgfn.utils.statistics import Share, share, share_of

if TYPE_CHECKING:
    import pandas as pd
    from pymatgen.core import Structure

LABEL = "CHGNet, not DFT"
METASTABLE = 0.1
"""eV/atom above the hull, at most."""
STEPS = 100
CLOSEST = 0.6
"""Of the sum of radii; a structure with a closer pair, before or after, has no energy. All of MP-20 val lie above."""


@dataclass(frozen=True)
class Job:
    """A structure to relax.

    Attributes:
        index: of its row.
        structure: where the relaxation starts, best a primitive cell.
        steps: at most.
        max_force: eV/Å; converged when no atom, nor the cell, feels more.
    """

    index: int
    structure: Structure
    steps: int = STEPS
    max_force: float = MAX_FORCE


def relax_job(job: Job) -> dict[str, Any]:
    """Relax atoms and cell; the record of what came of it.

    Energies are formation energies on MP-20's scale in eV/atom, which `energy_references` makes of
    CHGNet's. ``displacement`` is the root mean square over the atoms, in Å, without a common drift and in the relaxed
    cell.
    ``error`` says why a structure has no energy; None where it has one.

    Raises:
        NotAvailable: CHGNet is not installed.
    """
    from crystalgfn.calculators.chgnet import relax

    start = time.perf_counter()
    record: dict[str, Any] = {"index": job.index, "error": None}
    if not job.structure.is_ordered:
        return {**record, "error": "partially occupied sites have no CHGNet energy; order them first", "seconds": 0.0}
    ratio = nearest_ratio(job.structure)
    if ratio < CLOSEST:
        words = f"two atoms are closer than {CLOSEST} of the sum of their radii ({ratio:.2f}), so it is not relaxed"
        return {**record, "error": words, "seconds": 0.0}
    found = relax([job.structure], job.steps, fixed_cell=False, max_force=job.max_force)[0]
    record["seconds"] = time.perf_counter() - start
    if found.structure is None:
        return {**record, "error": found.error or "CHGNet has no energy for it"}
    energy = _formation(job.structure, found.energy)
    if not np.isfinite(energy):
        return {**record, "error": "an element has no reference energy"}
    if nearest_ratio(found.structure) < CLOSEST:
        return {**record, "error": "atoms ran into each other while it relaxed"}
    return {
        **record,
        "formation_energy": energy,
        "start_energy": _formation(job.structure, found.start_energy),
        "converged": bool(found.converged),
        "steps": found.steps,
        "strain": found.strain,
        "volume_ratio": found.volume_ratio,
        "displacement": displacement(job.structure, found.structure),
        "relaxed_cell": list(found.structure.lattice.parameters),
        "relaxed_Z": [site.specie.Z for site in found.structure],
        "relaxed_frac": found.structure.frac_coords.ravel().tolist(),
    }


def _formation(structure: Structure, energy: float) -> float:
    from crystalgfn.calculators.energy_references import shipped

    composition = np.zeros((1, 118))
    for z, n in amounts(structure).items():
        composition[0, z - 1] = n
    return float(shipped().formation_energy(composition, np.array([energy]))[0])


def displacement(before: Structure, after: Structure) -> float:
    """Root mean square displacement of atoms in the same order, Å, without drift, in the cell after."""
    gaps = after.frac_coords - before.frac_coords
    gaps = gaps - np.rint(gaps)
    gaps = gaps - gaps.mean(axis=0)
    return float(np.sqrt(((gaps @ after.lattice.matrix) ** 2).sum(axis=1).mean()))


def relaxed_structure(record: Mapping[str, Any]) -> Structure:
    """The relaxed structure of a record without an error."""
    from pymatgen.core import Lattice, Structure

    names = [elements.SYMBOLS[int(z) - 1] for z in record["relaxed_Z"]]
    points = np.array(record["relaxed_frac"], dtype=np.float64).reshape(-1, 3)
    return Structure(Lattice.from_parameters(*record["relaxed_cell"]), names, points)


def relaxation_row(record: Mapping[str, Any], hull: ExactHull | None) -> dict[str, Any]:
    """The columns of a relaxation: the record's fields and ``e_above_hull``, eV/atom.

    A composition with an element that no entry of the hull holds has no energy above it, since any compound would pass.
    """
    row = {name: value for name, value in record.items() if name not in ("index", "error", "relaxed_cell")}
    row["relax_error"] = record["error"]
    for name, value in zip(CELL, record.get("relaxed_cell") or [None] * len(CELL), strict=True):
        row[f"relaxed_{name}"] = value
    row["relax_seconds"] = row.pop("seconds")
    if record["error"] is None and hull is not None:
        numbers, counts = np.unique(record["relaxed_Z"], return_counts=True)
        missing = [elements.SYMBOLS[z - 1] for z in numbers.tolist() if z not in hull.known_elements]
        if missing:
            row["relax_error"] = f"no entry of the hull holds {missing[0]}, so its energy above it says nothing"
        elif len(numbers) > MOST:
            row["relax_error"] = f"the hull covers crystals of at most {MOST} elements, and this one has {len(numbers)}"
        else:
            composition = composition_row(zip(numbers.tolist(), counts.tolist(), strict=True))
            energy = torch.tensor([record["formation_energy"]], dtype=torch.float64)
            row["e_above_hull"] = float(hull.above(composition[None], energy))
    return row


@dataclass(frozen=True)
class Stability:
    """What relaxing a set of crystals says. Every share is of all that were chosen, those that failed as not stable.

    Attributes:
        label: what the energies are of.
        chosen: crystals that were to be relaxed.
        failures: reason -> how many have no energy above the hull.
        relaxed: share with an energy.
        converged: share that came to rest.
        stable: on or below the hull.
        metastable: at most 0.1 eV/atom above it.
        sun: stable, unique and novel; unique and novel once relaxed.
        msun: metastable (or stable), unique and novel.
        e_above_hull: eV/atom.
        relaxation_energy: eV/atom that relaxing brought.
        displacement: Å.
        volume_change: relaxed volume over the first, less 1.
        seconds: for one crystal.
        hull_entries: entries that the hull is made of.
    """

    label: str
    chosen: int
    failures: dict[str, int]
    relaxed: Share
    converged: Share
    stable: Share
    metastable: Share
    sun: Share | None
    msun: Share | None
    e_above_hull: Spread | None
    relaxation_energy: Spread | None
    displacement: Spread | None
    volume_change: Spread | None
    seconds: Spread | None
    hull_entries: int


def stability(frame: pd.DataFrame, hull_entries: int, limit: float = METASTABLE) -> Stability:
    """The summary of rows that were chosen for relaxation.

    Args:
        frame: with the columns of `relaxation_row`, and ``relaxed_unique`` and ``relaxed_novel``.
        hull_entries: what the hull is made of.
        limit: eV/atom, of metastable.
    """
    n = len(frame)
    above = frame["e_above_hull"].to_numpy(dtype=np.float64)
    stable, metastable = above <= 0.0, above <= limit  # NaN is neither
    new = frame["relaxed_unique"].eq(True).to_numpy() & frame["relaxed_novel"].eq(True).to_numpy()
    change = frame["start_energy"].astype(float) - frame["formation_energy"].astype(float)
    return Stability(
        LABEL,
        n,
        dict(Counter(_short(reason) for reason in frame["relax_error"].dropna()).most_common()),
        share(int(np.isfinite(above).sum()), n),
        share_of(frame["converged"].eq(True)),
        share(int(stable.sum()), n),
        share(int(metastable.sum()), n),
        share(int((stable & new).sum()), n),
        share(int((metastable & new).sum()), n),
        _spread(above),
        _spread(change),
        _spread(frame["displacement"]),
        _spread(frame["volume_ratio"].astype(float) - 1),
        _spread(frame["relax_seconds"]),
        hull_entries,
    )


def _short(reason: str) -> str:
    """The same for all crystals that failed in the same way."""
    return reason.partition(" (")[0].partition(";")[0]


def _spread(values: Sequence[float] | np.ndarray) -> Spread | None:
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    return spread(known) if len(known) else None
