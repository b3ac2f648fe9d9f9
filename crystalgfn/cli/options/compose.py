"""The configuration of a command: groups from files, options from the command line, each checked by its kind."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crystalgfn.cli.options.commands import COMMANDS
from crystalgfn.cli.options.declared import CSP, GROUPS, SPACE, Command, Option, choices_of, misplaced, settings_options
from crystalgfn.cli.options.kinds import Kind, Number, Switch, Unfit, of_annotation, shown
from crystalgfn.errors import CrystalGFNError, sentence
from crystalgfn.utils.files import data_folder
from crystalgfn.utils.run_folder import CONFIG

_GIVEN = re.compile(r"(?P<sign>~|\+\+|\+)?(?P<key>[A-Za-z_][\w./@-]*?)(?:=(?P<text>.*))?", re.DOTALL)


class OptionError(CrystalGFNError, ValueError):
    """A command line that cannot be understood."""


@dataclass(frozen=True)
class Given:
    """What the user typed for one option: ``key=text``; ``sign`` is hydra's + (add), ++ or ~ (leave out)."""

    key: str
    text: str | None
    sign: str = ""

    def __str__(self) -> str:
        return f"{self.sign}{self.key}" + ("" if self.text is None else f"={self.text}")


def program_name(name: str) -> str:
    """What the user types for a command."""
    return f"crystalgfn {name.replace('_', '-')}"


def compose_config(name: str, arguments: Sequence[str], config_dir: str | Path | None = None) -> DictConfig:
    """The configuration of a command (``train``, ...); a resumed run's own configuration where it is resumed.

    The arguments are name=value each, in any of the forms that `parse_options` knows; ``config_dir`` is a folder with
    choices of groups beside the shipped ones.

    Raises:
        OptionError: an unknown option, group or choice, or a value of the wrong kind.
    """
    command, given = COMMANDS[name], parse_options(name, arguments)
    saved = _resumed(given) if name == "train" else None
    config = _groups(name, given, config_dir) if saved is None else saved
    for one in [*given, *_one_limit(command, given)]:
        if saved is not None:
            _check_resumable(one, config)
        if not _chooses_group(one, command):
            _set(config, one, name)
    _check_files(config, command)
    for one in given:
        if words := misplaced(one.key, command, config.get("task")):
            raise OptionError(words)
    return config


def parse_options(name: str, arguments: Sequence[str]) -> list[Given]:
    """What was typed: ``name=value``, ``--name=value``, ``--name value``, and ``--name`` for a switch.

    Raises:
        OptionError: what is none of these.
    """
    command, found, rest = COMMANDS[name], [], list(arguments)
    while rest:
        text = rest.pop(0)
        one = _read(text)
        if one is None:
            raise OptionError(
                f"{text!r} cannot be read: options are written name=value, lists as [a,b] (spaces only within quotes); "
                f"see {program_name(name)} --help."
            )
        if text.startswith("--"):
            one = replace(one, key=one.key.replace("-", "_"))
            if not (_known(one.key, command) or "." in one.key):
                raise OptionError(f"There is no option {text!r}: {_unknown(one.key, name).partition('; ')[2]}")
            one = one if one.text is not None else replace(one, text=_following(text, one.key, rest, command))
        found.append(one)
    return found


def _read(text: str) -> Given | None:
    """``name=value`` in one piece, the value None after ``~name`` and ``--name``; None where it is no option."""
    long = text.startswith("--")
    match = _GIVEN.fullmatch(text.removeprefix("--")) if long or not text.startswith("-") else None
    if match is None or (match["text"] is None and match["sign"] != "~" and not long):
        return None
    return Given(match["key"], match["text"], match["sign"] or "")


def _following(text: str, key: str, rest: list[str], command: Command) -> str:
    """The value of ``--name value``, taken from what is left; a switch needs none."""
    option = _declared(command).get(full_key(key, command))
    switch = key == "progress" or (option is not None and isinstance(option.kind, Switch))
    if rest and (rest[0].lower() in ("true", "false", "yes", "no", "on", "off") if switch else rest[0][:2] != "--"):
        return rest.pop(0)
    if switch:
        return "true"
    raise OptionError(f"{text} needs a value: {text}=<value>.")


def _known(key: str, command: Command) -> bool:
    """Whether it names an option that is declared, or a group."""
    return key in command.shorts or key in command.groups or full_key(key, command) in _declared(command)


