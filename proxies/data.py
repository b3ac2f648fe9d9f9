"""Real crystals with labels, read from Parquet files into the domain that samplers draw from."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
from dataclasses import dataclass
from math import gcd
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from crystalgfn.domain import crystals as crystals_module
from crystalgfn.domain import lattice as lattice_module
from crystalgfn.domain.crystals import Crystals
from crystalgfn.domain.lattice import CUBIC, HEXAGONAL, KIND, TETRAGONAL, canonical_lattice
from crystalgfn.errors import DataError, InvalidCrystal
from crystalgfn.files import write_aside
from crystalgfn.tables.groups import CENTRING
from crystalgfn.typing import Floats

#: Properties that can be fitted: column of the files, unit.
COLUMNS = {
    "formation_energy": ("formation_energy_per_atom", "eV/atom"),
    "band_gap": ("band_gap", "eV"),
    "energy_above_hull": ("e_above_hull", "eV/atom"),
}
CELL = ("a", "b", "c", "alpha", "beta", "gamma")
#: Without positions the setting of a cell is unknown, so only these kinds, whose conventional cell is unique, are read.
UNIQUE_CELL = (TETRAGONAL, HEXAGONAL, CUBIC)


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
    path: str | Path, property: str = "formation_energy", cache: str | Path | None = None, progress: bool = True
) -> Rows:
    """Labelled crystals of one Parquet file (columns as in MP-20; see the README of the data).

    Rows with positions are standardised from them (``Crystals.from_structures``, symprec 0.1). Rows without are read
    from their cell where it has only one conventional form (tetragonal, trigonal, hexagonal, cubic), but not where
    their number of atoms may be that of a centred conventional cell (in MP-20 train it often is). All others are left
    out, as are rows without a label.

    Args:
        path: the file.
        property: a key of ``COLUMNS``.
        cache: folder for the standardised crystals (default ``$XDG_CACHE_HOME/crystalgfn``); the name of a cached file
            holds a hash of the data and of the code that made it.
        progress: whether to show a progress bar; standardising takes about 7 ms a row, once.

    Raises:
        DataError: no such file, no such column, or no row with a label.
    """
    path = Path(path)
    if property not in COLUMNS:
        raise DataError(f"no data for the property {property!r}; there are {', '.join(COLUMNS)}")
    column = COLUMNS[property][0]
    if not path.is_file():
        raise DataError(f"there is no data file {path}")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    missing = {"formula", "spacegroup", "n_atoms", *CELL, column} - set(table.columns)
    if missing:
        raise DataError(f"{path} has no column {', '.join(sorted(missing))}")
    crystals, positions = _crystals(table, path, Path(cache) if cache else _cache_folder(), progress)
    labels = torch.as_tensor(table[column].to_numpy(dtype=np.float64)[positions])
    known = torch.isfinite(labels).numpy()
    if not known.any():
        raise DataError(f"{path} has no row with a value in {column}")
    filed = zip(table.formula.iloc[positions], table.spacegroup.to_numpy()[positions].tolist(), strict=True)
    detected = zip(crystals.formulas(), crystals.space_group.tolist(), strict=True)
    keys = [frozenset((_reduced(f), group) for f, group in pair) for pair in zip(filed, detected, strict=True)]
    return Rows(crystals, labels, keys)[known]


def exclude(rows: Rows, others: Rows) -> Rows:
    """The rows that share no (reduced formula, space group) with ``others``."""
    taken = set().union(*others.keys) if others.keys else set()
    return rows[np.array([not (key & taken) for key in rows.keys], dtype=bool)]


def split(rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Two parts without a common formula, the second with about ``share`` of the rows."""
    held = np.array([_draw(min(key)[0], seed) < share for key in rows.keys], dtype=bool)
    return rows[~held], rows[held]


def bags(rows: Rows, members: int, share: float, seed: int) -> torch.Tensor:
    """Which rows a member is fitted on, bool [members, B]; each leaves ``share`` of the formulas out."""
    draws = [[_draw(f"{member} {min(key)[0]}", seed) >= share for key in rows.keys] for member in range(members)]
    return torch.tensor(draws, dtype=torch.bool)


def _draw(text: str, seed: int) -> float:
    """A number in [0, 1) that depends on the text and the seed only."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {text}".encode(), digest_size=6).digest(), "big") / 2**48


@functools.cache
def _reduced(formula: str) -> str:
    """A formula with the smallest whole counts and the elements in alphabetical order."""
    from pymatgen.core import Composition

    counts = {symbol: round(n) for symbol, n in Composition(formula).get_el_amt_dict().items()}
    divisor = gcd(*counts.values())
    return "".join(f"{symbol}{counts[symbol] // divisor}" for symbol in sorted(counts))


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crystalgfn"


def _crystals(table: pd.DataFrame, path: Path, folder: Path, progress: bool) -> tuple[Crystals, np.ndarray]:
    """The crystals of a table and the row that each comes from, from the cache where it has them."""
    digest = hashlib.blake2b(path.read_bytes(), digest_size=8)
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
    write_aside(cached, lambda aside: _save_columns(aside, columns))
    return crystals, positions


def _save_columns(path: Path, columns: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # given a name without .npz, numpy would add it
        np.savez_compressed(file, **columns)


def _standardise(table: pd.DataFrame, name: str, progress: bool) -> tuple[Crystals, np.ndarray]:
    from pymatgen.core import Composition, Lattice, Structure

    prefix = next((p for p in ("prim_", "cell_") if p + "a" in table and "Z" in table and "frac" in table), None)
    kept, positions = [], []
    bar = tqdm(table.to_dict("records"), desc=f"standardising {name}", disable=not progress, mininterval=1, leave=False)
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
