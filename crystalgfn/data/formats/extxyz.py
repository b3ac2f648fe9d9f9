"""Extended XYZ files: every frame with a lattice in three directions is a crystal. They are read with ase."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.atoms import Record, SkippedRecord, from_matrix, group_number
from crystalgfn.data.formats.base import MOLECULES, element_number, first_line, read_text
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
    lines = text.rstrip().split("\n")
    at = 0
    while at < len(lines):
        first = lines[at].strip()
        if not first:
            at += 1
        elif not (first.isascii() and first.isdigit() and len(first) < 10):
            yield at + 1, first, f"{first[:40]!r} is not a number of atoms; the rest of the file is lost"
            return
        else:
            end = at + int(first) + 2
            yield at + 1, "\n".join(lines[at:end]) + "\n", _miscounted(lines, at, end)
            at = end


def _miscounted(lines: list[str], at: int, end: int) -> str | None:
    """What is wrong where a frame's number of atoms is not that of its lines."""
    count = lines[at].strip()
    if end > len(lines):
        return f"it says {count} atoms, and {max(0, len(lines) - at - 2)} lines of atoms follow"
    after = lines[end].split() if end < len(lines) else []
    if len(after) > 3 and count != "0" and len(after) == len(lines[end - 1].split()):
        return f"it says {count} atoms, and line {end + 1} has one more"
    return None


def _record(where: str, text: str) -> Record:
    from ase.io import read

    text, notes = _plain_species(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            atoms: Any = read(io.StringIO(text), format="extxyz")
        except Exception as error:  # ase raises whatever a damaged frame makes it stumble over
            raise DataError(f"it cannot be read as extended XYZ ({first_line(error)})") from error
    _check_said(atoms)
    cell = np.asarray(atoms.cell)
    if not np.any(cell):
        raise DataError("it has no Lattice in three directions, so it is no crystal")
    flags = next((value for name, value in atoms.info.items() if name.lower() == "pbc"), atoms.pbc)
    if not np.all(flags):
        shown = " ".join("FT"[int(bool(x))] for x in np.ravel(flags))
        raise DataError(f'it is not periodic in three directions (pbc="{shown}"), so it is no crystal')
    values = {**atoms.info, **(atoms.calc.results if atoms.calc else {})}
    with np.errstate(all="ignore"):
        try:
            points = atoms.positions @ np.linalg.inv(cell)
        except np.linalg.LinAlgError as error:
            raise DataError("its Lattice has no volume, so it is no crystal") from error
    group = group_number(values.get("space_group", values.get("spacegroup")))
    return Record(where, from_matrix(where, cell, points, atoms.numbers, group), values, notes)


def _columns(comment: str) -> dict[str, int]:
    """Name -> first word of the columns that a comment line declares.

    Raises:
        DataError: no column of positions.
    """
    found = re.search(r"\bProperties=\"?([\w:]+)", comment)
    parts = (found[1] if found else "species:S:1:pos:R:3").split(":")
    columns: dict[str, int] = {}
    at = 0
    for name, width in zip(parts[::3], parts[2::3], strict=False):
        columns[name] = at
        at += int(width) if width.isdigit() else 1
    if not {"pos", "positions"} & columns.keys():
        raise DataError(f"its Properties have no column pos: {', '.join(columns)}")
    if {"species", "Z"} <= columns.keys():
        raise DataError("its Properties name the elements twice: species, Z")
    return columns


def _plain_species(text: str) -> tuple[str, tuple[str, ...]]:
    """A frame with D and T, which ase does not know, as H, and what has to be said of it.

    Raises:
        DataError: a species that names a molecule, which ase would take for an element.
    """
    notes: list[str] = []

    def plain(found: re.Match[str]) -> str:
        word = found[2]
        if word in MOLECULES:
            raise DataError(f"the species {word!r} may be an element or a molecule; write {word.capitalize()!r}")
        if word not in ("D", "T"):
            if word.capitalize() not in elements.NUMBER:
                raise DataError(f"the species {word!r} is no element")
            return found[0]
        notes.extend(element_number(word)[1])
        return f"{found[1]}H"

    head, _, rest = text.partition("\n")
    comment, _, atoms = rest.partition("\n")
    at = _columns(comment).get("species")
    if at is not None:
        atoms = re.sub(rf"^([ \t]*(?:\S+[ \t]+){{{at}}})(\S+)", plain, atoms, flags=re.MULTILINE)
    return f"{head}\n{comment}\n{atoms}", tuple(dict.fromkeys(notes))


def _check_said(atoms: Any) -> None:
    """Refuse partial occupancies, which ase keeps beside the atoms that are most of each site.

    Raises:
        DataError: names them.
    """
    shares = [atoms.arrays[name] for name in ("occupancy", "occupancies") if name in atoms.arrays]
    kinds = atoms.info.get("occupancy")
    if isinstance(kinds, dict):
        shares += [list(one.values()) for one in kinds.values() if isinstance(one, dict)]
    if any(np.any(np.asarray(one) != 1) for one in shares):
        raise DataError("it has partial occupancies, which the atoms of extended XYZ do not hold; give the CIF")


EXTXYZ = ExtendedXYZ()
