"""Tables (CSV, TSV, Parquet): a row's crystal is a CIF's text, a named file, plain atoms, or a formula with a cell."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crystalgfn.crystallography.atoms import CELL, Atoms, Record, SkippedRecord, group_number, plain_number
from crystalgfn.data.formats.base import decode, first_line, format_of, read_bytes
from crystalgfn.data.formats.cif import read_cif
from crystalgfn.errors import DataError

PREFIXES = ("prim_", "cell_")
"""Of the columns that hold the cell which the positions are fractions of."""
FORMULAS = ("formula", "composition", "True Composition", "formula_pretty", "pretty_formula")
GROUPS = ("spacegroup", "space_group", "Space group #")
HEAVY = ("cif", "Z", "frac")


class Table:
    """Comma or tab separated text."""

    suffixes = (".csv", ".tsv")
    structures = False

    def open(self, uri: str | Path) -> Iterator[Record | SkippedRecord]:
        """The rows of a table, one after the other; the place is the line of the file that a row begins at."""
        path = Path(uri)
        text = _text(path)
        if not text.strip():
            raise DataError(f"{path} is empty")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if ".tsv" in path.name.lower() else ",")
        try:
            names = [name.strip() for name in next(reader)]
            check_columns(path, names)
            yield from self._rows(path, names, reader)
        except csv.Error as error:
            raise DataError(f"{path} cannot be read as a table: {error}") from error

    def _rows(self, path: Path, names: list[str], reader: Any) -> Iterator[Record | SkippedRecord]:
        while True:
            where = f"line {reader.line_num + 1}"  # a quoted CIF takes many lines
            values = next(reader, None)
            if values is None:
                return
            if not values:
                continue
            if len(values) != len(names):
                yield SkippedRecord(where, f"it has {len(values)} values for {len(names)} columns")
            else:
                yield from _records(where, dict(zip(names, (v.strip() for v in values), strict=True)), path.parent)


def _text(path: Path) -> str:
    content = read_bytes(path)
    try:
        return decode(content, path, strict=True)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read as a table: {error}; save it in UTF-8") from error


class Parquet:
    """Parquet files; a saved index of pandas is no column and no numbering of the rows."""

    suffixes = (".parquet",)
    structures = False

    def open(self, uri: str | Path) -> Iterator[Record | SkippedRecord]:
        """The rows of a file, one after the other, counted from 0."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(uri)
        number = 0
        try:
            file = pq.ParquetFile(pa.BufferReader(read_bytes(path)))
            check_columns(path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=1024):
                table = batch.to_pandas(ignore_metadata=True)
                columns = {name: _plain(table[name]) for name in table if not name.startswith("__index_level_")}
                for values in zip(*columns.values(), strict=True):
                    yield from _records(f"row {number}", dict(zip(columns, values, strict=True)), path.parent)
                    number += 1
        except (OSError, pa.ArrowException, ValueError, OverflowError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path} cannot be read as Parquet: {first_line(error)}") from error


def _plain(column: Any) -> list[Any]:
    """Python values; what is missing is None."""
    values = column.tolist()
    return [None if isinstance(value, float) and value != value else value for value in values]


def check_columns(path: Path, names: Iterable[str]) -> None:
    """Refuse a table in which nothing tells a crystal.

    Raises:
        DataError: names the columns that are missing.
    """
    names = list(names)
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(f"{path} has the column {twice[0]} twice; give each a name of its own")
    if len(names) == 1 and ";" in names[0]:
        raise DataError(f"{path} is separated by semicolons; save it with commas")
    names = set(names)
    if names & {"cif", "file"}:
        return
    if {"Z", "frac"} & names:
        if missing := _missing(names):
            plural = "s" if len(missing) > 1 else ""
            raise DataError(
                f"{path} has no column{plural} {', '.join(missing)}; atoms are read from Z, frac and prim_a ... "
                "prim_gamma"
            )
    elif not names & set(FORMULAS):
        raise DataError(
            f"{path} has no column cif; it has {', '.join(sorted(names))}; "
            "docs/how-to/use-your-own-data.md lists what is read"
        )


def _missing(names: set[str]) -> list[str]:
    """The columns of plain atoms that are not there."""
    prefix = next((p for p in PREFIXES if any(p + x in names for x in CELL)), PREFIXES[0])
    missing = [name for name in ("Z", "frac") if name not in names]
    return missing or [prefix + x for x in CELL if prefix + x not in names]


