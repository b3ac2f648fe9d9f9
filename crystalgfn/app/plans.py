"""The commands, and the Python lines, that do what a form asks for."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from crystalgfn.app.forms import (
    MOST_BYTES,
    SAMPLERS,
    UPLOADS,
    AnyForm,
    DiscoverForm,
    EvaluateForm,
    GoalForm,
    PredictForm,
    RequestError,
    SampleForm,
    first_fault,
)
from crystalgfn.crystallography import space_groups

TRAINING = "training"
"""Within the folder of a run: the sampler that was trained for it."""


@dataclass(kw_only=True)
class Plan:
    """What a run does.

    Attributes:
        kind: sample, discover, predict or evaluate.
        title: in a few words.
        commands: arguments of `crystalgfn`, one after the other; ``{out}`` stands for the folder of the run.
        python: lines that do the same.
        request: the form, without the contents of files.
        files: names in the folder of the run, and what is written there first.
    """

    kind: str
    title: str
    commands: list[list[str]]
    python: str
    request: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


def plan_of(request: Any, reference: Sequence[str] = ()) -> Plan:
    """The plan of a request as the page sends it.

    Args:
        request: the form as JSON.
        reference: files of known phases that the server was started with.

    Raises:
        RequestError: the request is wrong; says where, in a sentence.
    """
    try:
        form = AnyForm(request=request).request
    except (ValidationError, RecursionError) as error:
        raise RequestError(first_fault(error)) from error
    plan = {"sample": _sample, "discover": _discover, "predict": _predict, "evaluate": _evaluate}[form.kind](
        form, reference
    )
    plan.request = form.model_dump(exclude={"files"}, mode="json")
    return plan


def option(name: str, value: Any) -> str:
    """``name=value`` as the command line reads it."""
    if isinstance(value, (list, tuple)):
        return f"{name}=[{','.join(_plain(one) for one in value)}]"
    return f"{name}={_plain(value)}"


def _plain(value: Any) -> str:
    text = str(value)
    return text if re.fullmatch(r"[\w./+-]+", text) else json.dumps(text)


def _title(space: dict[str, Any]) -> str:
    """What is looked for, in a few words."""
    systems = ", ".join(space.get("crystal_systems", ()))
    forms = [space.get("formula"), *space.get("formulas", ()), *space.get("anonymous_formulas", ())]
    forms += space.get("prototypes", ())
    chosen = space.get("chemsys") or "-".join(space.get("required_elements") or space.get("elements") or ())
    groups = [space_groups.SYMBOL[one - 1] for one in space.get("space_groups", ())[:3]]
    if "any_of" in space:
        groups.append(f"with {' or '.join(space['any_of'][:4])}")
    return " ".join(filter(None, [systems, chosen, *map(str, filter(None, forms)), *groups])) or "any elements"


def _sample(form: SampleForm, reference: Sequence[str]) -> Plan:
    space = form.space.arguments()
    options = [option(name, value) for name, value in space.items()]
    trained = form.goal.training(options, f"{{out}}/{TRAINING}", form.seed)
    sampler = f"{{out}}/{TRAINING}/sampler" if trained else SAMPLERS[form.goal.goal]
    narrow = [] if trained else options
    command = ["sample", f"sampler={sampler}", f"n={form.n}", *narrow, f"seed={form.seed}", "diagnostics=0"]
    given = "" if trained or not space else f", space={space!r}"
    if form.adapt and not trained:
        command, given = [*command, "adapt=auto"], f"{given}, adapt='auto'"
    return Plan(
        kind="sample",
        title=f"{form.n} of {_title(space)}, {_goal(form.goal)}",
        commands=[*([trained] if trained else []), [*command, "picture=false", "out={out}"]],
        python=_python(
            form.goal,
            space if trained else {},
            form.seed,
            f"crystals = sampler.sample({form.n}{given}, seed={form.seed})",
            f"results = cg.build_structures(crystals, seed={form.seed})",
            "for one in results:",
            "    print(one.structure if one.structure is not None else one.error)",
        ),
    )


def _discover(form: DiscoverForm, reference: Sequence[str]) -> Plan:
    if not reference:
        raise RequestError(
            "a discovery needs known phases with formation energies; start the page with reference=<file>, such as "
            "crystalgfn app reference=train.parquet"
        )
    space = form.space.arguments()
    options = [option(name, value) for name, value in space.items()]
    trained = form.goal.training(options, f"{{out}}/{TRAINING}", form.seed)
    sampler = f"{{out}}/{TRAINING}/sampler" if trained else SAMPLERS[form.goal.goal]
    known = reference[0] if len(reference) == 1 else list(reference)
    command = ["discover", f"sampler={sampler}", *([] if trained else options), option("reference", known)]
    given = "None" if trained or not space else repr(space)
    call = f"found = cg.discover({given}, budget={form.budget}, reference={known!r}, sampler=sampler, seed={form.seed})"
    return Plan(
        kind="discover",
        title=f"{_title(space)}, {form.budget} relaxations",
        commands=[
            *([trained] if trained else []),
            [*command, f"budget={form.budget}", f"seed={form.seed}", "out={out}"],
        ],
        python=_python(form.goal, space if trained else {}, form.seed, call, "print(found.table)"),
    )


def _predict(form: PredictForm, reference: Sequence[str]) -> Plan:
    group = [] if form.space_group is None else [f"space_group={form.space_group}"]
    given = "" if form.space_group is None else f", space_group={form.space_group}"
    lines = [
        "import crystalgfn as cg",
        "",
        f"for one in cg.predict({form.formula!r}{given}, n={form.n}, templates='aflow', seed={form.seed}):",
        "    print(one.space_group, one.probability, one.energy)",
    ]
    command = ["predict", option("formula", form.formula), *group, f"n={form.n}", f"seed={form.seed}", "out={out}"]
    return Plan(kind="predict", title=f"structures of {form.formula}", commands=[command], python="\n".join(lines))


def _evaluate(form: EvaluateForm, reference: Sequence[str]) -> Plan:
    files: dict[str, bytes] = {}
    for i, one in enumerate(form.files):
        ending = ".vasp" if one.name.startswith(("POSCAR", "CONTCAR")) else Path(one.name).suffix.lower()
        if ending not in UPLOADS:
            raise RequestError(f"{one.name[:60]!r} is no file of crystals: give {', '.join(UPLOADS)}")
        try:
            label = re.sub(r"[^A-Za-z0-9-]+", "_", Path(one.name).name.removesuffix(ending))[:40]
            files[f"uploaded/{i:04d}_{label}{ending}"] = b64decode(one.content, validate=True)
        except (NotBase64, ValueError) as error:
            raise RequestError(f"{one.name[:60]!r} did not arrive whole; send it again") from error
    if sum(map(len, files.values())) > MOST_BYTES:
        raise RequestError(f"the files are larger than {MOST_BYTES // 2**20} MB together; send fewer")
    samples = [f"{{out}}/app/{name}" for name in files]
    known = (
        {"reference": reference[0] if len(reference) == 1 else list(reference)} if reference and form.compare else {}
    )
    command = ["evaluate", option("samples", samples), *[option(k, v) for k, v in known.items()], "out={out}"]
    named = form.files[0].name[:40] if len(files) == 1 else f"{len(files)} files"
    lines = ["from crystalgfn.cli.app import main", "", "main(" + json.dumps(command) + ")"]
    return Plan(
        kind="evaluate", title=f"evaluation of {named}", commands=[command], python="\n".join(lines), files=files
    )


def _goal(form: GoalForm) -> str:
    if form.goal == "gap":
        return f"gap near {form.gap:g} eV"
    return {"conductor": "Li conductor", "formation-energy": "low formation energy"}.get(
        form.goal, form.goal.removeprefix("reward:")
    )


def _python(form: GoalForm, space: dict[str, Any], seed: int, *lines: str) -> str:
    """Lines that load the goal's sampler, or train it, and the rest."""
    if form.training([], "", seed) is None:
        head = [f"sampler = cg.Sampler.load({SAMPLERS[form.goal]!r})"]
    else:
        name, change = ("band_gap_stable", f", gap={{'value': {form.gap:g}}}") if form.goal == "gap" else ("", "")
        reward = f"cg.rewards.load({name or form.goal.removeprefix('reward:')!r}{change})"
        given = ", ".join(f"{key}={value!r}" for key, value in space.items())
        head = [
            f"space = cg.CrystalSpace({given})",
            f"trainer = cg.Trainer(seconds={form.seconds})",
            f"sampler = cg.train(space, {reward}, trainer=trainer, strata='default', seed={seed})",
        ]
    return "\n".join(["import crystalgfn as cg", "", *head, *lines])
