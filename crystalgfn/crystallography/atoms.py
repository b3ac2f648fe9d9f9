"""One crystal as its source has it: a record with atoms and other values, or the reason why it is skipped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.symmetry import parameters_of

if TYPE_CHECKING:
    from pymatgen.core import Structure

CELL = ("a", "b", "c", "alpha", "beta", "gamma")
LENGTHS = (0.5, 1000.0)
"""Å; a cell edge outside is a slip of the pen, and neighbour searches in such cells take hours."""
SMALLEST = 1e-3
"""Å3 an atom; a smaller cell is none."""
FARTHEST = 1e4
"""Cells from the origin; a coordinate beyond has lost its digits."""
_DERIVED = re.compile(r"n_atoms|spacegroup|space_group|number|(?:\w+_)?(?:a|b|c|alpha|beta|gamma)")
"""Columns of a source that are computed anew, not carried along."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Atoms:
    """The atoms of one crystal as its source has them.

    Attributes:
        where: where it stands in its source: "row 4", a file's name.
        lattice: a, b, c in Å, alpha, beta, gamma in degrees, [6].
        points: fractional coordinates [N, 3].
        numbers: atomic numbers [N].
        space_group: the group that the source names, 0 where it names none.
        occupancies: shares of the atoms in (0, 1], [N]; None where every site holds one whole atom.
        sites: the site of each atom, [N], ascending; atoms of one site share its point. None: each has its own.
    """

    where: str
    lattice: np.ndarray
    points: np.ndarray
    numbers: np.ndarray
    space_group: int = 0
    occupancies: np.ndarray | None = None
    sites: np.ndarray | None = None

    @property
    def is_ordered(self) -> bool:
        """Whether every site holds one whole atom."""
        return self.occupancies is None

    @property
    def amounts(self) -> dict[int, float]:
        """Atomic number -> atoms in the cell, ascending."""
        weights = np.ones(len(self.numbers)) if self.occupancies is None else self.occupancies
        found, place = np.unique(self.numbers, return_inverse=True)
        return dict(zip(found.tolist(), np.bincount(place, weights=weights).tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class Record:
    """One entry of a source.

    Attributes:
        where: where it stands in its source: "line 4", "row 4", a file's name, an identifier.
        atoms: None where the source has no positions for it.
        values: what else the source says of it: the columns of its row, the keys of its comment line.
        notes: how it had to be read, where there was more than one way; readers warn of them.
    """

    where: str
    atoms: Atoms | None
    values: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def structure(self) -> Structure:
        """A pymatgen structure; sites may be partially occupied."""
        return structure_of(self.known_atoms)

    @property
    def known_atoms(self) -> Atoms:
        """The atoms of a record that has some."""
        if self.atoms is None:
            raise ValueError(f"{self.where} has no positions")
        return self.atoms

    @property
    def space_group(self) -> int:
        """The group that the source names, 0 where it names none."""
        return 0 if self.atoms is None else self.atoms.space_group

    @cached_property
    def numbers(self) -> dict[str, float]:
        """The finite numbers among the values, without cells, counts and groups."""
        return {name: x for name, value in self.values.items() if (x := _number(name, value)) is not None}


@dataclass(frozen=True)
class SkippedRecord:
    """An entry that cannot be used, and why."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def atoms_fault(atoms: Atoms) -> str | None:
    """Why the atoms are those of no crystal, None where they may be: what spglib and torch would stumble over."""
    lattice, points, numbers = atoms.lattice, atoms.points, atoms.numbers
    if not len(numbers):
        return "has no atoms"
    if points.shape != (len(numbers), 3):
        return f"has {points.size} coordinates and {len(numbers)} atoms"
    outside = numbers[(numbers < 1) | (numbers > 118)]
    if len(outside):
        return f"atomic number {int(outside[0])} is no element; they go from 1 to 118"
    if (reason := cell_fault(lattice)) is not None:
        return reason
    if not np.isfinite(points).all():
        return "has a coordinate that is no number"
    if np.abs(points).max() > FARTHEST:
        return f"has a fractional coordinate of {np.abs(points).max():.3g}; at most {FARTHEST:g} is read"
    volume = volume_of_parameters(lattice)
    if not volume / len(numbers) > SMALLEST:
        return f"has a cell of {volume:.2g} Å3 for {len(numbers)} atoms"
    return None if atoms.occupancies is None else _occupancy_fault(atoms.occupancies, atoms.sites)


def _occupancy_fault(shares: np.ndarray, sites: np.ndarray | None) -> str | None:
    if not ((shares > 0) & (shares <= 1)).all():
        return "has an occupancy outside 0 to 1"
    most = shares.max() if sites is None else np.bincount(sites, weights=shares).max()
    return f"has a site whose occupancies sum to {most:.4g}, more than 1" if most > 1 + 1e-6 else None


def cell_fault(lattice: np.ndarray) -> str | None:
    """Why six cell parameters are those of no cell, None where they may be."""
    if lattice.shape != (6,) or not np.isfinite(lattice).all():
        return f"has the cell {lattice.tolist()}, which is not six finite numbers"
    low, high = LENGTHS
    if not ((lattice[:3] >= low) & (lattice[:3] <= high)).all():
        lengths = ", ".join(f"{x:.6g}" for x in lattice[:3])
        return f"has cell lengths {lengths} Å; from {low:g} to {high:g} Å are read"
    if (lattice[3:] < np.pi).all():
        return f"has the cell angles {', '.join(f'{x:.6g}' for x in lattice[3:])}; write degrees, not radians"
    if not ((lattice[3:] > 0) & (lattice[3:] < 180)).all() or not volume_of_parameters(lattice) > 0:
        return f"has the cell angles {', '.join(f'{x:.6g}' for x in lattice[3:])}, which close no cell"
    return None


def volume_of_parameters(lattice: np.ndarray) -> float:
    """Å3, 0 where the angles close no cell."""
    cosine = np.cos(np.radians(lattice[3:]))
    return float(lattice[:3].prod() * np.sqrt(max(0.0, 1 - (cosine**2).sum() + 2 * cosine.prod())))


def structure_of(atoms: Atoms) -> Structure:
    """The pymatgen structure of atoms; sites may be partially occupied."""
    from pymatgen.core import Lattice, Structure

    names = [elements.SYMBOLS[z - 1] for z in atoms.numbers]
    lattice = Lattice.from_parameters(*atoms.lattice)
    if atoms.occupancies is None:
        return Structure(lattice, names, atoms.points)
    sites = np.arange(len(names)) if atoms.sites is None else atoms.sites
    first = np.flatnonzero(np.diff(sites, prepend=sites[0] - 1))
    species: list[dict[str, float]] = [{} for _ in first]
    for site, name, share in zip(np.searchsorted(sites[first], sites), names, atoms.occupancies, strict=True):
        species[site][name] = species[site].get(name, 0.0) + float(share)
    return Structure(lattice, species, atoms.points[first])


def atoms_of(where: str, structure: Structure, space_group: int = 0) -> Atoms | SkippedRecord:
    """The atoms of an ordered structure, coordinates in [0, 1); disordered ones cannot be used."""
    found = all_atoms_of(where, structure, space_group)
    if isinstance(found, Atoms) and not found.is_ordered:
        return disordered(where, structure.composition.reduced_formula)
    return found


def all_atoms_of(where: str, structure: Structure, space_group: int = 0) -> Atoms | SkippedRecord:
    """The atoms of a structure with their occupancies, coordinates in [0, 1)."""
    if not all(structure.pbc):
        return SkippedRecord(where, "it is not periodic in three directions")
    ordered = structure.is_ordered
    parts = [(element, share, i) for i, site in enumerate(structure) for element, share in site.species.items()]
    if (dummy := next((one for one, _, _ in parts if not 1 <= one.Z <= 118), None)) is not None:
        return SkippedRecord(where, f"{dummy.symbol} is no element")
    numbers, owner = np.array([one.Z for one, _, _ in parts], dtype=np.int64), np.array([i for _, _, i in parts])
    points = structure.frac_coords[owner]
    if np.linalg.det(structure.lattice.matrix) < 0:
        points = -points  # with the vectors of its cell turned round, which are then right-handed
    found = Atoms(
        where=where,
        lattice=np.array(structure.lattice.parameters),
        points=points % 1.0,
        numbers=numbers,
        space_group=space_group,
    )
    return found if ordered else replace(found, occupancies=np.array([x for _, x, _ in parts]), sites=owner)


def record_of(
    where: str, structure: Structure, space_group: int = 0, values: Mapping[str, Any] | None = None
) -> Record | SkippedRecord:
    """The record of a pymatgen structure."""
    found = all_atoms_of(where, structure, space_group)
    return Record(where, found, values or {}) if isinstance(found, Atoms) else found


def disordered(where: str, formula: str) -> SkippedRecord:
    """What is said where whole atoms are needed."""
    return SkippedRecord(where, f"{formula} is disordered; order it first, or leave it out")


def from_matrix(where: str, rows: Any, points: Any, numbers: Any, space_group: int = 0) -> Atoms:
    """Atoms in a cell given by its vectors [3, 3], Å; those of a left-handed cell are inverted with their cell."""
    rows, points = np.asarray(rows, dtype=np.float64), np.asarray(points, dtype=np.float64).reshape(-1, 3)
    with np.errstate(all="ignore"):
        lattice = parameters_of(rows)
        left = np.linalg.det(rows / lattice[:3, None]) < 0
    return Atoms(
        where=where,
        lattice=lattice,
        points=-points if left else points,
        numbers=np.asarray(numbers, dtype=np.int64),
        space_group=space_group,
    )


def group_number(value: Any) -> int:
    """A space group that a source names by number or Hermann-Mauguin symbol, 0 where it is none."""
    try:
        number = plain_number(value)
    except (TypeError, ValueError):
        import gemmi

        found = gemmi.find_spacegroup_by_name(value) if isinstance(value, str) else None
        return found.number if found else 0
    return int(number) if number.is_integer() and 1 <= number <= 230 else 0


def plain_number(value: Any) -> float:
    """A number as files write one; True, and the "1_000" of programs, are none.

    Raises:
        TypeError, ValueError: it is none.
    """
    if isinstance(value, bool | np.bool_) or (isinstance(value, str) and "_" in value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def reduced_formula(counts: Mapping[str, int]) -> str:
    """The key of a composition: whole counts without a common factor, elements in alphabetical order.

    Example:
        >>> reduced_formula({"Ti": 2, "O": 4})
        'O2Ti1'
    """
    divisor = int(np.gcd.reduce([int(n) for n in counts.values()]))
    return "".join(f"{symbol}{int(counts[symbol]) // divisor}" for symbol in sorted(counts))


def symbols_of(numbers: Sequence[int] | np.ndarray) -> dict[str, int]:
    """Element symbol -> how often its atomic number occurs."""
    found, counts = np.unique(np.asarray(numbers), return_counts=True)
    return {elements.SYMBOLS[z - 1]: int(n) for z, n in zip(found.tolist(), counts.tolist(), strict=True)}


def _number(name: str, value: Any) -> float | None:
    if isinstance(value, bool | np.bool_) or _DERIVED.fullmatch(name):
        return None
    if not isinstance(value, int | float | str | np.number):
        return None
    try:
        number = plain_number(value)
    except ValueError:
        return None
    return number if np.isfinite(number) else None
