"""Known phases of a space: their exact hull, and which of them a relaxed crystal is, lies nearest to or becomes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.atoms import Record, SkippedRecord
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.data.databases import label_column
from crystalgfn.data.reader import records
from crystalgfn.errors import DataError
from crystalgfn.evaluation.metrics.compositions import amounts, composition_row, whole
from crystalgfn.evaluation.metrics.novelty import SAME, Comparer, formula_key
from crystalgfn.evaluation.reference import Entry, entry_of, pairs_of_formula
from crystalgfn.properties.convex_hull import MOST
from crystalgfn.properties.energy_scale import check_scale, scale_shift
from crystalgfn.properties.hull import SHIPPED, HullModel
from crystalgfn.properties.hull_entries import read_entries
from crystalgfn.properties.scaled_hull import ScaledHull
from crystalgfn.typing import Floats, Fractions
from crystalgfn.utils.files import data_folder

if TYPE_CHECKING:
    import pandas as pd
    from pymatgen.core import Structure


IDENTIFIERS = ("material_id", "identifier", "id", "entry_id")
"""Columns of a reference that name its rows; the first that is there counts, else the row's place."""

SAME_ENERGY = 0.02
"""eV/atom: a crystal this near in energy to a known phase of its formula, whose structure is not known, is that one."""

NEW = "new"

ENERGY = "formation_energy_per_atom"
"""The column of formation energies where none is named."""


@dataclass(frozen=True, kw_only=True)
class KnownPhase:
    """A phase of the reference.

    Attributes:
        identifier: its row's name.
        amounts: (Z, atoms) pairs.
        energy: formation energy, eV/atom.
        entry: what its structure is built from; None where the reference has none.
    """

    identifier: str
    amounts: tuple[tuple[int, float], ...]
    energy: float
    entry: Entry | None = None

    @property
    def formula(self) -> str:
        """Reduced."""
        return reduced_formula_of(self.amounts)


@dataclass(frozen=True, kw_only=True)
class PhaseNeighbours:
    """A crystal among the known phases.

    Attributes:
        known_as: identifier of the known phase that it is, or "new".
        nearest: the known phase that it is, or the lowest of its formula, or else the largest part of what it
            decomposes to: formula, identifier, and for a phase of its own formula the energy above that, eV/atom.
        decomposition: the most stable mixture of known phases at its composition, shares of the atoms.
    """

    known_as: str
    nearest: str
    decomposition: str


