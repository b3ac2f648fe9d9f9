"""One labelled crystal of a record, or the sentence that says why there is none."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crystalgfn.crystallography.atoms import CELL, Record, SkippedRecord
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.standardize import Cell, crystals_of
from crystalgfn.data.cells import Ambiguous, crystal_of_cell, finite, named_group, reduced
from crystalgfn.data.formats.tables import FORMULAS, GROUPS
from crystalgfn.errors import DataError

#: How many bad rows an error lists.
LISTED = 20


@dataclass(frozen=True)
class LabelledCrystal:
    """A crystal with a label.

    Attributes:
        where: where it stands in its source: "line 4", a file's name, an identifier.
        crystal: a batch of one.
        label: the property in its unit.
        key: the pairs (reduced formula, space group) that it goes by: the source's, where it says so, and the detected.
    """

    where: str
    crystal: Crystals
    label: float
    key: frozenset[tuple[str, int]]


def complaint(entry: Record | SkippedRecord) -> str | None:
    """Why an entry is no crystal with or without a label: a formula or group that cannot be; None where it may be."""
    if isinstance(entry, SkippedRecord):
        return entry.reason
    try:
        _filed(entry.values)
    except DataError as error:
        return str(error)
    return None


def _filed(values: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """The reduced formula and the group that a row names."""
    formula = next((values[name] for name in FORMULAS if values.get(name) is not None), None)
    group = next((values[name] for name in GROUPS if values.get(name) is not None), None)
    return None if formula is None else reduced(formula), None if group is None else named_group(group)


def labelled_crystal(
    entry: Record | SkippedRecord, column: str, setting: str, cells: Mapping[str, Cell | None], lenient: bool
) -> LabelledCrystal | SkippedRecord | None:
    """The crystal of an entry, or why there is none; None for what Parquet files are allowed to hold."""
    if isinstance(entry, SkippedRecord):
        return entry
    try:
        return _made(entry, column, setting, cells, lenient)
    except Ambiguous as error:
        return None if lenient else SkippedRecord(entry.where, str(error))
    except DataError as error:
        return SkippedRecord(entry.where, " ".join(str(error).split()))


def _made(entry: Record, column: str, setting: str, cells: Mapping[str, Cell | None], lenient: bool) -> LabelledCrystal:
    values = entry.values
    if column not in values:
        raise DataError(
            f"it has no {column}; the comment line of a frame holds {column}=<number>, a table of CIF files a column"
        )
    label = finite(values[column], column)
    if entry.atoms is None:
        missing = sorted({"formula", "n_atoms", *CELL} - set(values))
        missing += [] if set(GROUPS) & set(values) else ["spacegroup"]
        if missing:
            raise DataError(f"it has neither positions nor a conventional cell: it has no columns {', '.join(missing)}")
        group = next((values[name] for name in GROUPS if values.get(name) is not None), None)
        formula = reduced(values["formula"])
        crystal = crystal_of_cell({**values, "spacegroup": group}, setting, strict=not lenient)
        return LabelledCrystal(entry.where, crystal, label, frozenset({(formula, int(crystal.space_group[0]))}))
    if not entry.atoms.is_ordered:
        formula = entry.structure.composition.reduced_formula
        raise DataError(f"the structure ({formula}) is disordered; crystals have whole atoms: order it first")
    formula, group = _filed(values)
    cell = cells[entry.where]
    if cell is None:
        raise DataError("spglib finds no space group at symprec 0.1; look for atoms on top of each other")
    if formula is not None and formula != cell.formula:
        named = next(values[name] for name in FORMULAS if values.get(name) is not None)
        raise DataError(
            f"formula is {named!r}, but the atoms are those of {entry.structure.composition.reduced_formula}"
        )
    own = (cell.formula, cell.space_group)
    key = frozenset({own, (formula or own[0], group or own[1])})
    return LabelledCrystal(entry.where, crystals_of([cell]), label, key)


def report_skipped(bad: list[SkippedRecord], total: int, source: str, skip_bad: bool) -> None:
    """Raise or, with ``skip_bad``, warn, with place and reason of each bad row.

    Raises:
        DataError: bad rows that are not to be skipped.
    """
    if not bad:
        return
    rows = "row" if total == 1 else "rows"
    lines = [f"{source}: {len(bad)} of {total} {rows} cannot be used", *(f"  {row}" for row in bad[:LISTED])]
    if len(bad) > LISTED:
        lines.append(f"  and {len(bad) - LISTED} more")
    if not skip_bad:
        raise DataError("\n".join([*lines, "correct them, or leave them out by skip_bad=True"]))
    warnings.warn("\n".join([*lines, "they are left out"]), stacklevel=3)
