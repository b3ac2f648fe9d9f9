"""Crystals to train a refiner on: read, standardised and made into orbits once, then kept as plain arrays."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crystalgfn.crystallography.atoms import Record, SkippedRecord, reduced_formula, symbols_of
from crystalgfn.crystallography.convert import formula_of, orbit_structure
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.crystallography.standardize import standardise
from crystalgfn.data.reader import Source, crystals, only_ordered
from crystalgfn.errors import DataError, PlacementError
from crystalgfn.utils.files import load_arrays, path_of, save_arrays
from crystalgfn.utils.progress import Bar

VERSION = 1


def prepare(
    sources: Sequence[str | Path],
    out: str | Path,
    held_out: Source | None = None,
    symprec: float = 0.1,
    max_atoms: int = 80,
    skip_bad: bool = False,
    progress: bool = False,
) -> dict[str, int]:
    """Write the orbits of the crystals of some sources to an ``.npz``; returns how many were used and left out.

    Sources are those of `crystalgfn.data.reader.records`; ``symprec`` is spglib's, Å. Left out is what shares (reduced
    formula, group) with ``held_out``, a source or an ``.npz`` of this function, what has more than ``max_atoms`` in the
    primitive cell, and with ``skip_bad`` what cannot be used.

    Raises:
        DataError: a file that cannot be read; a crystal that cannot be used, unless ``skip_bad``; none left.
    """
    sets = [] if held_out is None else [held_out] if isinstance(held_out, str | Path) else held_out
    taken = frozenset().union(*(pairs(one, symprec) for one in sets))
    structures, counts = [], Counter(used=0, held_out=0, too_large=0, bad=0)
    entries = ((source, entry) for source in sources for entry in map(only_ordered, crystals(source)))
    for source, entry in Bar(entries, description="standardising", unit="crystals", shown=progress):
        found, way = _orbits(entry, symprec, max_atoms, taken)
        if isinstance(found, str) and not skip_bad:
            raise DataError(
                f"{source}, {entry.where}: {found}; repair or remove it, or leave out such crystals with skip_bad=true"
            )
        counts[way] += 1
        if isinstance(found, OrbitStructure):
            structures.append(found)
    if not structures:
        reasons = {"held_out": f"in {held_out} too", "too_large": f"above max_atoms={max_atoms}", "bad": "not usable"}
        raise DataError(
            f"{', '.join(map(str, sources))}: no crystal is left to train on ({_why(counts, reasons)}); give others"
        )
    save(path_of(out, "out"), structures, {**counts, "sources": [Path(s).name for s in sources], "symprec": symprec})
    return dict(counts)


def _why(counts: Counter[str], reasons: dict[str, str]) -> str:
    return ", ".join(f"{counts[name]} {words}" for name, words in reasons.items() if counts[name]) or "none given"


def pairs(path: str | Path, symprec: float = 0.1) -> frozenset[tuple[str, int]]:
    """(reduced formula, group) of every crystal of a source; the group is the file's where it gives one."""
    if path_of(path).suffix == ".npz":
        return frozenset((formula_of(structure), structure.space_group) for structure in load_prepared(path)[0])
    found = set()
    for entry in map(only_ordered, crystals(path)):
        if isinstance(entry, SkippedRecord):
            continue
        atoms = entry.known_atoms
        cell = None if atoms.space_group else standardise(atoms.lattice, atoms.points, atoms.numbers, symprec)
        formula = reduced_formula(symbols_of(atoms.numbers))
        found.add((formula, atoms.space_group or (cell.space_group if cell else 1)))
    return frozenset(found)


def _orbits(
    entry: Record | SkippedRecord, symprec: float, max_atoms: int, taken: frozenset[tuple[str, int]]
) -> tuple[OrbitStructure | str | None, str]:
    """A crystal as orbits, why there are none, or None where it is left out; and what it counts as."""
    if isinstance(entry, SkippedRecord):
        return entry.reason, "bad"
    try:
        structure = orbit_structure(entry.known_atoms, symprec)
    except PlacementError as error:
        return str(error), "bad"
    if sum(structure.composition.values()) > max_atoms:
        return None, "too_large"
    formula = formula_of(structure)
    if {(formula, structure.space_group), (formula, entry.space_group or structure.space_group)} & taken:
        return None, "held_out"
    return structure, "used"


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


def load_prepared(path: str | Path) -> tuple[list[OrbitStructure], dict]:
    """The structures that `prepare` wrote, and what it wrote about them; needs no materials library.

    Raises:
        DataError: no such file, or another kind of file.
    """
    try:
        arrays = load_arrays(Path(path), "file of prepared crystals", "prepare them again")
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
    except (TypeError, ValueError, KeyError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} holds no prepared crystals ({error}); prepare them again") from error