@dataclass(frozen=True, eq=False)
class KnownPhases:
    """The phases of a reference within a chemical system.

    Attributes:
        name: of the reference.
        phases: all of them, energies on the Materials Project's scale.
        scale: on which crystals are compared with them, see `crystalgfn.properties.energy_scale`.
    """

    name: str
    phases: Sequence[KnownPhase]
    scale: str = "mp2020"

    @classmethod
    def read(cls, reference: Any, numbers: Sequence[int], energy: str = ENERGY, scale: str = "mp2020") -> KnownPhases:
        """The phases whose elements are all among those of a space.

        Args:
            reference: sources that `crystalgfn.data.reader.records` takes (a file, a database, a list of them), a
                table, a mapping formula -> formation energy, pairs of these, or known phases.
            numbers: atomic numbers that may occur in the space.
            energy: the column of formation energies, eV/atom, on the Materials Project's scale.
            scale: on which crystals are compared with them.

        Raises:
            DataError: it cannot be read, has no energies, or no phase with some element of the space.
            RewardError: there is no such scale.
        """
        check_scale(scale)
        name, found = read_phases(reference, energy)
        within, lacking = set(numbers), set(numbers)
        phases = []
        for one in found:
            own = {z for z, _ in one.amounts}
            if own <= within and len(own) <= MOST:
                phases.append(one)
                lacking -= own
        if lacking:
            symbols = ", ".join(elements.SYMBOLS[z - 1] for z in sorted(lacking))
            raise DataError(
                f"the reference {name} has no phase with {symbols} among the elements of the space, so energies above "
                f"its hull would say nothing; give a reference that has, or excluded_elements=[{symbols}]"
            )
        return cls(name, phases, scale)

    @cached_property
    def hull(self) -> ScaledHull:
        """Of all phases, on the scale."""
        rows = torch.stack([composition_row(one.amounts) for one in self.phases])
        energies = torch.tensor([one.energy for one in self.phases], dtype=torch.float64)
        return ScaledHull(rows, energies, [one.identifier for one in self.phases], self.scale)

    def energy(self, crystals: Crystals | Sequence[str] | Fractions) -> Floats:
        """Formation energy on the Materials Project's scale at which a crystal lies on the hull, eV/atom [B]."""
        return self.hull.energy(crystals)

    @cached_property
    def published(self) -> KnownPhases:
        """The same on the Materials Project's own scale."""
        return self if self.scale == "mp2020" else replace(self, scale="mp2020")

    def shift(self, composition: Sequence[tuple[int, float]]) -> float:
        """What formation energies at a composition, (Z, atoms) pairs, are moved by to the scale, eV/atom."""
        return float(scale_shift(composition_row(composition)[None], self.scale))

    @cached_property
    def stable(self) -> list[KnownPhase]:
        """Compounds on the hull, the lowest of each composition."""
        rows = torch.stack([composition_row(one.amounts) for one in self.phases])
        above = self.energy(rows)
        lowest: dict[str, KnownPhase] = {}
        for one, level in zip(self.phases, above.tolist(), strict=True):
            if len(one.amounts) > 1 and one.energy <= level + 1e-6:
                best = lowest.setdefault(formula_key_of(one.amounts), one)
                if one.energy < best.energy:
                    lowest[formula_key_of(one.amounts)] = one
        return list(lowest.values())

    @cached_property
    def _of_formula(self) -> dict[str, list[KnownPhase]]:
        found: dict[str, list[KnownPhase]] = defaultdict(list)
        for one in self.phases:
            found[formula_key_of(one.amounts)].append(one)
        return {key: sorted(own, key=lambda one: one.energy) for key, own in found.items()}

    @cached_property
    def _comparer(self) -> Comparer:
        return Comparer(SAME)

    def above(self, structure: Structure, energy: float) -> float:
        """Energy above the hull on the scale, eV/atom; negative below it.

        Args:
            structure: of the composition.
            energy: formation energy on the Materials Project's scale, eV/atom.
        """
        row = composition_row(amounts(structure).items())
        return energy - float(self.energy(row[None]))

    def neighbours(self, structure: Structure, energy: float) -> PhaseNeighbours:
        """Where a relaxed crystal stands; arguments as of `above`.

        It is a known phase where StructureMatcher says so of one of its formula; a phase without a structure counts as
        the same where the energies differ by at most 0.02 eV/atom.
        """
        own = tuple(amounts(structure).items())
        phases = self._of_formula.get(formula_key_of(own), [])
        decomposed = self.hull.decompose(composition_row(own)[None])[0]
        same = self._same(structure, energy, phases)
        if same is not None or phases:
            near = phases[0] if same is None else same
            nearest = f"{near.formula} ({near.identifier}), {energy - near.energy:+.3f} eV/atom"
        else:
            first = decomposed[0]
            nearest = f"{first.formula} ({first.identifier})" if first.identifier else first.formula
        return PhaseNeighbours(
            known_as=NEW if same is None else same.identifier,
            nearest=nearest,
            decomposition=" + ".join(
                f"{one.share:.3g} {one.formula}{f' ({one.identifier})' if one.identifier else ''}" for one in decomposed
            ),
        )

    def _same(self, structure: Structure, energy: float, phases: Sequence[KnownPhase]) -> KnownPhase | None:
        reduced = None
        for one in phases:
            if one.entry is not None and one.entry.ordered:
                reduced = self._comparer.reduced(structure) if reduced is None else reduced
                if self._comparer.same(reduced, self._comparer.reduced(one.entry.structure())):
                    return one
        bare = [one for one in phases if one.entry is None and abs(energy - one.energy) <= SAME_ENERGY]
        return min(bare, key=lambda one: abs(energy - one.energy), default=None)


def formula_key_of(pairs: Sequence[tuple[int, float]]) -> str:
    """What phases of one composition share; also of fractional amounts."""
    counts = whole(dict(pairs))
    return formula_key(pairs if counts is None else counts)


def reduced_formula_of(pairs: Sequence[tuple[int, float]]) -> str:
    """The reduced formula of (Z, atoms) pairs, as chemists write it."""
    row = composition_row(whole(dict(pairs)) or pairs)[None]
    return Crystals(torch.ones(1, dtype=torch.int64), row.round().long(), torch.ones(1, 6)).formulas()[0]


