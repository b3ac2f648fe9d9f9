"""Labelled crystals of an extended XYZ file, frame by frame."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalgfn.errors import DataError
from crystalgfn.proxies.records import BadRow, Record, attempt, from_structure
from crystalgfn.structures.sources import xyz_frames

if TYPE_CHECKING:
    from ase import Atoms


def stream_xyz(path: Path, column: str) -> Iterator[Record | BadRow]:
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
        yield _record(where, text, column) if wrong is None else BadRow(where, wrong)


def _record(where: str, text: str, column: str) -> Record | BadRow:
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
