"""Known crystals that samples are compared with; their structures are built only where they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from crystalgfn.crystallography.atoms import SkippedRecord
from crystalgfn.data.samples import Item, Sample, read_formulas, read_items
from crystalgfn.errors import DataError
from crystalgfn.evaluation.metrics.compositions import amounts, composition_row
from crystalgfn.properties.convex_hull import MOST, ExactHull
from crystalgfn.utils.parallel import parallel_map

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True, eq=False)
class Entry:
    """A crystal with what buckets are made of.

    Attributes:
        where: where it stands in its source.
        amounts: (Z, atoms in its cell), ascending.
        ordered: whether every site holds one whole atom.
        group: the space group that its source names, or that was found; 0 where none is known.
        origin: what its structure comes from.
    """

    where: str
    amounts: tuple[tuple[int, float], ...]
    ordered: bool
    group: int
    origin: Item | Sample

    def structure(self) -> Structure:
        """The structure, built anew where it was not parsed before."""
        read = self.origin if isinstance(self.origin, Sample) else self.origin.read()
        if isinstance(read, SkippedRecord):
            raise DataError(str(read))
        return read.structure


@dataclass(frozen=True, eq=False)
class Reference:
    """A set of known crystals.

    Attributes:
        name: its paths.
        entries: those that can be used.
        errors: those that cannot, and why.
        formulas: of rows without atoms, (Z, atoms) pairs and what else the row says; they count for the hull only.
    """

    name: str
    entries: Sequence[Entry]
    errors: Sequence[SkippedRecord]
    formulas: Sequence[tuple[tuple[tuple[int, float], ...], Mapping[str, float]]] = ()

    def hull(self, column: str) -> ExactHull:
        """The hull of all rows with a formation energy (eV/atom) in a column, with atoms or without.

        Rows of more than nine elements are left out: they matter only to crystals of as many, which have no energy
        above the hull (`stability.relaxation_row`).

        Raises:
            DataError: no row has one.
        """
        rows = [*((one.amounts, one.origin.values) for one in self.entries), *self.formulas]
        found = [(pairs, float(values.get(column, np.nan))) for pairs, values in rows if len(pairs) <= MOST]
        known = [(pairs, energy) for pairs, energy in found if np.isfinite(energy)]
        if not known:
            raise DataError(
                f"the reference {self.name} has no numbers in a column {column}, so no hull can be built of it; name "
                "the column of formation energies (eV/atom) by energy=<column>, or say relax=false"
            )
        composition = torch.stack([composition_row(pairs) for pairs, _ in known])
        return ExactHull(composition, torch.tensor([energy for _, energy in known], dtype=torch.float64))

    @staticmethod
    def read(paths: str | Path | Sequence[str | Path], n_jobs: int = 1) -> Reference:
        """The crystals of one or several sources that `read_items` takes.

        Raises:
            DataError: no such source, or no crystal in it that can be read.
        """
        paths = [paths] if isinstance(paths, str | Path) else list(paths)
        items = []
        for path in paths:
            several = f"{Path(path).name}, " if len(paths) > 1 else ""
            items += [replace(one, where=several + one.where) for one in read_items(path)]
        entries = [entry_of(item) if isinstance(item, Item) else item for item in items]
        found = Reference.of(", ".join(map(str, paths)), _in_order(entries, n_jobs))
        return replace(found, formulas=[one for path in paths for one in read_formulas(path)])

    @staticmethod
    def of(name: str, entries: Iterable[Entry | SkippedRecord]) -> Reference:
        """A reference of entries, those that could not be read apart.

        Raises:
            DataError: there is none that could.
        """
        entries = list(entries)
        good = [one for one in entries if isinstance(one, Entry)]
        bad = [one for one in entries if isinstance(one, SkippedRecord)]
        if not good:
            raise DataError(f"no crystal of the reference {name} can be read; the first: {bad[0] if bad else 'none'}")
        return Reference(name, good, bad)


def entry_of(item: Item) -> Entry | Item | SkippedRecord:
    """The entry of plain atoms without building their structure; items that must be parsed come back as they are."""
    if item.kind != "atoms":
        return item
    numbers, counts = np.unique(item.content.numbers, return_counts=True)
    if numbers.min() < 1 or numbers.max() > 118:
        return SkippedRecord(item.where, f"atomic number {numbers.min() if numbers.min() < 1 else numbers.max()}")
    pairs = tuple(zip(numbers.tolist(), counts.astype(float).tolist(), strict=True))
    return Entry(item.where, pairs, True, item.claimed, item)


def _all_parsed(items: Sequence[Item]) -> list[Entry | SkippedRecord]:
    return [parsed(item) for item in items]


def parsed(item: Item) -> Entry | SkippedRecord:
    """The entry of anything, its structure kept."""
    read = item.read()
    if isinstance(read, SkippedRecord):
        return read
    return Entry(read.where, tuple(amounts(read.structure).items()), read.structure.is_ordered, read.claimed, read)


def _in_order(entries: Sequence[Entry | Item | SkippedRecord], n_jobs: int) -> list[Entry | SkippedRecord]:
    todo = [i for i, one in enumerate(entries) if isinstance(one, Item)]
    result = list(entries)
    found = parallel_map(_all_parsed, [entries[i] for i in todo], n_jobs=n_jobs if len(todo) >= 200 else 1, batch=50)
    for i, one in zip(todo, found, strict=True):
        result[i] = one
    return result
