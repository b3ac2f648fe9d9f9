"""Searches again for what labels are the lowest of: ``python -m scripts.maintain.labels.improve TRAIN VAL FOLDER``.

E* can only be too high. Where atoms are placed better than when a label was made, its value comes down, and what was
taken for too high may turn out to be within range.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.data.standard_cells import Parents
from crystalgfn.errors import DataError
from crystalgfn.fitting.labels import HIGH, SHIPPED, SOURCES, VALUE, Labels, label_crystals, read_labels
from crystalgfn.fitting.template_cells import TemplateCells
from crystalgfn.typing import Booleans, Integers
from crystalgfn.utils.files import save_arrays
from scripts.maintain.labels.merge import counts, hull_without
from scripts.maintain.program import run

CHUNK = 16
COLUMNS = ("value", "kind", "placed", "converged", "candidates")
Label = Callable[[Crystals, int], tuple[Labels, Integers]]


def uncertain(labels: Labels) -> Booleans:
    """Which may lie lower: bounds and what ended too high, but for strained crystals, whose atoms are known; [B]."""
    return (labels.kind != VALUE) & (labels.source != SOURCES.index("strained"))


def improve_labels(labels: Labels, label: Label, folder: str | Path, progress: bool = True) -> Labels:
    """The labels, with the lower of two searches where they are `uncertain`.

    Args:
        labels: with those that ended too high.
        label: labels of crystals and their positions among these, given the number of the chunk.
        folder: what is finished stands here, `CHUNK` crystals a file; an interrupted search goes on.
        progress: shows a bar.

    Raises:
        DataError: a file of the folder is about other labels.
    """
    rows = uncertain(labels).nonzero().squeeze(1)
    columns = {name: getattr(labels, name).clone() for name in (*COLUMNS, "refined")}
    for number, part in enumerate(tqdm(rows.split(CHUNK), desc="searching", unit=" chunks", disable=not progress)):
        path = Path(folder) / f"again-{number:05d}.npz"
        if not path.exists():
            found, at = label(labels.crystals[part], number)
            save_arrays(path, {"rows": part[at].numpy()} | {name: getattr(found, name).numpy() for name in COLUMNS})
        with open(path, "rb") as opened, np.load(opened) as file:
            again = {name: torch.from_numpy(file[name]) for name in ("rows", *COLUMNS)}
        at = again.pop("rows")
        if not torch.isin(at, part).all():
            raise DataError(f"{path} is about other labels than these; choose another folder")
        better = lower(columns["kind"][at], columns["value"][at], again["kind"], again["value"])
        columns["refined"][at] = True
        for name in COLUMNS:
            columns[name][at[better]] = again[name][better].to(columns[name].dtype)
    return replace(labels, **columns)


def lower(kind: Integers, value: torch.Tensor, new_kind: Integers, new_value: torch.Tensor) -> Booleans:
    """Whether the new label says more: within range where the old was not, or lower."""
    return (new_kind != HIGH) & ((kind == HIGH) | (new_value < value))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path, help="Parquet file (as MP-20's) that the labels were made from")
    parser.add_argument("val", type=Path, help="the one held out")
    parser.add_argument("folder", type=Path, help="for what is finished")
    parser.add_argument("--labels", type=Path, default=SHIPPED)
    parser.add_argument("--output", type=Path, help="file of the new labels; the old ones' by default")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    hull, taken = hull_without(options.train, options.val)
    templates = TemplateCells(Parents.read(options.train, taken))

    def label(crystals: Crystals, number: int) -> tuple[Labels, Integers]:
        crystals = replace(crystals, lattice=crystals.lattice.double())
        given = [templates.cells(crystals[i]) for i in range(len(crystals))]
        return label_crystals(crystals, given, hull, seed=options.seed * 10_000 + number)

    old, start = read_labels(options.labels, high=True), time.process_time()
    new = improve_labels(old, label, options.folder)
    new.save(options.output or options.labels)
    changed = (new.value < old.value) | (new.kind != old.kind)
    minutes, gain = (time.process_time() - start) / 60, float((old.value - new.value)[changed].mean())
    print(
        f"{int(uncertain(old).sum())} searched again in {minutes:.0f} minutes of CPU, {int(changed.sum())} lower, ",
        end="",
    )
    print(f"by {gain:.3f} eV/atom in the mean")
    print(counts(new))


if __name__ == "__main__":
    run(main)