def _groups(name: str, given: Sequence[Given], config_dir: str | Path | None) -> DictConfig:
    """The defaults of the command, with the groups that were chosen."""
    command = COMMANDS[name]
    for one in given:
        _check_choice(one, command)
    lines = [str(one) for one in given if _chooses_group(one, command)]
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise OptionError(f"--config-dir: there is no folder {str(config_dir)!r}.")
        lines.append(f"hydra.searchpath=[{Path(config_dir).resolve().as_uri()}]")
    rewards = [one.text for one in given if one.key == "reward" and one.text]
    if rewards:
        from crystalgfn.rewards import registry

        for reward, node, provider in registry.configurations(rewards):
            ConfigStore.instance().store(group="reward", name=reward, node=node, provider=provider)
    _declare(name)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(data_folder("config")), version_base="1.3"):
            return compose(f"command_{name}", lines)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionError(_explain(error, name)) from error


def _declare(name: str) -> None:
    """Hand the declared options of a command to hydra, under whose files they lie."""
    store = ConfigStore.instance()
    space = {key: option.default for key, option in SPACE.items()}
    store.store(name="default", group="space", node={"_target_": "crystalgfn.CrystalSpace", **space})
    store.store(name="default", group="csp", node={key: option.default for key, option in CSP.items()})
    command = COMMANDS[name]
    before, after = [], []
    for group, choice in command.groups.items():
        (after if group == "experiment" else before).append({group: choice})
    own = {key: option.default for key, option in command.options.items()}
    node = {"defaults": [*before, "_self_", *after], **own}
    store.store(name=f"command_{name}", node=OmegaConf.create(node))


def _chooses_group(one: Given, command: Command) -> bool:
    """Whether it names a file of a group, or leaves a group out."""
    if one.key not in command.groups:
        return False
    return one.sign == "~" or not (one.text or "").startswith(("{", "["))


def _check_choice(one: Given, command: Command) -> None:
    """Refuse what is no name for a group: numbers, switches, lists, and a value where a group is left out."""
    groups = {"space", "csp", *command.groups}
    if one.key not in groups or not one.text or one.text.startswith("{"):
        return
    named = re.fullmatch(r"(?!true$|false$|null$|[+-]?(inf|nan)$)[a-z_]\S*", one.text, re.IGNORECASE)
    if one.sign == "~" or not named:
        raise OptionError(f"{one}: {one.key} is chosen by name: {', '.join(choices_of(one.key)) or 'of a file'}.")


def _set(config: DictConfig, one: Given, name: str) -> None:
    """Put a value in its place, checked by its kind."""
    command = COMMANDS[name]
    key = full_key(one.key, command)
    if one.sign == "~":
        parent, _, last = key.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        if node is None or last not in node:
            raise OptionError(_unknown(one.key, name))
        OmegaConf.set_struct(config, False)
        del node[last]
        return
    declared = _declared(command).get(key)
    adds = bool(one.sign) and key.partition(".")[0] in (*command.groups, *GROUPS)  # "+" alone makes no option
    if declared is None and not adds and not _exists(config, key):
        raise OptionError(_unknown(one.key, name))
    kind = _kind_of_group(config, key) if declared is None else declared.kind
    OmegaConf.update(config, key, read_options(one.key, one.text or "", kind), merge=False, force_add=True)
    try:
        OmegaConf.select(config, key)
    except OmegaConfBaseException as error:  # ${...} that names nothing
        raise OptionError(f"{one.key}: {first_line_of(error)}.") from error


def read_options(name: str, text: str, kind: Kind) -> Any:
    """A value of the kind.

    Raises:
        OptionError: the text is none.
    """
    try:
        return kind.read(text)
    except Unfit as error:
        if isinstance(kind, Number) and "," in text:
            raise OptionError(f"{name}={text} gives several values; give one ([a,b] is a list).") from error
        raise OptionError(f"{name}={text}: give {kind.words}.") from error


def full_key(key: str, command: Command) -> str:
    """The full name of an option that may have a short one."""
    return f"space.{key}" if key in SPACE and command.space is not None else command.shorts.get(key, key)


def _declared(command: Command) -> dict[str, Option]:
    """All declared options of a command by their full names."""
    found = dict(command.options)
    if command.space is not None:
        found |= {f"space.{key}": option for key, option in SPACE.items()}
    if "csp" in command.groups:
        found |= {f"csp.{key}": option for key, option in CSP.items()}
    return found | settings_options(command)


def _kind_of_group(config: DictConfig, key: str) -> Kind:
    """The kind of an argument of an object that a group describes: by its class's annotation, else by its value."""
    parent, _, last = key.rpartition(".")
    node: Any = OmegaConf.select(config, parent) if parent and _exists(config, parent) else None
    default = OmegaConf.select(config, key, throw_on_missing=False) if _exists(config, key) else None
    annotation = None
    if OmegaConf.is_dict(node) and isinstance(node.get("_target_"), str) and last != "_target_":
        annotation = _annotation(node["_target_"], last)
    return of_annotation("" if annotation is None else annotation, default)


