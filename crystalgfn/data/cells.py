"""Crystals of table rows: labelled ones, and those of a formula, space group and cell without positions."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.atoms import CELL, Record, SkippedRecord, cell_fault, group_number, reduced_formula
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.elements import SPHERE_VOLUME
from crystalgfn.crystallography.lattice import (
    CUBIC,
    HEXAGONAL,
    KIND,
    KINDS,
    MONOCLINIC,
    TETRAGONAL,
    TRICLINIC,
    canonical_lattice,
)
from crystalgfn.crystallography.standardize import Cell, crystals_of
from crystalgfn.data.formats.tables import FORMULAS, GROUPS
from crystalgfn.errors import DataError

#: Without positions the setting of a cell is unknown, so only these kinds, whose conventional cell is unique, are read.
UNIQUE_CELL = (TETRAGONAL, HEXAGONAL, CUBIC)
SETTINGS = ("unknown", "standard")

#: How far a cell may be from what its group demands: relative on lengths, and degrees (symprec 0.1 is 2 % of 5 Å).
LENGTH_SLACK, ANGLE_SLACK = 0.03, 2.0

#: Spheres of the tabulated radii fill at most 1.41 of a cell in MP-20 val, 0.66 in the median.
MAX_FILLED = 1.7


class Ambiguous(DataError):
    """A row that could mean more than one crystal."""


def crystal_of_cell(row: Mapping[str, Any], setting: str, strict: bool = True) -> Crystals:
    """The crystal of a row: formula, spacegroup, n_atoms of the primitive cell, conventional cell; a batch of one.

    With ``setting="unknown"`` only what can be read in one way alone is read (`read_labelled` of `data.labelled`).

    Args:
        row: the columns by their names.
        setting: "unknown" or "standard".
        strict: False: triclinic cells are ambiguous too, and any density is taken.

    Raises:
        DataError: a value that cannot be so.
        Ambiguous: one that could mean more than one crystal.
    """
    group = checked_group(row["spacegroup"])
    if not strict and KIND[group - 1] not in UNIQUE_CELL:
        raise Ambiguous(f"a {KINDS[KIND[group - 1]]} cell without positions")
    cell = checked_cell(row, group)
    counts, units = _counts(row["formula"], row["n_atoms"], strict)
    if setting == "unknown":
        _refuse_ambiguous(row, group, units)
    composition = torch.zeros(1, 118, dtype=torch.int64)
    for number, count in counts.items():
        composition[0, number - 1] = count
    lattice = torch.from_numpy(canonical_lattice(group, cell))[None]
    crystal = Crystals(torch.tensor([group]), composition, lattice)
    filled = float(composition[0].double() @ torch.tensor(SPHERE_VOLUME).double())
    filled *= int(space_groups.CENTRING[group - 1]) / float(crystal.volume)
    if strict and filled > MAX_FILLED:
        raise DataError(
            f"{row['n_atoms']} atoms of {row['formula']} in a primitive cell of group {group} would have "
            f"{float(crystal.volume_per_atom):.3g} Å3 each; n_atoms counts those of the primitive cell, not of the "
            "conventional one"
        )
    return crystal


def finite(value: Any, column: str) -> float:
    """A number of a row.

    Raises:
        DataError: not a number, NaN or infinite.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        shown = "empty" if value is None or (isinstance(value, str) and not value) else repr(value)
        raise DataError(f"{column} is {' '.join(shown.split())}; it must be a number") from None
    if not math.isfinite(number):
        raise DataError(f"{column} is {number}; it must be a finite number")
    return number


def checked_group(value: Any) -> int:
    """A space group's number.

    Raises:
        DataError: not a whole number from 1 to 230.
    """
    number = finite(value, "spacegroup")
    if number != int(number) or not 1 <= number <= 230:
        raise DataError(f"spacegroup is {value}; space groups are the whole numbers 1-230")
    return int(number)


def named_group(value: Any) -> int:
    """A space group's number, or the number of its symbol.

    Raises:
        DataError: neither.
    """
    return group_number(value) or checked_group(value)


def checked_cell(row: Mapping[str, Any], group: int) -> np.ndarray:
    """The conventional cell of a row, float64 [6].

    Raises:
        DataError: not six finite numbers, no volume, or not of the kind that the group demands.
    """
    cell = np.array([finite(row[name], name) for name in CELL])
    cosine = np.cos(np.radians(cell[3:]))
    real = (cell > 0).all() and (cell[3:] < 180).all() and 1 - (cosine**2).sum() + 2 * cosine.prod() > 1e-6
    if not real:
        raise DataError(f"the lattice {_shown(cell)} has no volume; lengths are in Å, angles in degrees")
    if (reason := cell_fault(cell)) is not None:
        raise DataError(f"it {reason}")
    kind = int(KIND[group - 1])
    right = [None, (90, None, 90), *[(90, 90, 90)] * 2, (90, 90, 120), (90, 90, 90)][kind] or (None,) * 3
    equal = [cell[1]] * (kind in UNIQUE_CELL) + [cell[2]] * (kind == CUBIC)
    if any(w is not None and abs(x - w) > ANGLE_SLACK for x, w in zip(cell[3:], right, strict=True)) or any(
        abs(x / cell[0] - 1) > LENGTH_SLACK for x in equal
    ):
        rule = {
            MONOCLINIC: "alpha = gamma = 90 (unique axis b)",
            HEXAGONAL: "a = b, alpha = beta = 90, gamma = 120 (R groups on hexagonal axes)",
            TETRAGONAL: "a = b and right angles",
            CUBIC: "a = b = c and right angles",
        }.get(kind, "right angles")
        raise DataError(
            f"the lattice {_shown(cell)} contradicts space group {group}, which is {KINDS[kind]}: the conventional "
            f"cell has {rule}"
        )
    return cell


