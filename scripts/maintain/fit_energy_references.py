"""Fits the energy references of a calculator, which make formation energies of its total energies.

``python -m scripts.maintain.fit_energy_references --calculator sevennet --train mp20/train.parquet --n 700 --out
mine.json`` fits one energy an element by ridge regression; with ``--val`` the errors on other crystals are measured and
kept in the file. ``evaluate``, ``check`` and ``train-proxy`` take it as ``energy_references=mine.json``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from crystalgfn.calculators.base import Calculator, calculate_energies
from crystalgfn.calculators.energy_references import ANIONS, FOLDER, References, anion, corrected
from crystalgfn.calculators.registry import DEFAULT, load_calculator
from crystalgfn.crystallography import elements
from crystalgfn.data.standard_cells import Parents
from crystalgfn.errors import DataError
from scripts.maintain.program import run

CHUNK = 200

FEWEST = 3
"""Crystals of each element, where there are so many."""


def evaluated(
    parents: Parents, indices: np.ndarray, calculator: Calculator | str = DEFAULT, progress: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compositions [B, 118], total energies by the calculator and formation energies, eV/atom [B].

    Of the parents at ``indices``; those that are taken or have no group are left out.
    """
    potential = load_calculator(calculator)
    columns: tuple[list, list, list] = ([], [], [])
    for start in tqdm(range(0, len(indices), CHUNK), desc=potential.name, disable=not progress):
        part = [i for i in indices[start : start + CHUNK] if parents.cell(int(i)) is not None]
        cells = [parents.cell(int(i)) for i in part]
        columns[0].extend(cell.composition for cell in cells)
        columns[1].extend(calculate_energies(potential, [cell.structure() for cell in cells]))
        columns[2].extend(parents.formation_energy(int(i)) for i in part)
    return np.reshape(columns[0], (-1, 118)), np.array(columns[1]), np.array(columns[2])


def chosen(parents: Parents, n: int, seed: int) -> np.ndarray:
    """Positions of at most ``n`` parents, drawn at random, among them some of every element.

    First those are taken, the smallest cells before others, that hold an element with fewer than `FEWEST` so far. The
    rest is drawn at random: references of oxygen fitted to small cells alone, which are often no oxides, were 0.28
    eV/atom off for oxides.
    """
    rng = np.random.default_rng(seed)
    atoms = [one.known_atoms.numbers for one in parents.entries]
    rows = [np.unique(numbers) for numbers in atoms]
    order = rng.permutation(len(parents))
    small = order[np.argsort([len(atoms[i]) for i in order], kind="stable")]
    counts, taken = np.zeros(119, dtype=int), []
    for i in small.tolist():
        if len(taken) < n and (counts[rows[i]] < FEWEST).any() and parents.cell(i) is not None:
            taken.append(i)
            counts[rows[i]] += 1
    others = np.setdiff1d(order, taken, assume_unique=True)
    return np.concatenate([taken, others[: n - len(taken)]]).astype(int)