def _annotation(target: str, name: str) -> str | None:
    """How a class or function annotates an argument; None where that cannot be told."""
    module, _, attribute = target.rpartition(".")
    try:
        parameters = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters
        found = parameters[name].annotation
    except (ImportError, AttributeError, KeyError, TypeError, ValueError):
        return None
    return None if found is inspect.Parameter.empty else found if isinstance(found, str) else str(found)


def _exists(config: DictConfig, key: str) -> bool:
    node: Any = config
    for part in key.split("."):
        if not OmegaConf.is_dict(node) or part not in list(node):  # `in` says no of what is still missing
            return False
        node = node._get_node(part)
    return True


def _one_limit(command: Command, given: Sequence[Given]) -> list[Given]:
    """Training ends after steps or seconds: naming one of them takes the other back."""
    if "trainer" not in command.groups:
        return []
    named = {full_key(one.key, command) for one in given}
    steps, seconds = "trainer.steps" in named, "trainer.seconds" in named
    taken = ["trainer.steps"] * (seconds and not steps) + ["trainer.seconds"] * (steps and not seconds)
    return [Given(key, "null") for key in taken]


def _check_files(config: DictConfig, command: Command) -> None:
    """What files of the user's gave is checked as what was typed is."""
    for key, option in _declared(command).items():
        if not _exists(config, key):
            continue
        value = OmegaConf.select(config, key, throw_on_missing=False)
        value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        if value == option.default:
            continue
        try:
            good = option.kind.check(value)
        except Unfit as error:
            raise OptionError(f"{key.removeprefix('space.')}={shown(value)}: give {option.kind.words}.") from error
        if good != value or type(good) is not type(value):
            OmegaConf.update(config, key, good, merge=False)


def _resumed(given: Sequence[Given]) -> DictConfig | None:
    """The configuration of the run that is resumed; None where none is."""
    texts = {one.key: one.text for one in given}
    if (texts.get("resume") or "").lower() not in ("true", "yes", "on"):
        return None
    out = texts.get("out")
    if out is None:
        raise OptionError("resume=true needs the folder of the run to go on with: out=<folder>.")
    path = Path(read_options("out", out, COMMANDS["train"].options["out"].kind)) / CONFIG
    if not path.is_file():
        raise OptionError(f"There is no run to resume in {out!r}: {path} does not exist.")
    try:
        config = OmegaConf.load(path)
        missing = [key for key in ("space", "trainer", "policy", "out", "seed") if key not in config]
    except (OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError, TypeError, RecursionError) as error:
        raise OptionError(f"{path} is damaged ({first_line_of(error)}); the run cannot be resumed.") from error
    if missing:
        raise OptionError(f"{path} is damaged (it lacks {missing[0]}); the run cannot be resumed.")
    return config  # pyright: ignore[reportReturnType]


def _check_resumable(one: Given, config: DictConfig) -> None:
    command = COMMANDS["train"]
    key = full_key(one.key, command)
    if key in command.groups or key.startswith("space.") or not (key in config or key.startswith("trainer.")):
        raise OptionError(
            f"{one.key} cannot be changed in a run that is resumed; start another one with another out=<folder>."
        )


def first_line_of(error: BaseException) -> str:
    """What an error of several lines begins with."""
    return sentence(str(error).partition("\n")[0])


def _unknown(key: str, name: str) -> str:
    """That there is no such option, and which comes nearest."""
    command = COMMANDS[name]
    declared = {one.removeprefix("space.") for one in _declared(command)}
    groups = {one for one in GROUPS if one in command.groups}
    near = difflib.get_close_matches(key.removeprefix("space."), [*declared, *command.shorts, *groups], n=1)
    hint = f"did you mean {near[0]}? All" if near else "all"
    return f"There is no option {key!r}; {hint} are listed by {program_name(name)} --help."


def _explain(error: Exception, name: str) -> str:
    """Hydra's paragraph as a sentence."""
    message = str(error)
    unknown = re.search(r"Could not (?:override|append to config|delete from config)[^']*'([^']+)'", message)
    if unknown:
        return _unknown(unknown[1], name)
    missing = re.search(r"Could not find '([^'/]+)/([^']+)'", message)
    if missing:
        available = [line.strip() for line in message.splitlines() if line.startswith("\t")]
        offered = [choice for choice in available if "/" not in choice and ":" not in choice]
        return f"There is no {missing[1]} {missing[2]!r}; there are {', '.join(offered) or 'none'}."
    return sentence(error)
