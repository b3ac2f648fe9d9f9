"""Formation energies for a table of structures that has none: ``python -m scripts.maintain.labels.from_structures``.

Where a database gives another property of crystals that were relaxed with DFT (MatBench's band gaps, say), a
calculator's energy at that geometry, on MP-20's scale, is within 0.03 eV/atom of DFT's
(`crystalgfn.calculators.energy_references`), and a proxy learns from it as from any other row:
``fit([train, labelled], val, ...)``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from crystalgfn.calculators.base import Calculator, calculate_energies
from crystalgfn.calculators.energy_references import References, references_of
from crystalgfn.calculators.registry import DEFAULT, load_calculator
from crystalgfn.crystallography.atoms import CELL
from crystalgfn.data.cells import reduced
from crystalgfn.data.formats.tables import PREFIXES
from crystalgfn.data.labelled import COLUMNS, read_labelled
from crystalgfn.errors import DataError
from crystalgfn.utils.files import write_aside
from scripts.maintain.program import run

CHUNK = 200


def label_structures(
    path: str | Path,
    without: Sequence[str | Path] = (),
    calculator: Calculator | str = DEFAULT,
    references: References | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """The rows of a file of structures with a calculator's formation energy, eV/atom, as ``formation_energy_per_atom``.

    Args:
        path: Parquet file with ``formula``, ``spacegroup``, ``Z``, ``frac``, a cell (``prim_a`` or ``cell_a``, ...).
        without: files with formation energies of their own; what shares (reduced formula, space group) with a row of
            theirs that can be used is left out.
        calculator: see `load_calculator`.
        references: that turn its energies into formation energies; None: those that come with the package.
        progress: shows a bar; 30 to 60 structures a second on one core with the default one.

    Returns:
        The rows that have an energy, one for each formula and group (the lowest).

    Raises:
        DataError: a file that cannot be read, or lacks a column; no row is left.
        NotAvailable: the calculator's package is not installed.
    """
    table = _read(path, ("formula", "spacegroup", "Z", "frac"))
    prefix = next((p for p in PREFIXES if all(p + x in table for x in CELL)), None)
    if prefix is None:
        raise DataError(f"{path} has no cell; give it the columns {', '.join(PREFIXES[0] + x for x in CELL)}")
    taken = {key for other in without for keys in read_labelled(other, progress=progress).keys for key in keys}
    kept = np.array([key not in taken for key in _keys(table)], dtype=bool)
    table = table[kept & table["Z"].notna().to_numpy()].reset_index(drop=True)
    if not len(table):
        raise DataError(f"{path} has no row with atoms that is not in {', '.join(map(str, without)) or 'another'}")
    potential = load_calculator(calculator)
    own = references or references_of(potential)
    value = np.concatenate(
        [
            _energies(table.iloc[start : start + CHUNK], prefix, potential, own)
            for start in tqdm(
                range(0, len(table), CHUNK), desc=potential.name, unit=f" x {CHUNK}", disable=not progress
            )
        ]
    )
    table[COLUMNS["formation_energy"][0]] = value
    table = table[np.isfinite(value)].sort_values(COLUMNS["formation_energy"][0], kind="stable")
    table = table[~pd.Series(_keys(table), index=table.index).duplicated()].sort_index()
    return table.reset_index(drop=True)


def _energies(rows: pd.DataFrame, prefix: str, calculator: Calculator, references: References) -> np.ndarray:
    from pymatgen.core import Lattice, Structure

    composition, structures = np.zeros((len(rows), 118)), []
    for i, row in enumerate(rows.to_dict("records")):
        numbers = np.asarray(row["Z"])
        cell = Lattice.from_parameters(*(row[prefix + x] for x in CELL))
        structures.append(Structure(cell, numbers, np.reshape(row["frac"], (-1, 3))))
        np.add.at(composition[i], numbers - 1, 1)
    return references.formation_energy(composition, calculate_energies(calculator, structures))


def _read(path: str | Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    if missing := [name for name in columns if name not in table]:
        raise DataError(f"{path} has no column {', '.join(missing)}")
    return table


def _keys(table: pd.DataFrame) -> list[tuple[str, int]]:
    return [(reduced(formula), int(group)) for formula, group in zip(table.formula, table.spacegroup, strict=True)]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="Parquet file of structures")
    parser.add_argument("--without", type=Path, nargs="*", default=[], help="files of rows that need no label")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--calculator", default=DEFAULT, help="name, or module:factory")
    options = parser.parse_args()
    table = label_structures(options.file, options.without, options.calculator)
    write_aside(options.output, lambda aside: table.to_parquet(aside, index=False))
    print(f"{len(table)} structures with a formation energy")


if __name__ == "__main__":
    run(main)
