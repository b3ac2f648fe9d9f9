"""Which compositions a crystal has: formulas, and formulas with letters for elements."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import EmptySpace, InvalidSpace
from crystalgfn.space.automata import Automaton
from crystalgfn.space.constraint import Check
from crystalgfn.space.constraints.parse import plain, sequence
from crystalgfn.space.rules import MaskRules

Units = tuple[tuple[int, int], ...]
"""(atomic number, atoms) of a reduced formula, by atomic number."""


def units_of(name: str, text: Any) -> Units:
    """The reduced formula that a text stands for.

    Raises:
        InvalidSpace: no formula.
    """
    try:
        counts = elements.parse_formula(text)
    except ValueError as error:
        raise InvalidSpace(f"{name}={text!r}: {error}") from None
    divisor = gcd(*counts.values())
    return tuple((z, counts[z] // divisor) for z in sorted(counts))


@dataclass(frozen=True)
class Formulas:
    """The composition is one of these, up to the number of formula units; None: no rule.

    Attributes:
        name: "formula" for a single one, or "formulas".
        texts: as they were given.
    """

    name: str
    texts: tuple[str, ...] | None

    @classmethod
    def parse_one(cls, value: Any) -> Formulas:
        """One formula, or None."""
        if value is not None:
            units_of("formula", value)
        return cls("formula", None if value is None else (value,))

    @classmethod
    def parse(cls, value: Any) -> Formulas:
        """Formulas, or None."""
        if value is None:
            return cls("formulas", None)
        texts = sequence("formulas", value)
        seen = {units_of("formulas", text): text for text in reversed(texts)}
        if not seen:
            raise EmptySpace("formulas=[] leaves no composition; give formulas such as NaCl, or leave it out")
        return cls("formulas", tuple(dict.fromkeys(seen[units_of("formulas", text)] for text in texts)))

    @property
    def units(self) -> tuple[Units, ...]:
        """The reduced formulas."""
        return tuple(units_of(self.name, text) for text in self.texts or ())

    def intersect(self, other: Formulas) -> Formulas:
        """The formulas of both."""
        if self.texts is None or other.texts is None:
            return self if other.texts is None else other
        kept = tuple(text for text, units in zip(other.texts, other.units, strict=True) if units in self.units)
        if not kept:
            raise EmptySpace(f"{other} differs from the space's own {self}")
        return Formulas(self.name, self.texts if self.name == "formula" else kept)

    def mask(self, tables: MaskRules) -> None:
        """Their elements, their counts, and an automaton that remembers what is missing of which formula."""
        if self.texts is None:
            return
        units = self.units
        sets = [{z for z, _ in one} for one in units]
        tables.only_elements(set().union(*sets), str(self))
        tables.require_elements(set.intersection(*sets), str(self))
        tables.only_patterns(lambda n_atoms: _multiples({tuple(n for _, n in one) for one in units}, n_atoms))
        tables.read(_one_formula(units))

    def explain(self, crystals: Crystals) -> Check:
        """The composition is a multiple of one of them."""
        if self.texts is None:
            return Check(torch.ones(len(crystals), dtype=torch.bool, device=crystals.device), str)
        counts = crystals.composition
        ok = torch.zeros(len(counts), dtype=torch.bool, device=counts.device)
        for one in self.units:
            unit = torch.zeros(118, dtype=torch.int64, device=counts.device)
            for z, n in one:
                unit[z - 1] = n
            multiple = counts[:, one[0][0] - 1] // one[0][1]
            ok |= (counts == multiple[:, None] * unit).all(1) & (multiple > 0)
        names = ", ".join(self.texts)
        wanted = names if len(self.texts) == 1 else f"one of {names}"
        return Check(ok, lambda i: f"{crystals[i].formulas()[0]} is not {wanted}")

    def to_dict(self) -> dict[str, Any]:
        """The text or texts."""
        if self.name == "formula":
            return {"formula": None if self.texts is None else self.texts[0]}
        return {"formulas": plain(self.texts)}

    def __str__(self) -> str:
        return f"{self.name}={plain(self.texts) if self.name == 'formulas' else (self.texts or (None,))[0]!r}"


def _multiples(patterns: Iterable[tuple[int, ...]], n_atoms: int) -> set[tuple[int, ...]]:
    """Falling counts of 1, 2, ... units with at most ``n_atoms`` atoms."""
    return {
        tuple(sorted((units * n for n in one), reverse=True))
        for one in patterns
        for units in range(1, n_atoms // sum(one) + 1)
    }


def _one_formula(formulas: tuple[Units, ...]) -> Automaton:
    """Reads multiples of one of the formulas; a state is the set of what may be missing yet, None at the start."""

    def step(missing: frozenset[Units] | None, z: int, atoms: int) -> frozenset[Units] | None:
        if missing is None:  # the first element says how many units there are
            missing = frozenset(
                tuple((y, m * atoms // n) for y, m in one)
                for one in formulas
                for x, n in one
                if x == z and atoms % n == 0
            )
        rest = frozenset(tuple(pair for pair in one if pair != (z, atoms)) for one in missing if (z, atoms) in one)
        return rest or None

    return Automaton(None, step, lambda missing: missing is not None and () in missing)


@dataclass(frozen=True)
class AnonymousFormulas:
    """The composition has one of these forms, with letters for elements, up to the number of units; None: no rule."""

    anonymous_formulas: tuple[str, ...] | None

    @classmethod
    def parse(cls, value: Any) -> AnonymousFormulas:
        """Formulas such as ABX3, or None."""
        if value is None:
            return cls(None)
        texts = sequence("anonymous_formulas", value)
        if not texts:
            raise EmptySpace("anonymous_formulas=[] leaves no composition; give forms such as ABX3, or leave it out")
        seen: dict[tuple[int, ...], str] = {}
        for text in texts:
            seen.setdefault(_form(text), text)
        return cls(tuple(seen.values()))

    @property
    def forms(self) -> tuple[tuple[int, ...], ...]:
        """The falling reduced counts of each."""
        return tuple(_form(text) for text in self.anonymous_formulas or ())

    def intersect(self, other: AnonymousFormulas) -> AnonymousFormulas:
        """The forms of both."""
        if self.anonymous_formulas is None or other.anonymous_formulas is None:
            return self if other.anonymous_formulas is None else other
        kept = tuple(t for t in other.anonymous_formulas if _form(t) in self.forms)
        if not kept:
            raise EmptySpace(f"anonymous_formulas={list(other.anonymous_formulas)} leaves nothing of the space's own")
        return AnonymousFormulas(kept)

    def mask(self, tables: MaskRules) -> None:
        """Only their count patterns may be."""
        if self.anonymous_formulas is not None:
            forms = self.forms
            tables.only_patterns(lambda n_atoms: _multiples(forms, n_atoms))

    def explain(self, crystals: Crystals) -> Check:
        """The reduced counts are those of one of them."""
        if self.anonymous_formulas is None:
            return Check(torch.ones(len(crystals), dtype=torch.bool, device=crystals.device), str)
        forms, names = set(self.forms), " or ".join(self.anonymous_formulas)
        unique, inverse = np.unique(crystals.composition.cpu().numpy(), axis=0, return_inverse=True)
        ok = np.array([_reduced(row[row > 0].tolist()) in forms for row in unique], dtype=bool)
        return Check(
            torch.from_numpy(ok[inverse.reshape(-1)]).to(crystals.device),
            lambda i: f"{crystals[i].formulas()[0]} has not the form {names}",
        )

    def to_dict(self) -> dict[str, Any]:
        """The texts."""
        return {"anonymous_formulas": plain(self.anonymous_formulas)}


def _form(text: Any) -> tuple[int, ...]:
    if not isinstance(text, str) or not re.fullmatch(r"([A-Z]\d*)+", text):
        raise InvalidSpace(f"anonymous_formulas: {text!r} is no form; write letters for elements, such as ABX3")
    counts: dict[str, int] = {}
    for letter, number in re.findall(r"([A-Z])(\d*)", text):
        counts[letter] = counts.get(letter, 0) + int(number or 1)
    if 0 in counts.values():
        raise InvalidSpace(f"anonymous_formulas: {text!r} has a letter without atoms")
    return _reduced(list(counts.values()))


def _reduced(counts: list[int]) -> tuple[int, ...]:
    divisor = gcd(*counts) or 1
    return tuple(sorted((n // divisor for n in counts), reverse=True))
