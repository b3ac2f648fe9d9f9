"""Crystals to train a refiner on: read, standardised and made into orbits once, then kept as plain arrays."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from crystalgfn.errors import DataError
from crystalgfn.files import save_arrays
from crystalgfn.structures.cells import Cell, standardise
from crystalgfn.structures.checks import SHORTEST, shortest_distance
from crystalgfn.structures.orbits import Orbit, OrbitStructure
from crystalgfn.structures.recognise import orbits_of
from crystalgfn.structures.standard import formula_of

VERSION = 1
LATTICE = [f"prim_{name}" for name in ("a", "b", "c", "alpha", "beta", "gamma")]
COLUMNS = ["spacegroup", "Z", "frac", *LATTICE]

Row = tuple[str, int | None, tuple[np.ndarray, np.ndarray, np.ndarray] | str]
"""What it is called in messages; the group that the file gives; lattice, points and numbers, or why there are none."""


def prepare(
    sources: Sequence[str | Path],
    out: str | Path,
    held_out: str | Path | None = None,
    symprec: float = 0.1,
    max_atoms: int = 80,
    skip_bad: bool = False,
    progress: bool = False,
) -> dict[str, int]:
    """Write the orbits of the crystals of some sources to an ``.npz``; returns how many were used and left out.

    Args:
        sources: Parquet files in the layout of MP-20 (columns Z, frac, spacegroup, prim_a ... prim_gamma) or folders
            of CIF files.
        out: the file to write.
        held_out: a source, or an ``.npz`` of this function; what shares (reduced formula, group) with it is left out.
        symprec: of spglib, Å.
        max_atoms: in the primitive cell; larger crystals are left out.
        skip_bad: leave out what cannot be used, instead of stopping.
        progress: shows a bar.

    Raises:
        DataError: a file that cannot be read; a crystal that cannot be used, unless ``skip_bad``; none left.
    """
    from tqdm import tqdm

    taken = frozenset() if held_out is None else pairs(held_out, symprec)
    structures, counts = [], Counter(used=0, held_out=0, too_large=0, bad=0)
    rows = (row for source in sources for row in read(source))
    for name, group, content in tqdm(rows, desc="standardising", unit="crystals", disable=not progress):
        found = content if isinstance(content, str) else _orbits(*content, symprec, max_atoms)
        if isinstance(found, str) and not skip_bad:
            raise DataError(f"{name}: {found}; repair or remove it, or leave out such crystals with skip_bad=true")
        if isinstance(found, str):
            counts["bad"] += 1
        elif found is None:
            counts["too_large"] += 1
        elif {(found[0].formula, group), (found[0].formula, found[0].space_group)} & taken:
            counts["held_out"] += 1
        else:
            structures.append(found[1])
            counts["used"] += 1
    if not structures:
        raise DataError(f"{', '.join(map(str, sources))}: no crystal is left to train on ({dict(counts)})")
    save(Path(out), structures, {**counts, "sources": [Path(s).name for s in sources], "symprec": symprec})
    return dict(counts)


def pairs(path: str | Path, symprec: float = 0.1) -> frozenset[tuple[str, int]]:
    """(reduced formula, group) of every crystal of a source; the group is the file's where it gives one."""
    if Path(path).suffix == ".npz":
        return frozenset((formula_of(structure), structure.space_group) for structure in load(path)[0])
    found = set()
    for _, group, content in read(path):
        if not isinstance(content, str):
            cell = standardise(*content, symprec) if group is None else Cell(group, *content)
            found |= set() if cell is None else {(cell.formula, cell.space_group)}
    return frozenset(found)


def read(source: str | Path) -> Iterator[Row]:
    """The crystals of a Parquet file or of a folder of CIF files, one after the other."""
    path = Path(source)
    if path.is_dir():
        files = sorted(path.glob("*.cif"))
        if not files:
            raise DataError(f"{path} holds no CIF file; give a folder with *.cif, or a Parquet file")
        return map(_read_cif, files)
    if path.suffix != ".parquet":
        raise DataError(f"{path} is neither a Parquet file nor a folder of CIF files; give one of these")
    return _read_parquet(path)