def _records(where: str, row: Mapping[str, Any], folder: Path) -> Iterator[Record | SkippedRecord]:
    """The record of a row; several where its CIF or its file holds several crystals."""
    values = _values(row)
    group = group_number(next((values[name] for name in GROUPS if values.get(name) is not None), None))
    try:
        found = _atoms(where, row, folder)
    except DataError as error:
        yield SkippedRecord(where, str(error))
        return
    for one in found:
        if isinstance(one, SkippedRecord):
            yield one
            continue
        atoms = one.atoms and replace(one.atoms, where=one.where, space_group=group or one.atoms.space_group)
        yield Record(one.where, atoms, {**one.values, **values}, one.notes)


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says beside its atoms; empty text is None."""
    light = {name: value for name, value in row.items() if name and name not in HEAVY}
    return {name: None if isinstance(value, str) and not value else value for name, value in light.items()}


def _atoms(where: str, row: Mapping[str, Any], folder: Path) -> list[Record | SkippedRecord]:
    text, name = _given(row, "cif"), _given(row, "file")
    if text is not None:
        return _placed(where, "the column cif", read_cif("", _cif_text(text)))
    if name is not None:
        return _placed(where, str(name), _of_file(str(name), folder))
    if "cif" in row and not any(isinstance(row.get(one), str) and row[one] for one in FORMULAS):
        raise DataError("cif is empty")
    if "file" in row and "Z" not in row:
        raise DataError(str(row.get("error") or "has no structure file"))
    return [Record(where, _plain_atoms(where, row))]


def _given(row: Mapping[str, Any], name: str) -> Any:
    value = row.get(name)
    return None if isinstance(value, str) and not value else value


def _cif_text(value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise DataError("the column cif holds no text; it must be that of a CIF")
    return decode(value, "the column cif") if isinstance(value, bytes) else value


def _plain_atoms(where: str, row: Mapping[str, Any]) -> Atoms | None:
    """The atoms that the columns Z, frac and those of the cell hold; None where a row has none."""
    prefix = next((p for p in PREFIXES if row.get(p + "a") is not None), None)
    if row.get("Z") is None or row.get("frac") is None or prefix is None:
        return None
    missing = [prefix + x for x in CELL if row.get(prefix + x) is None]
    if missing:
        raise DataError(f"it has no {', '.join(missing)}")
    return _of_columns(where, row, prefix)


def _of_columns(where: str, row: Mapping[str, Any], prefix: str) -> Atoms:
    try:
        numbers = _joined(_listed(row["Z"]))
        parts = _listed(row["frac"])
        lattice = np.array([plain_number(row[prefix + x]) for x in CELL])
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"Z, frac or its cell are no numbers ({first_line(error)})") from error
    points = _joined(parts)
    if not (np.isfinite(numbers).all() and (numbers == numbers.round()).all() and (np.abs(numbers) < 1e6).all()):
        raise DataError("Z holds what is no atomic number")
    if len(parts) > 1 and not {len(one) for one in parts} <= {1, 3}:
        raise DataError(f"frac has lists of {len(parts[0])}; write [x, y, z] for each atom, or all in one list")
    if points.size != 3 * len(numbers):
        raise DataError(f"it has {points.size} coordinates and {len(numbers)} atoms")
    return Atoms(where=where, lattice=lattice, points=points.reshape(-1, 3), numbers=numbers.astype(np.int64))


def _joined(parts: list[list[float]]) -> np.ndarray:
    return np.array([x for one in parts for x in one])


def _listed(value: Any) -> list[list[float]]:
    """The parts of a list as Parquet has it, or as CSV writes one; a plain number is a part of one."""
    if isinstance(value, str):
        value = _written(value)
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iuf":
        return [[x] for x in value.tolist()]
    return [list(map(plain_number, np.ravel(one).tolist())) for one in np.atleast_1d(value)]


def _written(text: str) -> np.ndarray:
    """The words of a list as text: of each inner list, or all."""
    inner = re.findall(r"\[([^\[\]]*)\]", text) if "[[" in text.replace(" ", "") else []
    rows = [row.replace(",", " ").split() for row in inner] or [
        [x] for x in text.strip(" []").replace(",", " ").split()
    ]
    found = np.empty(len(rows), dtype=object)
    found[:] = rows
    return found


def _placed(where: str, subject: str, found: list[Record | SkippedRecord]) -> list[Record | SkippedRecord]:
    """Records of a row's CIF or file, each by the row's place."""
    places = [where] if len(found) == 1 else [f"{where}, crystal {i}" for i in range(len(found))]
    result: list[Record | SkippedRecord] = []
    for place, one in zip(places, found, strict=True):
        if isinstance(one, Record):
            result.append(replace(one, where=place))
        else:
            joint = " is " if one.reason.startswith("not a") else ": "
            result.append(SkippedRecord(place, f"{subject}{joint}{one.reason}"))
    return result


def _of_file(name: str, folder: Path) -> list[Record | SkippedRecord]:
    path = folder / name
    try:
        if not path.is_file() and path.name:
            path = path.with_name(path.name + ".cif")
        there = path.is_file()
    except (OSError, ValueError) as error:
        raise DataError(f"{name[:60]!r} is no name of a file ({first_line(error)[:60]})") from error
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"the file {name!r} is outside of the table's folder, so it is not read")
    one = format_of(path)
    if not there:
        raise DataError(f"there is no file {name} in {folder}")
    if one is None or not one.structures:
        raise DataError(f"{name} is no structure file")
    return list(one.open(path))


PARQUET, TABLE = Parquet(), Table()
csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
