"""A compact index of real crystals as orbits: what templates are chosen from and assignments are learned from."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.assignments import Letters
from crystalgfn.crystallography.atoms import SkippedRecord, reduced_formula
from crystalgfn.crystallography.convert import NEIGHBOURS, fingerprint, orbit_structure
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure, cell_matrix
from crystalgfn.data.reader import crystals, files_of, only_ordered
from crystalgfn.data.standard_cells import FEWEST
from crystalgfn.errors import DataError, PlacementError
from crystalgfn.utils.files import cache_folder, keep_aside, load_arrays, path_of, save_arrays

VERSION = 1
"""Of the file; raised whenever crystals are standardised in another way."""
MEAN_PRIOR = 1.0
"""Of the ridge that fits the volumes of elements."""
Key = tuple[str, int]
"""Reduced formula (elements in alphabetical order, every count written) and space group."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Prototypes:
    """Real crystals as orbits, in canonical lattices.

    Attributes:
        space_group: [n] 1-230.
        filed_group: [n] the group that the source names, 0 where it names none.
        lattice: [n, 6] conventional a, b, c in Å, alpha, beta, gamma in degrees.
        first: [n + 1] the first orbit of each crystal.
        letters: [orbits] code points of Wyckoff letters.
        species: [orbits] atomic numbers.
        parameters: [orbits, 3] free parameters.
        distances: [values] fingerprints (`fingerprint`), flat, one after the other.
        volumes: [118] Å3 of an atom of each element, fitted to these crystals.
        errors: rows of the source that are not here, each with its reason.
    """

    space_group: np.ndarray
    filed_group: np.ndarray
    lattice: np.ndarray
    first: np.ndarray
    letters: np.ndarray
    species: np.ndarray
    parameters: np.ndarray
    distances: np.ndarray
    volumes: np.ndarray
    errors: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.space_group)

    def __getitem__(self, i: int) -> OrbitStructure:
        """Crystal ``i``."""
        part = slice(self.first[i], self.first[i + 1])
        orbits = tuple(
            Orbit(chr(letter), int(z), tuple(p))
            for letter, z, p in zip(
                self.letters[part].tolist(),
                self.species[part].tolist(),
                self.parameters[part].astype(np.float64).tolist(),
                strict=True,
            )
        )
        return OrbitStructure(int(self.space_group[i]), tuple(self.lattice[i].tolist()), orbits)

    def __iter__(self) -> Iterator[OrbitStructure]:
        return (self[i] for i in range(len(self)))

    @cached_property
    def composition(self) -> np.ndarray:
        """Atoms of each element in the primitive cell, [n, 118]."""
        size = np.zeros((231, 128), dtype=np.int64)
        for number, positions in enumerate(space_groups.WYCKOFF, start=1):
            for position in positions:
                size[number, ord(position.letter)] = position.primitive_multiplicity
        owner = np.repeat(np.arange(len(self)), np.diff(self.first))
        counts = np.zeros((len(self), 118), dtype=np.int64)
        np.add.at(counts, (owner, self.species - 1), size[self.space_group[owner], self.letters])
        return counts

    @cached_property
    def volume_per_atom(self) -> np.ndarray:
        """Å3, [n]."""
        conventional = np.array([abs(np.linalg.det(cell_matrix(row.tolist()))) for row in self.lattice])
        return conventional / space_groups.CENTRING[self.space_group - 1] / self.composition.sum(1)

    @cached_property
    def by_counts(self) -> dict[tuple[int, tuple[int, ...]], np.ndarray]:
        """(group, counts of the elements in ascending order) -> rows."""
        index = defaultdict(list)
        for i, (group, row) in enumerate(zip(self.space_group.tolist(), self.composition, strict=True)):
            index[group, tuple(sorted(row[row > 0].tolist()))].append(i)
        return {key: np.array(rows) for key, rows in index.items()}

    @cached_property
    def _spans(self) -> np.ndarray:
        sizes = (self.composition > 0).sum(1) ** 2 * NEIGHBOURS
        return np.concatenate([[0], np.cumsum(sizes)])

    def fingerprint(self, i: int) -> np.ndarray:
        """Of crystal ``i``, in units of the cube root of its volume per atom, [S, S, 6]."""
        n = int((self.composition[i] > 0).sum())
        flat = self.distances[self._spans[i] : self._spans[i + 1]]
        return flat.reshape(n, n, NEIGHBOURS) / self.volume_per_atom[i] ** (1 / 3)

    def letters_of(self, i: int, species: Sequence[int]) -> Letters:
        """Letters of the orbits of each of these elements in crystal ``i``."""
        part = slice(self.first[i], self.first[i + 1])
        pairs = list(zip(self.species[part].tolist(), self.letters[part].tolist(), strict=True))
        return tuple(tuple(chr(letter) for z, letter in pairs if z == one) for one in species)

    def formulas(self) -> list[str]:
        """Reduced, elements in alphabetical order, every count written."""
        names = np.array(elements.SYMBOLS)
        found = []
        for row in self.composition:
            present = np.flatnonzero(row)
            found.append(reduced_formula(dict(zip(names[present].tolist(), row[present].tolist(), strict=True))))
        return found

    def keys(self) -> list[frozenset[Key]]:
        """What each crystal goes by: its formula with its own group, and with the one of the source."""
        pairs = zip(self.formulas(), self.space_group.tolist(), self.filed_group.tolist(), strict=True)
        return [frozenset({(formula, group), (formula, filed or group)}) for formula, group, filed in pairs]

    def without(self, keys: Iterable[Key]) -> Prototypes:
        """The crystals that share no (reduced formula, group) with ``keys``, for instance those of a file held out."""
        taken = set(keys)
        return self.select(np.array([not (key & taken) for key in self.keys()], dtype=bool))

    def select(self, rows: np.ndarray | Sequence[int]) -> Prototypes:
        """Some of the crystals: a mask or positions. The volumes of elements stay."""
        rows = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows, dtype=np.int64)
        orbits = _ranges(self.first, rows)
        values = _ranges(self._spans, rows)
        return replace(
            self,
            space_group=self.space_group[rows],
            filed_group=self.filed_group[rows],
            lattice=self.lattice[rows],
            first=np.concatenate([[0], np.cumsum(np.diff(self.first)[rows])]).astype(np.int64),
            letters=self.letters[orbits],
            species=self.species[orbits],
            parameters=self.parameters[orbits],
            distances=self.distances[values],
        )

    @staticmethod
    def of(
        structures: Sequence[OrbitStructure], filed: Sequence[int] | None = None, errors: Sequence[str] = ()
    ) -> Prototypes:
        """An index of orbit structures in canonical lattices."""
        orbits = [orbit for structure in structures for orbit in structure.orbits]
        index = Prototypes(
            space_group=np.array([s.space_group for s in structures], dtype=np.int16),
            filed_group=np.array([0] * len(structures) if filed is None else filed, dtype=np.int16),
            lattice=np.array([s.lattice for s in structures], dtype=np.float64).reshape(-1, 6),
            first=np.cumsum([0, *(len(s.orbits) for s in structures)], dtype=np.int64),
            letters=np.array([ord(o.letter) for o in orbits], dtype=np.uint8),
            species=np.array([o.species for o in orbits], dtype=np.uint8),
            parameters=np.array([o.parameters for o in orbits], dtype=np.float32).reshape(-1, 3),
            distances=np.concatenate([np.zeros(0), *(fingerprint(s).ravel() for s in structures)]).astype(np.float32),
            volumes=np.zeros(118),
            errors=tuple(errors),
        )
        return replace(index, volumes=_element_volumes(index))

    @staticmethod
    def join(indices: Sequence[Prototypes]) -> Prototypes:
        """One index of several, in order."""
        together = {
            name: np.concatenate([getattr(index, name) for index in indices])
            for name in _ARRAYS
            if name not in ("first", "volumes")
        }
        sizes = np.concatenate([np.diff(index.first) for index in indices])
        errors = tuple(error for index in indices for error in index.errors)
        joined = Prototypes(
            **together, first=np.concatenate([[0], np.cumsum(sizes)]), volumes=np.zeros(118), errors=errors
        )
        return replace(joined, volumes=_element_volumes(joined))

    @staticmethod
    def build(path: str | Path, progress: bool = False, symprec: float = 0.1) -> Prototypes:
        """The crystals of a source (`crystalgfn.data.reader.records`); about 10 ms each.

        Rows that cannot be used are listed in ``errors``.

        Raises:
            DataError: the source cannot be read, or none of its rows.
        """
        from crystalgfn.utils.progress import Bar

        structures, filed, errors = [], [], []
        entries = map(only_ordered, crystals(path))
        for entry in Bar(entries, description=f"standardising {path}", shown=progress, mininterval=1):
            if isinstance(entry, SkippedRecord):
                errors.append(str(entry))
                continue
            try:
                structures.append(orbit_structure(entry.known_atoms, symprec))
                filed.append(entry.space_group)
            except PlacementError as error:
                errors.append(str(SkippedRecord(entry.where, str(error))))
        if not structures:
            raise DataError(f"{path} holds no crystal that can be used: {errors[0] if errors else 'no row has atoms'}")
        return Prototypes.of(structures, filed, errors)

    @staticmethod
    def read(
        path: str | Path | Sequence[str | Path], cache: str | Path | None = None, progress: bool = False
    ) -> Prototypes:
        """An index that was saved (``.npz``), or that of a source, which is kept in a folder once it was made.

        Args:
            path: as for `build`, or a file of `save`; several: a crystal with the formula and group of one of an
                earlier source is left out.
            cache: folder for the index, under a name that holds a hash of the source; None:
                ``$XDG_CACHE_HOME/crystalgfn``, and only for `FEWEST` crystals or more.
            progress: shows a bar.

        Raises:
            DataError: the file is no index, or the source cannot be used.
        """
        if not isinstance(path, str | Path):
            return Prototypes._of_several([Prototypes.read(one, cache, progress) for one in path])
        path = path_of(path)
        if path.suffix == ".npz":
            return _load(path)
        if not path.exists():  # a database, or an error
            return Prototypes.build(path, progress)
        folder = Path(cache) if cache else cache_folder()
        kept = folder / f"{path.resolve().parent.name}-{path.stem}-index-{_digest(path)}.npz"
        with suppress(DataError):  # missing or damaged: made anew
            return _load(kept)
        made = Prototypes.build(path, progress)
        if cache or len(made) >= FEWEST:
            keep_aside(kept, made.save, "the index of crystals")
        return made

    @staticmethod
    def _of_several(indices: Sequence[Prototypes]) -> Prototypes:
        """One index of several, each crystal's formula and group from the first that has it."""
        if not indices:
            raise DataError("no source of crystals is named; give one, or several as a list")
        taken: set[Key] = set()
        kept = []
        for index in indices:
            kept.append(index.without(taken))
            taken |= set().union(*index.keys())
        return Prototypes.join(kept)

    def save(self, path: str | Path) -> None:
        """Write the index as ``.npz``, readable without pickle.

        Raises:
            CheckpointError: it cannot be written.
        """
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        save_arrays(path_of(path), {**arrays, "errors": np.array(self.errors, dtype=str), "version": np.array(VERSION)})


