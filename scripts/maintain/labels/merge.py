"""Puts shards of labels together, with a card: ``python -m scripts.maintain.labels.merge TRAIN VAL SHARDS``."""

from __future__ import annotations

import argparse
import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import torch

from crystalgfn.calculators.energy_references import References, references_of
from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.data.labelled import read_labelled
from crystalgfn.errors import DataError
from crystalgfn.fitting.labels import (  # fmt: skip
    BOUND,
    CEILING,
    FIT,
    HELD,
    HIGH,
    LOWEST,
    SHIPPED,
    SOURCES,
    VAL,
    VALUE,
    Labels,
    held_out,
    label_kind,
    reduced_key,
)
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.utils.files import data_folder, write_aside
from crystalgfn.utils.provenance import machine
from scripts.maintain.labels.make import shards_of, spent_on
from scripts.maintain.program import run

TEMPLATE = (data_folder("proxies") / "labels" / "card.txt").read_text


def merge_labels(
    folders: str | Path | Sequence[str | Path],
    train: str | Path,
    val: str | Path,
    references: References | None = None,
) -> Labels:
    """All labels of folders of shards (`scripts.maintain.labels.make`), on MP-20's scale.

    Left out are labels below `LOWEST`, and those that share (reduced formula, space group) with ``val``, but for the
    strained copies of its own.

    Args:
        folders: with the shards, one or several.
        train: the Parquet file the labels were made from; its entries, without those that share (reduced formula,
            space group) with ``val``, make the hull above which labels end.
        val: the Parquet file held out.
        references: that turn the energies of the shards' calculator into formation energies; None: those that come with
            the package.

    Raises:
        DataError: no shards, or one that cannot be read.
    """
    columns = _shards([folders] if isinstance(folders, str | Path) else folders)
    composition, number = torch.from_numpy(columns["composition"]).long(), torch.from_numpy(columns["space_group"])
    crystals = Crystals(number.long(), composition, torch.from_numpy(columns["lattice"]).double())
    absolute = (references or references_of(_calculator(columns))).formation_energy(
        columns["composition"].astype(np.float64), columns["energy"]
    )
    relative = columns["base"] + columns["change"]
    value = np.where(np.isfinite(relative), relative, absolute)
    hull, taken = hull_without(train, val)
    formulas = [reduced_key(row) for row in composition.numpy()]
    strange = np.array([pair in taken for pair in zip(formulas, number.tolist(), strict=True)])
    own = columns["source"] == "held"
    kept = torch.from_numpy((value >= LOWEST) & (own | ~strange))

    top = hull.energy(crystals).numpy() + CEILING
    high = torch.from_numpy(value > top)
    value = np.where(value > top, top, value)
    converged, helped = torch.from_numpy(columns["converged"]), torch.from_numpy(columns["given"] > 0)
    part = np.where(own, VAL, np.where(held_out(formulas), HELD, FIT))
    names = np.where(own, "strained", columns["source"])
    labels = Labels(
        crystals=Crystals(crystals.space_group, composition, crystals.lattice.float()),
        value=torch.from_numpy(value).float(),
        kind=label_kind(high, converged, helped, crystals.n_atoms),
        source=torch.tensor([SOURCES.index(name) for name in names]),
        split=torch.from_numpy(part),
        placed=torch.from_numpy(columns["placed"]),
        converged=converged,
        candidates=torch.from_numpy(columns["candidates"]).long(),
        refined=torch.from_numpy(columns["refined"]),
    )
    return labels[kept]


def counts(labels: Labels) -> str:
    """How many labels there are of each source, kind and split, as a Markdown table."""
    lines = ["| source | values | bounds | high | to fit | held out | val |", "| --- " * 7 + "|"]
    for name, mine in [*((name, labels.source == i) for i, name in enumerate(SOURCES)), ("all", labels.source >= 0)]:
        kinds = [int((mine & (labels.kind == kind)).sum()) for kind in (VALUE, BOUND, HIGH)]
        parts = [int((mine & (labels.split == part) & (labels.kind != HIGH)).sum()) for part in (FIT, HELD, VAL)]
        lines.append(f"| {name} | " + " | ".join(map(str, kinds + parts)) + " |")
    return "\n".join(lines)


