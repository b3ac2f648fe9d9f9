"""Anyone's crystals, to be judged: runs of ``crystalgfn-sample``, folders of CIFs, Parquet, CSV and extended XYZ.

Unlike `crystalgfn.data.structures.read_atoms`, partial occupancies are kept, and what takes time (parsing) is left
to whoever calls `Item.read`, so that it can be shared out to processes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.atoms import Atoms, SkippedRecord, structure_of
from crystalgfn.data.structures import group_number, read_atoms, read_cif, xyz_frames
from crystalgfn.errors import DataError, NotAvailable

if TYPE_CHECKING:
    import pandas as pd
    from pymatgen.core import Structure

FILES = (".cif", ".vasp", ".extxyz", ".xyz")
"""Endings of the structure files that a folder may hold."""
SMALLEST = 1e-3
"""Å3 an atom; a smaller cell is none."""
HEADER = ("_symmetry_Int_Tables_number", "_space_group_IT_number")
NAMES = ("_symmetry_space_group_name_H-M", "_space_group_name_H-M_alt")
_COUNTED = ("n_atoms", "spacegroup", "space_group", "number")
"""Columns of a source that are found anew, not carried along."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One crystal to judge.

    Attributes:
        where: where it stands in its source.
        structure: as the source has it, without oxidation states; sites may be partially occupied.
        claimed: the space group that the source names, 0 where it names none.
        values: what else the source says of it, numbers by name.
    """

    where: str
    structure: Structure
    claimed: int = 0
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Item:
    """A crystal that is not read yet.

    Attributes:
        where: where it stands in its source.
        kind: "file", "cif", "frame" or "atoms".
        content: a path, the text of a CIF or of a frame of extended XYZ, or `Atoms`.
        claimed: the space group that its source names beside it, 0 where it names none.
        values: what else its source says of it.
    """

    where: str
    kind: str
    content: Any
    claimed: int = 0
    values: Mapping[str, float] = field(default_factory=dict)

    def read(self) -> Sample | SkippedRecord:
        """The crystal, or why it cannot be read."""
        kind, content, claimed = self.kind, self.content, self.claimed
        if kind == "file":
            path = Path(content)
            try:
                content = path.read_text(errors="replace")
            except OSError as error:
                return SkippedRecord(self.where, f"cannot be read ({error.strerror or error})")
            kind = {".cif": "cif", ".vasp": "poscar"}.get(path.suffix.lower(), "frame")
        if kind == "cif":
            claimed = claimed or claimed_group(content)
            structure = read_cif(self.where, content)
        elif kind == "atoms":
            structure = structure_of(content)
        else:
            structure, named = _foreign(self.where, content, kind)
            claimed = claimed or named
        return structure if isinstance(structure, SkippedRecord) else _checked(self, structure, claimed)


def read_items(path: str | Path) -> list[Item | SkippedRecord]:
    """Everything that a source holds, parsed as little as possible.

    Args:
        path: the folder of a run of ``crystalgfn-sample``, a folder of ``.cif`` (or ``.vasp``, ``.extxyz``) files, one
            such file, or what `read_atoms` takes.

    Returns:
        What can be tried, and rows of which it is known already why they have no atoms.

    Raises:
        DataError: no such source, or nothing in it.
        NotAvailable: extended XYZ without ase.
    """
    path = path if path == "aflow" else Path(path)
    if path == "aflow":
        items = [_of_atoms(one, {}) for one in read_atoms("aflow")]
    elif path.is_dir():
        items = _folder(path)
    elif not path.is_file():
        raise DataError(f"there is no file or folder {path}; give crystals that are there")
    elif path.suffix.lower() in FILES:
        items = _file(path, path.name)
    elif path.suffix in (".parquet", ".csv"):
        items = _table(path)
    else:
        raise DataError(
            f"{path} is no run, no folder of CIFs and no .parquet, .csv, .cif or .extxyz file; give one of these"
        )
    if not items:
        raise DataError(f"{path} holds no crystals; give a source that does")
    return items


def read_formulas(path: str | Path) -> list[tuple[tuple[tuple[int, float], ...], dict[str, float]]]:
    """(Z, atoms) pairs and the numbers of the rows of a table that have a formula and no atoms; none of other sources.

    A database's table may hold energies of compounds whose atoms it leaves out.
    """
    path = Path(path)
    if path.suffix != ".parquet" or not path.is_file():
        return []
    table = _read_parquet(path)
    atoms = next((name for name in ("cif", "Z") if name in table), None)
    if "formula" not in table or atoms is None:
        return []
    table = table[table[atoms].isna() & table["formula"].notna()]
    return [(_pairs(text), values) for text, values in zip(table["formula"], _values(table), strict=True)]


def _pairs(formula: str) -> tuple[tuple[int, float], ...]:
    from pymatgen.core import Composition

    try:
        found = Composition(formula)
    except ValueError as error:
        raise DataError(f"{formula!r} is no formula ({error}); mend it, or leave the row out") from error
    return tuple(sorted((element.Z, float(n)) for element, n in found.items()))


def claimed_group(text: str) -> int:
    """The number of the space group that a CIF names, 0 where it names none."""
    for tag in HEADER:
        found = re.search(rf"^\s*{tag}\s+['\"]?(\d+)", text, re.MULTILINE | re.IGNORECASE)
        if found and 1 <= int(found[1]) <= 230:
            return int(found[1])
    for tag in NAMES:
        found = re.search(rf"^\s*{tag}\s+(['\"]?)([^'\"\n]+?)\1\s*$", text, re.MULTILINE | re.IGNORECASE)
        if found:
            return _number(found[2])
    return 0


@cache
def _number(symbol: str) -> int:
    """The number of a Hermann-Mauguin symbol, 0 for one that is not known."""
    from pymatgen.symmetry.groups import SpaceGroup

    try:
        return int(SpaceGroup(symbol.replace(" ", "").partition(":")[0]).int_number)
    except (ValueError, KeyError):
        return 0


def _folder(path: Path) -> list[Item | SkippedRecord]:
    if (path / "table.parquet").is_file():
        return _run(path)
    if (path / "manifest.json").is_file() and (path / "shards").is_dir():
        raise DataError(f"{path} is a run in shards, which has no atoms; place them first (docs/guide/scaling.md)")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in FILES)
    if not files:
        raise DataError(f"the folder {path} holds no table.parquet of a run and no {', '.join(FILES)} file")
    cifs = [file for file in files if file.suffix.lower() == ".cif"]  # beside them the others are the same crystals
    return [item for file in cifs or files for item in _file(file, file.name)]


def _file(path: Path, where: str) -> list[Item | SkippedRecord]:
    if path.suffix.lower() in (".extxyz", ".xyz"):
        return list(_frames(path, where))
    return [Item(where, "file", str(path))]


def _run(path: Path) -> list[Item | SkippedRecord]:
    table = _read_parquet(path / "table.parquet")
    if "file" not in table or table["file"].isna().all():
        raise DataError(f"the run {path} has no structure files; draw with structures=true")
    items: list[Item | SkippedRecord] = []
    for i, values in enumerate(_values(table)):
        name, where = table["file"].iat[i], f"row {i}"
        if not isinstance(name, str):
            reason = table["error"].iat[i] if "error" in table else None
            items.append(SkippedRecord(where, reason if isinstance(reason, str) else "has no structure file"))
            continue
        claimed = int(table["space_group"].iat[i]) if "space_group" in table else 0
        for item in _file(path / name, name):
            items.append(Item(name, item.kind, item.content, claimed, values) if isinstance(item, Item) else item)
    return items


def _table(path: Path) -> list[Item | SkippedRecord]:
    """Parquet or CSV with CIFs, or Parquet with atoms."""
    import pandas as pd

    try:
        table = _read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    values = _values(table)
    if "cif" in table:
        claims = table["spacegroup"] if "spacegroup" in table else [0] * len(table)
        return [
            Item(f"row {i}", "cif", text, group_number(claims[i]), values[i])
            if isinstance(text, str)
            else SkippedRecord(f"row {i}", "cif is empty")
            for i, text in enumerate(table["cif"])
        ]
    return [_of_atoms(one, values[int(one.where.split()[1])]) for one in read_atoms(path)]


def _of_atoms(one: Atoms | SkippedRecord, values: Mapping[str, float]) -> Item | SkippedRecord:
    return one if isinstance(one, SkippedRecord) else Item(one.where, "atoms", one, one.space_group, values)


def _read_parquet(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error


def _values(table: pd.DataFrame) -> list[dict[str, float]]:
    """The numbers of each row, but for cells and counts, which are found anew."""
    names = [n for n in table.select_dtypes("number") if n not in _COUNTED and not re.fullmatch(_CELL, str(n))]
    columns = [table[name].to_numpy(dtype=np.float64) for name in names]
    return [dict(zip(names, map(float, row), strict=True)) for row in zip(*columns, strict=True)] or [{}] * len(table)


_CELL = r"(?:\w+_)?(?:a|b|c|alpha|beta|gamma)"


def _frames(path: Path, where: str) -> Iterator[Item | SkippedRecord]:
    """The frames of a file, by their numbers of atoms."""
    try:
        import ase.io  # noqa: F401
    except ImportError as error:
        raise NotAvailable(f"{path}: extended XYZ is read with ase ({error}); pip install ase") from error
    for number, (_, text, wrong) in enumerate(xyz_frames(path)):
        name = f"{where}, frame {number}"
        yield Item(name, "frame", text) if wrong is None else SkippedRecord(name, wrong)


def _foreign(where: str, text: str, kind: str) -> tuple[Structure | SkippedRecord, int]:
    """The structure of a POSCAR or a frame of extended XYZ, and the group that it names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if kind == "poscar":
                from pymatgen.io.vasp import Poscar

                return Poscar.from_str(text).structure, 0
            from ase.io import read
            from pymatgen.io.ase import AseAtomsAdaptor

            atoms = read(io.StringIO(text), format="extxyz")
            if atoms.cell.rank != 3:
                return SkippedRecord(where, "has no Lattice in three directions, so it is no crystal"), 0
            structure = AseAtomsAdaptor.get_structure(atoms)
        except Exception as error:  # the parsers raise whatever a damaged text makes them stumble over
            return SkippedRecord(
                where, f"cannot be read ({(str(error).splitlines() or [type(error).__name__])[0][:120]})"
            ), 0
    from pymatgen.core import Structure

    plain = Structure(structure.lattice, structure.species, structure.frac_coords)
    return plain, group_number(atoms.info.get("space_group", atoms.info.get("spacegroup")))


def _checked(item: Item, structure: Structure, claimed: int) -> Sample | SkippedRecord:
    """A sample, unless its elements or its cell mean nothing."""
    names = {str(getattr(element, "symbol", element)) for element in structure.composition}
    unknown = sorted(name for name in names if name not in elements.NUMBER and name not in ("D", "T"))
    if unknown:
        return SkippedRecord(item.where, f"{unknown[0]} is no element")
    structure = structure.copy(site_properties={})
    structure.remove_oxidation_states()
    if not (np.isfinite(structure.lattice.matrix).all() and np.isfinite(structure.frac_coords).all()):
        return SkippedRecord(item.where, "has a coordinate that is no number")
    if not structure.volume / max(len(structure), 1) > SMALLEST:
        return SkippedRecord(item.where, f"a cell of {structure.volume:.2g} Å3 for {len(structure)} atoms")
    return Sample(item.where, structure, claimed, item.values)
