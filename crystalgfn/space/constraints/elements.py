"""Which elements a crystal has: those that may, must, must not or of which some must occur, and chemical systems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from crystalgfn.crystallography import elements as table
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import EmptySpace, InvalidSpace
from crystalgfn.space.constraint import Check
from crystalgfn.space.constraints.parse import numbers_of, plain, sequence, symbols
from crystalgfn.space.rules import MaskRules

LARGEST_Z = 83  # beyond bismuth everything is radioactive
RADIOACTIVE = (43, 61)


def _columns(names: tuple[str, ...]) -> list[int]:
    return [z - 1 for z in numbers_of(names)]


@dataclass(frozen=True)
class Elements:
    """Only these elements may occur; None: Z <= 83 with a state in the space's table, no noble gases, Tc, Pm."""

    elements: tuple[str, ...] | None

    @classmethod
    def parse(cls, value: Any) -> Elements:
        """Symbols, or None."""
        if value is None:
            return cls(None)
        if not (found := symbols("elements", value)):
            raise EmptySpace("elements=[] leaves no element; give symbols, or null for the default elements")
        return cls(found)

    def intersect(self, other: Elements) -> Elements:
        """The elements of both, in the order of the other."""
        if self.elements is None or other.elements is None:
            return self if other.elements is None else other
        kept = tuple(x for x in other.elements if x in self.elements)
        if not kept:
            raise EmptySpace(f"elements={list(other.elements)} leaves nothing of the space's own elements")
        return Elements(kept)

    def mask(self, tables: MaskRules) -> None:
        """Offer the elements; the default ones only where no constraint names any."""
        if self.elements is not None:
            tables.only_elements(numbers_of(self.elements), f"elements={list(self.elements)}")
            return
        states = tables.charge.states
        tables.default_elements = [
            z
            for z in range(1, LARGEST_Z + 1)
            if (states is None or states[z - 1]) and not table.NOBLE_GAS[z - 1] and z not in RADIOACTIVE
        ]

    def explain(self, crystals: Crystals) -> Check:
        """No other element occurs; what the default elements leave out is left to `Foreign`."""
        if self.elements is None:
            return Check(torch.ones(len(crystals), dtype=torch.bool, device=crystals.device), str)
        return foreign(crystals, numbers_of(self.elements))

    def to_dict(self) -> dict[str, Any]:
        """The symbols."""
        return {"elements": plain(self.elements)}


def foreign(crystals: Crystals, zs: list[int] | tuple[int, ...]) -> Check:
    """No element but those with atomic numbers ``zs`` occurs."""
    allowed = torch.zeros(118, dtype=torch.bool, device=crystals.device)
    allowed[[z - 1 for z in zs]] = True
    other = (crystals.composition > 0) & ~allowed
    return Check(~other.any(1), lambda i: f"element {table.SYMBOLS[int(other[i].nonzero()[0])]} is not in the space")


@dataclass(frozen=True)
class RequiredElements:
    """Every crystal has these elements."""

    required_elements: tuple[str, ...]

    @classmethod
    def parse(cls, value: Any) -> RequiredElements:
        """Symbols, or None."""
        return cls(() if value is None else symbols("required_elements", value))

    def intersect(self, other: RequiredElements) -> RequiredElements:
        """All of both."""
        return RequiredElements(tuple(dict.fromkeys([*self.required_elements, *other.required_elements])))

    def mask(self, tables: MaskRules) -> None:
        """No composition ends without them."""
        if self.required_elements:
            zs = numbers_of(self.required_elements)
            tables.require_elements(zs, f"required_elements={list(self.required_elements)}")

    def explain(self, crystals: Crystals) -> Check:
        """All of them occur."""
        columns = sorted(_columns(self.required_elements))
        missing = crystals.composition[:, columns] == 0
        return Check(
            ~missing.any(1),
            lambda i: f"required element {table.SYMBOLS[columns[int(missing[i].nonzero()[0])]]} is missing",
        )

    def to_dict(self) -> dict[str, Any]:
        """The symbols."""
        return {"required_elements": plain(self.required_elements)}


