"""Kinds of options that are lists: of names, numbers, files and symbols of elements."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crystalgfn.cli.options.kinds import Choice, Either, File, Kind, Null, Number, Text, Unfit


@dataclass(frozen=True, kw_only=True)
class Several(Kind):
    """A list: ``[a,b]``, or without brackets ``a,b`` where items hold no comma.

    Attributes:
        item: what it consists of.
        words: what to give.
        low: items, at least.
        high: items, at most.
        alone: one item alone stays what it is; otherwise it becomes a list of one.
        between: what stands between items without brackets; "": brackets are needed.
    """

    item: Kind
    words: str = "a list such as [a,b]"
    low: int = 0
    high: int | None = None
    alone: bool = False
    between: str = ","

    def read(self, text: str) -> Any:
        """Items are read each by itself."""
        if text.startswith("[") and text.endswith("]") and not (isinstance(self.item, File) and Path(text).exists()):
            items = split(text[1:-1])
        elif text.startswith("[") and not isinstance(self.item, File):
            raise Unfit(text)
        else:
            items = [text] if not self.between else re.split(f"[{self.between}]", text)
            if self.alone and len(items) == 1:
                return self.item.read(text)
        return self.check([self._nested(one.strip()) for one in items])

    def _nested(self, text: str) -> Any:
        return split(text[1:-1]) if text.startswith("[") and text.endswith("]") else self.item.read(text)

    def check(self, value: Any) -> Any:
        """A list of the right length."""
        if not isinstance(value, (list, tuple)):
            single = self.item.check(value)
            return single if self.alone else [single]
        if len(value) < self.low or (self.high is not None and len(value) > self.high):
            raise Unfit(value)
        if isinstance(self.item, File) and any(isinstance(one, list) for one in value):
            raise Unfit(value)
        # What stands in a list within a list is refused by what takes it, in its own words.
        return [one if isinstance(one, list) else self.item.check(one) for one in value]


@dataclass(frozen=True)
class Symbols(Several):
    """Symbols of elements; YAML reads that of nobelium as the boolean false, here it is a symbol again."""

    item: Kind = Text("the symbol of an element")
    words: str = "symbols of elements such as [Li,Mn,O]"
    between: str = ", -"

    def check(self, value: Any) -> Any:
        """Symbols."""
        listed = list(value) if isinstance(value, (list, tuple)) else [value]
        return super().check(["No" if one is False else one for one in listed])


@dataclass(frozen=True)
class System(Symbols):
    """A chemical system, kept as its elements between hyphens."""

    words: str = "elements such as Li-Mn-O"

    def check(self, value: Any) -> str:
        """Symbols in a list, or between hyphens."""
        return "-".join(super().check(re.split("[, -]+", value) if isinstance(value, str) else value))


def split(text: str) -> list[Any]:
    """Items between commas; commas within brackets and quotes part nothing."""
    items, depth, quote, start = [], 0, "", 0
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and not text[start:i].strip():
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        elif letter == "," and depth <= 0:
            items.append(text[start:i].strip())
            start = i + 1
    last = text[start:].strip()
    return [*items, last] if last or items else []


STRATA = Either(
    (Null(), Choice(("default",)), Several(item=Number(), low=1)), "shares such as [0.1,0.5,0.4], default or null"
)
FILES = Several(item=File(), words="a name or a path, or a list of them such as [a,b]", low=1, alone=True, between="")


def limits(item: Sequence[str] | str, number: Kind) -> Several:
    """Two numbers, the least and the largest; one alone stands for both where the argument takes it."""
    return Several(item=number, words=f"two {item} such as [2,8]", low=2, high=2, alone=True)