def _read_parquet(path: Path) -> Iterator[Row]:
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}; give another file") from error
    if missing := set(COLUMNS) - set(table.columns):
        raise DataError(f"{path} has no column {', '.join(sorted(missing))}; crystals with atoms need all of them")
    table = table[table.Z.notna()]
    for number, group, z, frac, *lattice in table[COLUMNS].itertuples(name=None):
        content = np.array(lattice, dtype=float), np.reshape(frac, (-1, 3)).astype(float), np.asarray(z, dtype=int)
        yield f"row {number} of {path}", int(group), content


def _read_cif(path: Path) -> Row:
    from pymatgen.core import Structure

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structure = Structure.from_file(path)
    except Exception as error:  # the parser raises whatever the text leads it to
        words = " ".join(str(error).split()) or type(error).__name__
        return str(path), None, f"cannot be read as CIF ({words})"
    if not structure.is_ordered:
        return str(path), None, "has partly occupied sites"
    numbers = np.array([site.specie.Z for site in structure])
    return str(path), None, (np.array(structure.lattice.parameters), structure.frac_coords, numbers)


def _orbits(
    lattice: np.ndarray, points: np.ndarray, numbers: np.ndarray, symprec: float, max_atoms: int
) -> tuple[Cell, OrbitStructure] | str | None:
    """Cell and orbits of a crystal; why there are none; None where the crystal is too large."""
    if not (np.isfinite(lattice).all() and np.isfinite(points).all() and len(points) == len(numbers) > 0):
        return "has coordinates or a lattice that are not finite numbers"
    cell = standardise(lattice, points, numbers, symprec)
    structure = None if cell is None else orbits_of(cell)
    if cell is None or structure is None:
        return f"spglib finds no space group in it at symprec {symprec:g}"
    if len(cell.numbers) > max_atoms:
        return None
    shortest = shortest_distance(structure)
    if shortest < SHORTEST:
        return f"has atoms {shortest:.2f} Å apart, closer than {SHORTEST} Å"
    return cell, structure


def save(path: Path, structures: Sequence[OrbitStructure], about: dict) -> None:
    """Write structures as arrays: orbits one after the other, ``n_orbits`` a crystal."""
    orbits = [orbit for structure in structures for orbit in structure.orbits]
    arrays = {
        "space_group": np.array([s.space_group for s in structures], dtype=np.int16),
        "lattice": np.array([s.lattice for s in structures], dtype=np.float64),
        "n_orbits": np.array([len(s.orbits) for s in structures], dtype=np.int16),
        "letter": np.array([o.letter for o in orbits], dtype="U1"),
        "species": np.array([o.species for o in orbits], dtype=np.int16),
        "parameters": np.array([o.parameters for o in orbits], dtype=np.float64),
        "about": np.array(json.dumps({**about, "version": VERSION})),
    }
    save_arrays(path, arrays)


def load(path: str | Path) -> tuple[list[OrbitStructure], dict]:
    """The structures that `prepare` wrote, and what it wrote about them; needs no materials library.

    Raises:
        DataError: no such file, or another kind of file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays["about"]))
        if about["version"] != VERSION:
            raise DataError(f"{path} has version {about['version']}, this package reads {VERSION}; prepare it again")
        orbits = [
            Orbit(letter, z, tuple(parameters))
            for letter, z, parameters in zip(
                arrays["letter"].tolist(), arrays["species"].tolist(), arrays["parameters"].tolist(), strict=True
            )
        ]
        ends = arrays["n_orbits"].astype(int).cumsum()
        parts = [tuple(orbits[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        rows = zip(arrays["space_group"].tolist(), arrays["lattice"].tolist(), parts, strict=True)
        return [OrbitStructure(group, tuple(lattice), part) for group, lattice, part in rows], about
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} holds no prepared crystals ({error}); prepare them again") from error
