"""Labels what samplers draw.

``python -m scripts.maintain.labels.from_sampler TRAIN VAL FOLDER --sampler stable --n 500``: one round of
`crystalgfn.fitting.active_learning` without a fit. Where a proxy and its samplers exist, their
draws say where it is wrong.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from crystalgfn.calculators.registry import DEFAULT
from crystalgfn.data.standard_cells import Parents
from crystalgfn.errors import CheckpointError
from crystalgfn.fitting.active_learning import CalculatorLabels, concat_labels, kept_crystals, label_in_parts, without
from crystalgfn.fitting.labels import SHIPPED, Labels, read_labels
from crystalgfn.fitting.template_cells import TemplateCells
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.utils.files import write_aside
from scripts.maintain.labels.merge import counts, hull_without
from scripts.maintain.program import run

OF, DRAWN = "draws.json", "drawn.pt"


def label_draws(
    train: str | Path,
    val: str | Path,
    folder: str | Path,
    sampler: str = "formation-energy",
    n: int = 500,
    seed: int = 0,
    space_groups: Sequence[int] | None = None,
    calculator: str = DEFAULT,
    second_opinion: str | None = None,
    elements: Sequence[str] | None = None,
) -> Labels:
    """Labels by a calculator of ``n`` draws, those among them that have no room for their atoms too (kind `HIGH`).

    Args:
        train: Parquet file (as MP-20's) of the templates and of the hull above which labels end.
        val: another; nothing that shares (reduced formula, space group) with it is returned.
        folder: what is finished stands here; an interrupted run goes on, another is refused.
        sampler: name or folder.
        n: draws.
        seed: of the draws and of the placements.
        space_groups: ITA numbers, where only draws of some are wanted; None: what the sampler draws.
        calculator: see `crystalgfn.calculators.registry.load_calculator`.
        second_opinion: a better one, whose energies the labels are; None: none.
        elements: symbols that every draw has to have; None: what the sampler draws.

    Raises:
        DataError: files that cannot be read.
        EmptySpace: the sampler draws none of these groups.
        InvalidSpace: numbers that are no space groups.
        NotAvailable: the calculator's package is not installed.
        CheckpointError: the folder holds labels of other draws.
    """
    folder = Path(folder)
    groups = None if space_groups is None else list(space_groups)
    given: dict[str, Any] = {"sampler": str(sampler), "n": n, "seed": seed, "space_groups": groups}
    given |= {"calculator": calculator, "second_opinion": second_opinion, "elements": elements and list(elements)}
    _describe(folder / OF, given)
    hull, taken = hull_without(train, val)
    templates = TemplateCells(Parents.read(train, taken))

    def draw():
        limits = {"space_groups": groups, "required_elements": elements}
        constraint = {name: value for name, value in limits.items() if value is not None} or None
        drawn = Sampler.load(sampler).sample(n, constraint, seed=seed)
        return replace(drawn, lattice=drawn.lattice.double())

    crystals = kept_crystals(folder / DRAWN, draw)
    label = CalculatorLabels(
        hull=hull, templates=templates.cells, seed=seed, calculator=calculator, second_opinion=second_opinion
    )
    return without(label_in_parts(crystals, folder, label), taken)


def _describe(path: Path, given: dict[str, Any]) -> None:
    """Say whose draws a folder holds, or find that it holds these."""
    if path.exists():
        try:
            known = json.loads(path.read_text())
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged ({error}); choose another folder") from error
        if known != given:
            raise CheckpointError(f"{path.parent} holds labels of {known}, not of {given}; choose another folder")
        return
    if (path.parent / DRAWN).exists():
        raise CheckpointError(f"{path.parent} holds draws that nothing says the origin of; choose another folder")
    write_aside(path, lambda aside: aside.write_text(json.dumps(given)))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path, help="Parquet file (as MP-20's): templates, and the hull where labels end")
    parser.add_argument("val", type=Path, help="the one held out")
    parser.add_argument("folder", type=Path, help="for what is finished")
    parser.add_argument("--sampler", default="formation-energy", help="name or folder")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--space-groups", type=int, nargs=2, metavar=("FIRST", "LAST"), help="draws of these ITA numbers only"
    )
    parser.add_argument("--labels", type=Path, default=SHIPPED, help="to which the new ones are added")
    parser.add_argument("--output", type=Path, help="file of all labels; that of --labels by default")
    parser.add_argument("--calculator", default=DEFAULT, help="name, or module:factory")
    parser.add_argument("--second-opinion", help="a better calculator, whose energies the labels are")
    parser.add_argument("--elements", nargs="+", help="symbols that every draw has to have")
    options = parser.parse_args()
    start = time.process_time()
    numbers = None
    if options.space_groups is not None:
        first, last = options.space_groups
        if not 1 <= first <= last <= 230:
            parser.error(f"--space-groups {first} {last}: give the first and the last of ITA numbers from 1 to 230")
        numbers = range(first, last + 1)
    new = label_draws(
        options.train,
        options.val,
        options.folder,
        options.sampler,
        options.n,
        options.seed,
        numbers,
        options.calculator,
        options.second_opinion,
        options.elements,
    )
    labels = concat_labels([read_labels(options.labels, high=True), new])
    labels.save(options.output or options.labels)
    print(f"{len(new)} labels of {options.n} draws in {(time.process_time() - start) / 60:.0f} minutes of CPU")
    print(counts(labels))


if __name__ == "__main__":
    run(main)
