"""Real crystals with their atoms and formation energies, standardised where they are asked for: seeds of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crystalgfn.crystallography.atoms import Record, SkippedRecord
from crystalgfn.crystallography.standardize import Cell, standardise
from crystalgfn.data.reader import records
from crystalgfn.errors import DataError

ENERGY = "formation_energy_per_atom"


@dataclass
class Parents:
    """The entries of a source that have atoms and a formation energy.

    Attributes:
        entries: those.
        taken: pairs (reduced formula, space group) that no parent may have.
    """

    entries: Sequence[Record]
    taken: frozenset[tuple[str, int]] = frozenset()
    _cells: dict[int, Cell | None] = field(default_factory=dict, repr=False)

    @staticmethod
    def read(path: str | Path, taken: frozenset[tuple[str, int]] = frozenset()) -> Parents:
        """Parents of a source; whatever cannot be read is no parent.

        Raises:
            DataError: the source cannot be read, or no entry has both atoms and a formation energy.
        """
        entries = [one for one in energetic(path) if one.atoms is not None and one.atoms.is_ordered]
        if not entries:
            raise DataError(f"{path} has no row with both atoms and a formation energy ({ENERGY})")
        return Parents(entries, taken)

    def __len__(self) -> int:
        return len(self.entries)

    def formation_energy(self, i: int) -> float:
        """Of parent ``i``, eV/atom."""
        return float(self.entries[i].values[ENERGY])

    def cell(self, i: int) -> Cell | None:
        """Parent ``i`` in the conventional cell of its group; None where it is taken or spglib finds no group."""
        if i not in self._cells:
            atoms = self.entries[i].known_atoms
            cell = standardise(atoms.lattice, atoms.points, atoms.numbers)
            # a row goes by the group of the file and by the detected one
            pairs = {(cell.formula, atoms.space_group), (cell.formula, cell.space_group)} if cell else set()
            self._cells[i] = None if pairs & self.taken else cell
        return self._cells[i]


def energetic(path: str | Path) -> list[Record]:
    """The entries of a source with a formation energy, with atoms or without."""
    found = (one for one in records(path) if not isinstance(one, SkippedRecord))
    return [one for one in found if ENERGY in one.numbers]
