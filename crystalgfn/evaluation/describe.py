"""One row a structure: what it is, whether it is valid, its symmetry, and its primitive cell to build it again from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.atoms import SkippedRecord
from crystalgfn.data.samples import Item, Sample
from crystalgfn.data.structures import CELL
from crystalgfn.evaluation.metrics.compositions import amounts
from crystalgfn.evaluation.metrics.symmetry import MAIN, SYMPRECS, symmetry_of
from crystalgfn.evaluation.metrics.validity import validity

if TYPE_CHECKING:
    from pymatgen.core import Structure

U_PER_A3 = 1.66053906660
"""g/cm3 of one atomic mass unit in 1 Å3."""


def describe_item(
    item: Item, symprecs: Sequence[float] = SYMPRECS, main: float = MAIN
) -> dict[str, Any] | SkippedRecord:
    """The row of a crystal that is not read yet, or why there is none."""
    sample = item.read()
    if isinstance(sample, SkippedRecord):
        return sample
    try:
        return describe(sample, symprecs, main)
    except Exception as error:  # one crystal on which a library stumbles must not stop the others
        return SkippedRecord(item.where, f"cannot be judged ({type(error).__name__}: {str(error)[:120]})")


def describe(sample: Sample, symprecs: Sequence[float] = SYMPRECS, main: float = MAIN) -> dict[str, Any]:
    """The row of a crystal.

    Columns: ``where``, formula, sizes, the fields of `Validity`, ``group_claimed``, ``group_<symprec>`` for each
    tolerance, ``space_group`` (at the main one) with its system and prototype, the primitive cell at the tightest
    tolerance (``cell_a`` ..., ``Z``, ``frac``; ``sites`` where it is disordered), ``source_...`` for what the source
    says.
    """
    found = symmetry_of(sample.structure, symprecs, main)
    primitive = found.primitive
    occupied = amounts(primitive)
    group = found.groups[main]
    mass = sum(elements.MASS[z - 1] * n for z, n in occupied.items())
    return {
        "where": sample.where,
        "formula": primitive.composition.reduced_formula,
        "chemical_system": primitive.composition.chemical_system,
        "n_elements": len(occupied),
        "n_atoms": sum(occupied.values()),
        "density": float(mass / primitive.volume * U_PER_A3),
        "ordered": primitive.is_ordered,
        **asdict(validity(primitive)),
        "group_claimed": sample.claimed,
        **{f"group_{symprec:g}": number for symprec, number in found.groups.items()},
        "space_group": group,
        "crystal_system": crystal_system(group),
        "lattice_system": space_groups.CRYSTAL_LATTICE_SYSTEMS[space_groups.CRYSTAL_LATTICE_SYSTEM[group - 1]]
        if group
        else None,
        "point_symmetry": space_groups.POINT_SYMMETRIES[space_groups.POINT_SYMMETRY[group - 1]] if group else None,
        "point_group": found.point_group,
        "prototype": found.prototype,
        **_cell(primitive),
        **{f"source_{name}": value for name, value in sample.values.items()},
    }


def crystal_system(group: int) -> str | None:
    """One of the seven, None for no group."""
    if not group:
        return None
    name = space_groups.CRYSTAL_LATTICE_SYSTEMS[space_groups.CRYSTAL_LATTICE_SYSTEM[group - 1]]
    return "trigonal" if name.startswith("trigonal") else name


def structure_of_row(row: Mapping[str, Any]) -> Structure:
    """The primitive cell of a row."""
    from pymatgen.core import Lattice, Structure

    if row.get("sites"):
        return Structure.from_dict(json.loads(row["sites"]))
    names = [elements.SYMBOLS[int(z) - 1] for z in row["Z"]]
    lattice = Lattice.from_parameters(*(row[f"cell_{name}"] for name in CELL))
    return Structure(lattice, names, np.array(row["frac"], dtype=np.float64).reshape(-1, 3))


def _cell(structure: Structure) -> dict[str, Any]:
    numbers = [max(site.species.items(), key=lambda pair: pair[1])[0].Z for site in structure]
    return {
        **{f"cell_{name}": value for name, value in zip(CELL, structure.lattice.parameters, strict=True)},
        "Z": numbers,
        "frac": structure.frac_coords.ravel().tolist(),
        "sites": None if structure.is_ordered else json.dumps(structure.as_dict()),
    }


def reference_row(sample: Sample, energy: str, main: float = MAIN) -> dict[str, Any]:
    """What distributions and diversity need of a known crystal, in the same columns."""
    row = describe(sample, (), main)
    row["formation_energy"] = float(sample.values.get(energy, math.nan))
    return row