def card(labels: Labels, seconds: dict[str, float], seeds: str) -> str:
    """The text beside the labels: recipe, counts, cost."""
    values = labels.value[labels.kind != HIGH]
    spread = torch.quantile(values, torch.tensor([0.05, 0.5, 0.95])).tolist()
    found = machine()
    versions = {name: found[name] for name in ("chgnet", "sevenn", "torch", "pymatgen", "spglib") if found[name]}
    return TEMPLATE().format(
        counts=counts(labels),
        cost=", ".join(f"{name} {spent / 60:.0f}" for name, spent in seconds.items()),
        total=f"{sum(seconds.values()) / 60:.0f}",
        seeds=seeds,
        versions=", ".join(f"{name} {version}" for name, version in versions.items()),
        low=f"{spread[0]:.2f}",
        middle=f"{spread[1]:.2f}",
        top=f"{spread[2]:.2f}",
    )


@functools.cache
def hull_without(train: str | Path, val: str | Path) -> tuple[ExactHull, frozenset[tuple[str, int]]]:
    """The hull of the entries of ``train`` that share no (reduced formula, space group) with ``val``; these pairs."""
    taken = frozenset().union(*read_labelled(val, progress=False).keys)
    table = pd.read_parquet(train, columns=["formula", "spacegroup", "formation_energy_per_atom"])
    table = table[table.formation_energy_per_atom.notna()]
    names = {text: _alphabetical(text) for text in table.formula.unique()}
    pairs = zip(table.formula.map(names), table.spacegroup.tolist(), strict=True)
    return ExactHull.from_entries(table[[pair not in taken for pair in pairs]]), taken


def _alphabetical(text: str) -> str:
    from pymatgen.core import Composition

    counts = np.zeros(118, dtype=np.int64)
    for symbol, count in Composition(text).get_el_amt_dict().items():
        counts[elements.NUMBER[symbol] - 1] = round(count)
    return reduced_key(counts)


def _calculator(columns: dict[str, np.ndarray]) -> str:
    """The name of the one calculator of all shards."""
    names = sorted(set(columns["calculator"].tolist()))
    if len(names) != 1:
        raise DataError(f"the shards are of the calculators {', '.join(names)}; merge those of one at a time")
    return names[0]


def _shards(folders: Sequence[str | Path]) -> dict[str, np.ndarray]:
    """The columns of all shards, one after another."""
    paths: list[Path] = []
    for folder in folders:
        found = shards_of(Path(folder))
        if not found:
            raise DataError(f"{folder} holds no shards of labels; make them with scripts.maintain.labels.make")
        paths += found
    wanted = "space_group composition lattice energy change base converged candidates given placed source".split()
    parts = []
    for path in paths:
        try:
            with open(path, "rb") as opened, np.load(opened) as file:
                part = {name: file[name] for name in wanted}
                # shards from before the refiner placed atoms do not say so
                part["refined"] = file["refined"] if "refined" in file else np.zeros(len(part["energy"]), dtype=bool)
                part["calculator"] = file["calculator"] if "calculator" in file else np.array(["CHGNet"])
                parts.append(part)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise DataError(f"{path} is not a shard of labels ({error}); remove it") from error
    return {name: np.concatenate([part[name] for part in parts]) for name in (*wanted, "refined", "calculator")}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("shards", type=Path, nargs="+", help="folders of scripts.maintain.labels.make")
    parser.add_argument("--output", type=Path, default=SHIPPED)
    parser.add_argument("--seeds", default="0", help="that the shards were made with, for the card")
    options = parser.parse_args()
    labels = merge_labels(options.shards, options.train, options.val)
    labels.save(options.output)
    spent = sum((Counter(spent_on(folder)) for folder in options.shards), Counter())
    text = card(labels, dict(spent), options.seeds)
    write_aside(options.output.parent / "README.md", lambda aside: aside.write_text(text))
    print(counts(labels))


if __name__ == "__main__":
    run(main)
