"""Where labelled crystals come from: files, folders, MatBench, the Materials Project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crystalgfn.crystallography.atoms import SkippedRecord
from crystalgfn.data.databases import FIELDS, stream_matbench, stream_materials_project
from crystalgfn.data.labelled import COLUMNS
from crystalgfn.data.records import SETTINGS, Record
from crystalgfn.data.tables import stream_folder, stream_table, stream_xyz
from crystalgfn.errors import DataError

MATBENCH, MATERIALS_PROJECT = "matbench:", "materials_project:"
TABLES = (".csv", ".tsv", ".parquet")
XYZ = (".xyz", ".extxyz")


def stream(
    source: str | Path, property: str = "formation_energy", column: str | None = None, setting: str = "unknown"
) -> Iterator[Record | SkippedRecord]:
    """The rows of a source one after the other: labelled crystals, and what cannot be used with the reason.

    Args:
        source: a CSV, TSV, Parquet or extended XYZ file; a folder of CIF files with a table; ``matbench:<task>``;
            ``materials_project:<chemical system, formula or identifiers>``.
        property: a key of ``crystalgfn.data.labelled.COLUMNS``, or one of your own, whose column you name.
        column: where the label stands; None: where the property usually does.
        setting: what is known of cells without positions; see :func:`crystalgfn.data.labelled.read`.

    Raises:
        DataError: a source that is missing, empty, or of a kind that is not known; no column for the property.
        NotAvailable: MatBench without matminer.
    """
    if setting not in SETTINGS:
        raise DataError(f"setting is {setting!r}; it must be one of {', '.join(SETTINGS)}")
    if column is None and property not in COLUMNS:
        raise DataError(f"where {property!r} stands is not known; name its column (known: {', '.join(COLUMNS)})")
    name = str(source)
    if name.startswith(MATBENCH):
        return stream_matbench(name.removeprefix(MATBENCH), property, column)
    if name.startswith(MATERIALS_PROJECT):
        if column is None and property not in FIELDS:
            raise DataError(f"the Materials Project has no {property!r}; it has {', '.join(FIELDS)}, or name a field")
        return stream_materials_project(name.removeprefix(MATERIALS_PROJECT), column or FIELDS[property])
    column = column or COLUMNS[property][0]
    path = Path(source)
    if path.is_dir():
        return stream_folder(path, column, setting)
    if path.suffix in XYZ:
        return stream_xyz(path, column)
    if path.suffix in TABLES:
        return stream_table(path, column, setting)
    if not path.exists():
        raise DataError(f"there is no data file {path}")
    known = ", ".join((*TABLES, *XYZ))
    raise DataError(
        f"{path} is of a kind that is not read; there are {known}, folders of CIF files, {MATBENCH}<task> and "
        f"{MATERIALS_PROJECT}<query>"
    )
