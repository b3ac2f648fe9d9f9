"""Labelled crystals of tables (CSV, TSV, Parquet), folders of CIF files and extended XYZ files."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.crystallography.atoms import SkippedRecord
from crystalgfn.data.records import CELL, Record, attempt, from_cell, from_structure
from crystalgfn.data.structures import xyz_frames
from crystalgfn.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure


#: Where the cell with positions stands in Parquet files, beside the columns Z and frac.
PREFIXES = ("prim_", "cell_")

_GROUP_NAMES = ("spacegroup", "space_group")


def stream_table(path: Path, column: str, setting: str = "unknown") -> Iterator[Record | SkippedRecord]:
    """The rows of a table, one after the other.

    A row's crystal is read from the text of a CIF in the column ``cif``, from a CIF file named in the column ``file``
    (relative to the table), from ``Z`` and ``frac`` with their cell (Parquet), or from ``formula``, ``spacegroup``,
    ``n_atoms``, ``a`` ... ``gamma``.

    Args:
        path: a ``.csv``, ``.tsv`` or ``.parquet`` file.
        column: the column with the label.
        setting: what is known of cells without positions; see :func:`crystalgfn.data.labelled.read`.

    Raises:
        DataError: a file that is missing, empty, unreadable, or lacks a column.
    """
    if not path.is_file():
        raise DataError(f"there is no data file {path}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty")
    names, rows = (_parquet if path.suffix == ".parquet" else _csv)(path)
    _check_columns(path, names, column)
    try:
        for where, row in rows:
            yield row if isinstance(row, SkippedRecord) else _record(where, row, column, path.parent, setting)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from error


def stream_folder(folder: Path, column: str, setting: str = "unknown") -> Iterator[Record | SkippedRecord]:
    """A folder of CIF files with one table in it, whose column ``file`` names them (with or without ``.cif``).

    Raises:
        DataError: no table or several; see :func:`stream_table`.
    """
    tables = sorted(p for p in folder.iterdir() if p.suffix in (".csv", ".tsv"))
    if len(tables) != 1:
        found = ", ".join(p.name for p in tables) or "none"
        raise DataError(f"{folder} needs one table of targets (CSV with the columns file and {column}); it has {found}")
    yield from stream_table(tables[0], column, setting)


def _csv(path: Path) -> tuple[list[str], Iterator[tuple[str, dict[str, Any] | SkippedRecord]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            names = next(csv.reader(file, delimiter=_delimiter(path)), [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from error
    return [name.strip() for name in names], _csv_rows(path)


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | SkippedRecord]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=_delimiter(path))
        names = [name.strip() for name in next(reader)]
        while True:
            first = reader.line_num + 1  # a quoted CIF takes many lines
            values = next(reader, None)
            if values is None:
                return
            if not values:
                continue
            where = f"line {first}"
            if len(values) != len(names):
                yield where, SkippedRecord(where, f"it has {len(values)} values for {len(names)} columns")
            else:
                yield where, dict(zip(names, (value.strip() for value in values), strict=True))


def _delimiter(path: Path) -> str:
    return "\t" if path.suffix == ".tsv" else ","


def _parquet(path: Path) -> tuple[list[str], Iterator[tuple[str, dict[str, Any] | SkippedRecord]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    return file.schema_arrow.names, _parquet_rows(file)


def _parquet_rows(file: Any) -> Iterator[tuple[str, dict[str, Any] | SkippedRecord]]:
    number = 0
    for batch in file.iter_batches(batch_size=1024):
        for row in batch.to_pylist():
            yield f"row {number}", row
            number += 1


def _check_columns(path: Path, names: Iterable[str], column: str) -> None:
    names = set(names)
    missing = {column} - names
    if not names & {"cif", "file"} and not {"Z", "frac"} <= names:
        missing |= {"formula", "n_atoms", *CELL} - names
        missing |= set() if names & set(_GROUP_NAMES) else {"spacegroup"}
    if missing:
        plural = "s" if len(missing) > 1 else ""
        names = ", ".join(sorted(missing))
        raise DataError(f"{path} has no column{plural} {names}; docs/how-to/use-your-own-data.md lists what is needed")


def _record(where: str, row: Mapping[str, Any], column: str, folder: Path, setting: str) -> Record | SkippedRecord:
    group = next((row[name] for name in _GROUP_NAMES if row.get(name) not in (None, "")), None)
    filed = {"formula": row.get("formula") or None, "spacegroup": group}

    def make() -> Record:
        structure = _structure(row, folder)
        if structure is None:
            return from_cell(where, {**row, **filed}, row[column], column, setting)
        return from_structure(where, structure, row[column], column, filed)

    return attempt(where, make)


def _structure(row: Mapping[str, Any], folder: Path) -> Structure | None:
    """The structure of a row with positions."""
    from pymatgen.core import Lattice, Structure

    if row.get("cif"):
        return read_cif(row["cif"], "the column cif")
    if row.get("file"):
        path = folder / row["file"]
        path = path if path.is_file() else path.with_name(path.name + ".cif")
        if not path.is_file():
            raise DataError(f"there is no file {row['file']} in {folder}")
        return read_cif(path.read_text(encoding="utf-8", errors="replace"), row["file"])
    prefix = next((p for p in PREFIXES if row.get(p + "a") is not None), None)
    if row.get("Z") is None or prefix is None:
        if not {"formula", "n_atoms", *CELL} <= set(row):
            raise DataError("it has neither positions nor a conventional cell")
        return None
    cell = Lattice.from_parameters(*(row[prefix + x] for x in CELL))
    return Structure(cell, row["Z"], np.reshape(row["frac"], (-1, 3)))


def read_cif(text: str, name: str) -> Structure:
    """The structure of a CIF.

    Raises:
        DataError: text that pymatgen cannot read.
    """
    from pymatgen.core import Structure

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rounded coordinates and the like
        try:
            return Structure.from_str(text, fmt="cif")
        except Exception as error:  # pymatgen raises whatever a damaged file makes it stumble over
            raise DataError(f"{name} is not a CIF that can be read: {error}") from error


def stream_xyz(path: Path, column: str) -> Iterator[Record | SkippedRecord]:
    """The frames of an extended XYZ file; the label is the value ``column=...`` of the comment line.

    A frame needs a ``Lattice``. ``formula`` and ``spacegroup`` in the comment line count towards the key, if given.

    Raises:
        DataError: a file that is missing or empty.
    """
    if not path.is_file():
        raise DataError(f"there is no data file {path}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty")
    for frame, (line, text, wrong) in enumerate(xyz_frames(path)):
        where = f"frame {frame} (line {line})"
        yield _frame_record(where, text, column) if wrong is None else SkippedRecord(where, wrong)


def _frame_record(where: str, text: str, column: str) -> Record | SkippedRecord:
    def make() -> Record:
        from pymatgen.io.ase import AseAtomsAdaptor

        atoms = _atoms(text)
        if not atoms.pbc.all() or not atoms.cell.rank == 3:
            raise DataError("it has no Lattice in three directions, so it is no crystal")
        values = {**atoms.info, **(atoms.calc.results if atoms.calc else {})}
        if column not in values:
            raise DataError(f"its comment line has no {column}=<number>")
        filed = {"formula": values.get("formula"), "spacegroup": values.get("spacegroup")}
        return from_structure(where, AseAtomsAdaptor.get_structure(atoms), values[column], column, filed)

    return attempt(where, make)


def _atoms(text: str) -> Atoms | Any:
    from ase.io import read

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read(io.StringIO(text), format="extxyz")
        except Exception as error:  # ase raises whatever a damaged frame makes it stumble over
            raise DataError(f"it cannot be read as extended XYZ: {error}") from error
