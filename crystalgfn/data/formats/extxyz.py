"""Extended XYZ files: every frame with a lattice in three directions is a crystal. They are read with ase."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crystalgfn.crystallography.atoms import Record, SkippedRecord, from_matrix, group_number
from crystalgfn.data.formats.base import element_number, first_line, read_text
from crystalgfn.errors import DataError, NotAvailable


class ExtendedXYZ:
    """One crystal a frame; the values of the comment line are those of the record."""

    suffixes = (".extxyz", ".xyz")
    structures = True

    def open(self, uri: str | Path) -> Iterator[Record | SkippedRecord]:
        """The frames of a file, one after the other."""
        try:
            import ase.io  # noqa: F401
        except ImportError as error:
            raise NotAvailable(f"{uri}: extended XYZ is read with ase ({error}); pip install ase") from error
        path = Path(uri)
        text = read_text(path)
        if not text.strip():
            raise DataError(f"{path} is empty")
        for number, (line, frame, wrong) in enumerate(frames(text)):
            where = f"{path.name}, frame {number} (line {line})"
            try:
                yield SkippedRecord(where, wrong) if wrong is not None else _record(where, frame)
            except DataError as error:
                yield SkippedRecord(where, str(error))


def frames(text: str) -> Iterator[tuple[int, str, str | None]]:
    """The frames of a file by their numbers of atoms: number of the first line, text, what is wrong.

    After a line that should be a number of atoms and is not there are no more.
    """
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        first = lines[at].strip()
        if not first:
            at += 1
        elif not (first.isascii() and first.isdigit()):
            yield at + 1, first, f"{first[:40]!r} is not a number of atoms; the rest of the file is lost"
            return
        else:
            yield at + 1, "\n".join(lines[at : at + int(first) + 2]) + "\n", None
            at += int(first) + 2


def _record(where: str, text: str) -> Record:
    from ase.io import read

    text, notes = _light_hydrogen(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            atoms: Any = read(io.StringIO(text), format="extxyz")
        except Exception as error:  # ase raises whatever a damaged frame makes it stumble over
            raise DataError(f"it cannot be read as extended XYZ ({first_line(error)})") from error
    cell = np.asarray(atoms.cell)
    if not np.any(cell):
        raise DataError("it has no Lattice in three directions, so it is no crystal")
    if not atoms.pbc.all():
        flags = " ".join("FT"[int(x)] for x in atoms.pbc)
        raise DataError(f'it is not periodic in three directions (pbc="{flags}"), so it is no crystal')
    values = {**atoms.info, **(atoms.calc.results if atoms.calc else {})}
    with np.errstate(all="ignore"):
        try:
            points = atoms.positions @ np.linalg.inv(cell)
        except np.linalg.LinAlgError as error:
            raise DataError("its Lattice has no volume, so it is no crystal") from error
    group = group_number(values.get("space_group", values.get("spacegroup")))
    return Record(where, from_matrix(where, cell, points, atoms.numbers, group), values, notes)


def _light_hydrogen(text: str) -> tuple[str, tuple[str, ...]]:
    """A frame with D and T, which ase does not know, as H, and what has to be said of it."""
    notes: list[str] = []

    def light(found: re.Match[str]) -> str:
        notes.extend(element_number(found[2])[1])
        return f"{found[1]}H "

    head, _, rest = text.partition("\n")
    comment, _, atoms = rest.partition("\n")
    if re.search(r"Properties=(?!species:S:1)", comment):
        return text, ()
    atoms = re.sub(r"^([ \t]*)([DT])[ \t]", light, atoms, flags=re.MULTILINE)
    return f"{head}\n{comment}\n{atoms}", tuple(dict.fromkeys(notes))


EXTXYZ = ExtendedXYZ()
