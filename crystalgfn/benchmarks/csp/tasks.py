"""The targets of structure prediction, with what their source says of them and of their polymorphs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystalgfn.crystallography.atoms import Atoms, Record, SkippedRecord, reduced_formula, structure_of, symbols_of
from crystalgfn.crystallography.convert import formula_of, orbit_structure
from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.data.reader import Source, only_ordered, records
from crystalgfn.data.structure_index import Key
from crystalgfn.errors import DataError, PlacementError
from crystalgfn.evaluation.metrics.matching import matcher

if TYPE_CHECKING:
    from pymatgen.core import Structure

HULL = ("e_above_hull", "energy_above_hull")
"""Columns of a table that hold the energy above the hull, eV/atom."""


@dataclass(frozen=True, kw_only=True)
class CSPTarget:
    """A crystal to predict.

    Attributes:
        where: where it stands in its source.
        truth: its structure as the source has it.
        orbits: the same in the package's setting.
        keys: the pairs (reduced formula, group) that it goes by.
        e_above_hull: eV/atom as the source has it, None where it says nothing.
        known: the other crystals of its reduced formula in the source, by where they stand.
        polymorphs: where the different ones among it and those stand; of crystals that match each other the first.
    """

    where: str
    truth: Structure
    orbits: OrbitStructure
    keys: frozenset[Key]
    e_above_hull: float | None = None
    known: Mapping[str, Structure] = field(default_factory=dict)
    polymorphs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Targets:
    """The targets of a source, and what of it can be none, with the reasons."""

    crystals: list[CSPTarget]
    skipped: list[SkippedRecord]


def targets(source: Source, n: int | None = None, seed: int = 0) -> Targets:
    """The crystals of a source, or ``n`` of them drawn at random (for a Parquet file as ``DataFrame.sample`` does).

    Polymorphs are looked for in the whole source. A chosen crystal without a space group is in ``skipped``.

    Raises:
        DataError: the source cannot be read, or has no crystal that can be a target.
    """
    entries, skipped = _with_atoms(source)
    same = defaultdict(list)
    for entry in entries:
        same[_formula(entry)].append(entry)

    @cache
    def family(formula: str) -> tuple[dict[str, Structure], tuple[str, ...]]:
        """All structures of a formula, and which of them are its polymorphs."""
        structures = {one.where: one.structure for one in same[formula]}
        return structures, distinct(structures)

    if n is not None:
        entries = [entries[i] for i in np.random.RandomState(seed).permutation(len(entries))[:n]]
    found = []
    for entry in entries:
        structures, polymorphs = family(_formula(entry))
        others = {where: structure for where, structure in structures.items() if where != entry.where}
        try:
            atoms = replace(entry.known_atoms, where=entry.where)
            found.append(target_of(atoms, _above_hull(entry), others, polymorphs))
        except PlacementError as error:
            skipped.append(SkippedRecord(entry.where, str(error)))
    if not found:
        raise DataError(f"{_name(source)} holds no crystal that can be a target; the first: {skipped[0]}")
    return Targets(found, skipped)


def _name(source: Source) -> str:
    return str(source) if isinstance(source, str | Path) else ", ".join(map(str, source))


def _with_atoms(source: Source) -> tuple[list[Record], list[SkippedRecord]]:
    """The crystals of a source that have atoms, and what of it cannot be read."""
    read = [_by_row(i, only_ordered(entry)) for i, entry in enumerate(records(source))]
    entries = [entry for entry in read if isinstance(entry, Record) and entry.atoms is not None]
    skipped = [entry for entry in read if isinstance(entry, SkippedRecord)]
    if not entries:
        reason = f"; the first: {skipped[0]}" if skipped else ""
        raise DataError(f"{_name(source)} holds no crystal with atoms{reason}")
    return entries, skipped


def target_of(
    atoms: Atoms,
    e_above_hull: float | None = None,
    known: Mapping[str, Structure] | None = None,
    polymorphs: tuple[str, ...] = (),
) -> CSPTarget:
    """The target that a crystal is.

    Raises:
        PlacementError: spglib finds no group in it.
    """
    orbits = orbit_structure(atoms)
    formula = formula_of(orbits)
    keys = frozenset({(formula, orbits.space_group), (formula, atoms.space_group or orbits.space_group)})
    return CSPTarget(
        where=atoms.where,
        truth=structure_of(atoms),
        orbits=orbits,
        keys=keys,
        e_above_hull=e_above_hull,
        known=known or {},
        polymorphs=polymorphs or (atoms.where,),
    )


def distinct(structures: Mapping[str, Structure]) -> tuple[str, ...]:
    """Names of structures of which no two match; of those that do, the first."""
    chosen: list[str] = []
    for name, structure in structures.items():
        if all(matcher().get_rms_dist(structure, structures[other]) is None for other in chosen):
            chosen.append(name)
    return tuple(chosen)


def _by_row(i: int, entry: Record | SkippedRecord) -> Record | SkippedRecord:
    """Rows of text tables go by their number, as those of Parquet do: files of predictions are named by it."""
    return replace(entry, where=f"row {i}") if entry.where.startswith("line ") else entry


def _above_hull(entry: Record) -> float | None:
    """The energy above the hull, eV/atom, that a source names (`HULL`)."""
    return next((entry.numbers[name] for name in HULL if name in entry.numbers), None)


def _formula(entry: Record) -> str:
    return reduced_formula(symbols_of(entry.known_atoms.numbers))
