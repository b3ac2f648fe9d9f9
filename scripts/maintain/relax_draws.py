"""Energies above the hull of what samplers draw, placed and relaxed: what `RelaxedEnergy` is fitted to.

    python -m scripts.maintain.relax_draws stable --n 1000 --seed 41 --templates mp20/train.parquet \
        --known mp20/train.parquet mp20/val.parquet hull/mp_entries.parquet --second sevennet --out draws

writes ``draws/draws.csv``: formula, space group, energies above the exact hull (eV/atom, on the scale of the charges)
by the calculator and, at the geometry that it found, by the second one, and their mean. A row without a second opinion
gets half of the median disagreement. What is finished is kept in the folder; the same call goes on. Several calls with
``--add`` make one table.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from crystalgfn.calculators.base import Calculator, calculate_energies
from crystalgfn.calculators.energy_references import references_of
from crystalgfn.calculators.registry import DEFAULT, load_calculator
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.discovery.phases import KnownPhases
from crystalgfn.discovery.proposer import Proposer, ProposerConfig
from crystalgfn.discovery.screening import Screen
from crystalgfn.evaluation.metrics.compositions import amounts, composition_row
from crystalgfn.evaluation.relaxation_job import RelaxationJob, relax_job, relaxed_structure
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.structures.config import templates_of
from crystalgfn.utils.files import write_aside
from crystalgfn.utils.progress import Bar
from crystalgfn.utils.run_folder import Journal
from scripts.maintain.program import run

JOURNAL, TABLE = "relaxations.jsonl", "draws.csv"


def relaxed_draws(
    sampler: Sampler,
    n: int,
    seed: int,
    templates: str | Path,
    folder: Path,
    calculator: str = DEFAULT,
    second: str | None = None,
) -> tuple[Crystals, list[dict[str, Any]]]:
    """Draws, and what came of relaxing each: the records of `relax_job`, with ``second`` by the second calculator.

    Energies are formation energies on the scale of the references, eV/atom.
    """
    drawn = sampler.sample(n, seed=seed).to("cpu")
    potential, other = load_calculator(calculator), None if second is None else load_calculator(second)
    build = {"templates": templates_of(str(templates)), "lattice": "generate", "n_candidates": 1}
    proposer = Proposer(sampler, sampler.space, seed, ProposerConfig(build=build))
    screen, journal = Screen(potential, references_of(potential)), Journal(folder / JOURNAL, "draw")
    for i in Bar(range(n), description="relaxing"):
        if i in journal:
            continue
        placed, energies = screen(proposer.place(drawn[i : i + 1], 2 * i)[:1])
        row: dict[str, Any] = {"error": "not placed"}
        if placed and np.isfinite(energies[0]):
            row = relax_job(RelaxationJob(index=i, structure=placed[0].structure, calculator=potential))
        if other is not None and row["error"] is None:
            row["second"] = _energy(relaxed_structure(row), other)
        journal.add({"draw": i, **row})
    return drawn, [journal.records[i] for i in range(n)]


def _energy(structure: Any, calculator: Calculator) -> float:
    rows = composition_row(tuple(amounts(structure).items()))[None].numpy()
    return float(references_of(calculator).formation_energy(rows, calculate_energies(calculator, [structure]))[0])


def table_of(drawn: Crystals, records: Sequence[dict[str, Any]], phases: KnownPhases) -> pd.DataFrame:
    """One row for each draw that could be relaxed, eV/atom above the hull of the phases."""
    level = phases.energy(drawn).double().numpy()
    rows = [
        {
            "formula": drawn.formulas()[i],
            "space_group": int(drawn.space_group[i]),
            "first": one["formation_energy"] - level[i],
            "second": one.get("second", np.nan) - level[i],
        }
        for i, one in enumerate(records)
        if one["error"] is None
    ]
    return pd.DataFrame(rows)


def with_mean(table: pd.DataFrame) -> pd.DataFrame:
    """The table with ``above_hull``, the mean of both; without a second one the first and half of the median gap."""
    gaps = table.second - table["first"]
    usual = 0.0 if gaps.isna().all() else gaps.median()
    return table.assign(above_hull=table["first"] + gaps.fillna(usual) / 2).round(4)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sampler", help="name or folder")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--templates", type=Path, required=True, help="crystals that lend their positions")
    parser.add_argument("--known", type=Path, nargs="+", required=True, help="files of the hull's entries")
    parser.add_argument("--calculator", default=DEFAULT)
    parser.add_argument("--second", help="a second calculator")
    parser.add_argument("--add", type=Path, help="a table of an earlier call, whose rows come first")
    parser.add_argument("--out", type=Path, required=True, help="folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sampler = Sampler.load(options.sampler)
    drawn, records = relaxed_draws(
        sampler, options.n, options.seed, options.templates, options.out, options.calculator, options.second
    )
    numbers = sorted(sampler.space.element_numbers)
    phases = KnownPhases.read([str(one) for one in options.known], numbers, scale="charge")
    table = table_of(drawn, records, phases)
    if options.add is not None:
        table = pd.concat([pd.read_csv(options.add), table], ignore_index=True)
    table = with_mean(table)
    write_aside(options.out / TABLE, lambda path: table.to_csv(path, index=False))
    print(f"{len(table)} rows in {options.out / TABLE}")


if __name__ == "__main__":
    run(main)
