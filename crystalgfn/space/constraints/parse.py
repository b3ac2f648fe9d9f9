"""What users write for constraints, read and checked: symbols, names, ranges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.errors import EmptySpace, InvalidSpace

LARGEST = 1e6
"""Limits above it are senseless: no length in Å, volume in Å3 or density in g/cm3 of a crystal comes near."""


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

    Args:
        name: of the constraint.
        value: as given.
        above_zero: the lowest must be above 0, else at least 0.
        highest: the largest that makes sense.

    Raises:
        InvalidSpace: something else.
    """
    pair = sequence(name, value)
    real = (int, float, np.integer, np.floating)
    if len(pair) != 2 or any(isinstance(x, bool) or not isinstance(x, real) or not np.isfinite(x) for x in pair):
        raise InvalidSpace(f"{name}={value!r}: give two numbers, lowest and highest")
    low, high = float(pair[0]), float(pair[1])
    if low > high:
        raise InvalidSpace(f"{name}=[{low}, {high}]: the first limit must be below the second")
    if low < 0 or high <= 0 or (above_zero and low <= 0):
        raise InvalidSpace(f"{name}=[{low}, {high}]: limits must be {'above 0' if above_zero else '0 or more'}")
    if high > highest:
        raise InvalidSpace(f"{name}=[{low}, {high}]: limits end at {highest:g}")
    return low, high


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
