"""Real crystals with labels, read from files and databases into the domain that samplers draw from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from crystalgfn.crystallography.atoms import CELL, Record, SkippedRecord
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.standardize import standardise
from crystalgfn.data.cells import SETTINGS, LabelledCrystal, complaint, labelled_crystal, report_skipped
from crystalgfn.data.databases import label_column
from crystalgfn.data.formats.base import format_of
from crystalgfn.data.reader import Source, records
from crystalgfn.data.standard_cells import standard_cells
from crystalgfn.errors import DataError
from crystalgfn.typing import Floats
from crystalgfn.utils.files import path_of, write_aside
from crystalgfn.utils.progress import Bar

#: Properties that can be fitted: column of the files, unit.
COLUMNS = {
    "formation_energy": ("formation_energy_per_atom", "eV/atom"),
    "band_gap": ("band_gap", "eV"),
    "energy_above_hull": ("e_above_hull", "eV/atom"),
}


@dataclass(frozen=True)
class Rows:
    """Labelled crystals.

    Attributes:
        crystals: [B].
        labels: the property in its unit, float [B].
        keys: for each row the pairs (reduced formula, space group) that it goes by: the file's and the detected one.
    """

    crystals: Crystals
    labels: Floats
    keys: list[frozenset[tuple[str, int]]]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: np.ndarray | torch.Tensor) -> Rows:
        """The rows at ``index`` (positions or a mask)."""
        index = np.asarray(index)
        positions = np.flatnonzero(index) if index.dtype == bool else index
        labels = self.labels[torch.as_tensor(positions)]
        return Rows(self.crystals[positions], labels, [self.keys[i] for i in positions])


def read_labelled(
    path: Source,
    property: str = "formation_energy",
    cache: str | Path | None = None,
    progress: bool = True,
    *,
    column: str | None = None,
    setting: str = "unknown",
    skip_bad: bool = False,
) -> Rows:
    """Labelled crystals of a source: a file, a folder of CIF files, MatBench, the Materials Project.

    See docs/how-to/use-your-own-data.md.
    Rows with positions are standardised from them (``Crystals.from_structures``, symprec 0.1). Rows without are read
    from their cell where it has only one conventional form (tetragonal, trigonal, hexagonal, cubic), but not where
    their number of atoms may be that of a centred conventional cell (in MP-20 train it often is).

    Of a Parquet file all other rows are left out, as are those without a label and, with a warning, those without
    positions whose lattice contradicts their group or whose number of atoms their formula. A formula or group that
    cannot be is an error. Everywhere else each row that cannot be used is an error.

    Args:
        path: what `crystalgfn.data.reader.records` takes, or a folder of CIF files with a table of targets.
        property: a key of ``COLUMNS``, or one of your own, whose ``column`` you name.
        cache: folder for the standardised crystals; see `crystalgfn.data.standard_cells.standard_cells`.
        progress: whether to show a progress bar; standardising takes about 3 ms a row, once.
        column: where the label stands; None: where the property usually does.
        setting: "standard" where all cells are known to be conventional ones in ITA's standard setting (unique axis b,
            R groups on hexagonal axes) and all numbers of atoms those of primitive cells, so that every row is read;
            "unknown" otherwise.
        skip_bad: leave out rows that cannot be used, with a warning, instead of raising.

    Raises:
        DataError: no such source, no such column, no row with a label, or rows that cannot be used: all of them are
            named with their place and the reason.
        NotAvailable: MatBench without matminer.
    """
    column, path = _column(path, property, column, setting), _table_of(path)
    lenient = setting == "unknown" and str(path).endswith(".parquet")
    entries = list(
        Bar(records(path, (column,)), description=f"reading {path}", shown=progress, mininterval=1, leave=False)
    )
    _check_columns(path, entries, column)
    total = len(entries)
    if lenient:
        entries = _known(entries, column, str(path), skip_bad)
    found, wrong = _sorted(path, entries, column, setting, cache, progress, lenient)
    report_skipped(wrong, total, str(path), skip_bad or lenient)
    if not found:
        raise DataError(
            f"{path} has no row with a value in {column}" if lenient else f"{path} is empty: no row is usable"
        )
    labels = torch.tensor([one.label for one in found], dtype=torch.float64)
    return Rows(Crystals.cat([one.crystal for one in found]), labels, [one.key for one in found])


def _sorted(
    path: Source,
    entries: Sequence[Record | SkippedRecord],
    column: str,
    setting: str,
    cache: str | Path | None,
    progress: bool,
    lenient: bool,
) -> tuple[list[LabelledCrystal], list[SkippedRecord]]:
    """Labelled crystals, standardised together, and what is none."""
    ordered = [one for one in entries if isinstance(one, Record) and one.atoms is not None and one.atoms.is_ordered]
    cells = standard_cells(path, [one.known_atoms for one in ordered], cache, progress)
    by_place = dict(zip((one.where for one in ordered), cells, strict=True))
    found, wrong = [], []
    for entry in entries:
        one = labelled_crystal(entry, column, setting, by_place, lenient)
        if one is not None:
            (found if isinstance(one, LabelledCrystal) else wrong).append(one)
    return found, wrong


def stream(
    source: Source, property: str = "formation_energy", column: str | None = None, setting: str = "unknown"
) -> Iterator[LabelledCrystal | SkippedRecord]:
    """The rows of a source one after the other: labelled crystals, and what cannot be used with the reason.

    Raises:
        DataError: a source that is missing, empty, or of a kind that is not known; no column for the property.
        NotAvailable: MatBench without matminer.
    """
    column, source = _column(source, property, column, setting), _table_of(source)
    checked = False
    for entry in records(source, (column,)):
        if not checked and isinstance(entry, Record):
            _check_columns(source, [entry], column)
            checked = True
        cells = {}
        if isinstance(entry, Record) and entry.atoms is not None and entry.atoms.is_ordered:
            atoms = entry.atoms
            cells[entry.where] = standardise(atoms.lattice, atoms.points, atoms.numbers)
        one = labelled_crystal(entry, column, setting, cells, lenient=False)
        if one is not None:
            yield one


def _column(source: Source, property: str, column: str | None, setting: str) -> str:
    """Where the label stands."""
    if setting not in SETTINGS:
        raise DataError(f"setting is {setting!r}; it must be one of {', '.join(SETTINGS)}")
    column = column or label_column(str(source), property)
    if column is None and property not in COLUMNS:
        raise DataError(f"no data for the property {property!r}; there are {', '.join(COLUMNS)}, or name its column")
    return column or COLUMNS[property][0]


def _table_of(source: Source) -> Source:
    """The table of targets in a folder of CIF files, or the source itself."""
    if not isinstance(source, str | Path) or not Path(source).is_dir() or (Path(source) / "table.parquet").is_file():
        return source
    tables = sorted(p for p in Path(source).iterdir() if p.suffix in (".csv", ".tsv") and not p.name.startswith("."))
    if len(tables) != 1:
        found = ", ".join(p.name for p in tables) or "none"
        raise DataError(
            f"{source} needs one table of targets (CSV with the columns file and the label); it has {found}"
        )
    return tables[0]


def _check_columns(source: Source, entries: Iterable[Record | SkippedRecord], column: str) -> None:
    one = format_of(Path(str(source))) if isinstance(source, str | Path) else None
    first = next((entry for entry in entries if isinstance(entry, Record)), None)
    if first is not None and one is not None and not one.structures and column not in first.values:
        raise DataError(f"{source} has no column {column}; docs/how-to/use-your-own-data.md lists what is needed")
    if first is not None and str(source).startswith("matbench:") and column not in first.values:
        raise DataError(f"{source} has no column {column}; it has {', '.join(first.values)}")


def _known(
    entries: Sequence[Record | SkippedRecord], column: str, source: str, skip_bad: bool
) -> list[Record | SkippedRecord]:
    """The rows of a Parquet file that have a label; a formula or group that cannot be is an error."""
    reasons = [(one, complaint(one)) for one in entries]
    bad = [SkippedRecord(one.where, reason) for one, reason in reasons if reason is not None]
    report_skipped(bad, len(entries), source, skip_bad)
    return [one for one, reason in reasons if reason is None and _is_known(one, column)]


def _is_known(entry: Record | SkippedRecord, column: str) -> bool:
    """Whether the label is there; in Parquet files a missing one means that it is not known."""
    value = entry.values.get(column) if isinstance(entry, Record) else None
    return value is not None and not (isinstance(value, float) and not np.isfinite(value))


def write_labelled(rows: Rows, path: str | Path, column: str = "formation_energy_per_atom") -> None:
    """A Parquet file of the rows, which ``read(path, ..., setting="standard")`` gives back.

    For what took long to get: a query of the Materials Project, a large folder of CIF files.

    Raises:
        CheckpointError: the file cannot be written.
    """
    lattice = rows.crystals.lattice.double().cpu().numpy()
    table = pd.DataFrame(
        {
            "formula": rows.crystals.formulas(),
            "spacegroup": rows.crystals.space_group.cpu().numpy(),
            "n_atoms": rows.crystals.n_atoms.cpu().numpy(),
            **dict(zip(CELL, lattice.T, strict=True)),
            column: rows.labels.cpu().numpy(),
        }
    )
    write_aside(path_of(path), lambda aside: table.to_parquet(aside))


def exclude(rows: Rows, others: Rows) -> Rows:
    """The rows that share no (reduced formula, space group) with ``others``."""
    taken = set().union(*others.keys) if others.keys else set()
    return rows[np.array([not (key & taken) for key in rows.keys], dtype=bool)]


def together(parts: list[Rows]) -> Rows:
    """Rows of several sources, each (reduced formula, space group) from the first that has it."""
    rows = parts[0]
    for part in parts[1:]:
        more = exclude(part, rows)
        rows = Rows(
            Crystals.cat([rows.crystals, more.crystals]), torch.cat([rows.labels, more.labels]), rows.keys + more.keys
        )
    return rows


def split_by_formula(rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Two parts without a common formula, the second with about ``share`` of the rows."""
    second = held([min(key)[0] for key in rows.keys], share, seed)
    return rows[~second], rows[second]


def held(formulas: list[str], share: float, seed: int) -> np.ndarray:
    """Which formulas `split_by_formula` puts into the second part, bool [B]: each by a draw of its own."""
    return np.array([_draw(formula, seed) < share for formula in formulas], dtype=bool)


def bags(rows: Rows, members: int, share: float, seed: int) -> torch.Tensor:
    """Which rows a member is fitted on, bool [members, B]; each leaves ``share`` of the formulas out."""
    draws = [[_draw(f"{member} {min(key)[0]}", seed) >= share for key in rows.keys] for member in range(members)]
    return torch.tensor(draws, dtype=torch.bool)


def _draw(text: str, seed: int) -> float:
    """A number in [0, 1) that depends on the text and the seed only."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {text}".encode(), digest_size=6).digest(), "big") / 2**48
