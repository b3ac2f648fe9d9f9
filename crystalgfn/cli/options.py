"""The command line's configuration: hydra's files, short names for common options, help, and errors in one sentence."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from crystalgfn.errors import CrystalGFNError, sentence
from crystalgfn.rewards import registry
from crystalgfn.utils.files import data_folder
from crystalgfn.utils.run_folder import CONFIG

#: Short names of what is set most often in training, beside every argument of CrystalSpace.
SHORTS = {
    "steps": "trainer.steps",
    "seconds": "trainer.seconds",
    "batch_size": "trainer.batch_size",
    "learning_rate": "trainer.learning_rate",
    "device": "trainer.device",
    "progress": "trainer.progress",
    "beta": "reward.beta",
}

#: Commands that narrow the space of a sampler: there it starts out with nothing in it.
NARROWING = ("sample", "check")

GROUPS = ("space", "reward", "objective", "policy", "trainer", "logger", "experiment", "csp")

KINDS = {bool: bool, int: int, float: int | float}

#: What null stands in for, where null is the default.
NULLABLE = {"trainer.steps": int, "trainer.seconds": float, "beta": float, "objective.huber": float, "shard_size": int}

NULLABLE |= {"limit": int, "relax_n": int}

#: Names, files and folders: what looks like a number is text there, and null only where it is the default.
TEXTS = {"out", "sampler", "real", "init", "templates", "hull", "samples", "reference", "energy", "best", "dask"}

TEXTS |= {"train", "val", "column", "labels", "begin", "property", "setting", "task", "device", "trainer.device"}

TEXTS |= {"csp.data", "csp.templates", "csp.refiner", "csp.cache"}

_OPTION = re.compile(r"^(?P<name>[a-z][a-z_]*): (?P<value>.*?)(?: +# (?P<comment>.*))?$")


class OptionError(CrystalGFNError, ValueError):
    """A command line that cannot be understood."""


def command(name: str) -> str:
    """What the user types for it."""
    return f"crystalgfn-{name.replace('_', '-')}"


def read(name: str, arguments: Sequence[str]) -> DictConfig | None:
    """The configuration of a command (``train``, ...) as the command line has it; None where it only asked for help.

    Raises:
        OptionError: an unknown option, group or choice, a value of the wrong kind, or text that hydra cannot read.
    """
    parser = argparse.ArgumentParser(prog=command(name), add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--cfg", action="store_true")
    parser.add_argument("--config-dir")
    parser.error = _refuse  # its own would print the usage beside the sentence
    flags, overrides = parser.parse_known_args(arguments)
    if flags.help:
        print(help_text(name))
        return None
    config = compose_config(name, overrides, flags.config_dir)
    if flags.cfg:
        print(OmegaConf.to_yaml(config), end="")
        return None
    return config


def compose_config(name: str, overrides: Sequence[str], config_dir: str | Path | None = None) -> DictConfig:
    """``config/<name>.yaml`` under overrides, long or short; a resumed run's own configuration where it is resumed."""
    parsed = [_parse(text, name) for text in overrides]
    saved = _resumed(parsed) if name == "train" else None
    if saved is not None:
        return saved
    lines = [_full(override, name) for override in parsed] + _one_limit(parsed, name)
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise OptionError(f"--config-dir: there is no folder {str(config_dir)!r}.")
        lines.append(f"hydra.searchpath=[{Path(config_dir).resolve().as_uri()}]")
    rewards = [override.value() for override in parsed if override.key_or_group == "reward"]
    for reward, node, provider in registry.configurations([name for name in rewards if isinstance(name, str)]):
        ConfigStore.instance().store(group="reward", name=reward, node=node, provider=provider)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(data_folder("config")), version_base="1.3"):
            plain, config = compose(name, _groups(parsed, lines)), compose(name, lines)
    except (HydraException, OmegaConfBaseException) as error:
        raise OptionError(_explain(error, name)) from error
    for override, line in zip(parsed, lines, strict=False):
        key = line.split("=", 1)[0].lstrip("+~")
        if not override.is_delete():
            try:
                default, value = OmegaConf.select(plain, key), OmegaConf.select(config, key)
            except OmegaConfBaseException as error:  # ${...} that names nothing
                raise OptionError(f"{override.key_or_group}: {first_line(error)}.") from error
            checked = _checked(override, key, default, value)
            if checked is not value:
                OmegaConf.update(config, key, checked)
    return config


