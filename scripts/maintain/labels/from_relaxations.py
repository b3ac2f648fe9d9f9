"""Labels what samplers draw by where it relaxes to.

``python -m scripts.maintain.labels.from_relaxations TRAIN VAL FOLDER --sampler stable --n 1000``: draws are placed
(templates of TRAIN, refiner) and relaxed, atoms and cell. Each gives two labels: the energy in the relaxed cell, and
that energy as a lower bound in the cell that was drawn, since no cell of the same space group and composition lies
lower. What is finished is kept in FOLDER; the same call goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crystalgfn.calculators.base import calculate_energies
from crystalgfn.calculators.energy_references import references_of
from crystalgfn.calculators.registry import DEFAULT, load_calculator
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.discovery.proposer import Proposer, ProposerConfig
from crystalgfn.discovery.screening import Screen
from crystalgfn.errors import InvalidCrystal
from crystalgfn.evaluation.metrics.compositions import amounts, composition_row
from crystalgfn.evaluation.relaxation_job import RelaxationJob, relax_job, relaxed_structure
from crystalgfn.fitting.active_learning import concat_labels, without
from crystalgfn.fitting.labels import (
    BOUND,
    CEILING,
    FIT,
    HELD,
    HIGH,
    LOWEST,
    SHIPPED,
    SOURCES,
    VALUE,
    Labels,
    held_out,
    read_labels,
    reduced_key,
)
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.structures.config import templates_of
from crystalgfn.utils.progress import Bar
from crystalgfn.utils.run_folder import Journal
from scripts.maintain.labels.merge import counts, hull_without
from scripts.maintain.program import run

JOURNAL = "relaxations.jsonl"
SYMPREC = 0.1


def relaxed_draws(
    train: str | Path,
    folder: str | Path,
    sampler: str,
    n: int,
    seed: int,
    calculator: str = DEFAULT,
    second_opinion: str | None = None,
) -> tuple[Crystals, list[dict[str, Any]]]:
    """Draws, and what came of relaxing each: the records of `relax_job` with ``second``, energies in eV/atom.

    Args:
        train: Parquet file (as MP-20's) of the templates.
        folder: what is finished stands here.
        sampler: name or folder.
        n: draws.
        seed: of the draws and the placements.
        calculator: relaxes.
        second_opinion: a better one, asked for the energy of what was relaxed; None: none.
    """
    drawn = Sampler.load(sampler).sample(n, seed=seed).to("cpu")
    potential, other = load_calculator(calculator), second_opinion and load_calculator(second_opinion)
    build = {"templates": templates_of(str(train)), "lattice": "generate", "n_candidates": 1}
    proposer = Proposer(Sampler.load(sampler), Sampler.load(sampler).space, seed, ProposerConfig(build=build))
    screen, journal = Screen(potential, references_of(potential)), Journal(Path(folder) / JOURNAL, "draw")
    for i in Bar(range(n), description="relaxing"):
        if i in journal:
            continue
        placed, energies = screen(proposer.place(drawn[i : i + 1], 2 * i)[:1])
        row: dict[str, Any] = {"error": "not placed"}
        if placed and np.isfinite(energies[0]):
            row = relax_job(RelaxationJob(index=i, structure=placed[0].structure, calculator=potential))
            row["origin"] = str(placed[0].origin)
        if other and row["error"] is None:
            structure = relaxed_structure(row)
            rows = composition_row(tuple(amounts(structure).items()))[None].numpy()
            energy = calculate_energies(other, [structure])
            row["second"] = float(references_of(other).formation_energy(rows, energy)[0])
        journal.add({"draw": i, **row})
    return drawn, [journal.records[i] for i in range(n)]


def labels_of(drawn: Crystals, records: Sequence[dict[str, Any]], hull: Any) -> Labels:
    """The labels of relaxed draws; those that relax into another space group give the lower bound alone.

    Args:
        drawn: [B].
        records: of `relaxed_draws` [B].
        hull: above which labels end.
    """
    kept: list[tuple[Crystals, float, float, int, dict[str, Any]]] = []
    for i, record in enumerate(records):
        if record["error"] is not None:
            continue
        first, second = record["formation_energy"], record.get("second")
        value = first if second is None or not np.isfinite(second) else second
        gap = np.nan if second is None or not np.isfinite(second) else second - first
        own = drawn[i : i + 1]
        kept.append((Crystals(own.space_group, own.composition, own.lattice.float()), value, gap, HIGH, record))
        try:
            found = Crystals.from_structures([relaxed_structure(record)], symprec=SYMPREC)
        except InvalidCrystal:
            continue
        if int(found.space_group[0]) == int(own.space_group[0]) and torch.equal(found.composition, own.composition):
            kind = VALUE if record["converged"] and record["origin"].startswith("template") else BOUND
            kept.append(
                (Crystals(found.space_group, found.composition, found.lattice.float()), value, gap, kind, record)
            )
    crystals = Crystals.cat([one[0] for one in kept])
    value = torch.tensor([one[1] for one in kept], dtype=torch.float64)
    kind = torch.tensor([one[3] for one in kept])
    top = hull.energy(crystals).to(value) + CEILING
    out = held_out([reduced_key(row) for row in crystals.composition.numpy()])
    labels = Labels(
        crystals=crystals,
        value=torch.minimum(value, top).float(),
        kind=torch.where(value > top, HIGH, kind),
        source=torch.full((len(kept),), SOURCES.index("proposed")),
        split=torch.from_numpy(np.where(out, HELD, FIT)),
        placed=torch.tensor([not one[4]["origin"].startswith("template") for one in kept]),
        converged=torch.tensor([bool(one[4]["converged"]) for one in kept]),
        candidates=torch.ones(len(kept), dtype=torch.int64),
        refined=torch.ones(len(kept), dtype=torch.bool),
        disagreement=torch.tensor([one[2] for one in kept]).float(),
    )
    return labels[value >= LOWEST]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path, help="Parquet file (as MP-20's): templates, and the hull where labels end")
    parser.add_argument("val", type=Path, help="the one held out")
    parser.add_argument("folder", type=Path, help="for what is finished")
    parser.add_argument("--sampler", default="stable", help="name or folder")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--labels", type=Path, default=SHIPPED, help="to which the new ones are added")
    parser.add_argument("--output", type=Path, help="file of all labels; that of --labels by default")
    parser.add_argument("--calculator", default=DEFAULT, help="name, or module:factory")
    parser.add_argument("--second-opinion", help="a better calculator, whose energies the labels are")
    options = parser.parse_args()
    hull, taken = hull_without(options.train, options.val)
    drawn, records = relaxed_draws(
        options.train, options.folder, options.sampler, options.n, options.seed, options.calculator,
        options.second_opinion,
    )  # fmt: skip
    new = without(labels_of(drawn, records, hull), taken)
    labels = concat_labels([read_labels(options.labels, high=True), new])
    labels.save(options.output or options.labels)
    print(f"{len(new)} labels of {options.n} draws")
    print(counts(labels))


if __name__ == "__main__":
    run(main)
