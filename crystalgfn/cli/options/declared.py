"""What options and commands are, the options that several share, and the help that is made of them."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crystalgfn.cli.options import kinds
from crystalgfn.cli.options.kinds import (
    COUNT,
    JOBS,
    SEED,
    Choice,
    Either,
    File,
    Kind,
    Null,
    Number,
    Switch,
    Text,
    optional,
    shown,
)
from crystalgfn.cli.options.kinds import Mapping as Names
from crystalgfn.cli.options.list_kinds import FILES, Several, Symbols, System, limits
from crystalgfn.utils.files import PACKAGE, data_folder

GROUPS = ("space", "reward", "objective", "policy", "trainer", "logger", "experiment", "csp")
"""Parts of a configuration that are chosen as a whole, from the files of ``config/<group>``."""


@dataclass(frozen=True)
class Option:
    """An option.

    Attributes:
        default: its value where nothing is given.
        kind: what it may be.
        help: what it means, in a line.
    """

    default: Any
    kind: Kind
    help: str = ""


_TASK = re.compile(r"(csp|placement|discovery): ")
"""How the help of an option begins that only one task of a benchmark uses."""


def misplaced(key: str, command: Command, task: str | None) -> str:
    """Why an option means nothing to the task that was chosen; empty where it means something."""
    option = command.options.get(key)
    match = None if option is None else _TASK.match(option.help)
    owner = "csp" if key.startswith("csp.") else match and match[1]
    if task is None or not owner or owner == task:
        return ""
    return f"{key} is an option of task={owner}, and task={task} does not use it; leave it out, or say task={owner}."


def on(help: str = "") -> Option:
    """A switch that is on."""
    return Option(True, Switch(), help)


def off(help: str = "") -> Option:
    """A switch that is off."""
    return Option(False, Switch(), help)


def maybe(kind: Kind, help: str = "") -> Option:
    """Null, or something of a kind."""
    return Option(None, optional(kind), help)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command.

    Attributes:
        summary: what it does.
        examples: arguments, and what they do.
        options: its own, by name.
        groups: defaults of the groups that it takes; None: nothing, until something is chosen.
        space: heading of the arguments of CrystalSpace in the help; None: it takes none.
        narrows: whether those only narrow the space of a sampler, where nothing is in it at first.
        shorts: short names of options of groups.
        settings: a class whose attributes are ``settings.<name>``, as ``module:name``.
        headings: of the options and of other parts of the help.
        notes: what the help ends with.
        what: what its run is called in messages.
        parts: files that a run makes first; see `crystalgfn.utils.run_folder.RunFolder`.
        together: whether processes that torchrun started work as one.
        beside: whether its run may stand in the folder of another command's.
        module: in `crystalgfn.cli`; None: the one of its name.
    """

    summary: str
    examples: tuple[tuple[str, str], ...]
    options: Mapping[str, Option]
    groups: Mapping[str, str | None] = field(default_factory=dict)
    space: str | None = None
    narrows: bool = False
    shorts: Mapping[str, str] = field(default_factory=dict)
    settings: str | None = None
    headings: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""
    what: str = "a run"
    parts: tuple[str, ...] = ()
    together: bool = False
    beside: bool = False
    module: str | None = None

    def __post_init__(self) -> None:
        json = off("true: print run.json, what the run was and made, instead of words")
        object.__setattr__(self, "options", {**self.options, "json": json})


