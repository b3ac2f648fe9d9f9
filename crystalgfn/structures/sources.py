"""Real crystals in files of several kinds: Parquet, CSV with CIFs, folders of CIFs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.errors import DataError
from crystalgfn.tables import elements

if TYPE_CHECKING:
    from pymatgen.core import Structure

CELL = ("a", "b", "c", "alpha", "beta", "gamma")
PREFIXES = ("prim_", "cell_")
"""Of the columns that hold the cell which the positions are fractions of."""


@dataclass(frozen=True)
class Atoms:
    """The atoms of one crystal as its source has them.

    Attributes:
        where: where it stands in its source: "row 4", a file's name.
        lattice: a, b, c in Å, alpha, beta, gamma in degrees, [6].
        points: fractional coordinates [N, 3].
        numbers: atomic numbers [N].
        space_group: the group that the source names, 0 where it names none.
    """

    where: str
    lattice: np.ndarray
    points: np.ndarray
    numbers: np.ndarray
    space_group: int = 0


@dataclass(frozen=True)
class Unread:
    """A row that cannot be used, and why."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def read_atoms(path: str | Path) -> Iterator[Atoms | Unread]:
    """The crystals of a source, one after the other; rows without positions are passed over.

    Args:
        path: a ``.parquet`` file with columns ``Z``, ``frac`` and ``prim_a`` ... ``prim_gamma`` (or ``cell_a`` ...), a
            ``.csv`` file with a column ``cif``, a folder of ``.cif`` files, or "aflow" for AFLOW's prototypes as
            pymatgen carries them.

    Raises:
        DataError: no such source, or not one of these.
    """
    if path == "aflow":
        yield from _aflow()
        return
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.cif"))
        if not files:
            raise DataError(f"the folder {path} holds no .cif file")
        for file in files:
            yield _parse(file.name, file.read_text(errors="replace"))
    elif not path.is_file():
        raise DataError(f"there is no file or folder {path}")
    elif path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.suffix == ".csv":
        yield from _csv(path)
    else:
        raise DataError(f"{path} is no .parquet file, no .csv file with a column cif and no folder of .cif files")


def structure_of(atoms: Atoms) -> Structure:
    """The pymatgen structure of plain atoms."""
    from pymatgen.core import Lattice, Structure

    names = [elements.SYMBOLS[z - 1] for z in atoms.numbers]
    return Structure(Lattice.from_parameters(*atoms.lattice), names, atoms.points)


def atoms_of(where: str, structure: Structure, space_group: int = 0) -> Atoms | Unread:
    """The atoms of a structure; disordered ones cannot be used."""
    if not structure.is_ordered:
        return Unread(where, f"{structure.composition.reduced_formula} is disordered; order it first, or leave it out")
    numbers = np.array([site.specie.Z for site in structure])
    return Atoms(where, np.array(structure.lattice.parameters), structure.frac_coords % 1.0, numbers, space_group)


def read_cif(where: str, text: str) -> Structure | Unread:
    """The first structure of a CIF, in the cell that it is in; partial occupancies stay."""
    from pymatgen.io.cif import CifParser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about rounding and missing entries; what matters raises
        try:
            return CifParser.from_str(text, occupancy_tolerance=1.0).parse_structures(primitive=False)[0]
        except Exception as error:  # pymatgen's parser raises whatever its parts do
            return Unread(where, f"not a CIF that can be read ({_first_line(error)})")


def _parse(where: str, text: str, space_group: int = 0) -> Atoms | Unread:
    structure = read_cif(where, text)
    return structure if isinstance(structure, Unread) else atoms_of(where, structure, space_group)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _aflow() -> Iterator[Atoms | Unread]:
    """AFLOW's prototypes (Mehl et al., Comput. Mater. Sci. 136, S1, 2017)."""
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

    for entry in AFLOW_PROTOTYPE_LIBRARY:
        yield atoms_of(entry["tags"]["aflow"], entry["snl"].structure)


def _csv(path: Path) -> Iterator[Atoms | Unread]:
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as CSV: {_first_line(error)}") from error
    if "cif" not in table:
        raise DataError(f"{path} has no column cif; it has {', '.join(map(str, table.columns))}")
    for i, text in enumerate(table["cif"]):
        group = table["spacegroup"].iat[i] if "spacegroup" in table else 0
        yield (
            _parse(f"row {i}", text, group_number(group))
            if isinstance(text, str)
            else Unread(f"row {i}", "cif is empty")
        )


def xyz_frames(path: Path) -> Iterator[tuple[int, str, str | None]]:
    """The frames of an extended XYZ file by their numbers of atoms: number of the first line, text, what is wrong.

    After a line that should be a number of atoms and is not there are no more.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        line = 1
        while first := file.readline():
            if not first.strip():
                line += 1
            elif not first.strip().isdigit():
                yield line, first, f"{first.strip()[:40]!r} is not a number of atoms; the rest of the file is lost"
                return
            else:
                yield line, first + "".join(file.readline() for _ in range(int(first) + 1)), None
                line += int(first) + 2


def group_number(value: Any) -> int:
    """A space group that a source names as a number, 0 where it is none."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        return 0
    return number if 1 <= number <= 230 else 0


def _parquet(path: Path) -> Iterator[Atoms | Unread]:
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {_first_line(error)}") from error
    prefix = next((p for p in PREFIXES if p + "a" in table), None)
    missing = {"Z", "frac"} - set(table.columns)
    if prefix is None or missing:
        wanted = sorted(missing) or [f"{PREFIXES[0]}a"]
        raise DataError(f"{path} has no column {', '.join(wanted)}; atoms are read from Z, frac and prim_a ... gamma")
    filed = table["spacegroup"].tolist() if "spacegroup" in table else [0] * len(table)
    cells = table[[prefix + name for name in CELL]].to_numpy(dtype=np.float64)
    for i, (numbers, points) in enumerate(zip(table["Z"], table["frac"], strict=True)):
        if numbers is None or points is None or np.ndim(numbers) == 0:
            continue
        numbers, points = np.asarray(numbers, dtype=np.int64), np.asarray(points, dtype=np.float64)
        if points.size != 3 * len(numbers) or not np.isfinite(cells[i]).all():
            yield Unread(
                f"row {i}", f"{points.size} coordinates and {len(numbers)} atoms in the cell {cells[i].tolist()}"
            )
            continue
        yield Atoms(f"row {i}", cells[i], points.reshape(-1, 3), numbers, group_number(filed[i]))
