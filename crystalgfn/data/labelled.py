"""Real crystals with labels, read from files and databases into the domain that samplers draw from."""

from __future__ import annotations

import hashlib
import inspect
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from crystalgfn.crystallography import crystals as crystals_module
from crystalgfn.crystallography import lattice as lattice_module
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.lattice import KIND, canonical_lattice
from crystalgfn.crystallography.space_groups import CENTRING
from crystalgfn.data.records import (
    CELL,
    UNIQUE_CELL,
    SkippedRecord,
    atoms_in,
    checked_cell,
    checked_group,
    checked_multiple,
    gather,
    reduced,
    report,
)
from crystalgfn.errors import DataError, InvalidCrystal
from crystalgfn.typing import Floats
from crystalgfn.utils.files import save_arrays, write_aside
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


def read(
    path: str | Path,
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
        path: a ``.parquet``, ``.csv``, ``.tsv`` or extended XYZ file, a folder of CIF files with a table of targets,
            ``matbench:<task>`` or ``materials_project:<chemical system, formula or identifiers>``.
        property: a key of ``COLUMNS``, or one of your own, whose ``column`` you name.
        cache: folder for the standardised crystals of Parquet files (default ``$XDG_CACHE_HOME/crystalgfn``); the name
            of a cached file holds a hash of the data and of the code that made it.
        progress: whether to show a progress bar; standardising takes about 7 ms a row, once.
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
    if column is None and property not in COLUMNS:
        raise DataError(f"no data for the property {property!r}; there are {', '.join(COLUMNS)}, or name its column")
    if str(path).endswith(".parquet") and setting == "unknown":
        column = column or COLUMNS[property][0]
        return _read_parquet(Path(path), column, Path(cache) if cache else _cache_folder(), progress, skip_bad)
    from crystalgfn.data.sources import stream

    entries = Bar(
        stream(path, property, column, setting),
        description=f"reading {path}",
        shown=progress,
        mininterval=1,
        leave=False,
    )
    records = gather(entries, str(path), skip_bad)
    labels = torch.tensor([record.label for record in records], dtype=torch.float64)
    return Rows(Crystals.cat([record.crystal for record in records]), labels, [record.key for record in records])


def write(rows: Rows, path: str | Path, column: str = "formation_energy_per_atom") -> None:
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
    write_aside(Path(path), lambda aside: table.to_parquet(aside))


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


def split(rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Two parts without a common formula, the second with about ``share`` of the rows."""
    second = held([min(key)[0] for key in rows.keys], share, seed)
    return rows[~second], rows[second]


def held(formulas: list[str], share: float, seed: int) -> np.ndarray:
    """Which formulas `split` puts into the second part, bool [B]: each by a draw of its own."""
    return np.array([_draw(formula, seed) < share for formula in formulas], dtype=bool)


def bags(rows: Rows, members: int, share: float, seed: int) -> torch.Tensor:
    """Which rows a member is fitted on, bool [members, B]; each leaves ``share`` of the formulas out."""
    draws = [[_draw(f"{member} {min(key)[0]}", seed) >= share for key in rows.keys] for member in range(members)]
    return torch.tensor(draws, dtype=torch.bool)


def _draw(text: str, seed: int) -> float:
    """A number in [0, 1) that depends on the text and the seed only."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {text}".encode(), digest_size=6).digest(), "big") / 2**48


def _read_parquet(path: Path, column: str, cache: Path, progress: bool, skip_bad: bool) -> Rows:
    if not path.is_file():
        raise DataError(f"there is no data file {path}")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    needed = {"formula", "spacegroup", column}
    if _positions(table).all():
        missing = needed - set(table.columns)
    else:
        missing = (needed | {"n_atoms", *CELL}) - set(table.columns)
    if missing:
        raise DataError(f"{path} has no column {', '.join(sorted(missing))}")
    if not len(table):
        raise DataError(f"{path} is empty: it has no row")
    kept, sound = _sound_rows(table, path, skip_bad)
    salt = b"" if kept.all() else kept.tobytes()
    table, sound = table[kept], sound[kept]
    crystals, positions = _crystals(table, path, cache, progress, salt)
    labels = torch.as_tensor(pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64)[positions])
    known = torch.isfinite(labels).numpy() & sound[positions]
    if not known.any():
        raise DataError(f"{path} has no row with a value in {column}")
    filed = zip(table.formula.iloc[positions], table.spacegroup.to_numpy()[positions].tolist(), strict=True)
    detected = zip(crystals.formulas(), crystals.space_group.tolist(), strict=True)
    pairs = [pair for pair, wanted in zip(zip(filed, detected, strict=True), known, strict=True) if wanted]
    keys = [frozenset((reduced(formula), group) for formula, group in pair) for pair in pairs]
    return Rows(crystals[known], labels[torch.from_numpy(known)], keys)


