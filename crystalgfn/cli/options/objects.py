"""Objects that a configuration describes."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from crystalgfn.cli.options.compose import OptionError
from crystalgfn.errors import CrystalGFNError, sentence


def build_part(config: DictConfig, what: str) -> Any:
    """The object that a part of the configuration names by its ``_target_``.

    Raises:
        OptionError: its class cannot be found, or refuses its arguments, or lacks one.
    """
    if "_target_" not in config:
        raise OptionError(f"{what}: the configuration has no _target_, the dotted path of a class or function.")
    try:
        return instantiate(config, _convert_="all")
    except MissingMandatoryValue as error:
        raise OptionError(f"{error.full_key} has no default; give {error.full_key}=<value>.") from error
    except InstantiationException as error:
        cause = root(error)
        raise cause if isinstance(cause, CrystalGFNError) else OptionError(f"{what}: {sentence(cause)}.") from error


def root(error: InstantiationException) -> BaseException:
    """What went wrong inside the class that hydra called."""
    cause: BaseException = error
    while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
        cause = cause.__cause__
    return cause


def space_arguments(space: DictConfig | None) -> dict[str, Any]:
    """The keyword arguments for CrystalSpace."""
    arguments = {} if space is None else plain_config(space)
    arguments.pop("_target_", None)
    return arguments


def plain_config(config: Any) -> Any:
    """A part of a configuration as dicts, lists and values."""
    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config


def listed(value: Any) -> list[Any]:
    """One value or several as a list; None is none."""
    value = plain_config(value)
    return [] if value is None else value if isinstance(value, list) else [value]


def usable_device(name: str) -> str:
    """The name of a device that can be used.

    Raises:
        OptionError: it cannot.
    """
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"device={name} cannot be used here: {sentence(error).split('. ')[0]}.") from error
    return name
