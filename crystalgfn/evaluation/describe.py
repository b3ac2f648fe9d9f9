"""One row a structure: what it is, the columns of all metrics, and its primitive cell to build it again from."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.atoms import CELL, Atoms, Record, SkippedRecord, structure_of
from crystalgfn.evaluation.metrics.base import DescribedCrystal, Metric
from crystalgfn.evaluation.metrics.compositions import amounts
from crystalgfn.evaluation.metrics.registry import BUILT_IN
from crystalgfn.evaluation.metrics.symmetry import MAIN, SYMPRECS, symmetry_of

if TYPE_CHECKING:
    from pymatgen.core import Structure

U_PER_A3 = 1.66053906660
"""g/cm3 of one atomic mass unit in 1 Å3."""


@dataclass(frozen=True)
class Describer:
    """How crystals are described; an object that can be sent to other processes.

    Attributes:
        symprecs: tolerances in Å at which space groups are looked for.
        main: the one whose groups and prototypes count.
        metrics: whose columns a row has.
    """

    symprecs: Sequence[float] = SYMPRECS
    main: float = MAIN
    metrics: Sequence[Metric] = BUILT_IN

    def row(self, sample: Record) -> dict[str, Any]:
        """The row of a crystal.

        Columns: ``where``, formula, sizes, density, those of the metrics, the primitive cell at the tightest tolerance
        (``cell_a`` ..., ``Z``, ``frac``; ``sites`` where it is disordered), ``source_...`` for what the source says.
        """
        crystal = self.crystal(sample)
        primitive = crystal.primitive
        occupied = amounts(primitive)
        mass = sum(elements.MASS[z - 1] * n for z, n in occupied.items())
        row = {
            "where": sample.where,
            "formula": primitive.composition.reduced_formula,
            "chemical_system": primitive.composition.chemical_system,
            "n_elements": len(occupied),
            "n_atoms": sum(occupied.values()),
            "density": float(mass / primitive.volume * U_PER_A3),
            "ordered": primitive.is_ordered,
        }
        for metric in self.metrics:
            row |= metric.columns(crystal)
        return row | _cell(primitive) | {f"source_{name}": value for name, value in sample.numbers.items()}

    def crystal(self, sample: Record) -> DescribedCrystal:
        """A crystal as metrics see it."""
        found = symmetry_of(sample.structure, self.symprecs, self.main)
        return DescribedCrystal(
            where=sample.where,
            structure=sample.structure,
            primitive=found.primitive,
            symmetry=found,
            symprec=self.main,
            group_claimed=sample.space_group,
            values=sample.numbers,
        )

    def records(self, pieces: Sequence[tuple[int, Record]], energy: str | None = None) -> list[dict[str, Any]]:
        """Rows of (index, crystal) pairs that may not be readable, or why there is none, and seconds.

        ``energy``: the source's column of formation energies; None: rows have none.
        """
        return [_timed(i, one.where, partial(self._attempt, one, energy)) for i, one in pieces]

    def _attempt(self, one: Record, energy: str | None) -> dict[str, Any] | SkippedRecord:
        try:
            row = self.row(one)
        except Exception as error:  # one crystal on which a library stumbles must not stop the others
            return SkippedRecord(one.where, f"cannot be judged ({type(error).__name__}: {str(error)[:120]})")
        return row if energy is None else {**row, "formation_energy": float(one.numbers.get(energy, math.nan))}


def _timed(i: int, where: str, describe: Callable[[], dict[str, Any] | SkippedRecord]) -> dict[str, Any]:
    start = time.perf_counter()
    row = describe()
    seconds = round(time.perf_counter() - start, 5)
    if isinstance(row, SkippedRecord):
        return {"index": i, "where": where, "error": row.reason, "seconds": seconds}
    return {"index": i, **row, "error": None, "seconds": seconds}


def structure_of_row(row: Mapping[str, Any]) -> Structure:
    """The primitive cell of a row."""
    from pymatgen.core import Structure

    return Structure.from_dict(json.loads(row["sites"])) if row.get("sites") else structure_of(atoms_of_row(row))


def atoms_of_row(row: Mapping[str, Any], relaxed: bool = False) -> Atoms:
    """The ordered primitive cell of a row, or the relaxed one of a relaxation's record."""
    prefix = "relaxed_" if relaxed else ""
    return Atoms(
        where=str(row.get("where", row.get("index"))),
        lattice=np.array(row["relaxed_cell"] if relaxed else [row[f"cell_{name}"] for name in CELL]),
        points=np.array(row[f"{prefix}frac"], dtype=np.float64).reshape(-1, 3),
        numbers=np.array(row[f"{prefix}Z"], dtype=np.int64),
        space_group=0 if relaxed else int(row["space_group"] or 0),
    )


def _cell(structure: Structure) -> dict[str, Any]:
    numbers = [max(site.species.items(), key=lambda pair: pair[1])[0].Z for site in structure]
    return {
        **{f"cell_{name}": value for name, value in zip(CELL, structure.lattice.parameters, strict=True)},
        "Z": numbers,
        "frac": structure.frac_coords.ravel().tolist(),
        "sites": None if structure.is_ordered else json.dumps(structure.as_dict()),
    }
