"""Entries of a hull with a calculator's energies: ``python -m scripts.maintain.make_hull_entries FILE --output OUT``.

Energies of relaxed crystals come from a calculator, those of a database from DFT; set beside this hull both sides of
the difference have the same errors.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from crystalgfn.calculators.base import Calculator
from crystalgfn.calculators.energy_references import references_of
from crystalgfn.calculators.registry import DEFAULT, load_calculator
from crystalgfn.data.standard_cells import ENERGY, Parents, energetic
from crystalgfn.fitting.labels import reduced_key
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.utils.files import write_aside
from scripts.maintain.fit_energy_references import evaluated
from scripts.maintain.program import run

NEAR = 0.05


def make_entries(
    paths: list[str | Path], near: float = NEAR, calculator: Calculator | str = DEFAULT, progress: bool = True
) -> pd.DataFrame:
    """Columns formula, formation_energy_per_atom (the calculator's, at the file's geometry), dft (the file's), eV/atom.

    Rows without atoms keep the file's energy, which is on the same scale: without them the hull has holes, and what
    lies in one looks stable by electronvolts.

    Args:
        paths: Parquet files as MP-20's; all their rows with an energy make one hull.
        near: only rows at most so far above that hull, eV/atom, are evaluated: others would not lie on another either.
        calculator: see `load_calculator`.
        progress: shows a bar; about 30 crystals a second on one core with the default one.

    Raises:
        DataError: a file that cannot be used.
    """
    every = sorted((one for path in paths for one in energetic(path)), key=lambda one: one.atoms is None)
    known = torch.tensor([one.numbers[ENERGY] for one in every], dtype=torch.float64)
    names = [str(one.values["formula"]) for one in every]
    hull = ExactHull.from_entries(list(zip(names, known.tolist(), strict=True)))
    close = (hull.above(names, known).numpy() <= near).tolist()
    parents = Parents([one for one in every if one.atoms is not None])
    potential = load_calculator(calculator)
    composition, energy, dft = evaluated(parents, np.flatnonzero(close[: len(parents)]), potential, progress)
    value = references_of(potential).formation_energy(composition, energy)
    formulas = [reduced_key(row) for row in composition]
    found = pd.DataFrame({"formula": formulas, "formation_energy_per_atom": value, "dft": dft})
    bare = [i for i in range(len(parents), len(every)) if close[i]]
    if bare:
        own = known[bare].numpy()
        rows = {"formula": [names[i] for i in bare], "formation_energy_per_atom": own, "dft": own}
        found = pd.concat([found, pd.DataFrame(rows)], ignore_index=True)
    return found[np.isfinite(found.formation_energy_per_atom)].reset_index(drop=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="Parquet files as MP-20's")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--near", type=float, default=NEAR)
    parser.add_argument("--calculator", default=DEFAULT, help="name, or module:factory")
    options = parser.parse_args()
    entries = make_entries(options.files, options.near, options.calculator)
    write_aside(options.output, lambda aside: entries.to_parquet(aside, index=False))
    error = (entries.formation_energy_per_atom - entries.dft)[entries.formation_energy_per_atom != entries.dft]
    print(f"{len(entries)} entries; calculator - file: mean {error.mean():+.3f}, MAE {error.abs().mean():.3f} eV/atom")


if __name__ == "__main__":
    run(main)
