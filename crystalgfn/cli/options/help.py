"""What ``--help`` prints, from the declarations of the options."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from crystalgfn.cli.options.commands import COMMANDS
from crystalgfn.cli.options.declared import CSP, SPACE, Option, fields_of
from crystalgfn.cli.options.kinds import shown
from crystalgfn.utils.files import data_folder

WIDTH = 140
_FLAGS = """
  --cfg             print the whole configuration and stop
  --config-dir DIR  look for choices of groups in DIR too
  -q, --quiet       print errors and warnings alone
  -v, --verbose     print also what is looked up and loaded"""


def overview(version: str) -> str:
    """The help of ``crystalgfn`` itself."""
    lines = "\n".join(
        f"  {name.replace('_', '-'):<14} {re.split('[:,]', one.summary)[0]}" for name, one in COMMANDS.items()
    )
    return (
        f"crystalgfn {version}: sample inorganic crystals with probability proportional to a reward.\n\n"
        f"usage: crystalgfn [--help] [--version] <command> [name=value ...]\n\ncommands:\n{lines}\n\n"
        "crystalgfn <command> --help lists the options of a command; name=value, --name=value and --name value say the "
        "same."
    )


def help_text(name: str, program: str) -> str:
    """The help of a command.

    Args:
        name: of the command.
        program: what the user types for it.
    """
    one = COMMANDS[name]
    parts = [one.summary, f"usage: {program} [--help] [--cfg] [--config-dir DIR] [-q] [-v] [name=value ...]"]
    width = min(60, max(len(arguments) for arguments, _ in one.examples))
    examples = [f"  {program} {arguments:<{width}}  {meaning}".rstrip() for arguments, meaning in one.examples]
    parts.append(_section("examples", examples))
    if one.space is not None:
        parts.append(_section(one.space, _lines(SPACE, with_values=not one.narrows)))
    if one.shorts:
        parts.append(_section("how to train", [f"  {short:<16} {full}" for short, full in one.shorts.items()]))
    if one.settings is not None:
        own = {f"settings.{key}": option for key, option in fields_of(one.settings).items()}
        for key in ("settings.property", "settings.seed"):  # options of the command
            own.pop(key, None)
        parts.append(_section(one.headings["settings"], _lines(own)))
    parts.append(_section(one.headings.get("options", "options"), _lines(one.options)))
    if "csp" in one.groups:
        parts.append(_section(one.headings["csp"], _lines({f"csp.{key}": option for key, option in CSP.items()})))
    if len(one.groups) > 1:
        choices = [f"  {group:<11} {', '.join(choices_of(group))}" for group in one.groups]
        parts.append(_section("whole groups, name=choice", choices))
    parts.append("also:" + _FLAGS)
    return "\n\n".join([*parts, *([one.notes] if one.notes else [])])


def choices_of(group: str) -> list[str]:
    """The files of a group, and what is declared for it."""
    folder = data_folder("config") / group
    files = {path.name.removesuffix(".yaml") for path in _entries(folder) if path.name.endswith(".yaml")}
    return sorted(files | ({"default"} if group in ("space", "csp") else set()))


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _section(heading: str, lines: list[str]) -> str:
    return "\n".join([f"{heading}:", *lines])


def _lines(options: Mapping[str, Option], with_values: bool = True) -> list[str]:
    heads = {name: f"{name}={default(one)}" if with_values else name for name, one in options.items()}
    width = min(44, max(map(len, heads.values())))
    lines = []
    for name, one in options.items():
        start = f"  {heads[name]:<{width}}  "
        lines += textwrap.wrap(one.help, WIDTH, initial_indent=start, subsequent_indent=" " * (width + 4)) or [
            start.rstrip()
        ]
    return lines


def default(option: Option) -> str:
    """An option's default; the date and time are filled in when it runs."""
    text = shown(option.default)
    return text[: text.index("${now")] + "<now>" if "${now" in text else text or "''"
