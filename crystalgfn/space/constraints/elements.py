"""Which elements a crystal has: those that may, must, must not or of which some must occur, and chemical systems."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from crystalgfn.crystallography import elements as table
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import EmptySpace, InvalidSpace
from crystalgfn.space.constraint import Check
from crystalgfn.space.constraints.parse import Rule, numbers_of, plain, sequence, symbols
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
