"""Which compositions a crystal has: formulas, formulas with letters for elements, and neutral ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import Any

import numpy as np
import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import EmptySpace, InvalidSpace
from crystalgfn.space.automata import Automaton
from crystalgfn.space.charge import MIXED_VALENCE, ChargeRule
from crystalgfn.space.constraint import Check
from crystalgfn.space.constraints.parse import Rule, sequence
from crystalgfn.space.rules import MaskRules
from crystalgfn.typing import Booleans

Units = tuple[tuple[int, int], ...]
"""(atomic number, atoms) of a reduced formula, by atomic number."""
LARGEST_STATE = 8


def _of_each(crystals: Crystals, obeys: Callable[[np.ndarray], bool]) -> Booleans:
    """A rule on the atoms of each element [118], asked once for each different composition, bool [B]."""
    unique, inverse = np.unique(crystals.composition.cpu().numpy(), axis=0, return_inverse=True)
    found = np.array([obeys(row) for row in unique], dtype=bool)
    return torch.from_numpy(found[inverse.reshape(-1)]).to(crystals.device)


def _units_of(name: str, text: Any) -> Units:
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


class Formulas(Rule):
    """The composition is one of these, up to the number of formula units."""

    name = "formulas"

    @classmethod
    def read(cls, value: Any) -> Any:
        """Formulas, each once."""
        texts = sequence("formulas", value)
        seen = {_units_of("formulas", text): text for text in reversed(texts)}
        if not seen:
            raise EmptySpace("formulas=[] leaves no composition; give formulas such as NaCl, or leave it out")
        return tuple(dict.fromkeys(seen[_units_of("formulas", text)] for text in texts))

    @property
    def texts(self) -> tuple[str, ...]:
        """The formulas as they were given."""
        return self.value

    def both(self, new: Any) -> Any:
        """The formulas of both."""
        mine = [_units_of(self.name, text) for text in self.texts]
        other = type(self)(new)
        kept = tuple(text for text in other.texts if _units_of(self.name, text) in mine)
        if not kept:
            raise EmptySpace(f"{other} differs from the space's own {self}")
        return kept

    def limit(self, tables: MaskRules) -> None:
        """Their elements, their counts, and an automaton that remembers what is missing of which formula."""
        units = tuple(_units_of(self.name, text) for text in self.texts)
        sets = [{z for z, _ in one} for one in units]
        tables.only_elements(set().union(*sets), str(self))
        tables.require_elements(set.intersection(*sets), str(self))
        tables.only_patterns(lambda n_atoms: _multiples({tuple(n for _, n in one) for one in units}, n_atoms))
        tables.read(_one_formula(units))

    def check(self, crystals: Crystals) -> Check:
        """The composition is a multiple of one of them."""
        counts = crystals.composition
        ok = torch.zeros(len(counts), dtype=torch.bool, device=counts.device)
        for one in (_units_of(self.name, text) for text in self.texts):
            unit = torch.zeros(118, dtype=torch.int64, device=counts.device)
            for z, n in one:
                unit[z - 1] = n
            multiple = counts[:, one[0][0] - 1] // one[0][1]
            ok |= (counts == multiple[:, None] * unit).all(1) & (multiple > 0)
        names = ", ".join(self.texts)
        words = names if len(self.texts) == 1 else f"one of {names}"
        return Check(ok, lambda i: f"{crystals[i].formulas()[0]} is not {words}")


class Formula(Formulas):
    """The composition is this one, up to the number of formula units."""

    name = "formula"

    @classmethod
    def read(cls, value: Any) -> str:
        """One formula."""
        _units_of("formula", value)
        return value

    @property
    def texts(self) -> tuple[str, ...]:
        """The formula as it was given."""
        return (self.value,)

    def both(self, new: str) -> str:
        """The formula as the space has it; two different ones have nothing in common."""
        super().both(new)
        return self.value


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


class AnonymousFormulas(Rule):
    """The composition has one of these forms, with letters for elements, up to the number of units."""

    name = "anonymous_formulas"

    @classmethod
    def read(cls, value: Any) -> tuple[str, ...]:
        """Formulas such as ABX3."""
        texts = sequence("anonymous_formulas", value)
        if not texts:
            raise EmptySpace("anonymous_formulas=[] leaves no composition; give forms such as ABX3, or leave it out")
        seen: dict[tuple[int, ...], str] = {}
        for text in texts:
            seen.setdefault(cls.key(text), text)
        return tuple(seen.values())

    @staticmethod
    def key(one: Any) -> tuple[int, ...]:
        """The falling reduced counts of a form."""
        if not isinstance(one, str) or not re.fullmatch(r"([A-Z]\d*)+", one):
            raise InvalidSpace(f"anonymous_formulas: {one!r} is no form; write letters for elements, such as ABX3")
        counts: dict[str, int] = {}
        for letter, number in re.findall(r"([A-Z])(\d*)", one):
            counts[letter] = counts.get(letter, 0) + int(number or 1)
        if 0 in counts.values():
            raise InvalidSpace(f"anonymous_formulas: {one!r} has a letter without atoms")
        return _reduced(list(counts.values()))

    def limit(self, tables: MaskRules) -> None:
        """Only their count patterns may be."""
        forms = [self.key(text) for text in self.value]
        tables.only_patterns(lambda n_atoms: _multiples(forms, n_atoms))

    def check(self, crystals: Crystals) -> Check:
        """The reduced counts are those of one of them."""
        forms, names = {self.key(text) for text in self.value}, " or ".join(self.value)
        ok = _of_each(crystals, lambda row: _reduced(row[row > 0].tolist()) in forms)
        return Check(ok, lambda i: f"{crystals[i].formulas()[0]} has not the form {names}")


def _reduced(counts: list[int]) -> tuple[int, ...]:
    divisor = gcd(*counts) or 1
    return tuple(sorted((n // divisor for n in counts), reverse=True))


@dataclass(frozen=True)
class Neutral:
    """Oxidation states of the atoms add up to zero (`crystalgfn.space.charge`).

    Attributes:
        oxidation_states: name of a table, a table ((symbol, (states)), ...), or None for no rule.
        mixed_valence: False, "known", "adjacent" or True.
        alloys: compositions of metals only count as neutral.
    """

    oxidation_states: Any
    mixed_valence: bool | str
    alloys: bool

    @classmethod
    def parse(cls, oxidation_states: Any, mixed_valence: Any, alloys: Any) -> Neutral:
        """The three arguments of a space.

        Raises:
            InvalidSpace: names the one that means nothing.
        """
        if not (isinstance(mixed_valence, (bool, str)) and mixed_valence in MIXED_VALENCE):
            raise InvalidSpace(f"mixed_valence={mixed_valence!r}: choose False, 'known', 'adjacent' or True")
        if not isinstance(alloys, bool):
            raise InvalidSpace(f"alloys={alloys!r}: choose true or false")
        return cls(_states(oxidation_states), mixed_valence, alloys)

    def intersect(self, other: Neutral) -> Neutral:
        """The narrower rule; tables cannot be intersected, so the other must have the same or none.

        Raises:
            InvalidSpace: another table.
        """
        if self.oxidation_states not in (None, other.oxidation_states):
            raise InvalidSpace(
                f"oxidation_states={plain_states(other.oxidation_states)!r} cannot narrow a space made with "
                f"{plain_states(self.oxidation_states)!r}: a different charge table is another space; train or make an "
                "untrained sampler for it"
            )
        narrower = min(self.mixed_valence, other.mixed_valence, key=MIXED_VALENCE.index)
        return Neutral(other.oxidation_states, narrower, self.alloys and other.alloys)

    @cached_property
    def rule(self) -> ChargeRule:
        """The rule, for single compositions and for the tables."""
        states = self.oxidation_states
        if isinstance(states, str):
            states = elements.OXIDATION_STATES[states]
        elif states is not None:
            table = dict(states)
            states = tuple(table.get(symbol, ()) for symbol in elements.SYMBOLS)
        return ChargeRule(states, self.mixed_valence, self.alloys)

    def mask(self, tables: MaskRules) -> None:
        """The charges that are left to balance are part of every partial composition."""
        tables.charge, tables.charge_name = self.rule, repr(plain_states(self.oxidation_states))

    def explain(self, crystals: Crystals) -> Check:
        """Some assignment of states is neutral."""
        name = self.oxidation_states if isinstance(self.oxidation_states, str) else "the given"
        neutral = _of_each(
            crystals, lambda row: self.rule.neutral({int(z) + 1: int(row[z]) for z in np.flatnonzero(row)})
        )
        return Check(
            neutral,
            lambda i: (
                f"{crystals[i].formulas()[0]} is not neutral by {name} oxidation states, "
                f"mixed_valence={self.mixed_valence}"
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """The three arguments."""
        return {
            "oxidation_states": plain_states(self.oxidation_states),
            "mixed_valence": self.mixed_valence,
            "alloys": self.alloys,
        }


def plain_states(value: Any) -> Any:
    """A table as a dictionary of lists."""
    return {symbol: list(states) for symbol, states in value} if isinstance(value, tuple) else value


def _states(value: Any) -> Any:
    """The name of a table, or a table as sorted pairs (symbol, states)."""
    if value is None:
        return None
    if isinstance(value, str):
        if value not in elements.OXIDATION_STATES:
            raise InvalidSpace(
                f"oxidation_states={value!r}: choose one of {', '.join(elements.OXIDATION_STATES)}, "
                'a table such as {"Fe": [2, 3]}, or null'
            )
        return value
    try:
        pairs = value.items() if isinstance(value, Mapping) else value
        table = {} if any(isinstance(one, str) for one in pairs) else dict(pairs)
    except (TypeError, ValueError):
        table = {}
    if not table:
        raise InvalidSpace(f'oxidation_states={value!r}: give a name, a table such as {{"Fe": [2, 3]}}, or null')
    return tuple(sorted((symbol, _states_of(symbol, states)) for symbol, states in table.items()))


def _states_of(symbol: Any, states: Any) -> tuple[int, ...]:
    """The states of one element of a user's table, in increasing order."""
    if symbol not in elements.NUMBER:
        raise InvalidSpace(f"oxidation_states: {symbol!r} is not an element")
    states = sequence(f"oxidation_states of {symbol}", states)
    whole = all(isinstance(s, (int, np.integer)) and not isinstance(s, bool) for s in states)
    if not states or not whole or any(s == 0 or abs(s) > LARGEST_STATE for s in states):
        raise InvalidSpace(f"oxidation_states of {symbol}: {list(states)} must be whole numbers from -8 to 8, not 0")
    return tuple(sorted({int(s) for s in states}))
