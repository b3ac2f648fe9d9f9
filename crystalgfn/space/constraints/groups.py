"""Which space groups a crystal has, and what every crystal obeys: Wyckoff positions and cell of its group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.lattice import in_domain
from crystalgfn.errors import EmptySpace, InvalidSpace
from crystalgfn.space.constraint import Check
from crystalgfn.space.constraints.cell import ANGLE_TOLERANCE, LENGTH_TOLERANCE
from crystalgfn.space.constraints.parse import plain, sequence
from crystalgfn.space.patterns import realisable_compositions, realisable_patterns
from crystalgfn.space.rules import MaskRules

TRIGONAL = ("trigonal-rhombohedral", "trigonal-hexagonal")


@dataclass(frozen=True)
class _Groups:
    """Some of the 230 space groups.

    Attributes:
        name: of the constraint.
        values: as they are written; None: all groups.
    """

    name: str
    values: tuple | None

    def intersect(self, other: _Groups) -> _Groups:
        """What is in both."""
        if self.values is None or other.values is None:
            return self if other.values is None else other
        kept = tuple(x for x in other.values if x in self.values)
        if not kept:
            raise EmptySpace(f"{self.name}={list(other.values)} leaves nothing of the space's own {self.name}")
        return type(self)(self.name, kept)

    def mask(self, tables: MaskRules) -> None:
        """Other groups cannot be chosen."""
        if self.values is not None:
            tables.only_groups(self.allowed())

    def allowed(self) -> np.ndarray:
        """Whether each group is among them, bool [230]."""
        return np.ones(230, dtype=bool)

    def explain(self, crystals: Crystals) -> Check:
        """The group is one of them, and one of the 230 at all."""
        number = crystals.space_group
        allowed = torch.as_tensor(self.allowed(), device=number.device)[(number - 1).clamp(0, 229)]
        return Check(
            allowed & (number >= 1) & (number <= 230), lambda i: f"space group {int(number[i])} is not in the space"
        )

    def to_dict(self) -> dict[str, Any]:
        """The numbers or names."""
        return {self.name: plain(self.values)}


class SpaceGroups(_Groups):
    """Groups by ITA number."""

    @classmethod
    def parse(cls, value: Any) -> _Groups:
        """Numbers and Hermann-Mauguin symbols in any setting, or None."""
        if value is None:
            return cls("space_groups", None)
        numbers = []
        for one in sequence("space_groups", value):
            if isinstance(one, str):
                try:
                    one = space_groups.number_of(one)
                except ValueError as error:
                    raise InvalidSpace(f"space_groups: {error}") from None
            if isinstance(one, bool) or not isinstance(one, (int, np.integer)) or not 1 <= one <= 230:
                raise InvalidSpace(f"space_groups: {one!r} is not an ITA number from 1 to 230")
            numbers.append(int(one))
        if not numbers:
            raise EmptySpace("space_groups=[] leaves no group; give ITA numbers, or null for all 230")
        return cls("space_groups", tuple(sorted(set(numbers))))

    def allowed(self) -> np.ndarray:
        """Whether each group is among them, bool [230]."""
        return super().allowed() if self.values is None else np.isin(np.arange(1, 231), self.values)


class CrystalSystems(_Groups):
    """Groups by crystal-lattice system."""

    @classmethod
    def parse(cls, value: Any) -> _Groups:
        """Names, "trigonal" for both of its lattices, or None."""
        return cls("crystal_systems", _names("crystal_systems", value, space_groups.CRYSTAL_LATTICE_SYSTEMS))

    def allowed(self) -> np.ndarray:
        """Whether each group is among them, bool [230]."""
        return _named(self.values, space_groups.CRYSTAL_LATTICE_SYSTEMS, space_groups.CRYSTAL_LATTICE_SYSTEM)


class PointSymmetries(_Groups):
    """Groups by point symmetry."""

    @classmethod
    def parse(cls, value: Any) -> _Groups:
        """Names, or None."""
        return cls("point_symmetries", _names("point_symmetries", value, space_groups.POINT_SYMMETRIES))

    def allowed(self) -> np.ndarray:
        """Whether each group is among them, bool [230]."""
        return _named(self.values, space_groups.POINT_SYMMETRIES, space_groups.POINT_SYMMETRY)


def _named(values: tuple | None, names: tuple[str, ...], column: np.ndarray) -> np.ndarray:
    return np.ones(230, dtype=bool) if values is None else np.isin(column, [names.index(one) for one in values])


def _names(option: str, value: Any, known: tuple[str, ...]) -> tuple[str, ...] | None:
    if value is None:
        return None
    names: list[str] = []
    for name in sequence(option, value):
        for one in TRIGONAL if name == "trigonal" and option == "crystal_systems" else (name,):
            if one not in known:
                raise InvalidSpace(f"{option}: {one!r} is not one of {', '.join(known)}")
            names.append(one)
    if not names:
        raise EmptySpace(f"{option}=[] leaves nothing; give names, or null for all")
    return tuple(name for name in known if name in names)


def _known(crystals: Crystals) -> torch.Tensor:
    return (crystals.space_group >= 1) & (crystals.space_group <= 230)


@dataclass(frozen=True)
class WyckoffPositions:
    """The atoms can be laid on Wyckoff positions of the space group, and the crystal has no larger group."""

    def intersect(self, other: WyckoffPositions) -> WyckoffPositions:
        """The same rule."""
        return self

    def mask(self, tables: MaskRules) -> None:
        """Keep the count patterns that each group can hold."""
        tables.keep_patterns(realisable_patterns)

    def explain(self, crystals: Crystals) -> Check:
        """The counts fit; crystals of no known space group are left to that rule."""
        known = _known(crystals)
        index = (crystals.space_group - 1).clamp(0, 229)
        fits = realisable_compositions(index.cpu().numpy(), crystals.composition.cpu().numpy())

        def reason(i: int) -> str:
            row = crystals.composition[i]
            counts = "+".join(str(int(c)) for c in row[row > 0].sort(descending=True).values) or "0"
            symbol = space_groups.SYMBOL[int(index[i])]
            return f"{counts} atoms cannot be laid on Wyckoff positions of {symbol} with exactly that group"

        return Check(torch.from_numpy(fits).to(crystals.device) | ~known, reason)

    def to_dict(self) -> dict[str, Any]:
        """It has no arguments."""
        return {}


@dataclass(frozen=True)
class ConventionalCell:
    """The cell is the one of the fundamental domain of its group (`crystalgfn.crystallography.lattice`)."""

    def intersect(self, other: ConventionalCell) -> ConventionalCell:
        """The same rule."""
        return self

    def mask(self, tables: MaskRules) -> None:
        """Nothing: the moves of the lattice make no other cells."""

    def explain(self, crystals: Crystals) -> Check:
        """The cell is reduced and has the shape of its lattice system."""
        number, lattice = crystals.space_group.clamp(1, 230), crystals.lattice.double()
        return Check(
            in_domain(number, lattice, LENGTH_TOLERANCE, ANGLE_TOLERANCE) | ~_known(crystals),
            lambda i: (
                f"the cell {[round(float(x), 4) for x in lattice[i]]} is not the reduced conventional cell of "
                f"{space_groups.SYMBOL[int(number[i]) - 1]}"
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """It has no arguments."""
        return {}
