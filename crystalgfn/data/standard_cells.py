"""Crystals in the package's setting: those of a file, kept by a hash of its content, and seeds of labels."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crystalgfn.crystallography import standardize
from crystalgfn.crystallography.atoms import Atoms, Record, SkippedRecord
from crystalgfn.crystallography.standardize import Cell, standardise
from crystalgfn.data.reader import Source, records
from crystalgfn.errors import DataError
from crystalgfn.utils.files import cache_folder, keep_aside, load_arrays, save_arrays
from crystalgfn.utils.progress import Bar

SYMPREC = 0.1
"""Å, of spglib."""
FEWEST = 200
"""Fewer crystals are standardised in a second or two, and are not worth a file in the user's cache."""


def standard_cells(
    source: Source, atoms: Sequence[Atoms], cache: str | Path | None = None, progress: bool = True
) -> list[Cell | None]:
    """The atoms of a source in the setting of their group; None where spglib finds none.

    Args:
        source: where the atoms come from.
        atoms: those of its crystals that are wanted, ordered.
        cache: folder for the cells, under a name that holds a hash of the atoms and of the code; None:
            ``$XDG_CACHE_HOME/crystalgfn``, and only for `FEWEST` crystals or more.
        progress: whether to show a bar; standardising takes 3 ms a crystal.
    """
    kept = _file(source, atoms, cache)
    if kept is not None and (found := _load(kept, len(atoms))) is not None:
        return found
    bar = Bar(atoms, description=f"standardising {_name(source)}", shown=progress, mininterval=1, leave=False)
    cells = [standardise(one.lattice, one.points, one.numbers, SYMPREC) for one in bar]
    if kept is not None:
        _save(kept, cells)
    return cells


def _name(source: Source) -> str:
    return Path(source).name if isinstance(source, str | Path) else ", ".join(Path(one).name for one in source)


def _file(source: Source, atoms: Sequence[Atoms], cache: str | Path | None) -> Path | None:
    if not atoms or (cache is None and len(atoms) < FEWEST):
        return None
    digest = hashlib.blake2b(f"{SYMPREC} {len(atoms)}".encode(), digest_size=8)
    for one in atoms:
        for part in (one.lattice, one.points, one.numbers):
            digest.update(np.ascontiguousarray(part).tobytes())
    digest.update(inspect.getsource(standardize).encode())
    folder = Path(cache) if cache else cache_folder()
    first = Path(str(source if isinstance(source, str | Path) else source[0]).replace(":", "-"))
    return folder / f"{first.absolute().parent.name}-{first.stem}-{digest.hexdigest()}.npz"


def _save(path: Path, cells: Sequence[Cell | None]) -> None:
    known = [cell for cell in cells if cell is not None]
    arrays = {
        "space_group": np.array([0 if cell is None else cell.space_group for cell in cells], dtype=np.int16),
        "lattice": np.array([cell.lattice for cell in known], dtype=np.float64).reshape(-1, 6),
        "size": np.array([len(cell.numbers) for cell in known], dtype=np.int64),
        "points": np.concatenate([np.zeros((0, 3)), *(cell.points for cell in known)]),
        "numbers": np.concatenate([np.zeros(0, dtype=np.int64), *(cell.numbers for cell in known)]).astype(np.int16),
    }
    keep_aside(path, lambda file: save_arrays(file, arrays), "the standardised crystals")


def _load(path: Path, n: int) -> list[Cell | None] | None:
    if not path.is_file():
        return None
    try:
        kept = load_arrays(path)
        arrays = {name: kept[name] for name in ("space_group", "lattice", "size", "points", "numbers")}
    except (DataError, KeyError):
        return None  # damaged: made anew
    ends = arrays["size"].cumsum()
    if len(arrays["space_group"]) != n or (len(ends) and ends[-1] != len(arrays["numbers"])):
        return None
    found: list[Cell | None] = []
    known = 0
    for group in arrays["space_group"].tolist():
        if group == 0:
            found.append(None)
            continue
        part = slice(int(ends[known] - arrays["size"][known]), int(ends[known]))
        found.append(
            Cell(group, arrays["lattice"][known], arrays["points"][part], arrays["numbers"][part].astype(np.int64))
        )
        known += 1
    return found


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
    def read(path: Source, taken: frozenset[tuple[str, int]] = frozenset()) -> Parents:
        """Parents of a source; whatever cannot be read is no parent.

        Raises:
            DataError: the source cannot be read, or no entry has both atoms and a formation energy.
        """
        entries = [one for one in energetic(path) if one.atoms is not None and one.atoms.is_ordered]
        if not entries:
            raise DataError(f"{_name(path)} has no row with both atoms and a formation energy ({ENERGY})")
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


def energetic(path: Source) -> list[Record]:
    """The entries of a source with a formation energy, with atoms or without."""
    found = (one for one in records(path) if not isinstance(one, SkippedRecord))
    return [one for one in found if ENERGY in one.numbers]
