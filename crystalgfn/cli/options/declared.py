"""Every option of every command, declared once: its default, its kind and what it means."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crystalgfn.cli.options import kinds
from crystalgfn.cli.options.kinds import COUNT, JOBS, SEED, Either, File, Kind, Null, Number, Switch, Text, optional
from crystalgfn.cli.options.kinds import Mapping as Names
from crystalgfn.cli.options.list_kinds import FILES, Several, Symbols, System, limits
from crystalgfn.utils.files import PACKAGE

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


_RANGE = Number(whole=True)
SPACE: dict[str, Option] = {
    "elements": Option(None, optional(Symbols()), "null: those up to Bi with oxidation states below, but Tc and Pm"),
    "required_elements": Option([], Symbols(), "every crystal has these"),
    "excluded_elements": Option([], Symbols()),
    "any_of": Option([], Symbols(), "every crystal has at least one of these"),
    "chemsys": Option(None, optional(System()), "Li-Mn-O: these elements, and all of them in every crystal"),
    "n_elements": Option([1, 5], limits("whole numbers", _RANGE)),
    "atoms_per_element": Option([1, 20], limits("whole numbers", _RANGE), "in the primitive cell"),
    "n_atoms": Option([1, 20], limits("whole numbers", _RANGE), "in the primitive cell"),
    "formula": Option(
        None, optional(Text("a formula such as LiFePO4")), "LiFePO4: the composition, up to the number of formula units"
    ),
    "formulas": Option(
        None, optional(Several(item=Text(), words="formulas such as [CsSnI3,CsGeI3]")), "one of several formulas"
    ),
    "anonymous_formulas": Option(
        None,
        optional(Several(item=Text(), words="forms such as [ABX3]")),
        "[ABX3]: forms of the composition, letters for elements",
    ),
    "space_groups": Option(
        None,
        optional(
            Several(item=Either((Number(whole=True), Text("a symbol"))), words="numbers or symbols such as [Fm-3m,225]")
        ),
        "numbers or symbols such as [Fm-3m,225]; null: all 230",
    ),
    "crystal_systems": Option(
        None,
        optional(Several(item=Text(), words="crystal systems such as [cubic,hexagonal]")),
        "triclinic ... cubic; trigonal, or trigonal-rhombohedral and trigonal-hexagonal apart",
    ),
    "point_symmetries": Option(
        None,
        optional(Several(item=Text(), words="point symmetries such as [polar,centrosymmetric]")),
        "centrosymmetric, enantiomorphic-polar, polar, enantiomorphic, non-centrosymmetric (none of these)",
    ),
    "lengths": Option([2.0, 40.0], limits("numbers", Number()), "a, b, c of the conventional cell, Å"),
    "angles": Option([45.0, 140.0], limits("numbers", Number()), "degrees"),
    "volume_per_atom": Option([4.0, 60.0], limits("numbers", Number()), "Å3"),
    "density": Option(None, optional(limits("numbers", Number())), "g/cm3, such as [2.0, 8.0]"),
    "relative_volume": Option(
        [0.65, 3.0],
        optional(limits("numbers", Number())),
        "volume over what the atoms take up in known crystals; null: no limit",
    ),
    "oxidation_states": Option(
        "icsd",
        Either((Null(), Names(), Text("icsd, common, all, null or states such as {Fe: [2, 3], O: [-2]}"))),
        "icsd | common | all | {Fe: [2, 3], ...} | null: no rule of charge",
    ),
    "mixed_valence": Option(
        "adjacent",
        Either((Switch(), Text("true, false or adjacent"))),
        "false | adjacent: one element may be split over two neighbouring states | true",
    ),
    "alloys": Option(False, Switch(), "true: compositions of metals only count as neutral"),
}
"""The arguments of CrystalSpace."""


CSP: dict[str, Option] = {
    "data": Option(None, optional(File()), "Parquet or CSV with atoms, or a folder of CIF files"),
    "templates": Option(
        None,
        optional(FILES),
        "other real crystals, or [several]; none that shares formula and group with the one looked for",
    ),
    "refiner": Option("default", File(), "a shipped one, or a folder"),
    "n": Option(None, optional(COUNT), "so many drawn with the seed; null: all"),
    "k": Option(20, COUNT, "structures of each method"),
    "steps": Option(5, COUNT, "of the refiner"),
    "tasks": Option(["T1", "T2", "T3", "T4"], Several(item=Text())),
    "methods": Option(
        None,
        optional(Several(item=Text())),
        "pyxtal[+relaxed], random[+relaxed|+refiner], refiner, templates[+refiner[+energies]]; null: no calculator",
    ),
    "outside": Option(
        None,
        optional(Names("{name: folder} or {name: {folder: ..., task: T4}}")),
        "of other programs: {name: folder} or {name: {folder: f, task: T4}}; CIFs 7.cif, 7_1.cif or 7/1.cif of row 7",
    ),
    "n_jobs": Option(1, JOBS, "processes"),
    "cache": Option(None, optional(File()), "folder where the index of the templates is kept; null: made each time"),
}
"""``csp.<name>`` of the benchmark."""

ONE_THREAD = "processes; give each one thread (OMP_NUM_THREADS=1)"
SAMPLER = Option("stable", File(), "a shipped sampler, or the folder of one that you trained")
CALCULATOR = Option(
    "chgnet",
    Text("a calculator such as chgnet, sevennet or module:factory"),
    "of energies and forces: chgnet (extra [relax]), sevennet (extra [sevennet]), or module:factory of your own",
)
REFERENCES = Option(
    None, optional(File()), "file of the energy references of a calculator of your own; null: those that are shipped"
)
TRUST = Option(
    [],
    Several(item=Text("a module"), words="modules such as [my_rewards]"),
    "modules whose code a sampler's saved reward may run, beside crystalgfn's own and installed packages'",
)
BETA = Option(
    None,
    optional(Number()),
    "inverse temperature, for a sampler trained for a range of them (trainer.betas); null: the reward's own",
)
SEEDED = Option(0, SEED, "the same seed gives the same result")
PROGRESS = Option(True, Switch(), "bars, on a terminal")
JSON = Option(False, Switch(), "true: print run.json, what the run was and made, instead of words")
REST = "Anything else has its full name, such as {}; --cfg prints all of them and stops."


def out_folder(what: str, words: str | None = None) -> Option:
    """The folder of a run, called by the time."""
    words = words or f"the same command with the out of an interrupted {what.split('_')[0]} goes on"
    return Option(f"runs/{what}${{now:%Y-%m-%d_%H-%M-%S-%f}}", File(), words)