def reduced(formula: Any) -> str:
    """A formula with the smallest whole counts and the elements in alphabetical order.

    Raises:
        DataError: not a formula of elements in whole counts.
    """
    if not isinstance(formula, str):
        raise DataError(f"formula is {formula!r}, which is not a formula of known elements")
    return reduced_formula(_amounts(formula))


@functools.cache
def _amounts(formula: str) -> dict[str, int]:
    from pymatgen.core import Composition, Element

    try:
        amounts = Composition(formula).get_el_amt_dict()
    except ValueError:
        amounts = {}
    if not amounts or not all(Element.is_valid_symbol(symbol) for symbol in amounts):
        raise DataError(f"formula is {formula!r}, which is not a formula of known elements")
    if any(abs(n - round(n)) > 1e-6 or n < 0.5 for n in amounts.values()):
        raise DataError(f"formula is {formula!r}; crystals have whole atoms: order it first, or leave it out")
    return {symbol: round(n) for symbol, n in amounts.items()}


def checked_multiple(formula: str, n_atoms: Any, whole: int) -> int:
    """How many times ``whole`` atoms ``n_atoms`` are.

    Raises:
        DataError: not a whole number of times.
    """
    number = finite(n_atoms, "n_atoms")
    if number < 1 or number % whole:
        raise DataError(f"n_atoms is {n_atoms}, which is not a multiple of the {whole} atoms of {formula}")
    return int(number) // whole


def _counts(formula: str, n_atoms: Any, strict: bool) -> tuple[dict[int, int], int]:
    """Atomic numbers with their counts in the primitive cell, and how many times the formula that is."""
    from pymatgen.core import Element

    amounts = _amounts(formula)
    if not strict:
        checked_multiple(formula, n_atoms, sum(amounts.values()))
    divisor = math.gcd(*amounts.values())  # Ti2O4 in a cell of 6 atoms is TiO2 twice, and O2 in one of 1 is O
    units = checked_multiple(formula, n_atoms, sum(amounts.values()) // divisor)
    return {Element(symbol).Z: count // divisor * units for symbol, count in amounts.items()}, units


def _refuse_ambiguous(row: Mapping[str, Any], group: int, units: int) -> None:
    remedy = (
        "give positions, or say setting='standard' if all cells are in the standard setting "
        "(docs/how-to/use-your-own-data.md)"
    )
    if KIND[group - 1] not in UNIQUE_CELL and KIND[group - 1] != TRICLINIC:
        raise Ambiguous(
            f"a {KINDS[KIND[group - 1]]} cell without positions may be in one of several settings; {remedy}"
        )
    if KIND[group - 1] == TRICLINIC:
        return
    points = int(space_groups.CENTRING[group - 1])
    if points > 1 and units % points == 0:
        raise Ambiguous(
            f"n_atoms is {row['n_atoms']}, which may count the primitive or the conventional cell of group {group}; "
            f"{remedy}"
        )


def _shown(cell: np.ndarray) -> str:
    return ", ".join(f"{x:.5g}" for x in cell)


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
    formula, group = _first(values, FORMULAS), _first(values, GROUPS)
    return None if formula is None else reduced(formula), None if group is None else named_group(group)


def _first(values: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value under the first of some names that is there."""
    return next((values[name] for name in names if values.get(name) is not None), None)


def _without_positions(values: Mapping[str, Any], setting: str, lenient: bool) -> Crystals:
    missing = sorted({"formula", "n_atoms", *CELL} - set(values))
    missing += [] if set(GROUPS) & set(values) else ["spacegroup"]
    if missing:
        raise DataError(f"it has neither positions nor a conventional cell: it has no columns {', '.join(missing)}")
    reduced(values["formula"])  # what is no formula is said before anything else
    return crystal_of_cell({**values, "spacegroup": _first(values, GROUPS)}, setting, strict=not lenient)


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
        crystal = _without_positions(values, setting, lenient)
        key = (reduced(values["formula"]), int(crystal.space_group[0]))
        return LabelledCrystal(entry.where, crystal, label, frozenset({key}))
    if not entry.atoms.is_ordered:
        formula = entry.structure.composition.reduced_formula
        raise DataError(f"the structure ({formula}) is disordered; crystals have whole atoms: order it first")
    formula, group = _filed(values)
    cell = cells[entry.where]
    if cell is None:
        raise DataError("spglib finds no space group at symprec 0.1; look for atoms on top of each other")
    if formula is not None and formula != cell.formula:
        own_formula = entry.structure.composition.reduced_formula
        raise DataError(f"formula is {_first(values, FORMULAS)!r}, but the atoms are those of {own_formula}")
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
