"""Methods of others: pyxtal's random structures and structures from files."""

from __future__ import annotations

import contextlib
import io
import re
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.benchmarks.csp.methods import most_probable
from crystalgfn.benchmarks.csp.run import TASKS, CSPQuery
from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.atoms import SkippedRecord
from crystalgfn.crystallography.lattice import KIND, KINDS
from crystalgfn.crystallography.orbits import wyckoff_position
from crystalgfn.data.reader import records
from crystalgfn.errors import DataError
from crystalgfn.utils.files import path_of

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True)
class Outside:
    """CIF files of structures predicted elsewhere; a crystal without one has no structure.

    Of row 7 of a table (the first is row 0) these are ``7.cif``, or best first by their ranks ``7_1.cif``, ``7_2.cif``,
    ... or ``7/1.cif``, ``7/2.cif``, ...; of a crystal that was a file ``NaCl.cif`` itself ``NaCl.cif``, ``NaCl_1.cif``
    or ``NaCl/1.cif``. Ranks are whole numbers, and only their order counts.

    Attributes:
        folder: where the files are.
        files: row -> paths, best first.
        tasks: those that the structures are for.
        timed: False, since the time to read a file says nothing.
        about: the folder, so that predictions kept from another one are not taken for these.
    """

    folder: str
    files: Mapping[str, Sequence[str]] = field(repr=False)
    tasks: tuple[str, ...] = TASKS
    timed: bool = False

    @property
    def about(self) -> str:
        """The folder."""
        return self.folder

    @staticmethod
    def of(folder: str | Path, rows: Iterable[str], tasks: Sequence[str] = TASKS) -> Outside:
        """The files of targets that stand at ``rows`` of their source.

        Raises:
            DataError: there is no such folder, or no file in it is named by one of the rows.
        """
        path = path_of(folder)
        if not path.is_dir():
            raise DataError(f"there is no folder {path}; give one of CIF files named by row, such as 7.cif or 7_1.cif")
        names = {row_name(where) for where in rows}
        found: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for file in sorted([*path.glob("*.cif"), *path.glob("*/*.cif")]):
            name, rank = _name_and_rank(file, path, names)
            if name in names:
                found[name].append((rank, str(file)))
        if not found:
            example = min(names, default="7", key=lambda name: (len(name), name))
            raise DataError(
                f"no CIF file in {path} is named by a target; name those of the first of them "
                f"{example}.cif, {example}_1.cif or {example}/1.cif"
            )
        return Outside(
            str(path), {name: [file for _, file in sorted(own)] for name, own in found.items()}, tuple(tasks)
        )

    def __call__(self, what: CSPQuery, k: int, seed: int) -> list[Structure | SkippedRecord]:
        """The first ``k`` structures, a `SkippedRecord` for each that is unreadable or of another formula."""
        return [_read(Path(file), what) for file in self.files.get(row_name(what.where), ())[:k]]


def row_name(where: str) -> str:
    """What files of a crystal are named by: "7" of "row 7", "NaCl" of "NaCl.cif"."""
    return where.removeprefix("row ").removesuffix(".cif")


def _name_and_rank(file: Path, folder: Path, names: set[str]) -> tuple[str | None, int]:
    """The row and the rank that a file's name says; a row's own name goes before a rank in it."""
    if file.parent != folder:
        return (file.parent.name, int(file.stem)) if file.stem.isdigit() else (None, 0)
    if file.stem in names:
        return file.stem, -1
    parts = re.fullmatch(r"(.+)_(\d+)", file.stem)
    return (parts[1], int(parts[2])) if parts else (None, 0)


def _read(path: Path, what: CSPQuery) -> Structure | SkippedRecord:
    name = f"{path.parent.name}/{path.name}"
    try:
        found = next(records(path))
    except DataError as error:
        return SkippedRecord(name, str(error))
    if isinstance(found, SkippedRecord):
        return SkippedRecord(name, found.reason)
    structure = found.structure
    if not structure.is_ordered:
        return SkippedRecord(name, f"{structure.composition.reduced_formula} is disordered; order it first")
    if _units(structure.composition.get_el_amt_dict()) != _units(what.counts):
        formula = "".join(f"{symbol}{n}" for symbol, n in sorted(what.counts.items()))
        return SkippedRecord(name, f"is {structure.composition.reduced_formula}, and {formula} was asked for")
    try:
        structure.get_reduced_structure()
    except Exception as error:  # spglib's and pymatgen's reductions raise whatever a cell makes them stumble over
        return SkippedRecord(name, f"has a cell that cannot be reduced ({type(error).__name__})")
    return structure


def _units(counts: Mapping[str, Any]) -> dict[str, int]:
    """Atoms of each element in a formula unit."""
    whole = {symbol: round(n) for symbol, n in counts.items()}
    units = gcd(*whole.values())
    return {symbol: n // units for symbol, n in whole.items()}


TRIES, SECONDS = 10, 20.0
"""For one structure, as many as pyxtal's own; of CPU for all of a crystal, since it tries for minutes without room."""


@dataclass(frozen=True)
class Pyxtal:
    """``pyxtal.from_random``: random letters (unless given), random coordinates, pyxtal's own distances and volumes.

    Where no group is given, the most probable ones get one structure each.
    """

    def __call__(self, what: CSPQuery, k: int, seed: int) -> list[Structure]:
        """At most ``k`` structures, in the order in which they came."""
        end = time.process_time() + SECONDS
        asked = [what] * k if what.space_group is not None else most_probable(what, k)
        found: list[Structure] = []
        for i, one in enumerate(asked):
            for number in range(TRIES):
                if time.process_time() > end:
                    return found
                structure = from_random(one, int(np.random.default_rng((seed, i, number)).integers(2**31)))
                if structure is not None:
                    found.append(structure)
                    break
        return found


def from_random(what: CSPQuery, seed: int) -> Structure | None:
    """One try of pyxtal; None where it finds no crystal, for whatever reason."""
    from pyxtal import pyxtal
    from pyxtal.lattice import Lattice

    group = what.known_group
    options: dict[str, Any] = {}
    if what.lattice is not None:
        cell = Lattice.from_para(*map(float, what.lattice), ltype=KINDS[KIND[group - 1]])
        cell.random_state = np.random.default_rng(seed)  # coordinates are drawn from a given cell's own generator
        options["lattice"] = cell
    if what.letters is not None:
        options["sites"] = _sites(group, what.letters)
    counts = [n * int(space_groups.CENTRING[group - 1]) for n in what.counts.values()]
    crystal = pyxtal()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            crystal.from_random(3, group, list(what.counts), counts, random_state=seed, max_count=1, **options)
        except Exception:  # whatever pyxtal stumbles over is a crystal that it does not find
            return None
        structure: Any = crystal.to_pymatgen() if crystal.valid else None
    return structure


def _sites(group: int, letters: Mapping[str, Sequence[str]]) -> list[list[str]]:
    return [[f"{wyckoff_position(group, f).multiplicity}{f}" for f in own] for own in letters.values()]