def make_references(
    train: str | Path,
    val: str | Path | None = None,
    calculator: Calculator | str = DEFAULT,
    n: int = 700,
    val_n: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> References:
    """References fitted to crystals of ``train``, and checked on crystals of ``val`` of other (formula, space group).

    Args:
        train: Parquet file as MP-20's.
        val: another one; None: nothing is checked.
        calculator: of the energies, see `load_calculator`.
        n: crystals of train, at most, see `chosen`.
        val_n: of val, at most, drawn at random.
        seed: of the draws.
        progress: shows a bar; one core does 30 crystals a second with CHGNet, 10 with SevenNet-l3i5.

    Raises:
        DataError: files that cannot be used, or an element of train of which no crystal was fitted.
    """
    potential = load_calculator(calculator)
    parents = Parents.read(train)
    rows = chosen(parents, n, seed)
    model = str(getattr(potential, "model", ""))
    found = fit_references(*evaluated(parents, rows, potential, progress), calculator=potential.name, model=model)
    present = np.unique(np.concatenate([one.known_atoms.numbers for one in parents.entries]))
    missing = [z for z in present.tolist() if np.isnan(found.energies[z - 1])]
    if known := [elements.SYMBOLS[z - 1] for z in missing if potential.knows([z])]:
        raise DataError(f"none of {found.rows} crystals with an energy holds {', '.join(known)}; give a larger n")
    if val is None:
        return found
    fitted = [cell for i in rows if (cell := parents.cell(int(i))) is not None]
    others = Parents.read(val, frozenset((cell.formula, cell.space_group) for cell in fitted))
    drawn = np.random.default_rng(seed).permutation(len(others))[:val_n]
    return replace(found, checks=check_references(found, *evaluated(others, drawn, potential, progress)))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calculator", default=DEFAULT, help="name, or module:factory")
    parser.add_argument("--train", type=Path, required=True, help="Parquet file as MP-20's")
    parser.add_argument("--val", type=Path, help="another, whose crystals are not fitted but checked")
    parser.add_argument("--n", type=int, default=700, help="crystals that are fitted, at most")
    parser.add_argument("--val-n", type=int, default=100, help="crystals that are checked, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help=f"JSON file; {FOLDER}/<calculator>.json by default")
    given = parser.parse_args()
    found = make_references(given.train, given.val, given.calculator, given.n, given.val_n, given.seed)
    out = given.out or FOLDER / f"{found.calculator.lower()}.json"
    found.save(out)
    print(f"{found.calculator}: {found.rows} crystals, {np.isfinite(found.energies).sum()} elements, in {out}")
    for name, row in found.checks.items():
        print(f"{name:6s} {row['rows']:5d}  MAE {row['mae']:.3f}  bias {row['bias']:+.3f} eV/atom")


RIDGE = 1e-3


def fit_references(
    composition: np.ndarray, energy: np.ndarray, formation: np.ndarray, calculator: str, model: str = ""
) -> References:
    """References from crystals with both energies, eV/atom [B] (NaN: left out), and atoms by element [B, 118].

    The energies are taken as raw ones, to which the Materials Project's corrections are added, where that fits better.

    Raises:
        DataError: no row has both energies.
    """
    good = np.isfinite(energy) & np.isfinite(formation)
    if not good.any():
        raise DataError(
            "references need crystals with both the calculator's energy and a formation energy; there are none"
        )
    shares = composition[good] / composition[good].sum(1, keepdims=True)
    seen = shares.any(0)
    fits = [_solve(shares[:, seen], (corrected(composition, energy, raw) - formation)[good]) for raw in (False, True)]
    raw = fits[1][1] < fits[0][1]
    values = np.full(118, np.nan)
    values[seen] = fits[raw][0]
    return References(
        energies=tuple(values.tolist()),
        calculator=calculator,
        model=model,
        rows=int(good.sum()),
        checks={},
        raw=bool(raw),
    )


def _solve(shares: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """Energies of the elements, and the mean absolute residual."""
    # The ridge pulls towards the mean, which only matters for elements seen a few times.
    mean = target.mean()
    fitted = mean + np.linalg.solve(shares.T @ shares + RIDGE * np.eye(shares.shape[1]), shares.T @ (target - mean))
    return fitted, float(np.abs(target - shares @ fitted).mean())


def check_references(
    references: References, composition: np.ndarray, energy: np.ndarray, formation: np.ndarray
) -> dict[str, dict[str, float]]:
    """Rows, MAE and bias (eV/atom) over all crystals and in every anion class; arguments as in `fit_references`."""
    error = references.formation_energy(composition, energy) - formation
    classes = np.array([anion(row) for row in composition])
    known = np.isfinite(error)
    table = {}
    for name in ("all", *ANIONS, "other"):
        errors = error[known & ((classes == name) | (name == "all"))]
        if len(errors):
            table[name] = {
                "rows": len(errors),
                "mae": round(float(np.abs(errors).mean()), 4),
                "bias": round(float(errors.mean()), 4),
            }
    return table


if __name__ == "__main__":
    run(main)
