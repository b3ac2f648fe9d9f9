"""Which elements and space groups a crystal has, and what every crystal obeys: Wyckoff positions, cell of its group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import torch

from crystalgfn.crystallography import elements as table
from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.lattice import in_domain
from crystalgfn.errors import EmptySpace, InvalidSpace
from crystalgfn.space.constraint import Check
from crystalgfn.space.constraints.limits import ANGLE_TOLERANCE, LENGTH_TOLERANCE, known_group
from crystalgfn.space.constraints.parse import Rule, numbers_of, plain, sequence, symbols
from crystalgfn.space.patterns import realisable_compositions, realisable_patterns
from crystalgfn.space.rules import MaskRules

LARGEST_Z = 83  # beyond bismuth everything is radioactive

RADIOACTIVE = (43, 61)


def _columns(names: Iterable[str]) -> list[int]:
    return [z - 1 for z in numbers_of(names)]


class Elements(Rule):
    """Only these elements may occur; None: Z <= 83 with a state in the space's table, no noble gases, Tc, Pm."""

    name = "elements"

    @classmethod
    def read(cls, value: Any) -> tuple[str, ...]:
        """Symbols."""
        if not (found := symbols("elements", value)):
            raise EmptySpace("elements=[] leaves no element; give symbols, or null for the default elements")
        return found

    def mask(self, tables: MaskRules) -> None:
        """Offer the elements; the default ones only where no constraint names any."""
        if self.value is not None:
            tables.only_elements(numbers_of(self.value), str(self))
            return
        states = tables.charge.states
        tables.default_elements = [
            z
            for z in range(1, LARGEST_Z + 1)
            if (states is None or states[z - 1]) and not table.NOBLE_GAS[z - 1] and z not in RADIOACTIVE
        ]

    def check(self, crystals: Crystals) -> Check:
        """No other element occurs; what the default elements leave out is left to `foreign`."""
        return foreign(crystals, numbers_of(self.value))


def foreign(crystals: Crystals, zs: list[int] | tuple[int, ...]) -> Check:
    """No element but those with atomic numbers ``zs`` occurs."""
    allowed = torch.zeros(118, dtype=torch.bool, device=crystals.device)
    allowed[[z - 1 for z in zs]] = True
    other = (crystals.composition > 0) & ~allowed
    return Check(~other.any(1), lambda i: f"element {table.SYMBOLS[int(other[i].nonzero()[0])]} is not in the space")


class _Collected(Rule):
    """Members each of which is a rule of its own: all of both constraints hold."""

    optional = False

    @classmethod
    def read(cls, value: Any) -> tuple:
        """Symbols; None stands for none."""
        return () if value is None else symbols(cls.name, value)

    def both(self, new: tuple) -> tuple:
        """All of both."""
        return tuple(dict.fromkeys([*self.value, *new]))


class RequiredElements(_Collected):
    """Every crystal has these elements."""

    name = "required_elements"

    def limit(self, tables: MaskRules) -> None:
        """No composition ends without them."""
        tables.require_elements(numbers_of(self.value), str(self))

    def check(self, crystals: Crystals) -> Check:
        """All of them occur."""
        columns = sorted(_columns(self.value))
        missing = crystals.composition[:, columns] == 0
        return Check(
            ~missing.any(1),
            lambda i: f"required element {table.SYMBOLS[columns[int(missing[i].nonzero()[0])]]} is missing",
        )


class ExcludedElements(_Collected):
    """No crystal has these elements."""

    name = "excluded_elements"

    def limit(self, tables: MaskRules) -> None:
        """They are no elements of the space."""
        tables.no_elements(numbers_of(self.value), str(self))

    def check(self, crystals: Crystals) -> Check:
        """None of them occurs."""
        return foreign(crystals, [z for z in range(1, 119) if table.SYMBOLS[z - 1] not in self.value])


class AnyOf(_Collected):
    """Every crystal has at least one element of each of these sets."""

    name = "any_of"

    @classmethod
    def read(cls, value: Any) -> tuple[tuple[str, ...], ...]:
        """Symbols, or several lists of them."""
        items = [] if value is None else sequence("any_of", value)
        nested = [one for one in items if not isinstance(one, str)]
        sets = [tuple(sorted(symbols("any_of", one))) for one in (items if nested else [items] if items else [])]
        if any(not one for one in sets):
            raise InvalidSpace("any_of has an empty list; give symbols such as [F, Cl], or leave it out")
        return tuple(dict.fromkeys(sets))

    def limit(self, tables: MaskRules) -> None:
        """Remember whether one of each set has come."""
        for names in self.value:
            tables.require_any(numbers_of(names), f"any_of={list(names)}")

    def check(self, crystals: Crystals) -> Check:
        """One of each set occurs."""
        present = crystals.composition > 0
        has = torch.stack([present[:, _columns(names)].any(1) for names in self.value], 1)
        return Check(has.all(1), lambda i: f"none of {', '.join(self.value[int((~has[i]).nonzero()[0])])} occurs")

    def to_dict(self) -> dict[str, Any]:
        """The symbols of one set, or the sets."""
        return {"any_of": plain(self.value[0] if len(self.value) == 1 else self.value)}


