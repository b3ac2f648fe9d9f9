"""Fits the shipped plausibility: ``python -m scripts.maintain.fit_crystal_plausibility DATA OUT``.

DATA is a folder as ``mp20/train.parquet``, ``mp20/val.parquet``, ``matbench_mp_gap/features.parquet``,
``disorder/cod_index_formula_group.parquet`` and ``disorder/amcsd.parquet`` below it have. Known are ordered crystals of
the first and of the last three with at most `MOST_ATOMS` atoms a formula unit and no formula of val, each (formula,
group) once, those that have been made (COD, AMCSD) twice. Drawn are crystals of untrained samplers, of two spaces, and
of the shipped samplers.

``--made`` fits the synthesizability instead: made are the crystals of COD and AMCSD, the others those of MP-20 and
MatBench and draws of samplers whose formula neither COD nor AMCSD holds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pymatgen.core import Composition

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.elements import NUMBER
from crystalgfn.fitting.plausibility import fit_plausibility
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.space.space import CrystalSpace
from scripts.maintain.program import run

MOST_ATOMS = 40
SHIPPED = {
    "stable": 60_000,
    "formation-energy": 25_000,
    "band-gap-1.34": 10_000,
    "li-conductor": 10_000,
    "density": 10_000,
}
WIDE = {"alloys": True, "oxidation_states": "all", "mixed_valence": True}
"""The other space of an untrained sampler, which holds intermetallics."""

Pair = tuple[str, int]


def pairs(formulas: Iterable[str], groups: Iterable[int]) -> set[Pair]:
    """(reduced formula, group) of ordered crystals that are small enough."""
    found = set()
    for formula, group in set(zip(formulas, groups, strict=True)):
        try:
            composition = Composition(formula)
        except ValueError:
            continue
        amounts = composition.values()
        if not 1 <= int(group) <= 230 or any(abs(x - round(x)) > 1e-6 for x in amounts):
            continue
        reduced, _ = composition.get_reduced_composition_and_factor()
        if reduced.num_atoms <= MOST_ATOMS and all(e.symbol in NUMBER for e in reduced):
            found.add((reduced.reduced_formula, int(group)))
    return found


def crystals_of_pairs(chosen: list[Pair]) -> Crystals:
    """Crystals of one formula unit, without a lattice."""
    composition = torch.zeros(len(chosen), 118, dtype=torch.int64)
    for i, (formula, _) in enumerate(chosen):
        for symbol, amount in Composition(formula).get_el_amt_dict().items():
            composition[i, NUMBER[symbol] - 1] = round(amount)
    return Crystals(torch.tensor([group for _, group in chosen]), composition, torch.full((len(chosen), 6), torch.nan))


def sources(data: Path) -> dict[str, set[Pair]]:
    """Known crystals by where they stand."""
    tables = {
        "train": ("mp20/train.parquet", "spacegroup"),
        "val": ("mp20/val.parquet", "spacegroup"),
        "matbench": ("matbench_mp_gap/features.parquet", "spacegroup"),
        "cod": ("disorder/cod_index_formula_group.parquet", "spg"),
    }
    found = {}
    for name, (path, group) in tables.items():
        table = pd.read_parquet(data / path, columns=["formula", group]).dropna()
        found[name] = pairs(table.formula, table[group])
    table = pd.read_parquet(data / "disorder/amcsd.parquet", columns=["composition", "spg", "mixed", "vacancy"])
    table = table[~table.mixed & ~table.vacancy]
    formulas = ["".join(f"{e}{n:g}" for e, n in json.loads(one).items()) for one in table.composition]
    found["amcsd"] = pairs(formulas, table.spg)
    return found


def draws(seed: int, share: float = 1.0, samplers: dict[str, int] = SHIPPED) -> Crystals:
    """Crystals that need not be."""
    parts = [
        Sampler.untrained(CrystalSpace(), seed=0).sample(int(50_000 * share), seed=seed),
        Sampler.untrained(CrystalSpace(**WIDE), seed=0).sample(int(30_000 * share), seed=seed),
    ]
    parts += [Sampler.load(name).sample(int(n * share), seed=seed) for name, n in samplers.items()]
    return Crystals.cat([Crystals(p.space_group, p.composition, p.lattice.float()) for p in parts])


def fit_shipped(data: str | Path, out: str | Path, also: Sequence[str] = (), **hyperparameters: Any) -> dict[str, Any]:
    """Fit it on the files below ``data``, with draws of the samplers ``also`` besides; see `fit_plausibility`."""
    found = sources(Path(data))
    of_val = {formula for formula, _ in found["val"]}
    made = {pair for pair in found["cod"] | found["amcsd"] if pair[0] not in of_val}
    everything = {pair for pair in found["train"] | found["matbench"] if pair[0] not in of_val}
    known = crystals_of_pairs(sorted(made) + sorted(made | everything))
    taken = {formula for name in ("train", "matbench", "cod", "amcsd") for formula, _ in found[name]}
    new = crystals_of_pairs(sorted(pair for pair in found["val"] if pair[0] not in taken))
    drawn = draws(seed=0, samplers=SHIPPED | dict.fromkeys(also, 60_000))
    stable = Sampler.load("stable").sample(5_000, seed=77)
    stable = Crystals(stable.space_group, stable.composition, stable.lattice.float())
    reports = {"new formulas of MP-20 val, stable": (new, stable)}
    return fit_plausibility(known, drawn, out, reports=reports, **hyperparameters)


def fit_made(data: str | Path, out: str | Path, **hyperparameters: Any) -> dict[str, Any]:
    """Fit the probability that a crystal has been made on the files below ``data``; see `fit_plausibility`.

    No formula of MP-20 val is fitted on; as a check those that COD or AMCSD hold are told from the others.
    """
    found = sources(Path(data))
    of_val = {formula for formula, _ in found["val"]}
    made = {formula for formula, _ in found["cod"] | found["amcsd"]}
    known = sorted(pair for pair in found["cod"] | found["amcsd"] if pair[0] not in of_val)
    others = sorted(pair for pair in found["train"] | found["matbench"] if pair[0] not in of_val | made)
    drawn = draws(seed=0, share=0.25)
    names = [Composition(one).reduced_formula for one in drawn.formulas()]
    kept = torch.tensor([i for i, name in enumerate(names) if name not in made | of_val])
    reports = {
        "formulas of MP-20 val": (
            crystals_of_pairs(sorted(pair for pair in found["val"] if pair[0] in made)),
            crystals_of_pairs(sorted(pair for pair in found["val"] if pair[0] not in made)),
        )
    }
    return fit_plausibility(
        crystals_of_pairs(known),
        Crystals.cat([crystals_of_pairs(others), drawn[kept]]),
        out,
        name="synthesizability",
        what="probability of having been made",
        reports=reports,
        **hyperparameters,
    )


def main(arguments: list[str] | None = None) -> None:
    """The command: fits with the default settings and prints the figures."""
    parser = argparse.ArgumentParser(description="Fit the shipped plausibility.")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--also", nargs="*", default=[], help="folders of further samplers, whose draws count too")
    parser.add_argument("--made", action="store_true", help="fit the synthesizability instead")
    given = parser.parse_args(arguments)
    if given.made:
        print(json.dumps(fit_made(given.data, given.out), indent=1))
        return
    print(json.dumps(fit_shipped(given.data, given.out, given.also), indent=1))


if __name__ == "__main__":
    run(main)
