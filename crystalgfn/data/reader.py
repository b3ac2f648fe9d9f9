"""The one reader of crystals: files of every format, folders, runs, databases, and lists of these."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from crystalgfn.crystallography.atoms import Record, SkippedRecord, atoms_fault
from crystalgfn.data.databases import DATABASES, NAMED, open_database
from crystalgfn.data.formats.base import Format, format_of, formats
from crystalgfn.errors import DataError
from crystalgfn.utils.files import path_of

NOTED = 5
"""Records that a warning names, at most."""
log = logging.getLogger(__name__)

Source = str | Path | Sequence[str | Path]


def records(source: Source, fields: Sequence[str] = ()) -> Iterator[Record | SkippedRecord]:
    """Everything that a source holds, one entry after the other, and what is no crystal with its place and the reason.

    Args:
        source: a file of one of the formats (`crystalgfn.data.formats`), a folder of structure files, the folder of a
            run of ``crystalgfn sample``, ``matbench:<task>``, ``materials_project:<query>``, ``aflow`` (AFLOW's
            prototypes as pymatgen carries them), ``experiment`` (measured enthalpies), or several of these.
        fields: values that a database is asked for.

    Warns:
        UserWarning: a record that could be read in more than one way; names the way.

    Raises:
        DataError: there is no such source, it cannot be read as a whole, or it holds nothing.
        NotAvailable: a format or database needs a package that is not installed.

    Example:
        >>> list(records("no such file.cif"))
        Traceback (most recent call last):
        crystalgfn.errors.DataError: there is no file or folder no such file.cif; give crystals that are there
    """
    noted: list[str] = []
    empty = True
    for entry in _open(source, fields):
        empty = False
        if isinstance(entry, SkippedRecord):
            yield SkippedRecord(entry.where, " ".join(entry.reason.split()))
            continue
        reason = None if entry.atoms is None else atoms_fault(entry.atoms)
        if reason is not None:
            yield SkippedRecord(entry.where, reason)
            continue
        noted += [f"{entry.where}: {note}" for note in entry.notes]
        yield entry
    if empty:
        raise DataError(f"{_name(source)} is empty: it holds no crystals; give a source that does")
    if noted:
        more = f"; and {len(noted) - NOTED} more" if len(noted) > NOTED else ""
        warnings.warn(f"{'; '.join(noted[:NOTED])}{more}", stacklevel=2)


def crystals(source: Source) -> Iterator[Record | SkippedRecord]:
    """The entries of `records` that have atoms, or a reason why not; rows without positions are passed over.

    Raises:
        DataError: see `records`; no entry has positions.
    """
    empty = True
    for one in records(source):
        if isinstance(one, SkippedRecord) or one.atoms is not None:
            empty = False
            yield one
    if empty:
        raise DataError(f"{_name(source)} holds no crystal with positions; give a source that does")


def only_ordered(entry: Record | SkippedRecord) -> Record | SkippedRecord:
    """The entry, or a `SkippedRecord` for a disordered crystal."""
    if isinstance(entry, SkippedRecord) or entry.atoms is None or entry.atoms.is_ordered:
        return entry
    formula = entry.structure.composition.reduced_formula
    return SkippedRecord(entry.where, f"{formula} is disordered; order it first, or leave it out")


def files_of(source: str | Path) -> list[Path]:
    """The files that a source is read from; none of a database."""
    path = path_of(source)
    if path.is_dir():
        run = path / "table.parquet"
        return [run] if run.is_file() else [file for file, _ in _structure_files(path)]
    return [path] if path.exists() else []


def _name(source: Source) -> str:
    return str(source) if isinstance(source, str | Path) else ", ".join(map(str, source))


def _open(source: Source, fields: Sequence[str]) -> Iterator[Record | SkippedRecord]:
    if not isinstance(source, str | Path):
        yield from _several(source, fields)
        return
    name, path = str(source), path_of(source)
    log.debug("reading %s", name)
    if name in NAMED or name.startswith(DATABASES):
        yield from open_database(name, fields)
    elif path.is_dir():
        yield from _folder(path)
    elif not path.exists():
        raise DataError(f"there is no file or folder {path}; give crystals that are there")
    elif (one := format_of(path)) is not None:
        yield from one.open(path)
    else:
        raise DataError(
            f"{path} is of a kind that is not read; give one of these: {', '.join(formats())}, a folder of such files, "
            f"a run, {', '.join(NAMED)}, {', '.join(f'{name}<query>' for name in DATABASES)}"
        )


def _several(sources: Sequence[str | Path], fields: Sequence[str]) -> Iterator[Record | SkippedRecord]:
    if not sources:
        raise DataError("no source of crystals is named; give one, or several as a list")
    for one in sources:
        prefix = f"{Path(one).name}, " if len(sources) > 1 else ""
        for entry in _open(one, fields):
            yield entry if entry.where.startswith(Path(one).name) else replace(entry, where=prefix + entry.where)


def _folder(path: Path) -> Iterator[Record | SkippedRecord]:
    if (path / "table.parquet").is_file():
        yield from _run(path)
        return
    if (path / "manifest.json").is_file() and (path / "shards").is_dir():
        raise DataError(f"{path} is a run in shards, which has no atoms; place them first (docs/guide/scaling.md)")
    files = _structure_files(path)
    if not files:
        kinds = ", ".join(suffix for suffix, one in formats().items() if one.structures and suffix != ".cif")
        raise DataError(f"the folder {path} holds no .cif file or other structures ({kinds}), and no table of a run")
    for file, one in files:
        try:
            yield from one.open(file)
        except DataError as error:
            yield SkippedRecord(file.name, str(error))


def _structure_files(path: Path) -> list[tuple[Path, Format]]:
    """Structure files of a folder with their formats; where there are CIFs the others are the same crystals."""
    found = []
    for file in sorted(path.iterdir()):
        one = format_of(file)
        if one is not None and one.structures and not file.name.startswith("."):  # "._x.cif" is a Mac's bookkeeping
            found.append((file, one))
    cifs = [pair for pair in found if ".cif" in pair[1].suffixes]
    return cifs or found


def _run(path: Path) -> Iterator[Record | SkippedRecord]:
    """The rows of a run's table; each goes by the name of its structure file."""
    named = False
    for entry in formats()[".parquet"].open(path / "table.parquet"):
        if isinstance(entry, Record) and entry.values.get("file") is not None:
            named = True
            yield replace(entry, where=str(entry.values["file"]))
        else:
            named |= isinstance(entry, SkippedRecord) and entry.reason != "has no structure file"
            yield entry
    if not named:
        raise DataError(f"the run {path} has no structure files; draw with structures=true")
