"""Fits the references of CHGNet's energies: ``python -m scripts.maintain.fit_energy_references TRAIN VAL``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from crystalgfn.calculators.chgnet import energies
from crystalgfn.calculators.energy_references import SHIPPED, References, check, fit
from crystalgfn.data.labelled import read
from crystalgfn.data.parents import Parents
from crystalgfn.errors import run

CHUNK = 200


def evaluated(
    parents: Parents, indices: np.ndarray, progress: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compositions [B, 118], CHGNet's and formation energies in eV/atom [B] of the parents at ``indices``.

    Parents that are taken or have no group are left out.
    """
    columns: tuple[list, list, list] = ([], [], [])
    for start in tqdm(range(0, len(indices), CHUNK), desc="references", disable=not progress):
        part = [i for i in indices[start : start + CHUNK] if parents.cell(int(i)) is not None]
        cells = [parents.cell(int(i)) for i in part]
        columns[0].extend(cell.composition for cell in cells)
        columns[1].extend(energies([cell.structure() for cell in cells]))
        columns[2].extend(parents.formation_energy(int(i)) for i in part)
    return np.reshape(columns[0], (-1, 118)), np.array(columns[1]), np.array(columns[2])


def make_references(
    train: str | Path, val: str | Path, rows: int = 8000, val_rows: int = 4000, seed: int = 0, progress: bool = True
) -> References:
    """References fitted to crystals of ``train`` that share no (formula, group) with ``val``, and checked on ``val``.

    Args:
        train: Parquet file as MP-20's.
        val: another one.
        rows: of train, at most, drawn at random.
        val_rows: of val, at most, drawn at random.
        seed: of the draws.
        progress: shows a bar; about 30 crystals a second on one core.
    """
    held = read(val, progress=progress)
    rng = np.random.default_rng(seed)
    parents, others = Parents.read(train, frozenset().union(*held.keys)), Parents.read(val)
    fitted = fit(*evaluated(parents, rng.permutation(len(parents))[:rows], progress))
    return replace(fitted, checks=check(fitted, *evaluated(others, rng.permutation(len(others))[:val_rows], progress)))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--val-rows", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=SHIPPED)
    options = parser.parse_args()
    references = make_references(options.train, options.val, options.rows, options.val_rows, options.seed)
    references.save(options.output)
    for name, row in references.checks.items():
        print(f"{name:6s} {row['rows']:5d}  MAE {row['mae']:.3f}  bias {row['bias']:+.3f} eV/atom")


if __name__ == "__main__":
    run(main)