def space_arguments(space: DictConfig | None) -> dict[str, Any]:
    """The keyword arguments for CrystalSpace.

    YAML 1.1 reads the symbol of nobelium as the boolean false; here it is a symbol again.
    """
    arguments = {} if space is None else OmegaConf.to_container(space, resolve=True)
    arguments.pop("_target_", None)
    for name in ("elements", "required_elements", "excluded_elements"):
        if isinstance(arguments.get(name), list):
            arguments[name] = ["No" if item is False else item for item in arguments[name]]
    states = arguments.get("oxidation_states")
    if isinstance(states, dict):
        arguments["oxidation_states"] = {"No" if key is False else key: value for key, value in states.items()}
    return arguments


def strata(config: DictConfig) -> tuple[float, ...] | str | None:
    """How often crystals have 1, 2, ... elements: shares, a word, or None.

    Raises:
        OptionError: something else.
    """
    value = OmegaConf.to_container(config.strata) if OmegaConf.is_config(config.strata) else config.strata
    numbers = isinstance(value, list) and all(isinstance(x, int | float) and not isinstance(x, bool) for x in value)
    if not (numbers or value is None or isinstance(value, str)):
        raise OptionError(f"strata={value}: give shares such as [0.1,0.5,0.4], default or null.")
    return tuple(value) if numbers else value


def help_text(name: str) -> str:
    """What ``--help`` prints, with names, defaults and comments read from the configuration files themselves."""
    folder = data_folder("config")
    own = list(_options(f"{name}.yaml"))
    shorts = [f"  {short:<16} {full}" for short, full in SHORTS.items()]
    names = {g: sorted(p.name for p in (folder / g).iterdir() if p.name.endswith(".yaml")) for g in GROUPS}
    used = [group for group in GROUPS if f"- {group}:" in (folder / f"{name}.yaml").read_text(encoding="utf-8")]
    choices = [f"  {group:<11} {', '.join(name.removesuffix('.yaml') for name in names[group])}" for group in used]
    text = (folder / f"help_{name}.txt").read_text(encoding="utf-8")
    for placeholder, lines in {
        "$SPACE": _lines(_options("space/default.yaml"), with_values=name not in NARROWING),
        "$SHORTS": shorts,
        "$TOP": _lines(own),
        "$CSP": _lines([(f"csp.{option}", *rest) for option, *rest in _options("csp/default.yaml")]),
        "$GROUPS": choices,
        "$SETTINGS": _lines(list(_fit_settings())) if name == "train_proxy" else [],
    }.items():
        text = text.replace(placeholder, "\n".join(lines) + "\n")
    return text.rstrip()


def space_names() -> list[str]:
    """The arguments of CrystalSpace, from the file that lists them all."""
    return [name for name, _, _ in _options("space/default.yaml")]


def build(config: DictConfig, what: str) -> Any:
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


def first_line(error: BaseException) -> str:
    """What an error of several lines begins with."""
    return sentence(str(error).partition("\n")[0])


def _refuse(message: str) -> None:
    raise OptionError(f"{message}.")


def _options(path: str) -> Iterator[tuple[str, str, str]]:
    """Name, default and comment of each option in a configuration file."""
    for line in data_folder("config").joinpath(path).read_text(encoding="utf-8").splitlines():
        match = _OPTION.match(line)
        if match and match["name"] != "defaults":
            # The date and time, which hydra fills in.
            yield match["name"], re.sub(r"\$\{now:.*\}", "<now>", match["value"]), match["comment"] or ""


