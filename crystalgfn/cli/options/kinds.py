"""What an option may be: each kind reads the text that was typed, and checks a value that a file gave."""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_NULLS = ("null", "none")
_SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Unfit(ValueError):
    """A value that is not of a kind."""


class Kind:
    """One kind of value."""

    words = "a value"
    """What to give, in words."""

    def read(self, text: str) -> Any:
        """The value that a text stands for.

        Raises:
            Unfit: it stands for none.
        """
        return self.check(text)

    def check(self, value: Any) -> Any:
        """The value as it is used.

        Raises:
            Unfit: it is of another kind, or outside the limits.
        """
        return value


@dataclass(frozen=True, kw_only=True)
class Number(Kind):
    """A number within limits; ``low`` and ``high`` included, ``above`` not."""

    low: float | None = None
    above: float | None = None
    high: float | None = None
    whole: bool = False
    words: str = ""

    def __post_init__(self) -> None:
        said = "a whole number" if self.whole else "a number"
        between = self.low is not None and self.high is not None
        names = ("from", "to", "above") if between else ("of at least", "of at most", "above")
        limits = zip(names, (self.low, self.high, self.above), strict=True)
        said += "".join(f" {name} {limit:g}" for name, limit in limits if limit is not None)
        object.__setattr__(self, "words", self.words or said)

    def read(self, text: str) -> int | float:
        """Digits, or a decimal number such as 0.1 and 1e-3; not Python's 1_000, nor digits of other scripts."""
        if "_" in text or not text.isascii():
            raise Unfit(text)
        try:
            value: int | float = int(text)
        except ValueError:
            try:
                value = float(text)
            except ValueError as error:
                raise Unfit(text) from error
            if self.whole and value.is_integer() and "e" in text.lower():
                value = int(value)  # n=1e6
        return self.check(value)

    def check(self, value: Any) -> int | float:
        """A number that is finite and within the limits."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            raise Unfit(value)
        finite = abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)
        limits = ((operator.ge, self.low), (operator.le, self.high), (operator.gt, self.above))
        if not finite or not all(limit is None or fits(value, limit) for fits, limit in limits):
            raise Unfit(value)
        return value


class Switch(Kind):
    """True or false."""

    words = "true or false"

    def read(self, text: str) -> bool:
        """Also yes, no, on and off."""
        if text.lower() not in _SWITCHES:
            raise Unfit(text)
        return _SWITCHES[text.lower()]

    def check(self, value: Any) -> bool:
        """No number is a switch."""
        if not isinstance(value, bool):
            raise Unfit(value)
        return value


@dataclass(frozen=True)
class Text(Kind):
    """Any text, as it was typed: names, formulas, columns."""

    words: str = "a name"

    def read(self, text: str) -> str:
        """The text without quotes around it."""
        return self.check("" if text.lower() == "null" else unquoted(text))

    def check(self, value: Any) -> str:
        """A number of a file is its text; nothing, a list or a switch is none."""
        if (
            value in ("", None)
            or "\0" in str(value)
            or isinstance(value, bool)
            or not isinstance(value, (str, int, float))
        ):
            raise Unfit("null" if value is None else value)
        return str(value)


@dataclass(frozen=True)
class File(Text):
    """A file or folder; ``~`` is the home folder."""

    words: str = "a name or a path"

    def check(self, value: Any) -> str:
        """A path as it was typed, since what looks like a number may be one."""
        text = super().check(value)
        if text == "~" or text.startswith("~/"):
            try:
                return str(Path(text).expanduser())
            except RuntimeError as error:  # no HOME
                raise Unfit(text) from error
        return text


@dataclass(frozen=True)
class Choice(Kind):
    """One of some words."""

    choices: tuple[str, ...]
    words: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", self.words or f"one of {', '.join(self.choices)}")

    def check(self, value: Any) -> str:
        """One of them."""
        if value not in self.choices:
            raise Unfit(value)
        return value


class AnyValue(Kind):
    """Whatever YAML reads."""

    def read(self, text: str) -> Any:
        """A value in YAML's short form, such as {name: value}, [a,b], 0.5 or text."""
        from omegaconf._utils import get_yaml_loader

        spaced = re.sub(r"([{,]\s*[\w.]+):(?=\S)", r"\1: ", text) if text.startswith("{") else text
        try:
            return yaml.load(spaced, Loader=get_yaml_loader())  # noqa: S506 (a safe loader that reads 1e-3 as a number)
        except yaml.YAMLError as error:
            raise Unfit(text) from error


@dataclass(frozen=True)
class Mapping(Kind):
    """Names with values, ``{name: value}``; YAML's booleans in names are the symbols No again."""

    words: str = "{name: value}"

    def read(self, text: str) -> dict[str, Any]:
        """In YAML's short form."""
        return self.check(AnyValue().read(text))

    def check(self, value: Any) -> dict[str, Any]:
        """Names are text."""
        if not isinstance(value, dict):
            raise Unfit(value)
        return {"No" if key is False else str(key): one for key, one in value.items()}


@dataclass(frozen=True)
class Either(Kind):
    """Whatever one of several kinds takes, the first that does; ``null`` where ``null`` is one of them."""

    kinds: tuple[Kind, ...]
    words: str = ""

    def __post_init__(self) -> None:
        if not self.words:
            object.__setattr__(self, "words", " or ".join(kind.words for kind in self.kinds))

    def read(self, text: str) -> Any:
        """By the first kind that reads it."""
        return self._first("read", text)

    def check(self, value: Any) -> Any:
        """By the first kind that has it."""
        return self._first("check", value)

    def _first(self, method: str, value: Any) -> Any:
        for kind in self.kinds:
            try:
                return getattr(kind, method)(value)
            except Unfit:
                continue
        raise Unfit(value)


class Null(Kind):
    """Nothing."""

    words = "null"

    def read(self, text: str) -> None:
        """Null or none."""
        if text.lower() not in _NULLS:
            raise Unfit(text)

    def check(self, value: Any) -> None:
        """None."""
        if value is not None:
            raise Unfit(value)


AUTO = Either((Switch(), Choice(("auto",))))
"""A switch with a third place."""


def optional(kind: Kind) -> Either:
    """A kind, or null."""
    return Either((Null(), kind), f"{kind.words}, or null")


def unquoted(text: str) -> str:
    """The text without quotes around the whole of it."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def of_annotation(annotation: Any, default: Any) -> Kind:
    """The kind of an argument, from its annotation or else from its default."""
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    names = [name.strip() for name in text.split("|")]
    plain = {"bool": Switch(), "int": Number(whole=True), "float": Number(), "str": Text("text")}
    found: list[Kind] = [plain[name] for name in names if name in plain]
    if not found or len(found) + ("None" in names) < len(names):
        return plain.get(type(default).__name__, AnyValue())
    kind = found[0] if len(found) == 1 else Either(tuple(found))
    return optional(kind) if "None" in names else kind


def shown(value: Any) -> str:
    """A value as a user would type it."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(shown, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


COUNT = Number(low=1, whole=True)
FROM_ZERO = Number(low=0, whole=True)
POSITIVE = Number(above=0)
SEED = Number(low=0, high=2**63 - 1, whole=True, words="a whole number from 0 to 2^63 - 1")
JOBS = Either((COUNT, Number(high=-1, whole=True)), "a number of processes, or -1 for as many as there are cores")