def fields_of(target: str) -> dict[str, Option]:
    """The attributes of a settings class as options, read from its source, since importing it takes long.

    Args:
        target: ``module:name``, the module below ``crystalgfn``.
    """
    module, _, name = target.partition(":")
    tree = ast.parse(PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    text = ast.get_docstring(found) or ""
    options = {}
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            meaning = re.search(rf"^ *{node.target.id}: (.*(?:\n {{6,}}\S.*)*)", text, re.MULTILINE)
            default = ast.literal_eval(node.value)
            kind = kinds.of_annotation(ast.unparse(node.annotation), default)
            options[node.target.id] = Option(default, kind, " ".join(meaning[1].split()) if meaning else "")
    return options


def settings_options(command: Command) -> dict[str, Option]:
    """``settings.<name>`` of a command: the attributes of its settings class that are no options of its own."""
    own = {} if command.settings is None else fields_of(command.settings)
    return {f"settings.{key}": option for key, option in own.items() if key not in ("property", "seed")}


_RANGE = Number(whole=True)

ADAPT = Option(
    False,
    Either((Switch(), COUNT, Text("auto, steps such as 500, or seconds such as 60s"))),
    "auto (300 steps), a number of steps, or 60s: fine-tuned where the ESS in the space is below 30 %",
)

SPACE: dict[str, Option] = {
    "elements": maybe(Symbols(), "null: those up to Bi with oxidation states below, but Tc and Pm"),
    "required_elements": Option([], Symbols(), "every crystal has these"),
    "excluded_elements": Option([], Symbols()),
    "any_of": Option([], Symbols(), "every crystal has at least one of these"),
    "chemsys": maybe(System(), "Li-Mn-O: these elements, and all of them in every crystal"),
    "n_elements": Option([1, 5], limits("whole numbers", _RANGE)),
    "atoms_per_element": Option([1, 20], limits("whole numbers", _RANGE), "in the primitive cell"),
    "n_atoms": Option([1, 20], limits("whole numbers", _RANGE), "in the primitive cell"),
    "formula": maybe(Text("a formula such as LiFePO4"), "LiFePO4: the composition, up to the number of formula units"),
    "formulas": maybe(Several(item=Text(), words="formulas such as [CsSnI3,CsGeI3]"), "one of several formulas"),
    "anonymous_formulas": maybe(
        Several(item=Text(), words="forms such as [ABX3]"), "[ABX3]: forms of the composition, letters for elements"
    ),
    "prototypes": maybe(
        Several(item=Text(), words="names such as [perovskite,spinel]"),
        "[perovskite,spinel]: space groups and counts of atoms of structure types",
    ),
    "space_groups": maybe(
        Several(item=Either((Number(whole=True), Text("a symbol"))), words="numbers or symbols such as [Fm-3m,225]"),
        "numbers or symbols such as [Fm-3m,225]; null: all 230",
    ),
    "crystal_systems": maybe(
        Several(item=Text(), words="crystal systems such as [cubic,hexagonal]"),
        "triclinic ... cubic; trigonal, or its parts trigonal-rhombohedral and trigonal-hexagonal",
    ),
    "point_symmetries": maybe(
        Several(item=Text(), words="point symmetries such as [polar,centrosymmetric]"),
        "centrosymmetric, enantiomorphic-polar, polar, enantiomorphic, non-centrosymmetric (none of these)",
    ),
    "lengths": Option([2.0, 40.0], limits("numbers", Number()), "a, b, c of the conventional cell, Å"),
    "angles": Option([45.0, 140.0], limits("numbers", Number()), "degrees"),
    "volume_per_atom": Option([4.0, 60.0], limits("numbers", Number()), "Å3"),
    "density": maybe(limits("numbers", Number()), "g/cm3, such as [2.0, 8.0]"),
    "relative_volume": Option(
        [0.65, 3.0],
        optional(limits("numbers", Number())),
        "cell volume over the sum of tabulated atomic volumes; null: no limit",
    ),
    "oxidation_states": Option(
        "icsd",
        Either((Null(), Names(), Text("icsd, common, all, null or states such as {Fe: [2, 3], O: [-2]}"))),
        "icsd | common | all | {Fe: [2, 3], ...} | null: no rule of charge",
    ),
    "mixed_valence": Option(
        "known",
        Either((Switch(), Text("true, false, known or adjacent"))),
        "false | known, adjacent: one element may have two neighbouring states, as known compounds do, or any | true",
    ),
    "alloys": off("true: compositions of metals only count as neutral"),
}
"""The arguments of CrystalSpace."""

CSP: dict[str, Option] = {
    "data": maybe(FILES, "Parquet or CSV with atoms, a folder of CIF files, or [several]"),
    "templates": maybe(
        FILES, "other real crystals, or [several]; none that shares formula and group with the one looked for"
    ),
    "refiner": Option("default", File(), "a shipped one, or a folder"),
    "n": maybe(COUNT, "targets, chosen with the seed; null: all"),
    "k": Option(20, COUNT, "structures of each method"),
    "steps": Option(5, COUNT, "of the refiner"),
    "tasks": Option(["T1", "T2", "T3", "T4"], Several(item=Text())),
    "methods": maybe(
        Several(item=Text()),
        "pyxtal[+relaxed], random[+relaxed|+refiner], refiner, templates[+refiner[+energies]]; null: no calculator",
    ),
    "outside": maybe(
        Names("{name: folder} or {name: {folder: ..., task: T4}}"),
        "of other programs: {name: folder} or {name: {folder: f, task: T4}}; CIFs 7.cif, 7_1.cif or 7/1.cif of row 7",
    ),
    "n_jobs": Option(1, JOBS, "processes"),
    "cache": maybe(File(), "folder where the index of the templates is kept; null: made each time"),
}
"""``csp.<name>`` of the benchmark."""
ONE_THREAD = "processes; give each one thread (OMP_NUM_THREADS=1)"
SAMPLER = Option(
    "auto",
    File(),
    "a shipped one, or the folder of one that you trained; auto: stable, or stable-any where only metals are asked for",
)
CALCULATOR = Option(
    "chgnet",
    Text("a calculator such as chgnet, sevennet or module:factory"),
    "of energies and forces: chgnet (extra [relax]), sevennet (extra [sevennet]), or module:factory of your own",
)
SCALE = Option("charge", Choice(("charge", "mp2020")), "of energies above the hull; mp2020: as published")
REFERENCES = maybe(File(), "file of the energy references of a calculator of your own; null: those that are shipped")
TRUST = Option(
    [],
    Several(item=Text("a module"), words="modules such as [my_rewards]"),
    "modules whose code a sampler's saved reward may run, beside crystalgfn's own and installed packages'",
)
BETA = maybe(
    Number(), "inverse temperature, for a sampler trained for a range of them (trainer.betas); null: the reward's own"
)
SEEDED = Option(0, SEED, "the same seed gives the same result")
PROGRESS = on("bars, on a terminal")
REST = "Anything else has its full name, such as {}; --cfg prints all of them and stops."


def out_folder(what: str, words: str = "the same command with the out of an interrupted run goes on") -> Option:
    """The folder of a run, called by the time."""
    return Option(f"runs/{what}${{now:%Y-%m-%d_%H-%M-%S-%f}}", File(), words)


WIDTH = 140
_FLAGS = """
  --cfg             print the whole configuration and stop
  --config-dir DIR  look for choices of groups in DIR too
  -q, --quiet       print errors and warnings alone
  -v, --verbose     print also what is looked up and loaded"""


def overview(commands: Mapping[str, Command], version: str) -> str:
    """The help of ``crystalgfn`` itself."""
    lines = "\n".join(
        f"  {name.replace('_', '-'):<14} {re.split('[:,]', one.summary)[0]}" for name, one in commands.items()
    )
    return (
        f"crystalgfn {version}: sample inorganic crystals with probability proportional to a reward.\n\n"
        f"usage: crystalgfn [--help] [--version] <command> [name=value ...]\n\ncommands:\n{lines}\n"
        "  completion     Print the completion of bash, zsh or fish: source <(crystalgfn completion bash)\n\n"
        "crystalgfn <command> --help lists the options of a command; name=value, --name=value and --name value say the "
        "same."
    )


def help_text(one: Command, program: str) -> str:
    """The help of a command; ``program`` is what the user types for it."""
    width = min(60, max(len(arguments) for arguments, _ in one.examples))
    examples = [f"  {program} {arguments:<{width}}  {meaning}".rstrip() for arguments, meaning in one.examples]
    parts = [
        one.summary,
        f"usage: {program} [--help] [--cfg] [--config-dir DIR] [-q] [-v] [name=value ...]",
        _section("examples", examples),
        *_shared_sections(one),
        _section(one.headings.get("options", "options"), _lines(one.options)),
    ]
    if "csp" in one.groups:
        parts.append(_section(one.headings["csp"], _lines({f"csp.{key}": option for key, option in CSP.items()})))
    if len(one.groups) > 1:
        choices = [f"  {group:<11} {', '.join(choices_of(group))}" for group in one.groups]
        parts.append(_section("whole groups, name=choice", choices))
    return "\n\n".join([*parts, "also:" + _FLAGS, *([one.notes] if one.notes else [])])


def _shared_sections(one: Command) -> list[str]:
    """Of the space, of short names, and of the attributes of a settings class."""
    parts = []
    if one.space is not None:
        parts.append(_section(one.space, _lines(SPACE, with_values=not one.narrows)))
    if one.shorts:
        parts.append(_section("how to train", [f"  {short:<16} {full}" for short, full in one.shorts.items()]))
    if one.settings is not None:
        parts.append(_section(one.headings["settings"], _lines(settings_options(one))))
    return parts


def choices_of(group: str) -> list[str]:
    """The files of a group, and what is declared for it."""
    folder = data_folder("config") / group
    files = {path.stem for path in folder.glob("*.yaml")}
    return sorted(files | ({"default"} if group in ("space", "csp") else set()))


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