def _fit_settings() -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of each setting of a fit, from its class."""
    from crystalgfn.fitting.proxy import Settings

    for field in fields(Settings):
        if field.name not in ("property", "seed"):
            meaning = re.search(rf"^ +{field.name}: (.*)$", Settings.__doc__, re.MULTILINE)
            yield f"settings.{field.name}", str(field.default), meaning[1] if meaning else ""


def _lines(options: Iterator[tuple[str, str, str]] | list, with_values: bool = True) -> list[str]:
    heads = [(f"{name}={value}" if with_values else name, comment) for name, value, comment in options]
    width = min(44, max(len(head) for head, _ in heads))
    return [f"  {head:<{width}}  {comment}".rstrip() for head, comment in heads]


def _parse(text: str, name: str) -> Override:
    if text.startswith("-"):
        raise OptionError(f"There is no option {text!r}: options are written name=value; see {command(name)} --help.")
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise OptionError(
            f"{text!r} cannot be read: options are written name=value, lists as [a,b] without spaces "
            f"(or in quotes), {{key: value}} in quotes; see {command(name)} --help."
        ) from error
    if override.is_sweep_override():
        raise OptionError(f"{text!r} gives several values to try one after another; give one, or a list as [a,b].")
    return override


def _full(override: Override, name: str) -> str:
    """The override under its full name."""
    key, line = override.key_or_group, override.input_line
    if key in space_names():
        return ("++" if name in NARROWING else "") + f"space.{line.lstrip('+')}"
    if name == "train_proxy" and key.startswith("settings."):
        return f"++{line.lstrip('+')}"  # checked against the fit's own settings
    if name == "train" and key in SHORTS:
        return line.replace(key, SHORTS[key], 1)
    return line


def _one_limit(parsed: Sequence[Override], name: str = "train") -> list[str]:
    """Training ends after steps or seconds: naming one of them takes the other back."""
    shorts = SHORTS if name == "train" else {}
    named = {shorts.get(override.key_or_group, override.key_or_group) for override in parsed}
    steps, seconds = "trainer.steps" in named, "trainer.seconds" in named
    return ["trainer.steps=null"] * (seconds and not steps) + ["trainer.seconds=null"] * (steps and not seconds)


def _groups(parsed: Sequence[Override], lines: Sequence[str]) -> list[str]:
    """The lines that choose whole groups: what the other values are then compared with."""
    chosen = [line for override, line in zip(parsed, lines, strict=False) if override.key_or_group in GROUPS]
    return chosen + [line for line in lines if line.startswith("hydra.searchpath=")]


def _checked(override: Override, key: str, default: Any, value: Any) -> Any:
    """A number stays a number, a switch a switch, a name is what was typed; null is left to what receives it."""
    name = override.key_or_group
    if key in TEXTS and not isinstance(default, int):  # samples of the benchmark are a number
        if isinstance(value, bool) or (value is None and isinstance(default, str)):
            words = "null" if value is None else str(value).lower()
            raise OptionError(f"{name} must be a name or a path, not {words}.")
        return override.input_line.split("=", 1)[1] if isinstance(value, int | float) else value
    kind = NULLABLE.get(key, type(default))
    if kind not in KINDS or (value is None and key in NULLABLE):
        return value
    # A switch is a whole number to Python.
    good = isinstance(value, bool) if kind is bool else isinstance(value, KINDS[kind]) and not isinstance(value, bool)
    if not good:
        value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        words = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise OptionError(f"{name} must be {words}, not {'null' if value is None else repr(value)}.")
    return value


def _resumed(parsed: Sequence[Override]) -> DictConfig | None:
    """The configuration of the run that is resumed, under the new values; None where none is."""
    given = {override.key_or_group: override.value() for override in parsed}
    if given.get("resume") is not True:
        return None
    out = given.get("out")
    if out is None:
        raise OptionError("resume=true needs the folder of the run to go on with: out=<folder>.")
    path = Path(str(out)) / CONFIG
    if not path.is_file():
        raise OptionError(f"There is no run to resume in {str(out)!r}: {path} does not exist.")
    config = OmegaConf.load(path)
    for override in parsed:
        key = SHORTS.get(override.key_or_group, override.key_or_group)
        if key in GROUPS or key in space_names() or not (key in config or key.startswith("trainer.")):
            raise OptionError(
                f"{override.key_or_group} cannot be changed in a run that is resumed; "
                "start another one with another out=<folder>."
            )
        OmegaConf.update(config, key, _checked(override, key, OmegaConf.select(config, key), override.value()))
    for line in _one_limit(parsed):
        OmegaConf.update(config, line.split("=")[0], None)
    return config


def _explain(error: Exception, name: str) -> str:
    """Hydra's paragraph as a sentence."""
    message = str(error)
    unknown = re.search(r"Could not (?:override|append to config|delete from config)[^']*'([^']+)'", message)
    if unknown:
        shorts = SHORTS if name == "train" else ()
        known = [*space_names(), *shorts, *GROUPS, *(option for option, _, _ in _options(f"{name}.yaml"))]
        near = difflib.get_close_matches(unknown[1].removeprefix("space."), known, n=1)
        hint = f"did you mean {near[0]}? All" if near else "all"
        return f"There is no option {unknown[1]!r}; {hint} are listed by {command(name)} --help."
    missing = re.search(r"Could not find '([^'/]+)/([^']+)'", message)
    if missing:
        available = [line.strip() for line in message.splitlines() if line.startswith("\t")]
        offered = [choice for choice in available if "/" not in choice and ":" not in choice]
        return f"There is no {missing[1]} {missing[2]!r}; there are {', '.join(offered) or 'none'}."
    return sentence(error)
