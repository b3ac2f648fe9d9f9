"""Entries of a hull with CHGNet's energies: ``python -m scripts.maintain.make_hull_entries FILE --output OUT``.

Energies of relaxed crystals come from CHGNet, those of a database from DFT; set beside this hull both sides of the
difference have the same errors.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from crystalgfn.calculators.energy_references import shipped
from crystalgfn.data.parents import Parents
from crystalgfn.errors import run
from crystalgfn.fitting.labels import formula
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.utils.files import write_aside
from scripts.maintain.fit_energy_references import evaluated

NEAR = 0.05


def make_entries(paths: list[str | Path], near: float = NEAR, progress: bool = True) -> pd.DataFrame:
    """Columns formula, formation_energy_per_atom (CHGNet's, at the file's geometry) and dft (the file's), eV/atom.

    Rows without atoms keep the file's energy, which is on the same scale: without them the hull has holes, and what
    lies in one looks stable by electronvolts.

    Args:
        paths: Parquet files as MP-20's; all their rows with an energy make one hull.
        near: only rows at most so far above that hull, eV/atom, are evaluated: others would not lie on another either.
        progress: shows a bar; about 30 crystals a second on one core.

    Raises:
        DataError: a file that cannot be used.
    """
    tables = [Parents.read(path).table for path in paths]
    tables += [table for table in map(_without_atoms, paths) if len(table)]
    every = pd.concat(tables, ignore_index=True)
    known = torch.tensor(every.formation_energy_per_atom.to_numpy(dtype=np.float64, copy=True))
    above = ExactHull.from_entries(every).above(every.formula.tolist(), known)
    close = above.numpy() <= near
    bare = every[close & every.Z.isna().to_numpy()]
    composition, energy, dft = evaluated(Parents(every), np.flatnonzero(close & every.Z.notna().to_numpy()), progress)
    value = shipped().formation_energy(composition, energy)
    formulas = [formula(row) for row in composition]
    found = pd.DataFrame({"formula": formulas, "formation_energy_per_atom": value, "dft": dft})
    bare = bare[["formula", "formation_energy_per_atom"]].assign(dft=bare.formation_energy_per_atom)
    found = pd.concat([found, bare], ignore_index=True) if len(bare) else found
    return found[np.isfinite(found.formation_energy_per_atom)].reset_index(drop=True)


def _without_atoms(path: str | Path) -> pd.DataFrame:
    table = pd.read_parquet(path)
    return table[table.Z.isna() & table.formation_energy_per_atom.notna()]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="Parquet files as MP-20's")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--near", type=float, default=NEAR)
    options = parser.parse_args()
    entries = make_entries(options.files, options.near)
    write_aside(options.output, lambda aside: entries.to_parquet(aside, index=False))
    error = (entries.formation_energy_per_atom - entries.dft)[entries.formation_energy_per_atom != entries.dft]
    print(
        f"{len(entries)} entries; CHGNet - file: mean {error.mean():+.3f}, mean size {error.abs().mean():.3f} eV/atom"
    )


if __name__ == "__main__":
    run(main)
