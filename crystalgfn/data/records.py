"""One row of any source: a labelled crystal, or the sentence that says why it cannot be used."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.atoms import SkippedRecord
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
from crystalgfn.errors import DataError, InvalidCrystal

if TYPE_CHECKING:
    from pymatgen.core import Structure

CELL = ("a", "b", "c", "alpha", "beta", "gamma")
#: Without positions the setting of a cell is unknown, so only these kinds, whose conventional cell is unique, are read.
UNIQUE_CELL = (TETRAGONAL, HEXAGONAL, CUBIC)
SETTINGS = ("unknown", "standard")
#: How far a cell may be from what its group demands: relative on lengths, and degrees (symprec 0.1 is 2 % of 5 Å).
LENGTH_SLACK, ANGLE_SLACK = 0.03, 2.0
#: Spheres of the tabulated radii fill at most 1.41 of a cell in MP-20 val, 0.66 in the median.
MAX_FILLED = 1.7
#: How many bad rows an error lists.
LISTED = 20


@dataclass(frozen=True)
class Record:
    """A labelled crystal.

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


def attempt(where: str, make: Callable[[], Record]) -> Record | SkippedRecord:
    """What ``make`` returns, or the reason why it cannot."""
    try:
        return make()
    except (DataError, InvalidCrystal) as error:
        return SkippedRecord(where, " ".join(str(error).replace("structure 0", "the structure").split()))


def from_structure(where: str, structure: Structure, label: Any, column: str, filed: Mapping[str, Any]) -> Record:
    """The record of a structure with positions; ``filed`` is what its source says of it (formula, spacegroup), if so.

    Raises:
        DataError: a label that is no finite number, a formula that is not the structure's, a group outside 1-230.
        InvalidCrystal: a disordered structure, or one in which spglib finds no group.
    """
    value = finite(label, column)
    crystal = Crystals.from_structures([structure], symprec=0.1)
    found = (reduced(crystal.formulas()[0]), int(crystal.space_group[0]))
    formula = found[0] if filed.get("formula") is None else reduced(filed["formula"])
    if formula != found[0]:
        raise DataError(f"formula is {filed['formula']!r}, but the atoms are those of {crystal.formulas()[0]}")
    group = found[1] if filed.get("spacegroup") is None else checked_group(filed["spacegroup"])
    return Record(where, crystal, value, frozenset({found, (formula, group)}))


def from_cell(where: str, row: Mapping[str, Any], label: Any, column: str, setting: str) -> Record:
    """The record of a row without positions: formula, spacegroup, n_atoms of the primitive cell, conventional cell.

    With ``setting="unknown"`` only what can be read in one way alone is read (:func:`crystalgfn.data.labelled.read`).

    Raises:
        DataError: a value that cannot be so, or that could mean more than one crystal.
    """
    value = finite(label, column)
    formula, group = reduced(row["formula"]), checked_group(row["spacegroup"])
    cell = checked_cell(row, group)
    counts, units = _counts(row["formula"], row["n_atoms"])
    if setting == "unknown":
        _refuse_ambiguous(row, group, units)
    composition = torch.zeros(1, 118, dtype=torch.int64)
    for number, count in counts.items():
        composition[0, number - 1] = count
    lattice = torch.from_numpy(canonical_lattice(group, cell))[None]
    crystal = Crystals(torch.tensor([group]), composition, lattice)
    filled = float(composition[0].double() @ torch.tensor(SPHERE_VOLUME).double())
    filled *= int(space_groups.CENTRING[group - 1]) / float(crystal.volume)
    if filled > MAX_FILLED:
        raise DataError(
            f"{row['n_atoms']} atoms of {row['formula']} in a primitive cell of group {group} would have "
            f"{float(crystal.volume_per_atom):.3g} Å3 each; n_atoms counts those of the primitive cell, not of the "
            "conventional one"
        )
    return Record(where, crystal, value, frozenset({(formula, group)}))


def gather(entries: Iterable[Record | SkippedRecord], source: str, skip_bad: bool) -> list[Record]:
    """The records of a source, once all of it has been read.

    Args:
        entries: what the source gives.
        source: its name, for messages.
        skip_bad: warn of bad rows instead of raising.

    Raises:
        DataError: bad rows that are not to be skipped, all of them with place and reason; or no row at all.
    """
    records: list[Record] = []
    bad: list[SkippedRecord] = []
    for entry in entries:
        (records if isinstance(entry, Record) else bad).append(entry)
    report(bad, len(records) + len(bad), source, skip_bad)
    if not records:
        raise DataError(f"{source} is empty: it holds no row that can be used")
    return records


def report(bad: list[SkippedRecord], total: int, source: str, skip_bad: bool) -> None:
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
    warnings.warn("\n".join([*lines, "they are left out"]), stacklevel=2)


def finite(value: Any, column: str) -> float:
    """A number of a row.

    Raises:
        DataError: not a number, NaN or infinite.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        empty = value is None or value == ""
        raise DataError(f"{column} is {'empty' if empty else repr(value)}; it must be a number") from None
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


@functools.cache
def reduced(formula: Any) -> str:
    """A formula with the smallest whole counts and the elements in alphabetical order.

    Raises:
        DataError: not a formula of elements in whole counts.
    """
    counts = _amounts(formula)
    divisor = math.gcd(*counts.values())
    return "".join(f"{symbol}{counts[symbol] // divisor}" for symbol in sorted(counts))


@functools.cache
def _amounts(formula: Any) -> dict[str, int]:
    from pymatgen.core import Composition, Element

    try:
        amounts = Composition(formula).get_el_amt_dict() if isinstance(formula, str) else {}
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


def atoms_in(formula: str) -> int:
    """Atoms in a formula as it is written."""
    return sum(_amounts(formula).values())


def _counts(formula: str, n_atoms: Any) -> tuple[dict[int, int], int]:
    """Atomic numbers with their counts in the primitive cell, and how many times the formula that is."""
    from pymatgen.core import Element

    amounts = _amounts(formula)
    divisor = math.gcd(*amounts.values())  # Ti2O4 in a cell of 6 atoms is TiO2 twice, and O2 in one of 1 is O
    units = checked_multiple(formula, n_atoms, sum(amounts.values()) // divisor)
    return {Element(symbol).Z: count // divisor * units for symbol, count in amounts.items()}, units


def _refuse_ambiguous(row: Mapping[str, Any], group: int, units: int) -> None:
    remedy = (
        "give positions, or say setting='standard' if all cells are in the standard setting "
        "(docs/how-to/use-your-own-data.md)"
    )
    if KIND[group - 1] not in UNIQUE_CELL and KIND[group - 1] != TRICLINIC:
        raise DataError(
            f"a {KINDS[KIND[group - 1]]} cell without positions may be in one of several settings; {remedy}"
        )
    if KIND[group - 1] == TRICLINIC:
        return
    points = int(space_groups.CENTRING[group - 1])
    if points > 1 and units % points == 0:
        raise DataError(
            f"n_atoms is {row['n_atoms']}, which may count the primitive or the conventional cell of group {group}; "
            f"{remedy}"
        )


def _shown(cell: np.ndarray) -> str:
    return ", ".join(f"{x:.5g}" for x in cell)
