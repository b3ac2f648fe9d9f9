"""Parts that a user brings: by the name of an installed package's entry point, or as ``module:name``."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from crystalgfn.errors import CrystalGFNError, sentence


def plugin(group: str, spec: str, method: str, error: type[CrystalGFNError]) -> Any | None:
    """The object that ``spec`` names; None where it names neither an entry point nor ``module:name``.

    Args:
        group: of entry points, such as "crystalgfn.refiners".
        spec: the name of an entry point of the group, or ``module:name``: an object, a class of one, or a function that
            returns one.
        method: that the object must have.
        error: what is raised where it cannot be imported or made, or has no such method.
    """
    points = {point.name: point.value for point in entry_points(group=group)}
    module, _, name = points.get(spec, spec).partition(":")
    if spec not in points and not (name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        return None
    try:
        found = getattr(import_module(module), name)
        made = found() if isinstance(found, type) or not hasattr(found, method) else found
    except CrystalGFNError:
        raise
    except Exception as fault:  # whatever the import of another's module raises
        raise error(f"{spec}: {type(fault).__name__}: {sentence(fault)}") from fault
    if not hasattr(made, method):
        raise error(f"{spec} is a {type(made).__name__} without the method {method}")
    return made
