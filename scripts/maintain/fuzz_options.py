"""Gives commands lists of options that mean nothing, and looks at what becomes of them.

``python -m scripts.maintain.fuzz_options 2000 --out options.json``

Options are composed as the command line composes them; nothing is run. Where they are taken, the arguments of the space
are read as `CrystalSpace` reads them and the other parts are built (objective, policy, trainer, reward); of
every tenth the whole space is built. Nothing but the package's own errors, in one sentence, may come out.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from scripts.maintain.watched import report, timed, watch

BAD = ("traceback", "several lines", "slow", "crash", "hang")
VALUES = (
    """
|0|1|-1|2|0.5|1e30|-1e30|1e400|nan|inf|-inf|9999999999999999999999|true|false|yes|null|none|~|a|Fe|Li|Xx|No|Y|N|on|é
ü ü|Å|漢字|'|"|''|[]|[|]|[]]|[1|[1,2]|[2,1]|[4,4]|[1,2,3]|[[1,2],[3]]|[nan,1]|[inf,inf]|[1,a]|[a,b]|[Li,Mn,O]|[Li,,O]
[null]|[true]|{}|{|}|{a: b}|{a: [1,{b: c}]}|{Fe: [2,3]}|{Fe: x}|{Xx: 1}|[{a: b}]|{a:b,c:d}|LiFePO4|Ca(OH)2|Ca(OH|InF
NaN|Li-Mn-O|-Li|--|=|a=b|${x}|${oc.env:HOME}|${now:%Y}|${|$|@|!|!!python/object:os.system|*x|&x|../..|/|/dev/null|~/x
~nobody/x|a b|a,b|[a b, c]|con.cif|\t|\n|x\ny|\\|%s|%|{}{}|<b>|0x10|1_000|1e3|1e-3|007|+5|5.|.5|1/2|2^63|True|NULL
default|icsd|common|all|cubic|[cubic]|[Fm-3m,225]|[0]|[231]|Fm-3m|225|[ABX3]|ABX|adjacent|density|demo|small|vargrad
""".strip("\n")
    .replace("\n", "|")
    .split("|")
)
LIKELY = ("samples=a.cif", "n=5", "steps=3", "seconds=5", "elements=[Li,O]", "n_atoms=[1,6]", "out=x", "seed=1")
SIGNS = ("", "", "", "", "", "--", "+", "++", "~")


def _keys(name: str) -> list[str]:
    """Options of a command by any of their names, those of other commands' groups among them, and some unknown."""
    from crystalgfn.cli.options.commands import COMMANDS
    from crystalgfn.cli.options.declared import CSP, GROUPS, SPACE

    command = COMMANDS[name]
    keys = [*command.options] * 3 + [*SPACE] * 2 + [*(f"csp.{key}" for key in CSP)] + [*command.shorts, *GROUPS]
    keys += [
        "trainer.replay_fraction",
        "trainer.betas",
        "policy.width",
        "reward.beta",
        "reward._target_",
        "settings.members",
    ]
    return [
        *keys,
        "settings.members",
        "no_such",
        "space.no_such",
        "a.b.c",
        "",
        "é",
        "space",
        "hydra.run.dir",
        "_target_",
        "x[0]",
    ]


def arguments(name: str, rng: random.Random) -> list[str]:
    """One to five options of a command, mostly wrong."""
    found = []
    for _ in range(rng.randint(1, 5)):
        if rng.random() < 0.15:
            found.append(rng.choice(LIKELY))
            continue
        value = rng.choice(VALUES)
        if rng.random() < 0.15:
            value = f"[{value},{rng.choice(VALUES)}]"
        elif rng.random() < 0.1:
            value = rng.choice(VALUES) + value
        sign, key = rng.choice(SIGNS), rng.choice(_keys(name))
        form = rng.random()
        found += [f"{sign}{key}={value}"] if form < 0.9 else [f"--{key}", value] if form < 0.96 else [value]
    return found


def attempt(number: int) -> tuple[str, str]:
    """What comes of one list of options, and a word on it."""
    from crystalgfn.cli.options.commands import COMMANDS

    rng = random.Random(number)
    name = sorted(COMMANDS)[number % len(COMMANDS)]
    given = arguments(name, rng)
    return timed(partial(_compose, name, given, number % 10 == 0))


def _compose(name: str, given: list[str], whole: bool) -> tuple[str, str]:
    from omegaconf import OmegaConf

    from crystalgfn.cli.app import _words_of, flags_of
    from crystalgfn.cli.options.compose import compose_config
    from crystalgfn.errors import CrystalGFNError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            flags, options = flags_of(given)
            config = compose_config(name, options, flags.config_dir)
            OmegaConf.resolve(config)
            _build(config, whole)
        except CrystalGFNError as error:
            return ("several lines" if "\n" in str(error).strip() else "refused"), f"{given}: {error}"
        except (OSError, MemoryError) as error:
            return "refused by the system", f"{given}: {error}"
        except Exception as error:
            words = _words_of(error)
            return ("traceback" if words is None else "refused"), f"{given}: {type(error).__name__}: {error}"
    return "taken", str(given)


def _build(config: Any, whole: bool) -> None:
    """The parts that a command makes of its configuration before it works."""
    from crystalgfn.cli.options.objects import build_part, space_arguments
    from crystalgfn.space.constraints.composition import Neutral
    from crystalgfn.space.space import CHARGE, READERS, CrystalSpace

    for part in ("objective", "policy", "trainer"):
        if config.get(part) is not None:
            build_part(config[part], part)
    if whole and config.get("reward") is not None:
        build_part(config.reward, "reward")
    if config.get("space") is not None:
        values = space_arguments(config.space)
        for key, read in READERS.items():
            if values.get(key) is not None:
                read(values[key])
        if charge := {key: values[key] for key in CHARGE if key in values}:
            Neutral.parse(**{"oxidation_states": "icsd", "mixed_valence": "adjacent", "alloys": False} | charge)
        if whole:
            CrystalSpace(**values)


def kind(number: int) -> str:
    """The command of a number."""
    from crystalgfn.cli.options.commands import COMMANDS

    return sorted(COMMANDS)[number % len(COMMANDS)]


def main() -> None:
    """The command: counts of outcomes by command, and every one that should not be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="lists of options")
    parser.add_argument("--seed", type=int, default=0, help="number of the first")
    parser.add_argument("--out", type=Path, help="JSON file of the counts and of what should not be")
    options = parser.parse_args()
    out = options.out and options.out.resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        found = watch(attempt, range(options.seed, options.seed + options.count))
    sys.exit(report(found, BAD, kind, out))


if __name__ == "__main__":
    main()
