"""Labelled crystals of databases: MatBench, the Materials Project, OBELiX."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from crystalgfn.crystallography.atoms import SkippedRecord
from crystalgfn.crystallography.crystals import Disordered
from crystalgfn.crystallography.space_groups import CENTRING
from crystalgfn.data.records import Record, attempt, from_structure
from crystalgfn.errors import DataError, NotAvailable
from crystalgfn.properties.hull_entries import composition_of
from crystalgfn.typing import Booleans, Doubles, Integers

#: The tasks with structures whose target is one of our properties: property, column.
TASKS = {"matbench_mp_e_form": ("formation_energy", "e_form"), "matbench_mp_gap": ("band_gap", "gap pbe")}


def stream_matbench(task: str, property: str, column: str | None = None) -> Iterator[Record | SkippedRecord]:
    """The rows of a MatBench task; matminer downloads it on first use, and holds it in memory as a whole.

    Args:
        task: "matbench_mp_gap", "matbench_mp_e_form", or another task with structures.
        property: what is wanted, for the tasks named.
        column: the target's column; None: known for the tasks named.

    Raises:
        NotAvailable: matminer is not installed.
        DataError: no such task, no structures in it, no such column, or no network.
    """
    try:
        from matminer.datasets import load_dataset
    except ImportError as error:
        raise NotAvailable(
            f"matbench:{task} is read through matminer, which cannot be imported ({error}); install it by "
            'pip install "matminer>=0.10.1" "pandas<3" (it does not run with pandas 3)'
        ) from error
    column = column or _column(task, property)
    try:
        frame = load_dataset(task)
    except (ValueError, OSError) as error:  # an unknown task; no network (requests' errors are OSErrors)
        raise DataError(f"matminer cannot load {task}: {error}") from error
    missing = {"structure", column} - set(frame.columns)
    if missing:
        raise DataError(
            f"{task} has no column {', '.join(sorted(missing))}; it has {', '.join(map(str, frame.columns))}"
        )
    for number, (structure, label) in enumerate(zip(frame["structure"], frame[column], strict=True)):
        yield _record(f"row {number}", structure, label, column)


def _column(task: str, property: str) -> str:
    if task not in TASKS:
        raise DataError(f"the target of {task} is not known here; name its column (known: {', '.join(TASKS)})")
    held, column = TASKS[task]
    if held != property:
        raise DataError(f"{task} holds {held}, not {property}")
    return column


def _record(where: str, structure: object, label: object, column: str) -> Record | SkippedRecord:
    return attempt(where, lambda: from_structure(where, structure, label, column, {}))


CELL = ("a", "b", "c", "alpha", "beta", "gamma")

COMPOSITION, GROUP, VALUE = "True Composition", "Space group #", "Ionic conductivity (S cm-1)"


@dataclass(frozen=True)
class Measurements:
    """Crystals with measured conductivities.

    Attributes:
        crystals: with partial occupancies, [B].
        values: log10 of the conductivity, S/cm, float64 [B]; where censored, of the bound that it lies below.
        censored: whether the value is an upper bound ("<1E-10"), bool [B].
        material: a number for each composition, the same for rows that share it, int64 [B].
    """

    crystals: Disordered
    values: Doubles
    censored: Booleans
    material: Integers

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: slice | torch.Tensor) -> Measurements:
        """The rows at ``index`` (a slice, positions or a mask)."""
        return Measurements(self.crystals[index], self.values[index], self.censored[index], self.material[index])


def read_obelix(path: str | Path) -> Measurements:
    """The rows of OBELiX's CSV file.

    Compositions are taken from ``True Composition``, the atoms in the conventional cell with their occupancies.

    Raises:
        DataError: no such file or column, or a row that cannot be used, named with its number and the reason.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    missing = {COMPOSITION, GROUP, VALUE, *CELL} - set(table.columns)
    if missing:
        raise DataError(f"{path} has no column {', '.join(sorted(missing))}; it needs those of OBELiX")
    if table.empty:
        raise DataError(f"{path} has no rows")
    parsed = [_conductivity(str(text), i) for i, text in enumerate(table[VALUE])]
    groups = torch.tensor([_group(value, i) for i, value in enumerate(table[GROUP])])
    lattice = torch.tensor(table[list(CELL)].to_numpy(dtype=float), dtype=torch.float64)
    wrong = ~(torch.isfinite(lattice) & (lattice > 0)).all(1)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise DataError(f"row {row}: the cell {lattice[row].tolist()} needs six positive numbers, Å and degrees")
    composition = torch.stack([composition_of(str(text), i) for i, text in enumerate(table[COMPOSITION])])
    fractions = (composition / composition.sum(1, keepdim=True) * 1000).round()
    _, material = fractions.unique(dim=0, return_inverse=True)
    primitive = composition / torch.tensor(CENTRING)[groups - 1].double()[:, None]
    values = torch.tensor([value for value, _ in parsed], dtype=torch.float64)
    return Measurements(
        Disordered(groups, primitive, lattice), values, torch.tensor([bound for _, bound in parsed]), material
    )


