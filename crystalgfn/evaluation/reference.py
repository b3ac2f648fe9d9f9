"""Known crystals that samples are compared with; their structures are built only where they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from crystalgfn.crystallography.atoms import Record, SkippedRecord
from crystalgfn.data.formats.tables import FORMULAS
from crystalgfn.data.reader import records
from crystalgfn.errors import DataError
from crystalgfn.evaluation.metrics.compositions import composition_row
from crystalgfn.properties.convex_hull import MOST
from crystalgfn.properties.hull_entries import composition_of
from crystalgfn.properties.scaled_hull import ScaledHull

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True, eq=False, kw_only=True)
class Entry:
    """A crystal with what buckets are made of.

    Attributes:
        where: where it stands in its source.
        amounts: (Z, atoms in its cell), ascending.
        ordered: whether every site holds one whole atom.
        group: the space group that its source names, or that was found; 0 where none is known.
        origin: what its structure is built from.
    """

    where: str
    amounts: tuple[tuple[int, float], ...]
    ordered: bool
    group: int
    origin: Record

    def structure(self) -> Structure:
        """The structure, built anew each time."""
        return self.origin.structure


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

    def hull(self, column: str, scale: str = "charge") -> ScaledHull:
        """The hull, on a scale, of all rows with a formation energy (eV/atom) in a column, with atoms or without.

        Rows of more than nine elements are left out: they matter only to crystals of as many, which have no energy
        above the hull (`stability.relaxation_row`).

        Raises:
            DataError: no row has one.
            RewardError: there is no such scale.
        """
        rows = [*((one.amounts, one.origin.numbers) for one in self.entries), *self.formulas]
        found = [(pairs, float(values.get(column, np.nan))) for pairs, values in rows if len(pairs) <= MOST]
        known = [(pairs, energy) for pairs, energy in found if np.isfinite(energy)]
        if not known:
            raise DataError(
                f"the reference {self.name} has no numbers in a column {column}, so no hull can be built of it; name "
                "the column of formation energies (eV/atom) by energy=<column>, or say relax=false"
            )
        composition = torch.stack([composition_row(pairs) for pairs, _ in known])
        energies = torch.tensor([energy for _, energy in known], dtype=torch.float64)
        return ScaledHull(composition, energies, scale=scale)

    @staticmethod
    def read(paths: str | Path | Sequence[str | Path]) -> Reference:
        """The entries of one or several sources that `crystalgfn.data.reader.records` takes.

        Rows with a formula and without atoms count for the hull.

        Raises:
            DataError: no such source, a formula that cannot be read, or nothing in it that can be used.
        """
        paths = [paths] if isinstance(paths, str | Path) else list(paths)
        read = list(records(paths))
        return Reference.of(", ".join(map(str, paths)), [entry for one in read for entry in _entries(one)], read)

    @staticmethod
    def of(
        name: str, entries: Iterable[Entry | SkippedRecord], others: Iterable[Record | SkippedRecord] = ()
    ) -> Reference:
        """A reference of entries and of the formulas of records without atoms, those that could not be read apart.

        Raises:
            DataError: there is none that could.
        """
        entries, formulas = list(entries), _formulas(others)
        good = [one for one in entries if isinstance(one, Entry)]
        bad = [one for one in entries if isinstance(one, SkippedRecord)]
        if not good and not formulas:
            raise DataError(f"no crystal of the reference {name} can be read; the first: {bad[0] if bad else 'none'}")
        return Reference(name, good, bad, formulas)


def _formulas(
    found: Iterable[Record | SkippedRecord],
) -> list[tuple[tuple[tuple[int, float], ...], Mapping[str, float]]]:
    """(Z, atoms) pairs and numbers of the records with a formula and without atoms."""
    alone = [one for one in found if isinstance(one, Record) and one.atoms is None]
    return [(pairs, one.numbers) for one in alone if (pairs := pairs_of_formula(one))]


def entry_of(one: Record) -> Entry:
    """The entry of a record with atoms; its structure is not built."""
    atoms = one.known_atoms
    return Entry(
        where=one.where,
        amounts=tuple(atoms.amounts.items()),
        ordered=atoms.is_ordered,
        group=atoms.space_group,
        origin=one,
    )


def _entries(one: Record | SkippedRecord) -> list[Entry | SkippedRecord]:
    if isinstance(one, SkippedRecord):
        return [one]
    return [] if one.atoms is None else [entry_of(one)]


def pairs_of_formula(one: Record) -> tuple[tuple[int, float], ...]:
    """(Z, atoms) pairs of the formula of a record, none where it has none."""
    formula = next((one.values[name] for name in FORMULAS if one.values.get(name) is not None), None)
    if formula is None:
        return ()
    try:
        row = composition_of(str(formula), 0)
    except DataError as error:
        raise DataError(f"{one.where}: {formula!r} is no formula; mend it, or leave the row out") from error
    return tuple((z + 1, float(row[z])) for z in row.nonzero().flatten().tolist())