@dataclass(frozen=True)
class ExcludedElements:
    """No crystal has these elements."""

    excluded_elements: tuple[str, ...]

    @classmethod
    def parse(cls, value: Any) -> ExcludedElements:
        """Symbols, or None."""
        return cls(() if value is None else symbols("excluded_elements", value))

    def intersect(self, other: ExcludedElements) -> ExcludedElements:
        """All of both."""
        return ExcludedElements(tuple(dict.fromkeys([*self.excluded_elements, *other.excluded_elements])))

    def mask(self, tables: MaskRules) -> None:
        """They are no elements of the space."""
        tables.no_elements(numbers_of(self.excluded_elements), f"excluded_elements={list(self.excluded_elements)}")

    def explain(self, crystals: Crystals) -> Check:
        """None of them occurs."""
        return foreign(crystals, [z for z in range(1, 119) if table.SYMBOLS[z - 1] not in self.excluded_elements])

    def to_dict(self) -> dict[str, Any]:
        """The symbols."""
        return {"excluded_elements": plain(self.excluded_elements)}


@dataclass(frozen=True)
class AnyOf:
    """Every crystal has at least one element of each of these sets."""

    any_of: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, value: Any) -> AnyOf:
        """Symbols, or several lists of them, or None."""
        if value is None:
            return cls(())
        items = sequence("any_of", value)
        nested = [one for one in items if not isinstance(one, str)]
        sets = [tuple(sorted(symbols("any_of", one))) for one in (items if nested else [items] if items else [])]
        if any(not one for one in sets):
            raise InvalidSpace("any_of has an empty list; give symbols such as [F, Cl], or leave it out")
        return cls(tuple(dict.fromkeys(sets)))

    def intersect(self, other: AnyOf) -> AnyOf:
        """One of each set of both."""
        return AnyOf(tuple(dict.fromkeys([*self.any_of, *other.any_of])))

    def mask(self, tables: MaskRules) -> None:
        """Remember whether one of each set has come."""
        for names in self.any_of:
            tables.require_any(numbers_of(names), f"any_of={list(names)}")

    def explain(self, crystals: Crystals) -> Check:
        """One of each set occurs."""
        if not self.any_of:
            return Check(torch.ones(len(crystals), dtype=torch.bool, device=crystals.device), str)
        present = crystals.composition > 0
        has = torch.stack([present[:, _columns(names)].any(1) for names in self.any_of], 1)
        return Check(has.all(1), lambda i: f"none of {', '.join(self.any_of[int((~has[i]).nonzero()[0])])} occurs")

    def to_dict(self) -> dict[str, Any]:
        """The symbols of one set, or the sets."""
        return {"any_of": plain(self.any_of[0] if len(self.any_of) == 1 else self.any_of)}


@dataclass(frozen=True)
class ChemicalSystem:
    """Every crystal has exactly these elements; None: no rule."""

    chemsys: tuple[str, ...] | None

    @classmethod
    def parse(cls, value: Any) -> ChemicalSystem:
        """Text such as Li-Mn-O, symbols, or None."""
        if value is None:
            return cls(None)
        names = value.split("-") if isinstance(value, str) else value
        if not (found := tuple(sorted(symbols("chemsys", names)))):
            raise InvalidSpace("chemsys has no element; give symbols such as Li-Mn-O")
        return cls(found)

    def intersect(self, other: ChemicalSystem) -> ChemicalSystem:
        """The one system; two different ones have nothing in common."""
        if self.chemsys is None or other.chemsys is None:
            return self if other.chemsys is None else other
        if self != other:
            raise EmptySpace(f"{other} differs from the space's own {self}")
        return self

    def mask(self, tables: MaskRules) -> None:
        """These elements, all of them."""
        if self.chemsys is not None:
            tables.only_elements(numbers_of(self.chemsys), str(self))
            tables.require_elements(numbers_of(self.chemsys), str(self))

    def explain(self, crystals: Crystals) -> Check:
        """All of them occur, and no other."""
        if self.chemsys is None:
            return Check(torch.ones(len(crystals), dtype=torch.bool, device=crystals.device), str)
        wanted = torch.zeros(118, dtype=torch.bool, device=crystals.device)
        wanted[_columns(self.chemsys)] = True
        return Check(
            ((crystals.composition > 0) == wanted).all(1),
            lambda i: (
                f"{'-'.join(sorted(crystals.counts(i)))} is not the chemical system {'-'.join(self.chemsys or ())}"
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Text such as Li-Mn-O."""
        return {"chemsys": None if self.chemsys is None else "-".join(self.chemsys)}

    def __str__(self) -> str:
        return f"chemsys={'-'.join(self.chemsys or ())}"