REMEDY = "make it with Prototypes.build(source).save(path)"
_ARRAYS = (
    "space_group",
    "filed_group",
    "lattice",
    "first",
    "letters",
    "species",
    "parameters",
    "distances",
    "volumes",
)


def _load(path: Path) -> Prototypes:
    arrays = load_arrays(path, "index of crystals", REMEDY)
    try:
        version, errors = int(arrays["version"]), tuple(str(e) for e in arrays["errors"].tolist())
        if version != VERSION:
            raise DataError(f"{path} is an index of another version ({version}); build it again")
        return Prototypes(**{name: arrays[name] for name in _ARRAYS}, errors=errors)
    except (TypeError, ValueError, KeyError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is no index of crystals; {REMEDY}") from error


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(str(VERSION).encode(), digest_size=8)
    for file in files_of(path) or [path]:
        try:
            digest.update(file.name.encode() + file.read_bytes())
        except OSError as error:
            raise DataError(f"there is no file or folder {path}") from error
    return digest.hexdigest()


def _ranges(first: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Positions of the members of ``rows`` in arrays that ``first`` divides."""
    parts = [np.arange(int(first[i]), int(first[i + 1])) for i in rows.tolist()]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _element_volumes(index: Prototypes) -> np.ndarray:
    """By ridge regression of the volumes per atom; the mean for elements that are not there, [118]."""
    if not len(index):
        return np.full(118, 15.0)
    shares = index.composition / index.composition.sum(1, keepdims=True)
    mean = float(index.volume_per_atom.mean())
    fitted = np.linalg.solve(shares.T @ shares + MEAN_PRIOR * np.eye(118), shares.T @ (index.volume_per_atom - mean))
    return np.maximum(mean + fitted, 2.0)