def read_phases(reference: Any, energy: str) -> tuple[str, list[KnownPhase]]:
    """The name of a reference, and its phases with an energy; arguments and errors as of `KnownPhases.read`."""
    if isinstance(reference, KnownPhases):
        return reference.name, list(reference.phases)
    if not _is_source(reference):
        rows, energies, names = read_entries(reference, "formula", energy, skip=True)
        found = [
            KnownPhase(
                identifier=f"entry {i}" if names is None else names[i],
                amounts=tuple((int(z) + 1, float(row[z])) for z in row.nonzero().flatten()),
                energy=float(value),
            )
            for i, (row, value) in enumerate(zip(rows, energies, strict=True))
        ]
        return "the table", found
    sources = [reference] if isinstance(reference, str | Path) else list(reference)
    name = ", ".join(map(str, sources))
    found = [one for source in sources for one in _phases_of(source, energy)]
    if not found:
        raise DataError(
            f"the reference {name} has no formulas with numbers in a column {energy}, so there is no hull; name the "
            "column of formation energies (eV/atom) by energy=<column>"
        )
    return name, found


def _phases_of(source: str | Path, energy: str) -> Iterator[KnownPhase]:
    """The phases of one source; a database has a column of its own for formation energies."""
    column = (energy == ENERGY and label_column(str(source), "formation_energy")) or energy
    return (one for record in records(source) if (one := _phase(record, column)) is not None)


def _phase(record: Record | SkippedRecord, energy: str) -> KnownPhase | None:
    """The phase of a record with an energy."""
    if isinstance(record, SkippedRecord) or energy not in record.numbers:
        return None
    entry = None if record.atoms is None else entry_of(record)
    pairs = pairs_of_formula(record) if entry is None else entry.amounts
    if not pairs:
        return None
    named = next(
        (str(record.values[name]) for name in IDENTIFIERS if record.values.get(name) is not None), record.where
    )
    return KnownPhase(identifier=named, amounts=pairs, energy=record.numbers[energy], entry=entry)


def _is_source(reference: Any) -> bool:
    if isinstance(reference, str | Path):
        return True
    listed = isinstance(reference, Sequence) and not isinstance(reference, Mapping)
    return listed and all(isinstance(one, str | Path) for one in reference)


MARGIN = 0.1
"""eV/atom that the shipped hull must lie below that of the reference, to be believed instead."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedHull:
    """The hull of known phases, but the shipped one where it lies more than 0.1 eV/atom below.

    By it candidates are chosen, so that a campaign does not go where the reference has a hole. What is reported is
    measured against the reference alone, and says where this one differs.

    Attributes:
        phases: of the reference.
        model: the shipped hull, on the scale of the phases.
    """

    phases: KnownPhases
    model: HullModel

    @classmethod
    def of(cls, phases: KnownPhases) -> CheckedHull:
        """With the shipped hull on the scale of the phases."""
        return cls(phases=phases, model=HullModel.load(data_folder("proxies") / SHIPPED[phases.scale]))

    def energy(self, crystals: Crystals | Sequence[str] | Fractions) -> Floats:
        """Formation energy on the Materials Project's scale at which a crystal lies on the hull, eV/atom, [B]."""
        own, shipped = self.phases.energy(crystals), self._shipped(crystals)
        return torch.where(own - shipped > MARGIN, shipped, own)

    def gap(self, crystals: Crystals | Sequence[str] | Fractions) -> Floats:
        """How far the shipped hull, less its standard error, lies below that of the reference, eV/atom, [B]."""
        return self.phases.energy(crystals) - self._shipped(crystals)

    def _shipped(self, crystals: Crystals | Sequence[str] | Fractions) -> Floats:
        mean, std = self.model.moments(crystals)
        return (mean + std).cpu().double() - scale_shift(crystals, self.phases.scale)

    def with_gaps(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table of relaxed crystals with the column ``hull_gap``, eV/atom."""
        formulas = table["formula"].tolist()
        return table.assign(hull_gap=self.gap(formulas).tolist() if formulas else [])


def doubts(table: pd.DataFrame) -> str:
    """What is to be said of ranked crystals in holes of the reference; empty where there are none."""
    ranked = table.loc[table["rank"].notna()]
    n = int((ranked["hull_gap"] > MARGIN).sum()) if "hull_gap" in ranked else 0
    if not n:
        return ""
    return (
        f"At {n} of {len(ranked)} ranked compositions the shipped hull of known compounds lies more than {MARGIN:g} "
        "eV/atom below that of the reference, which lacks phases there: their energies above the hull mean little "
        "(column hull_gap). Give a larger reference."
    )
