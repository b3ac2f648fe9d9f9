"""Objects that a configuration describes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from crystalgfn.cli.options.commands import COMMANDS
from crystalgfn.cli.options.compose import OptionError, program_name
from crystalgfn.errors import CheckpointError, CrystalGFNError, sentence
from crystalgfn.utils.run_folder import CONFIG, read_settings

if TYPE_CHECKING:
    from crystalgfn.crystallography.crystals import Crystals
    from crystalgfn.sampling.sampler import Sampler
    from crystalgfn.space.space import CrystalSpace


def build_part(config: Any, what: str) -> Any:
    """The object that a part of the configuration names by its ``_target_``.

    Raises:
        OptionError: its class cannot be found, or refuses its arguments, or lacks one.
    """
    if not isinstance(config, DictConfig) or "_target_" not in config:
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


def check_folder(name: str, folder: Path) -> None:
    """Refuse a folder that holds the settings of another command's run, in whose place no other can stand.

    Raises:
        OptionError: it does.
    """
    kept: dict[str, Any] = {}
    if (folder / CONFIG).exists():
        with suppress(CheckpointError):  # said by what reads it
            kept = read_settings(folder / CONFIG)
    other = next((one for one, command in COMMANDS.items() if command.options.keys() <= kept.keys()), name)
    if other != name:
        raise OptionError(
            f"{folder} holds {COMMANDS[other].what} ({program_name(other)}), and a run of {program_name(name)} needs a "
            f"folder of its own: give another out=<folder>, such as out={folder / name}."
        )


def strata_of(config: DictConfig) -> Any:
    """The shares of the strata as `crystalgfn.train` takes them."""
    strata = plain_config(config.strata)
    return tuple(strata) if isinstance(strata, list) else strata


def sampler_space(sampler: Sampler, config: DictConfig) -> CrystalSpace | None:
    """The sampler's space with the further constraints of the configuration; None without any."""
    constraints = space_arguments(config.get("space"))
    return sampler.space.narrowed(**constraints) if constraints else None


def read_crystals(sources: Any) -> Crystals | None:
    """The crystals of a file or of several; None without any."""
    from crystalgfn.crystallography.crystals import Crystals
    from crystalgfn.data.labelled import read_labelled

    files = listed(sources)
    return Crystals.cat([read_labelled(file).crystals for file in files]) if files else None