class ChemicalSystem(Rule):
    """Every crystal has exactly these elements, written as Li-Mn-O."""

    name = "chemsys"

    @classmethod
    def read(cls, value: Any) -> str:
        """Text such as Li-Mn-O, or symbols."""
        names = value.split("-") if isinstance(value, str) else value
        if not (found := sorted(symbols("chemsys", names))):
            raise InvalidSpace("chemsys has no element; give symbols such as Li-Mn-O")
        return "-".join(found)

    def both(self, new: str) -> str:
        """The one system; two different ones have nothing in common."""
        if new != self.value:
            raise EmptySpace(f"{ChemicalSystem(new)} differs from the space's own {self}")
        return new

    def limit(self, tables: MaskRules) -> None:
        """These elements, all of them."""
        zs = numbers_of(self.value.split("-"))
        tables.only_elements(zs, str(self))
        tables.require_elements(zs, str(self))

    def check(self, crystals: Crystals) -> Check:
        """All of them occur, and no other."""
        wanted = torch.zeros(118, dtype=torch.bool, device=crystals.device)
        wanted[_columns(self.value.split("-"))] = True
        return Check(
            ((crystals.composition > 0) == wanted).all(1),
            lambda i: f"{'-'.join(sorted(crystals.counts(i)))} is not the chemical system {self.value}",
        )

    def __str__(self) -> str:
        return f"chemsys={self.value}"


TRIGONAL = ("trigonal-rhombohedral", "trigonal-hexagonal")


class SpaceGroups(Rule):
    """Some of the 230 space groups, by ITA number."""

    name = "space_groups"

    @classmethod
    def read(cls, value: Any) -> tuple[int, ...]:
        """Numbers and Hermann-Mauguin symbols in any setting."""
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
        return tuple(sorted(set(numbers)))

    def limit(self, tables: MaskRules) -> None:
        """Other groups cannot be chosen."""
        tables.only_groups(self.allowed())

    def allowed(self) -> np.ndarray:
        """Whether each group is among them, bool [230]."""
        return np.ones(230, dtype=bool) if self.value is None else np.isin(np.arange(1, 231), self.value)

    def explain(self, crystals: Crystals) -> Check:
        """The group is one of them, and one of the 230 at all."""
        number = crystals.space_group
        allowed = torch.as_tensor(self.allowed(), device=number.device)[(number - 1).clamp(0, 229)]
        return Check(allowed & known_group(crystals), lambda i: f"space group {int(number[i])} is not in the space")


class CrystalSystems(SpaceGroups):
    """Groups by crystal-lattice system; "trigonal" stands for both of its lattices."""

    name = "crystal_systems"
    names: ClassVar[tuple[str, ...]] = space_groups.CRYSTAL_LATTICE_SYSTEMS
    column: ClassVar[np.ndarray] = space_groups.CRYSTAL_LATTICE_SYSTEM

    @classmethod
    def read(cls, value: Any) -> tuple[str, ...]:
        """Names."""
        found: list[str] = []
        for name in sequence(cls.name, value):
            for one in TRIGONAL if name == "trigonal" and cls.name == "crystal_systems" else (name,):
                if one not in cls.names:
                    raise InvalidSpace(f"{cls.name}: {one!r} is not one of {', '.join(cls.names)}")
                found.append(one)
        if not found:
            raise EmptySpace(f"{cls.name}=[] leaves nothing; give names, or null for all")
        return tuple(name for name in cls.names if name in found)

    def allowed(self) -> np.ndarray:
        """Whether each group is among them, bool [230]."""
        if self.value is None:
            return np.ones(230, dtype=bool)
        return np.isin(self.column, [self.names.index(one) for one in self.value])


class PointSymmetries(CrystalSystems):
    """Groups by point symmetry."""

    name, names, column = "point_symmetries", space_groups.POINT_SYMMETRIES, space_groups.POINT_SYMMETRY


class _Always(Rule):
    """What holds of every crystal: it has no argument."""

    def intersect(self, other: Rule) -> Rule:
        """The same rule."""
        return self

    def mask(self, tables: MaskRules) -> None:
        """Nothing, where the moves make nothing else anyhow."""

    def explain(self, crystals: Crystals) -> Check:
        """Which crystals obey, and why the others do not."""
        return self.check(crystals)

    def to_dict(self) -> dict[str, Any]:
        """It has no arguments."""
        return {}


class WyckoffPositions(_Always):
    """The atoms can be laid on Wyckoff positions of the space group, and the crystal has no larger group."""

    def mask(self, tables: MaskRules) -> None:
        """Keep the count patterns that each group can hold."""
        tables.keep_patterns(realisable_patterns)

    def check(self, crystals: Crystals) -> Check:
        """The counts fit; crystals of no known space group are left to that rule."""
        index = (crystals.space_group - 1).clamp(0, 229)
        fits = realisable_compositions(index.cpu().numpy(), crystals.composition.cpu().numpy())

        def reason(i: int) -> str:
            row = crystals.composition[i]
            counts = "+".join(str(int(c)) for c in row[row > 0].sort(descending=True).values) or "0"
            symbol = space_groups.SYMBOL[int(index[i])]
            return f"{counts} atoms cannot be laid on Wyckoff positions of {symbol} with exactly that group"

        return Check(torch.from_numpy(fits).to(crystals.device) | ~known_group(crystals), reason)


class ConventionalCell(_Always):
    """The cell is the one of the fundamental domain of its group (`crystalgfn.crystallography.lattice`)."""

    def check(self, crystals: Crystals) -> Check:
        """The cell is reduced and has the shape of its lattice system."""
        number, lattice = crystals.space_group.clamp(1, 230), crystals.lattice.double()
        return Check(
            in_domain(number, lattice, LENGTH_TOLERANCE, ANGLE_TOLERANCE) | ~known_group(crystals),
            lambda i: (
                f"the cell {[round(float(x), 4) for x in lattice[i]]} is not the reduced conventional cell of "
                f"{space_groups.SYMBOL[int(number[i]) - 1]}"
            ),
        )
