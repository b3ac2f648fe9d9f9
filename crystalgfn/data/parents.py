"""Real crystals with their atoms, standardised: what labels are made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from crystalgfn.crystallography.standardize import Cell, standardise
from crystalgfn.errors import DataError

LATTICE = ("a", "b", "c", "alpha", "beta", "gamma")


@dataclass
class Parents:
    """The rows of a Parquet file that have atoms and a formation energy (columns as in MP-20).

    Attributes:
        table: those rows.
        taken: pairs (reduced formula, space group) that no parent may have.
    """

    table: pd.DataFrame
    taken: frozenset[tuple[str, int]] = frozenset()
    _cells: dict[int, Cell | None] = field(default_factory=dict, repr=False)

    @staticmethod
    def read(path: str | Path, taken: frozenset[tuple[str, int]] = frozenset()) -> Parents:
        """Parents of a file.

        Raises:
            DataError: the file cannot be read or lacks a column.
        """
        try:
            table = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as Parquet: {error}") from error
        wanted = {"formula", "spacegroup", "Z", "frac", "formation_energy_per_atom", *(f"prim_{x}" for x in LATTICE)}
        if missing := wanted - set(table.columns):
            raise DataError(f"{path} has no column {', '.join(sorted(missing))}; labels need atoms and energies")
        table = table[table.Z.notna() & table.formation_energy_per_atom.notna()].reset_index(drop=True)
        if not len(table):
            raise DataError(f"{path} has no row with both atoms and a formation energy")
        return Parents(table, taken)

    def __len__(self) -> int:
        return len(self.table)

    def formation_energy(self, i: int) -> float:
        """Of parent ``i``, eV/atom."""
        return float(self.table.formation_energy_per_atom.iat[i])

    def cell(self, i: int) -> Cell | None:
        """Parent ``i`` in the conventional cell of its group; None where it is taken or spglib finds no group."""
        if i not in self._cells:
            row = self.table.iloc[i]
            cell = standardise(
                [row[f"prim_{x}"] for x in LATTICE], np.reshape(row["frac"], (-1, 3)), np.asarray(row["Z"])
            )
            # a row goes by the group of the file and by the detected one
            pairs = {(cell.formula, int(row["spacegroup"])), (cell.formula, cell.space_group)} if cell else set()
            self._cells[i] = None if pairs & self.taken else cell
        return self._cells[i]
