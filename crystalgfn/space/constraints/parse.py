"""What the constraints of one argument have in common, and what users write for them, read and checked."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import EmptySpace, InvalidSpace
from crystalgfn.space.constraint import Check
from crystalgfn.space.rules import MaskRules

LARGEST = 1e6
"""Limits above it are senseless: no length in Å, volume in Å3 or density in g/cm3 of a crystal comes near."""


@dataclass(frozen=True)
class Rule:
    """A constraint of one argument of a space.

    Attributes:
        value: what is wanted, hashable; None: no rule.
    """

    value: Any = None
    name: ClassVar[str]
    """The argument."""
    optional: ClassVar[bool] = True
    """Whether it may be None."""

    @classmethod
    def parse(cls, value: Any) -> Self:
        """The constraint that a user has written.

        Raises:
            InvalidSpace: it means nothing.
            EmptySpace: it leaves nothing.
        """
        return cls(None if value is None and cls.optional else cls.read(value))

    @classmethod
    def read(cls, value: Any) -> Any:
        """The `value` of what a user has written; see `parse`."""
        raise NotImplementedError

    def intersect(self, other: Self) -> Self:
        """What obeys both."""
        if self.value is None or other.value is None:
            return self if other.value is None else other
        return type(self)(self.both(other.value))

    def both(self, new: Any) -> Any:
        """The value of what obeys both, where neither is None: what is in both, in the order of the other.

        Raises:
            EmptySpace: nothing does.
        """
        mine = {self.key(one) for one in self.value}
        kept = tuple(one for one in new if self.key(one) in mine)
        if not kept:
            raise EmptySpace(f"{self.name}={list(new)} leaves nothing of the space's own {self.name}")
        return kept

    @staticmethod
    def key(one: Any) -> Hashable:
        """What makes two members of values the same."""
        return one

    def mask(self, tables: MaskRules) -> None:
        """Put the rule, if there is one, into the masks of the moves."""
        if self.value:
            self.limit(tables)

    def limit(self, tables: MaskRules) -> None:
        """Put the rule into the masks of the moves."""
        raise NotImplementedError

    def explain(self, crystals: Crystals) -> Check:
        """Which crystals obey: all where there is no rule."""
        if not self.value:
            return Check(torch.ones(len(crystals), dtype=torch.bool, device=crystals.device), str)
        return self.check(crystals)

    def check(self, crystals: Crystals) -> Check:
        """Which crystals obey the rule, and why the others do not."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """The argument as plain data."""
        return {self.name: plain(self.value)}

    def __str__(self) -> str:
        return f"{self.name}={plain(self.value)!r}"


def plain(value: Any) -> Any:
    """Tuples as lists, for messages, JSON and YAML."""
    return [plain(one) for one in value] if isinstance(value, tuple) else value


def sequence(name: str, value: Any) -> list:
    """A list of what may be given as one item too.

    Raises:
        InvalidSpace: neither.
    """
    if isinstance(value, (str, int, np.integer)) and not isinstance(value, bool):
        return [value]
    if isinstance(value, (bool, dict)) or not isinstance(value, Iterable):
        raise InvalidSpace(f"{name}={value!r}: give a list")
    return list(value)


def symbols(name: str, value: Any) -> tuple[str, ...]:
    """Element symbols, each once.

    Raises:
        InvalidSpace: something that is no symbol.
    """
    found = sequence(name, value)
    for symbol in found:
        if not isinstance(symbol, str) or symbol not in elements.NUMBER:
            raise InvalidSpace(f"{name}: {symbol!r} is not an element; give symbols such as Li, Fe, O")
    return tuple(dict.fromkeys(found))


def numbers_of(names: Iterable[str]) -> list[int]:
    """Atomic numbers of symbols."""
    return [elements.NUMBER[symbol] for symbol in names]


def whole_range(name: str, value: Any, lowest: int) -> tuple[int, int]:
    """Lowest and highest whole number, both included; one number stands for both.

    Raises:
        InvalidSpace: something else.
    """
    pair = sequence(name, value)
    pair = pair * 2 if len(pair) == 1 else pair
    if len(pair) != 2 or any(isinstance(x, bool) or not isinstance(x, (int, np.integer)) for x in pair):
        raise InvalidSpace(f"{name}={value!r}: give two whole numbers, lowest and highest")
    low, high = int(pair[0]), int(pair[1])
    if low > high:
        raise InvalidSpace(f"{name}=[{low}, {high}]: the first limit must not be above the second (below the second)")
    if low < lowest:
        raise InvalidSpace(f"{name}=[{low}, {high}]: limits start at {lowest}")
    return low, high


def real_range(name: str, value: Any, *, above_zero: bool = False, highest: float = LARGEST) -> tuple[float, float]:
    """Lowest and highest number, both included.

    Raises:
        InvalidSpace: something else.
    """
    pair = sequence(name, value)
    if len(pair) != 2 or not all(map(_is_finite, pair)):
        raise InvalidSpace(f"{name}={value!r}: give two numbers, lowest and highest")
    low, high = float(pair[0]), float(pair[1])
    if low > high:
        raise InvalidSpace(f"{name}=[{low}, {high}]: the first limit must be below the second")
    if low < 0 or high <= 0 or (above_zero and low <= 0):
        raise InvalidSpace(f"{name}=[{low}, {high}]: limits must be {'above 0' if above_zero else '0 or more'}")
    if high > highest:
        raise InvalidSpace(f"{name}=[{low}, {high}]: limits end at {highest:g}")
    return low, high


def _is_finite(x: Any) -> bool:
    real = isinstance(x, (int, float, np.integer, np.floating)) and not isinstance(x, bool)
    return real and bool(np.isfinite(x))


def meet(name: str, mine: tuple, new: tuple, *, whole: bool) -> tuple:
    """The intersection of two ranges.

    Raises:
        EmptySpace: nothing is in both, or of real ranges a single value where neither asks for one.
    """
    low, high = max(mine[0], new[0]), min(mine[1], new[1])
    touching = low == high and not whole and mine[0] < mine[1] and new[0] < new[1]
    if low > high or touching:
        raise EmptySpace(f"{name}={list(new)} does not meet the space's own {name}={list(mine)}")
    return low, high
