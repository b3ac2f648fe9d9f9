"""OBELiX: measured room-temperature conductivities of Li conductors, of which some are known as upper bounds only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torchtyping import TensorType

from crystalgfn.errors import DataError
from crystalgfn.proxies.disordered import Disordered
from crystalgfn.proxies.entries import composition_of
from crystalgfn.tables.groups import CENTRING

CELL = ("a", "b", "c", "alpha", "beta", "gamma")
COMPOSITION, GROUP, VALUE = "True Composition", "Space group #", "Ionic conductivity (S cm-1)"


@dataclass(frozen=True)
class Measurements:
    """Crystals with measured conductivities.

    Attributes:
        crystals: with partial occupancies, [B].
        values: log10 of the conductivity, S/cm, float64 [B]; where censored, of the bound that it lies below.
        censored: whether the value is an upper bound ("<1E-10"), bool [B].
        material: a number for each composition, the same for rows that share it, int64 [B].
    """

    crystals: Disordered
    values: TensorType["batch", torch.float64]
    censored: TensorType["batch", torch.bool]
    material: TensorType["batch", torch.int64]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: slice | torch.Tensor) -> Measurements:
        """The rows at ``index`` (a slice, positions or a mask)."""
        return Measurements(self.crystals[index], self.values[index], self.censored[index], self.material[index])


def read_obelix(path: str | Path) -> Measurements:
    """The rows of OBELiX's CSV file.

    Compositions are taken from ``True Composition``, the atoms in the conventional cell with their occupancies.

    Raises:
        DataError: no such file or column, or a row that cannot be used, named with its number and the reason.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    missing = {COMPOSITION, GROUP, VALUE, *CELL} - set(table.columns)
    if missing:
        raise DataError(f"{path} has no column {', '.join(sorted(missing))}; it needs those of OBELiX")
    if table.empty:
        raise DataError(f"{path} has no rows")
    parsed = [_conductivity(str(text), i) for i, text in enumerate(table[VALUE])]
    groups = torch.tensor([_group(value, i) for i, value in enumerate(table[GROUP])])
    lattice = torch.tensor(table[list(CELL)].to_numpy(dtype=float), dtype=torch.float64)
    wrong = ~(torch.isfinite(lattice) & (lattice > 0)).all(1)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise DataError(f"row {row}: the cell {lattice[row].tolist()} needs six positive numbers, Å and degrees")
    composition = torch.stack([composition_of(str(text), i) for i, text in enumerate(table[COMPOSITION])])
    fractions = (composition / composition.sum(1, keepdim=True) * 1000).round()
    _, material = fractions.unique(dim=0, return_inverse=True)
    primitive = composition / torch.tensor(CENTRING)[groups - 1].double()[:, None]
    values = torch.tensor([value for value, _ in parsed], dtype=torch.float64)
    return Measurements(
        Disordered(groups, primitive, lattice), values, torch.tensor([bound for _, bound in parsed]), material
    )


def _conductivity(text: str, row: int) -> tuple[float, bool]:
    """log10, and whether it is only a bound."""
    bound = text.strip().startswith("<")
    try:
        value = float(text.strip().lstrip("<"))
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise DataError(f"row {row}: the conductivity {text!r} is neither a positive number, S/cm, nor '<' and one")
    return math.log10(value), bound


def _group(value: object, row: int) -> int:
    number = float(value) if isinstance(value, int | float) or str(value).isdigit() else math.nan
    if not (number.is_integer() and 1 <= number <= 230):
        raise DataError(f"row {row}: {value!r} is no space group; it must be a whole number from 1 to 230")
    return int(number)
