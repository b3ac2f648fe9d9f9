"""Charge neutrality by a table of oxidation states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import InvalidSpace
from crystalgfn.space.charge import MIXED_VALENCE, ChargeRule
from crystalgfn.space.constraint import Check
from crystalgfn.space.constraints.parse import sequence
from crystalgfn.space.rules import MaskRules

LARGEST_STATE = 8


@dataclass(frozen=True)
class Neutral:
    """Oxidation states of the atoms add up to zero (`crystalgfn.space.charge`).

    Attributes:
        oxidation_states: name of a table, a table ((symbol, (states)), ...), or None for no rule.
        mixed_valence: False, "adjacent" or True.
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
        if not any(mixed_valence is known or mixed_valence == known == "adjacent" for known in MIXED_VALENCE):
            raise InvalidSpace(f"mixed_valence={mixed_valence!r}: choose False, 'adjacent' or True")
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
        unique, inverse = np.unique(crystals.composition.cpu().numpy(), axis=0, return_inverse=True)
        neutral = np.array(
            [self.rule.neutral({int(z) + 1: int(row[z]) for z in np.flatnonzero(row)}) for row in unique], dtype=bool
        )
        return Check(
            torch.from_numpy(neutral[inverse.reshape(-1)]).to(crystals.device),
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
    if value is None:
        return None
    if isinstance(value, str):
        if value not in elements.OXIDATION_STATES:
            raise InvalidSpace(
                f"oxidation_states={value!r}: choose one of {', '.join(elements.OXIDATION_STATES)}, "
                'a table such as {"Fe": [2, 3]}, or null'
            )
        return value
    pairs = value.items() if isinstance(value, Mapping) else value
    try:
        table = dict(pairs)
    except (TypeError, ValueError):
        table = {}
    if not table:
        raise InvalidSpace(f'oxidation_states={value!r}: give a name, a table such as {{"Fe": [2, 3]}}, or null')
    for symbol, states in table.items():
        if symbol not in elements.NUMBER:
            raise InvalidSpace(f"oxidation_states: {symbol!r} is not an element")
        states = table[symbol] = sequence(f"oxidation_states of {symbol}", states)
        if not states or any(
            isinstance(s, bool) or not isinstance(s, (int, np.integer)) or s == 0 or abs(s) > LARGEST_STATE
            for s in states
        ):
            raise InvalidSpace(
                f"oxidation_states of {symbol}: {list(states)} must be whole numbers from -8 to 8, not 0"
            )
    return tuple(sorted((symbol, tuple(sorted({int(s) for s in states}))) for symbol, states in table.items()))
