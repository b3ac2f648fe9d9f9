"""Dataclasses as dictionaries of JSON's own values and back, in the form that monty and pymatgen read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from importlib.metadata import version
from typing import Any, Self

from monty.json import MSONable

from crystalgfn.errors import DataError


class Plain(MSONable):
    """A dataclass with ``as_dict`` and ``from_dict``: `monty.serialization.dumpfn` writes it, ``loadfn`` reads it.

    Numbers come back exactly. Only classes of this package are made, whatever a file names.
    """

    def as_dict(self) -> dict[str, Any]:
        """The attributes, and by ``@module`` and ``@class`` what they are of."""
        own = {one.name: _encoded(getattr(self, one.name)) for one in fields(self)}  # type: ignore[arg-type]
        return {**self.kind(), **own}

    @classmethod
    def kind(cls) -> dict[str, str]:
        """What a reader needs to find the class."""
        return {"@module": cls.__module__, "@class": cls.__name__, "@version": version("crystalgfn")}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The object of `as_dict`.

        Raises:
            DataError: it is not of this class.
        """
        kinds = {one.name: str(one.type) for one in fields(cls)}  # type: ignore[arg-type]
        try:
            values = {name: _typed(decoded(content[name]), kind) for name, kind in kinds.items() if name in content}
            return cls(**values)
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"this is no {cls.__name__} ({error}); give what as_dict made") from error


def decoded(value: Any) -> Any:
    """A value of JSON with the objects of this package that it describes.

    Raises:
        DataError: another class.
    """
    if isinstance(value, list):
        return [decoded(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    if "@class" not in value:
        return {key: decoded(one) for key, one in value.items()}
    module, name = str(value.get("@module")), str(value["@class"])
    found = getattr(import_module(module), name, None) if module.startswith("crystalgfn.") else None
    if not (isinstance(found, type) and issubclass(found, Plain)):
        raise DataError(f"{module}.{name} is no class that crystalgfn reads from JSON; give what as_dict made")
    return found.from_dict(value)


def _encoded(value: Any) -> Any:
    if isinstance(value, Plain):
        return value.as_dict()
    if isinstance(value, Mapping):
        return {str(key): _encoded(one) for key, one in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(_encoded(one) for one in value)
    if isinstance(value, (list, tuple)):
        return [_encoded(one) for one in value]
    if hasattr(value, "tolist"):  # numpy's, torch's
        return _encoded(value.tolist())
    return None if isinstance(value, float) and math.isnan(value) else value


def _typed(value: Any, kind: str) -> Any:
    """Lists as what the class has there: tuples, sets, their empty default, and NaN for a missing number."""
    if not isinstance(value, list):
        return value
    if not value and kind.startswith(("Collection", "Sequence")):
        return ()
    if kind.startswith("tuple"):
        return _tuples(value)
    if kind.startswith("Collection"):
        return frozenset(_tuples(value))
    return [math.nan if one is None else one for one in value] if kind == "list[float]" else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value
