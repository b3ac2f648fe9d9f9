"""Rewards by name: those that are shipped, and those of installed packages (entry points ``crystalgfn.rewards``).

A package offers a class, or a function that returns a reward, in its ``pyproject.toml``::

    [project.entry-points."crystalgfn.rewards"]
    light = "my_package.rewards:Light"

and it is then ``cg.rewards.load("light", strength=2)`` in Python and ``reward=light reward.strength=2`` on the command
line.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import torch
import yaml

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import CrystalGFNError, RewardError
from crystalgfn.properties.base import Property, moved
from crystalgfn.rewards.base import Reward
from crystalgfn.utils.files import data_folder
from crystalgfn.utils.instantiate import instantiate, trusting

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


GROUP = "crystalgfn.rewards"
_PLAIN = (int, float, str, bool, type(None))


def shipped() -> list[str]:
    """Names of the rewards that come with crystalgfn: the files in ``config/reward``."""
    return sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml"))


def installed() -> dict[str, EntryPoint]:
    """The rewards of installed packages by name; a shipped reward of the same name comes first.

    Raises:
        RewardError: two packages that offer different rewards under one name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise RewardError(
                f"two packages offer a reward {point.name!r}: {_whose(other)} and {_whose(point)}; uninstall one, or "
                f"name the class by _target_."
            )
    for name in set(found) & set(shipped()):
        del found[name]
    return dict(sorted(found.items()))


def load(name: str, **arguments: Any) -> Reward:
    """A reward by its name.

    Args:
        name: a shipped reward, or one that an installed package offers.
        **arguments: of the reward, over its defaults.

    Raises:
        RewardError: no such reward, a package that cannot be imported, or arguments that it does not take.
    """
    if name in shipped():
        return _load_shipped(name, arguments)
    points = installed()
    if name not in points:
        offered = ", ".join([*shipped(), *points])
        raise RewardError(f"There is no reward {name!r}, neither shipped nor in an installed package: {offered}.")
    try:
        with trusting(None):  # the user installed that package
            reward: Any = _made(points[name])(**arguments)
    except CrystalGFNError:
        raise
    except TypeError as error:
        raise RewardError(f"The reward {name!r} of {_whose(points[name])} refuses its arguments: {error}.") from error
    _check_made(reward, points[name])
    if callable(getattr(reward, "config", None)):
        return reward
    return Configured(reward, {"_target_": "crystalgfn.rewards.load", "name": name, **arguments})


def configurations(chosen: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The rewards of installed packages as configurations: name, ``_target_`` and arguments, and the package.

    Args:
        chosen: names that are going to be used; only those are imported, and their plain defaults can be overridden.

    Raises:
        RewardError: a chosen one that cannot be imported.
    """
    for name, point in installed().items():
        defaults = _defaults(_made(point)) if name in chosen else {}
        yield name, {"_target_": "crystalgfn.rewards.load", "name": name, **defaults}, _whose(point)


def _load_shipped(name: str, arguments: dict[str, Any]) -> Reward:
    config = yaml.safe_load((_folder() / f"{name}.yaml").read_text(encoding="utf-8"))
    unknown = set(arguments) - set(config)
    if unknown:
        known = ", ".join(key for key in config if not key.startswith("_"))
        raise RewardError(f"The reward {name!r} has no {', '.join(sorted(unknown))}; it has {known}.")
    return instantiate(_merged(config, arguments), trust=None)


def _merged(config: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments over a configuration, also within the dictionaries that both have."""
    both = {
        key: _merged(config[key], value) if isinstance(config.get(key), dict) and isinstance(value, dict) else value
        for key, value in arguments.items()
    }
    return {**config, **both}


def _made(point: EntryPoint) -> Any:
    try:
        made = point.load()
    except Exception as error:  # another package's code: whatever its import raises
        raise RewardError(
            f"The reward {point.name!r} of {_whose(point)} cannot be imported: {type(error).__name__}: {error}."
        ) from error
    if not callable(made):
        raise RewardError(f"{point.value} of {_whose(point)} is not a class or function that returns a reward.")
    return made


def _check_made(reward: Any, point: EntryPoint) -> None:
    if isinstance(reward, Property) or not callable(reward):
        kind = "a property" if isinstance(reward, Property) else type(reward).__name__
        raise RewardError(
            f"{point.value} returns {kind}, not a reward: an entry point of {GROUP} is a class or function that "
            "returns something callable with crystals."
        )


def _defaults(made: Any) -> dict[str, Any]:
    """The arguments with plain defaults; those without a default are ``???``, which the command line asks for."""
    found = {}
    for name, parameter in inspect.signature(made).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            continue
        if parameter.default is parameter.empty:
            found[name] = "???"
        elif isinstance(parameter.default, _PLAIN):
            found[name] = parameter.default
    return found


def _whose(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def _folder() -> Any:
    return data_folder("config") / "reward"


class Configured:
    """A reward that has no ``config()`` of its own, with the configuration that it was built from."""

    def __init__(self, reward: Callable[[Crystals], torch.Tensor], configuration: dict[str, Any]) -> None:
        self.reward, self._configuration = reward, configuration
        self.__qualname__ = getattr(reward, "__qualname__", type(reward).__name__)  # what errors call it

    def __call__(self, crystals: Crystals) -> torch.Tensor:
        """Log R of each crystal, as the reward gives it; `crystalgfn.rewards.evaluate` checks it."""
        return self.reward(crystals)

    def to(self, device: torch.device | str) -> Configured:
        """The same reward on ``device``."""
        return Configured(moved(self.reward, device), self._configuration)

    def config(self) -> dict[str, Any]:
        """The configuration that builds it."""
        return self._configuration