def _positions(table: pd.DataFrame) -> np.ndarray:
    """Which rows have positions, bool [B]."""
    known = {"Z", "frac"} <= set(table.columns) and bool({"prim_a", "cell_a"} & set(table.columns))
    return table["Z"].notna().to_numpy() if known else np.zeros(len(table), dtype=bool)


def _sound_rows(table: pd.DataFrame, path: Path, skip_bad: bool) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose formula and group can be, and those whose lattice agrees with the group, bool [B] each."""
    positions = _positions(table)
    bad: dict[int, SkippedRecord] = {}
    contradictory: dict[int, SkippedRecord] = {}
    columns = [name for name in ("formula", "spacegroup", "n_atoms", *CELL) if name in table]
    for i, row in enumerate(table[columns].to_dict("records")):
        try:
            reduced(row["formula"])
            group = checked_group(row["spacegroup"])
        except DataError as error:
            bad[i] = SkippedRecord(f"row {i}", str(error))
            continue
        try:
            if not positions[i] and KIND[group - 1] in UNIQUE_CELL:
                checked_cell(row, group)
                checked_multiple(row["formula"], row["n_atoms"], atoms_in(row["formula"]))
        except DataError as error:
            contradictory[i] = SkippedRecord(f"row {i}", str(error))
    report(list(bad.values()), len(table), str(path), skip_bad)
    report(list(contradictory.values()), len(table), str(path), skip_bad=True)
    kept, sound = np.ones((2, len(table)), dtype=bool)
    kept[list(bad)] = False
    sound[list(contradictory)] = False
    return kept, sound


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crystalgfn"


def _crystals(
    table: pd.DataFrame, path: Path, folder: Path, progress: bool, salt: bytes = b""
) -> tuple[Crystals, np.ndarray]:
    """The crystals of a table and the row that each comes from, from the cache where it has them.

    ``salt`` tells tables apart that are different parts of one file.
    """
    digest = hashlib.blake2b(path.read_bytes(), digest_size=8)
    digest.update(salt)
    for module in (crystals_module, lattice_module):
        digest.update(inspect.getsource(module).encode())
    digest.update(inspect.getsource(_standardise).encode())
    cached = folder / f"{path.parent.name}-{path.stem}-{digest.hexdigest()}.npz"
    if cached.is_file():
        with np.load(cached) as file:
            parts = [torch.from_numpy(file[name]) for name in ("space_group", "composition", "lattice")]
            return Crystals(parts[0].long(), parts[1].long(), parts[2]), file["positions"]
    crystals, positions = _standardise(table, path.name, progress)
    columns = {
        "space_group": crystals.space_group.numpy(),
        "composition": crystals.composition.numpy().astype(np.int16),
        "lattice": crystals.lattice.numpy(),
        "positions": positions,
    }
    save_arrays(cached, columns)
    return crystals, positions


def _standardise(table: pd.DataFrame, name: str, progress: bool) -> tuple[Crystals, np.ndarray]:
    from pymatgen.core import Composition, Lattice, Structure

    prefix = next((p for p in ("prim_", "cell_") if p + "a" in table and "Z" in table and "frac" in table), None)
    kept, positions = [], []
    bar = Bar(table.to_dict("records"), description=f"standardising {name}", shown=progress, mininterval=1, leave=False)
    for i, row in enumerate(bar):
        if prefix and row["Z"] is not None:
            cell = Lattice.from_parameters(*(row[prefix + x] for x in CELL))
            structure = Structure(cell, row["Z"], np.reshape(row["frac"], (-1, 3)))
            try:
                kept.append(Crystals.from_structures([structure], symprec=0.1))
            except InvalidCrystal:
                continue
        elif KIND[row["spacegroup"] - 1] in UNIQUE_CELL:
            counts = Composition(row["formula"])
            units, points = round(row["n_atoms"] / counts.num_atoms), int(CENTRING[row["spacegroup"] - 1])
            if points > 1 and units % points == 0:
                continue
            lattice = canonical_lattice(row["spacegroup"], np.array([row[x] for x in CELL]))
            composition = torch.zeros(1, 118, dtype=torch.int64)
            for element, count in counts.items():
                composition[0, element.Z - 1] = round(count * units)
            kept.append(Crystals(torch.tensor([row["spacegroup"]]), composition, torch.from_numpy(lattice)[None]))
        else:
            continue
        positions.append(i)
    return Crystals.cat(kept), np.array(positions, dtype=np.int64)
