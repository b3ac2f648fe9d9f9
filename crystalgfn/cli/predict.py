"""What ``crystalgfn predict`` does: structures of formulas, the most probable first, as CIF files and a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from crystalgfn.cli.console import tell
from crystalgfn.cli.options.compose import OptionError
from crystalgfn.cli.options.objects import listed, plain_config
from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.atoms import CELL
from crystalgfn.sampling.table import write_table
from crystalgfn.structures.predict import Prediction, predict
from crystalgfn.structures.writers import cif
from crystalgfn.utils.files import write_aside
from crystalgfn.utils.run_folder import RunFolder

TOLD = 10
"""Structures of a formula that are printed."""
CIFS = "cifs"
FREE = ("out", "progress", "json")
"""May differ between the calls that a run is made in."""


def run(config: DictConfig, command: str, folder: RunFolder) -> dict[str, Any]:
    """Predict.

    Raises:
        OptionError: no formula, or no such space group.
        CrystalGFNError: as `crystalgfn.structures.predict.predict`.
    """
    formulas = listed(config.formula)
    if not formulas:
        raise OptionError("predict needs a formula: formula=LiFePO4, or several: formula=[NaCl,LiF].")
    if folder.ended:
        raise OptionError(f"{folder.path} already holds a run; choose another out=<folder>, or delete it.")
    folder.agree(plain_config(config), FREE)
    names = ("n", "refiner", "max_atoms", "steps", "seed", "progress")
    how = {name: config[name] for name in names} | {"templates": plain_config(config.templates)}
    rows = []
    for formula in formulas:
        found = predict(formula, _group(config.space_group), **how)
        rows += [_row(rank, one, folder.path) for rank, one in enumerate(found, 1)]
    frame = pd.DataFrame(rows)
    write_table(frame, folder.path)
    for formula, own in frame.groupby("formula", sort=False):
        shown = own.head(TOLD)[["rank", "space_group", "symbol", "probability", "formation_energy", "origin"]]
        tell(f"{formula}\n{shown.to_string(index=False, float_format='%.3f')}\n")
    tell(f"{len(frame)} structures: {folder.path / CIFS}; {folder.path / 'table.csv'}")
    return {"counts": {"structures": len(frame)}, "files": ["table.csv", "table.parquet", CIFS]}


def _group(value: str | None) -> int | None:
    try:
        return None if value is None else space_groups.number_of(value)
    except ValueError as error:
        raise OptionError(f"space_group={value}: {error}.") from error


def _row(rank: int, one: Prediction, out: Path) -> dict[str, Any]:
    """The row of a structure, whose file is written."""
    formula = one.structure.composition.reduced_formula
    about = {"command": "predict", "rank": rank, "probability": f"{one.probability:.4f}", "origin": one.origin}
    name = f"{CIFS}/{formula}_{rank:03d}_{one.space_group}.cif"
    (out / CIFS).mkdir(exist_ok=True)
    write_aside(out / name, lambda aside: aside.write_text(cif(one.orbits, about), encoding="utf-8"))
    letters = " ".join(f"{symbol}:{''.join(own)}" for symbol, own in one.wyckoff.items())
    return {
        "formula": formula,
        "rank": rank,
        "space_group": one.space_group,
        "symbol": space_groups.SYMBOL[one.space_group - 1],
        "probability": one.probability,
        "formation_energy": one.energy,
        "origin": one.origin,
        "wyckoff": letters,
        "n_atoms": sum(one.orbits.counts.values()),
        **dict(zip(CELL, map(float, one.orbits.lattice), strict=True)),
        "file": name,
    }