def _conductivity(text: str, row: int) -> tuple[float, bool]:
    """log10, and whether it is only a bound."""
    bound = text.strip().startswith("<")
    try:
        value = float(text.strip().lstrip("<"))
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise DataError(f"row {row}: the conductivity {text!r} is neither a positive number, S/cm, nor '<' and one")
    return math.log10(value), bound


def _group(value: object, row: int) -> int:
    number = float(value) if isinstance(value, int | float) or str(value).isdigit() else math.nan
    if not (number.is_integer() and 1 <= number <= 230):
        raise DataError(f"row {row}: {value!r} is no space group; it must be a whole number from 1 to 230")
    return int(number)


#: Properties by their names there.
FIELDS = {
    "formation_energy": "formation_energy_per_atom",
    "band_gap": "band_gap",
    "energy_above_hull": "energy_above_hull",
}

#: Materials a request; the list of identifiers goes into the address.
CHUNK = 200


def stream_materials_project(query: str, field: str, key: str | None = None) -> Iterator[Record | SkippedRecord]:
    """The materials that a query finds, 200 a request.

    Args:
        query: a chemical system ("Li-P-S", "Li-*-O"), a formula ("Fe2O3", "ABO3"), or identifiers ("mp-149,mp-22862").
        field: the label's field of the summary, such as ``band_gap``.
        key: your key of the Materials Project; None: ``PMG_MAPI_KEY`` of the environment or of pymatgen's settings.

    Raises:
        DataError: no key, an empty query, a request that is refused, or no network.
    """
    from pymatgen.ext.matproj import MPRester

    if not query:
        raise DataError("materials_project: needs a query, such as materials_project:Li-P-S or :Fe2O3 or :mp-149")
    try:
        rester = MPRester(key)
    except ValueError as error:
        raise DataError(
            "the Materials Project needs a key of 32 characters from materialsproject.org/dashboard; "
            "set it as PMG_MAPI_KEY in the environment"
        ) from error
    with rester:
        if query.startswith("mp-"):
            identifiers = [one.strip() for one in query.split(",")]
        else:
            kind = "chemsys" if "-" in query else "formula"
            identifiers = [row["material_id"] for row in _search(rester, query, [], **{kind: query})]
        if not identifiers:
            raise DataError(f"the Materials Project has nothing for {query!r}")
        for start in range(0, len(identifiers), CHUNK):
            chunk = identifiers[start : start + CHUNK]
            fields = ["formula_pretty", "symmetry", "structure", field]
            found = {str(row["material_id"]): row for row in _search(rester, query, fields, material_ids=chunk)}
            for name in map(str, chunk):
                yield _document_record(name, found.get(name), field)


def _search(rester: Any, query: str, fields: list[str], **criteria: Any) -> list[dict[str, Any]]:
    from pymatgen.ext.matproj import MPRestError

    try:
        return rester.search("summary", _fields=["material_id", *fields], **criteria)
    except (MPRestError, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"the Materials Project refuses {query!r}: {said}; check your key and the network") from error


def _document_record(name: str, row: dict[str, Any] | None, field: str) -> Record | SkippedRecord:
    if row is None or row.get("structure") is None:
        return SkippedRecord(name, "the Materials Project returns no structure for it")
    symmetry = row.get("symmetry") or {}
    group = symmetry.get("number") if isinstance(symmetry, dict) else getattr(symmetry, "number", None)
    filed = {"formula": row.get("formula_pretty"), "spacegroup": group}
    return attempt(name, lambda: from_structure(name, row["structure"], row.get(field), field, filed))
