"""Objects from configurations, ``{"_target_": "module.name", argument: value, ...}``.

A file from a stranger runs no code of its own choosing: see `trusting`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from crystalgfn.errors import ConfigurationError, CrystalGFNError, NotTrusted, sentence

PACKAGE = "crystalgfn"
HOME = f"{PACKAGE}.rewards"
"""The module whose ``FACTORIES`` may be used without trust."""

#: Modules and dotted names that may be used besides the package's own; None: all, in the user's own program.
_trusted: ContextVar[tuple[str, ...] | None] = ContextVar("trusted", default=None)


@contextmanager
def trusting(trust: Sequence[str] | None) -> Any:
    """Within this context `locate` finds the package's own factories, entry points and what ``trust`` names.

    Args:
        trust: modules ("my_rewards") or dotted names ("my_rewards.Light"); None: everything.
    """
    token = _trusted.set(None if trust is None else (trust,) if isinstance(trust, str) else tuple(trust))
    try:
        yield
    finally:
        _trusted.reset(token)


def instantiate(config: Any, trust: Sequence[str] | None = ()) -> Any:
    """The object that a configuration describes.

    Every dictionary with ``_target_`` becomes what that class or function returns when it is called with the other
    entries, from the innermost outwards; ``_args_`` are positional arguments. Everything else stays as it is.

    Args:
        config: dictionaries, lists and plain values.
        trust: see `trusting`; None for a configuration that the user wrote.

    Raises:
        NotTrusted: a target that is neither the package's, nor of an entry point, nor trusted.
        ConfigurationError: a target that is not there, or that refuses its arguments.

    Example:
        >>> instantiate({"_target_": "crystalgfn.rewards.Density"})
        Density(name='density', unit='g/cm3')
        >>> instantiate({"_target_": "os.system", "command": "ls"})
        Traceback (most recent call last):
        crystalgfn.errors.NotTrusted: os.system is not ... only if you trust its author: trust=["os"]
    """
    with trusting(trust):
        return _built(config)


def locate(path: str) -> Any:
    """What a dotted path names, as far as it may be used here.

    Raises:
        NotTrusted: it may not.
        ConfigurationError: there is no such thing.
    """
    check_trusted(path, "is not part of crystalgfn's rewards, of an installed entry point or of a trusted module")
    try:
        return pkgutil.resolve_name(path)
    except Exception as error:  # whatever the import of another's module raises
        raise ConfigurationError(f"{path!r} cannot be imported: {sentence(error)}") from error


def check_trusted(path: str, why: str, own: bool = True) -> None:
    """Refuse what a saved configuration may not use unless the user trusts it.

    Args:
        path: its dotted name.
        why: "... runs a program": the reason, after the name.
        own: the package's own factories may be used.

    Raises:
        NotTrusted: with the remedy.
    """
    trust = _trusted.get()
    if trust is None or any(path == name or path.startswith(f"{name}.") for name in trust):
        return
    if own and (_is_factory(path) or _is_entry_point(path)):
        return
    name = path if path.startswith(f"{PACKAGE}.") else path.rpartition(".")[0] or path
    raise NotTrusted(f'{path} {why}; load it only if you trust its author: trust=["{name}"]')


def _is_factory(path: str) -> bool:
    """Whether the package's rewards list the name among their ``FACTORIES``."""
    module, _, name = path.rpartition(".")
    # no other module is imported to look for a list: the import of crystalgfn.cli.__main__ runs the program
    return module == HOME and name in import_module(module).FACTORIES


def _is_entry_point(path: str) -> bool:
    points = entry_points()
    groups = (group for group in points.groups if group.startswith(f"{PACKAGE}."))
    return any(path == point.value.replace(":", ".") for group in groups for point in points.select(group=group))


def _built(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_built(one) for one in value]
    if not isinstance(value, dict):
        return value
    return _called(value) if "_target_" in value else {key: _built(one) for key, one in value.items()}


def _called(config: dict[Any, Any]) -> Any:
    path, arguments = config["_target_"], dict(config)
    if not isinstance(path, str):
        raise ConfigurationError(f"_target_={path!r}: give the dotted path of a class or function")
    made = locate(path)
    for key in ("_target_", "_convert_"):
        arguments.pop(key, None)
    positional = arguments.pop("_args_", [])
    if unknown := [key for key in arguments if not isinstance(key, str) or key.startswith("_")]:
        raise ConfigurationError(f"{path}: there is no setting {unknown[0]!r}; the rest are arguments by their name")
    try:
        return made(*_built(positional), **_built(arguments))
    except CrystalGFNError:
        raise
    except Exception as error:
        raise ConfigurationError(f"{path} cannot be built: {type(error).__name__}: {sentence(error)}") from error


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
