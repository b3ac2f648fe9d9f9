"""Fits the energy scale "charge" (``weights/tables/energy_scale.json``) to measured enthalpies of formation.

``python -m scripts.maintain.fit_energy_scale mp20/train.parquet mp20/val.parquet``: the lowest formation energy of each
formula of these files minus the measured one (``exp_compounds.json.gz`` of pymatgen) is regressed on the columns of
`scale_features` by Huber's loss, with ridges that pull the correction of atoms without charge towards what the
Materials Project gives every atom, the others towards none. Five-fold cross-validation leaves out whole chemical
systems; its errors by class are written into the table. A column of fewer than `FEWEST` compounds is left out, and
fluorine's, nitrogen's and oxygen's `g` and `h` are, since they made the errors of their own classes no smaller.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from pymatgen.core import Composition

from crystalgfn.data.standard_cells import ENERGY
from crystalgfn.properties.energy_scale import CENTRES, TABLE, scale_features
from crystalgfn.properties.oxidation import FULL
from crystalgfn.utils.files import write_aside
from scripts.maintain.program import run

MP2020 = {
    "S": 0.503,
    "F": 0.462,
    "Cl": 0.614,
    "Br": 0.534,
    "I": 0.379,
    "N": 0.361,
    "Se": 0.472,
    "Te": 0.422,
    "H": 0.179,
    "Sb": 0.192,
}
"""Size of the published correction an anion atom, eV (MP2020Compatibility)."""
RIDGE = {"d": 0.05, "k": 0.03, "g": 0.1, "h": 0.03}
PLAIN = {"F", "N", "O"}
"""Anions whose published corrections are kept where the atoms carry their charge."""
SIMPLE = {
    "oxides": "O", "sulfides": "S", "selenides": "Se", "tellurides": "Te", "nitrides": "N", "fluorides": "F",
    "chlorides": "Cl", "bromides": "Br", "iodides": "I", "hydrides": "H",
}  # fmt: skip
DELTA = 0.1
"""eV/atom; residuals beyond count linearly."""
FEWEST, FOLDS, SEED = 2, 5, 0


def measured(paths: Sequence[str | Path]) -> pd.DataFrame:
    """Compounds with both energies: formula, system, error of the Materials Project's formation energy, eV/atom."""
    lowest: dict[str, float] = {}
    for path in paths:
        table = pd.read_parquet(path, columns=["formula", ENERGY]).dropna()
        for formula, energy in zip(table.formula, table[ENERGY], strict=True):
            lowest[formula] = min(energy, lowest.get(formula, np.inf))
    lowest = {Composition(formula).reduced_formula: energy for formula, energy in lowest.items()}
    raw = json.loads(gzip.decompress((files("pymatgen.analysis.compatibility") / "exp_compounds.json.gz").read_bytes()))
    rows = []
    for one in raw:
        composition = Composition(one["formula"])
        formula = composition.reduced_formula
        if formula in lowest and len(composition) > 1:
            reduced = Composition(formula)
            rows.append((formula, reduced.chemical_system, lowest[formula] - one["exp energy"] / reduced.num_atoms))
    return pd.DataFrame(rows, columns=["formula", "system", "error"]).drop_duplicates("formula", ignore_index=True)


def classes(columns: pd.DataFrame, evidence: np.ndarray) -> dict[str, np.ndarray]:
    """Which compounds are in which class, bool."""
    at = lambda *names: sum(columns[name].to_numpy() for name in names)  # noqa: E731
    found = {
        "polychalcogenides and others short of charge": at(*(f"d_{a}" for a in FULL if a != "O")) > 0.05,
        "peroxides and superoxides": at("d_O") > 0.08,
        "nitrates": at("k_N") > 0.2,
        "sulfates": at("k_S") > 0.2,
        "carbonates": at("k_C") > 0.2,
        "phosphates": at("k_P") > 0.2,
        "halates": at("k_Cl", "k_Br", "k_I") > 0.2,
        "selenites and selenates": at("k_Se") > 0.1,
        "silicates": at("k_Si") > 0.2,
        "borates and arsenates": at("k_B", "k_As") > 0.2,
    }
    rest = ~np.any(list(found.values()), axis=0)
    for name, anion in SIMPLE.items():
        found[f"simple {name}"] = rest & (at(f"g_{anion}") > 0.1)
    found["no anions"] = ~np.isfinite(evidence)
    return found


def solve(x: np.ndarray, y: np.ndarray, prior: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    """Huber regression with ridges, by iteratively reweighted least squares."""
    b = prior.copy()
    for _ in range(50):
        weight = np.minimum(1, DELTA / np.maximum(np.abs(y - x @ b), 1e-9))
        b = np.linalg.solve(x.T @ (weight[:, None] * x) + np.diag(ridge), x.T @ (weight * y) + ridge * prior)
    return b


def fit(paths: Sequence[str | Path]) -> dict:
    """Coefficients and the errors of the cross-validation."""
    from crystalgfn.properties.oxidation import charges

    table = measured(paths)
    columns = pd.DataFrame({name: one.numpy() for name, one in scale_features(table.formula.tolist()).items()})
    wanted = [f"d_{a}" for a in FULL if a in MP2020] + [f"k_{x}" for x in CENTRES]
    wanted += [f"{kind}_{a}" for kind in "gh" for a in FULL if a in MP2020 and a not in PLAIN]
    used = [name for name in wanted if name[0] == "d" or (columns[name] > 0.02).sum() >= FEWEST]
    x, y = columns[used].to_numpy(), table.error.to_numpy()
    prior = np.array([-MP2020[name[2:]] if name[0] == "d" else 0.0 for name in used])
    ridge = np.array([RIDGE[name[0]] for name in used])
    systems = np.array(sorted(set(table.system)))
    fold = dict(zip(systems, np.random.default_rng(SEED).permutation(len(systems)) % FOLDS, strict=True))
    which = table.system.map(fold).to_numpy()
    left = y.copy()
    for k in range(FOLDS):
        out = which == k
        left[out] -= x[out] @ solve(x[~out], y[~out], prior, ridge)
    groups = classes(columns, charges(table.formula.tolist()).evidence.numpy()) | {"all": np.ones(len(y), dtype=bool)}
    checks = {
        name: {"compounds": int(here.sum())}
        | {
            scale: {
                "median": round(float(np.median(e)), 3),
                "median_size": round(float(np.median(np.abs(e))), 3),
                "mae": round(float(np.abs(e).mean()), 3),
            }  # fmt: skip
            for scale, e in (("mp2020", y[here]), ("charge", left[here]))
        }
        for name, here in groups.items()
        if here.any()
    }
    found = dict(zip(used, np.round(solve(x, y, prior, ridge), 3).tolist(), strict=True))
    return {
        "unit": "eV",
        "source": "exp_compounds.json.gz of pymatgen (MIT)",
        "coefficients": found,
        "cross_validation": checks,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", help="Parquet files as MP-20's")
    given = parser.parse_args()
    found = fit(given.data)
    write_aside(TABLE, lambda aside: aside.write_text(json.dumps(found, indent=1) + "\n"))
    print(pd.json_normalize([{"class": name, **one} for name, one in found["cross_validation"].items()]).to_string())


if __name__ == "__main__":
    run(main)
