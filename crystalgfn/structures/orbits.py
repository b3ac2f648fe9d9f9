"""Crystals as orbits: a Wyckoff letter, a species and free parameters each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from crystalgfn.errors import PlacementError
from crystalgfn.tables import elements, groups

if TYPE_CHECKING:
    from pymatgen.core import Structure


@cache
def wyckoff_position(space_group: int, letter: str) -> groups.WyckoffPosition:
    """The position of a group by its letter; PlacementError names the letters that there are."""
    for position in groups.WYCKOFF[space_group - 1]:
        if position.letter == letter:
            return position
    known = ", ".join(p.letter for p in groups.WYCKOFF[space_group - 1])
    name = f"space group {space_group} ({groups.SYMBOL[space_group - 1]})"
    raise PlacementError(f"{name} has no Wyckoff position {letter!r}; it has {known}")


@dataclass(frozen=True)
class Orbit:
    """One orbit of atoms.

    Attributes:
        letter: of its Wyckoff position.
        species: atomic number.
        parameters: x, y, z that the operations of the position act on; those that are not free do not matter.
        occupancy: share of the points that hold an atom; 1 in all that this version makes.
    """

    letter: str
    species: int
    parameters: tuple[float, float, float] = (0.0, 0.0, 0.0)
    occupancy: float = 1.0


@dataclass(frozen=True)
class OrbitStructure:
    """Orbits in a space group and a conventional cell (a, b, c in Å, alpha, beta, gamma in degrees).

    Raises:
        PlacementError: a letter that the group does not have, or a position without a free parameter used twice.
    """

    space_group: int
    lattice: tuple[float, float, float, float, float, float]
    orbits: tuple[Orbit, ...]

    def __post_init__(self) -> None:
        check_letters(self.space_group, [orbit.letter for orbit in self.orbits])

    @property
    def composition(self) -> dict[int, int]:
        """Atomic number -> points per primitive cell."""
        counts: dict[int, int] = {}
        for orbit in self.orbits:
            points = wyckoff_position(self.space_group, orbit.letter).primitive_multiplicity
            counts[orbit.species] = counts.get(orbit.species, 0) + points
        return counts

    @property
    def counts(self) -> dict[str, int]:
        """Element symbol -> points per primitive cell."""
        return {elements.SYMBOLS[z - 1]: n for z, n in self.composition.items()}

    def wyckoff(self) -> dict[str, list[str]]:
        """Element symbol -> letters of its orbits."""
        letters: dict[str, list[str]] = {}
        for orbit in self.orbits:
            letters.setdefault(elements.SYMBOLS[orbit.species - 1], []).append(orbit.letter)
        return letters

    def sites(self) -> tuple[np.ndarray, np.ndarray]:
        """Fractional coordinates [N, 3] in [0, 1) and atomic numbers [N] of the conventional cell, orbit by orbit."""
        points = [
            wyckoff_position(self.space_group, orbit.letter).operations @ np.array([*orbit.parameters, 1.0])
            for orbit in self.orbits
        ]
        species = np.repeat([orbit.species for orbit in self.orbits], [len(p) for p in points])
        wrapped = np.concatenate(points) % 1.0
        wrapped[wrapped > 1 - 1e-12] = 0.0
        return wrapped, species

    def to_structure(self) -> Structure:
        """The conventional cell as a pymatgen Structure."""
        from pymatgen.core import Lattice, Structure

        points, species = self.sites()
        counts = [wyckoff_position(self.space_group, orbit.letter).multiplicity for orbit in self.orbits]
        occupancy = np.repeat([orbit.occupancy for orbit in self.orbits], counts)
        names = [
            elements.SYMBOLS[z - 1] if share == 1 else {elements.SYMBOLS[z - 1]: float(share)}
            for z, share in zip(species, occupancy, strict=True)
        ]
        return Structure(Lattice.from_parameters(*self.lattice), names, points)


def check_letters(space_group: int, letters: Sequence[str]) -> None:
    """PlacementError where a letter is unknown, or one without a free parameter comes twice."""
    for letter in letters:
        if not wyckoff_position(space_group, letter).free and letters.count(letter) > 1:
            raise PlacementError(
                f"Wyckoff position {letter} of space group {space_group} ({groups.SYMBOL[space_group - 1]}) has no "
                f"free parameter, so only one orbit can be there, not {letters.count(letter)}"
            )


def cell_matrix(lattice: Sequence[float]) -> np.ndarray:
    """[3, 3] rows a, b, c in Å of a cell given as a, b, c, alpha, beta, gamma (degrees)."""
    a, b, c, *angles = (float(value) for value in lattice)
    cosines = np.cos(np.radians(angles))
    cosines[np.abs(cosines) < 1e-15] = 0.0
    ca, cb, cg = cosines
    sg = np.sqrt(1 - cg * cg)
    x, y = cb, (ca - cb * cg) / sg
    z = np.sqrt(max(1 - x * x - y * y, 0.0))
    return np.array([[a, 0, 0], [b * cg, b * sg, 0], [c * x, c * y, c * z]])
