"""Real crystals in files of several kinds: Parquet, CSV with CIFs, folders of CIFs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.crystallography.atoms import Atoms, SkippedRecord, atoms_of
from crystalgfn.errors import DataError

if TYPE_CHECKING:
    from pymatgen.core import Structure


CELL = ("a", "b", "c", "alpha", "beta", "gamma")

PREFIXES = ("prim_", "cell_")
"""Of the columns that hold the cell which the positions are fractions of."""


def read_atoms(path: str | Path) -> Iterator[Atoms | SkippedRecord]:
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


def read_cif(where: str, text: str) -> Structure | SkippedRecord:
    """The first structure of a CIF, in the cell that it is in; partial occupancies stay."""
    from pymatgen.io.cif import CifParser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about rounding and missing entries; what matters raises
        try:
            return CifParser.from_str(text, occupancy_tolerance=1.0).parse_structures(primitive=False)[0]
        except Exception as error:  # pymatgen's parser raises whatever its parts do
            return SkippedRecord(where, f"not a CIF that can be read ({_first_line(error)})")


def _parse(where: str, text: str, space_group: int = 0) -> Atoms | SkippedRecord:
    structure = read_cif(where, text)
    return structure if isinstance(structure, SkippedRecord) else atoms_of(where, structure, space_group)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _aflow() -> Iterator[Atoms | SkippedRecord]:
    """AFLOW's prototypes (Mehl et al., Comput. Mater. Sci. 136, S1, 2017)."""
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

    for entry in AFLOW_PROTOTYPE_LIBRARY:
        yield atoms_of(entry["tags"]["aflow"], entry["snl"].structure)


def _csv(path: Path) -> Iterator[Atoms | SkippedRecord]:
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
            else SkippedRecord(f"row {i}", "cif is empty")
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


def _parquet(path: Path) -> Iterator[Atoms | SkippedRecord]:
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
            yield SkippedRecord(
                f"row {i}", f"{points.size} coordinates and {len(numbers)} atoms in the cell {cells[i].tolist()}"
            )
            continue
        yield Atoms(f"row {i}", cells[i], points.reshape(-1, 3), numbers, group_number(filed[i]))
