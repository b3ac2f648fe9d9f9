"""``crystalgfn completion bash|zsh|fish``: scripts for shells, which ask this program what may come next."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from crystalgfn.cli.options.commands import COMMANDS
from crystalgfn.cli.options.declared import CSP, SPACE, Command, Option, choices_of, settings_options
from crystalgfn.cli.options.kinds import AnyValue, Choice, Either, File, Kind, Null, Switch
from crystalgfn.cli.options.list_kinds import Several
from crystalgfn.utils.files import SHIPPED

ASK = "__complete"
"""The command by which scripts ask; what was typed after ``crystalgfn`` follows, the last word unfinished."""
FLAGS = ("--help", "--cfg", "--config-dir", "--quiet", "--verbose")
TOP = ("--help", "--version", "completion")

BASH = """# bash completion of crystalgfn: source <(crystalgfn completion bash)
_crystalgfn() {
  local line="${COMP_LINE:0:COMP_POINT}" word program IFS=$' \\t\\n'
  local -a words found
  read -ra words <<< "$line"
  [[ "$line" == *[[:space:]] ]] && words+=("")
  word="${words[${#words[@]}-1]}"
  program="${words[0]##*/}"
  [[ "$program" == crystalgfn-* ]] && words=(crystalgfn "${program#crystalgfn-}" "${words[@]:1}")
  IFS=$'\\n'
  found=($(crystalgfn ASK "${words[@]:1}" 2>/dev/null))
  # readline takes what stands before an = or : for words of its own
  local before=""
  [[ "$COMP_WORDBREAKS" == *=* && "$word" == *=* ]] && before="${word%%=*}="
  [[ "$COMP_WORDBREAKS" == *:* && "$word" == *:* ]] && before="${word%:*}:"
  COMPREPLY=("${found[@]#"$before"}")
  [[ ${#COMPREPLY[@]} == 1 && "${COMPREPLY[0]}" == *[=/,] ]] && compopt -o nospace
  return 0
}
complete -F _crystalgfn NAMES
"""
ZSH = """#compdef NAMES
# zsh completion of crystalgfn: source <(crystalgfn completion zsh), after compinit
_crystalgfn() {
  local -a typed found ended open
  typed=("${(@)words[2,CURRENT]}")
  [[ "${words[1]:t}" == crystalgfn-* ]] && typed=("${${words[1]:t}#crystalgfn-}" "${typed[@]}")
  found=("${(@f)$(crystalgfn ASK "${typed[@]}" 2>/dev/null)}")
  ended=("${(@)found:#*[=/,]}")
  open=("${(@M)found:#*[=/,]}")
  (( ${#ended} )) && [[ -n "$ended" ]] && compadd -Q -- "${ended[@]}"
  (( ${#open} )) && compadd -Q -S '' -- "${open[@]}"
}
compdef _crystalgfn NAMES
"""
FISH = """# fish completion of crystalgfn: crystalgfn completion fish > ~/.config/fish/completions/crystalgfn.fish
function __crystalgfn_words
  set -l typed (commandline -opc) (commandline -ct)
  set -l program (string replace -r '.*/' '' -- $typed[1])
  set -e typed[1]
  string match -q 'crystalgfn-*' -- $program; and set -p typed (string replace 'crystalgfn-' '' -- $program)
  crystalgfn ASK $typed 2>/dev/null
end
EACH"""


def script(shell: str) -> str | None:
    """The script of a shell; None for one that is not known."""
    names = ["crystalgfn", *(f"crystalgfn-{name}" for name in ALIASES)]
    each = "\n".join(f"complete -c {name} -f -a '(__crystalgfn_words)'" for name in names)
    text = {"bash": BASH, "zsh": ZSH, "fish": FISH}.get(shell)
    return text and text.replace("ASK", ASK).replace("NAMES", " ".join(names)).replace("EACH", each)


ALIASES = ("benchmark", "check", "evaluate", "sample", "train", "train-proxy", "train-refiner")
"""Commands that are also installed under a hyphenated name."""


def next_words(typed: Sequence[str]) -> list[str]:
    """What the last word may become, in the order of the help."""
    *before, last = typed or [""]
    if not before:
        return _fitting([*(name.replace("_", "-") for name in COMMANDS), *TOP], last)
    if before[0] == "completion":
        return _fitting(("bash", "zsh", "fish"), last)
    command = COMMANDS.get(before[0].replace("-", "_"))
    return [] if command is None else _of_command(_options(command), before, last)


def _of_command(options: dict[str, Option], before: Sequence[str], last: str) -> list[str]:
    head, equals, begun = last.partition("=")
    if equals:
        return [f"{head}={value}" for value in _values(_key(head), options, begun)]
    own = _key(before[-1])
    if before[-1].startswith("--") and own in options and not isinstance(options[own].kind, Switch):
        return _values(own, options, last)
    taken = {"config_dir", *(_key(one.partition("=")[0]) for one in before)}
    free = [one for one in options if one not in taken]
    if last.startswith("-"):
        return _fitting([*FLAGS, *(f"--{one.replace('_', '-')}" for one in free)], last)
    return _fitting([f"{one}=" for one in free], last)


def _key(typed: str) -> str:
    """The name of an option as it was typed, with -- or without."""
    return typed.removeprefix("--").replace("-", "_") if typed.startswith("--") else typed


def _options(command: Command) -> dict[str, Option]:
    """All that a command takes, by the names that a user types."""
    found = {**command.options, "config_dir": Option(None, File())}
    if command.space is not None:
        found |= SPACE
    for group in command.groups:
        found.setdefault(group, Option(None, Choice(tuple(choices_of(group)))))
    found |= {short: Option(None, AnyValue()) for short in command.shorts}
    if "csp" in command.groups:
        found |= {f"csp.{key}": option for key, option in CSP.items()}
    return found | settings_options(command)


def _values(name: str, options: dict[str, Option], begun: str) -> list[str]:
    """Values of an option that begin as what was typed; of a list the last item."""
    kinds = list(_kinds(options[name].kind)) if name in options else []
    listed = any(isinstance(one, Several) for one in kinds)
    at = max(begun.rfind(","), begun.rfind("[")) + 1 if listed else 0
    known = [*_of_name(name), *(value for one in kinds for value in _of_kind(one, at == 0))]
    paths = _paths(begun[at:]) if any(isinstance(one, File) for one in kinds) else []
    return [begun[:at] + one for one in dict.fromkeys([*_fitting(known, begun[at:]), *paths])]


def _kinds(kind: Kind) -> Iterable[Kind]:
    """The kinds that a kind consists of."""
    if isinstance(kind, Either):
        for one in kind.kinds:
            yield from _kinds(one)
        return
    yield kind
    if isinstance(kind, Several):
        yield from _kinds(kind.item)


def _of_kind(kind: Kind, first: bool) -> Sequence[str]:
    """Values that a kind names; null only where it is the first of a list."""
    if isinstance(kind, Switch):
        return ("true", "false")
    return kind.choices if isinstance(kind, Choice) else ("null",) if first and isinstance(kind, Null) else ()


def _of_name(name: str) -> Sequence[str]:
    """Values that the kind of an option does not name."""
    if name == "calculator":
        return ("chgnet", "sevennet")
    if name in ("sampler", "init"):
        return ["auto"] * (name == "sampler") + sorted(one.name for one in (SHIPPED / "samplers").iterdir())
    if name == "prototypes":
        table = json.loads((SHIPPED / "tables" / "prototypes.json").read_text(encoding="utf-8"))
        return sorted({one for row in table["prototypes"] for one in row["names"] if one.isalnum()}, key=str.lower)
    if name == "oxidation_states":
        return ("icsd", "common", "all")
    if name in ("crystal_systems", "point_symmetries", "space_groups"):
        from crystalgfn.crystallography import space_groups as tables

        systems = ("trigonal", *tables.CRYSTAL_LATTICE_SYSTEMS)
        return {"crystal_systems": systems, "point_symmetries": tables.POINT_SYMMETRIES}.get(name, tables.SYMBOL)
    if name in ("elements", "required_elements", "excluded_elements", "any_of", "chemsys"):
        from crystalgfn.crystallography.elements import SYMBOLS

        return SYMBOLS
    return ()


def _paths(begun: str) -> list[str]:
    """Files and folders, folders with a / at their end."""
    folder, slash, start = begun.rpartition("/")
    head = folder + slash
    try:
        found = sorted(Path(head or ".").expanduser().iterdir())
    except (OSError, RuntimeError):
        return []
    hidden = start.startswith(".")
    return [
        f"{head}{one.name}{'/' * one.is_dir()}"
        for one in found
        if one.name.startswith(start) and (hidden or not one.name.startswith("."))
    ]


def _fitting(found: Iterable[str], begun: str) -> list[str]:
    return [one for one in found if one.startswith(begun)]
