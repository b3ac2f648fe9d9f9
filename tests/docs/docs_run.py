"""Runs the code blocks of pages in a process of its own, without the type checks that make tests slow.

``python docs_run.py FOLDER PAGE ...`` prints a line of JSON a page: its name, why it failed or null, and seconds.
"""

import contextlib
import importlib.util
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
import traceback
from pathlib import Path

import pandas as pd
import yaml
from docs_pages import Block, DocsError, blocks

import crystalgfn as cg
from crystalgfn.cli import app
from crystalgfn.cli.options.compose import compose_config
from crystalgfn.crystallography import elements
from crystalgfn.crystallography.atoms import CELL
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure

SMALL = {
    "crystalgfn-sample": "n=3 diagnostics=0 picture=false structures=false n_jobs=1 progress=false",
    "crystalgfn-train": "seconds=null steps=2 batch_size=8 policy=small diagnostics=0 progress=false logger=none",
    "crystalgfn-train resume=true": "steps=3 diagnostics=0 progress=false",
    "crystalgfn-train-refiner": "epochs=1 width=16 layers=1 batch=8 progress=false",
    "crystalgfn-predict": "n=2 steps=2 progress=false",
    "crystalgfn-evaluate": "limit=4 n_jobs=1 progress=false",
    "crystalgfn-check": "n=2 n_candidates=1 steps=1 full_steps=1 n_jobs=1 picture=false progress=false",
    "crystalgfn-benchmark": "progress=false",
    "crystalgfn-benchmark task=csp": "csp.n=2 csp.k=1 csp.n_jobs=1 progress=false",
}
"""Start of a command -> the options that make it small; the longest start that fits counts."""
PROGRAMS = """
tell() { printf '%s\\0' "$@"; printf '\\n'; }
for name in benchmark check evaluate sample train train-proxy train-refiner; do
    eval "crystalgfn-$name() { tell crystalgfn-$name \\"\\$@\\"; }"
done
crystalgfn() { local name=$1; shift; tell "crystalgfn-$name" "$@"; }
torchrun() { while [[ $1 != crystalgfn ]]; do shift; done; "$@"; }
python() { tell python "$@"; }
"""
"""In place of the programs: they print how they are called."""
SALTS = list(itertools.product(["Li", "Na", "K", "Rb"], ["F", "Cl", "Br", "I"]))


def known(structure, energy: float) -> dict:
    """A row in the layout of MP-20."""
    primitive = structure.get_primitive_structure()
    cells = {f"cell_{k}": v for k, v in zip(CELL, structure.lattice.parameters, strict=True)}
    cells |= {f"prim_{k}": v for k, v in zip(CELL, primitive.lattice.parameters, strict=True)}
    atoms = {"Z": [site.specie.Z for site in primitive], "frac": primitive.frac_coords.ravel().tolist()}
    return {"formula": structure.composition.reduced_formula, "spacegroup": structure.get_space_group_info()[1],
            "n_atoms": len(primitive), **cells, **atoms, "formation_energy_per_atom": energy,
            "band_gap": 1 - energy, "e_above_hull": 0.01}  # fmt: skip


def cubic(group: int, edge: float, *atoms: tuple[str, str]):
    orbits = tuple(Orbit(letter, elements.NUMBER[symbol]) for letter, symbol in atoms)
    return OrbitStructure(group, (edge, edge, edge, 90.0, 90.0, 90.0), orbits).to_structure()


def make_data(folder: Path) -> None:
    """``mp20/train.parquet`` and ``val.parquet``, the second of other formulas; ``cifs/``; ``runs/mine/sampler``."""
    train = [cubic(225, 4.9 + 0.1 * i, ("a", x), ("b", y)) for i, (x, y) in enumerate(SALTS)]
    train += [cubic(221, 4.0, ("a", x), ("b", y), ("c", "O")) for x in ("Ba", "Ca") for y in ("Ti", "Zr")]
    train += [cubic(229, 3.0 + 0.2 * i, ("a", x)) for i, x in enumerate(["Li", "Na", "K"])]
    val = [cubic(221, 3.9, ("a", "Sr"), ("b", "Ti"), ("c", "O")), cubic(225, 4.2, ("a", "Mg"), ("b", "O")),
           cubic(225, 5.2, ("a", "Mg"), ("b", "S")), cubic(225, 4.8, ("a", "Ca"), ("b", "O"))]  # fmt: skip
    (folder / "mp20").mkdir(parents=True)
    for name, structures in (("train", train), ("val", val)):
        rows = [known(one, -1.0 - 0.02 * i if len(one) > 2 else 0.0) for i, one in enumerate(structures)]
        pd.DataFrame(rows).to_parquet(folder / "mp20" / f"{name}.parquet")
    (folder / "cifs").mkdir()
    for i, one in enumerate(val):
        one.to(filename=str(folder / "cifs" / f"{i}.cif"))
    sampler = cg.Sampler.untrained(cg.CrystalSpace(elements=["Li", "Mn", "O"]), policy=cg.PolicyConfig(width=16))
    sampler.reward = cg.rewards.load("formation_energy")
    sampler.save(folder / "runs" / "mine" / "sampler")


def run_page(page: str, folder: Path) -> None:
    """Run the blocks of a page in this folder; modules that it writes are forgotten afterwards."""
    before, path, place = set(sys.modules), list(sys.path), Path.cwd()
    os.chdir(folder)
    names: dict = {"__name__": "page"}
    try:
        for block in blocks(page):
            try:
                run(block, names)
            except (Exception, SystemExit) as error:
                raise DocsError(f"{block.where}: {type(error).__name__}: {error}\n\n{block.code}") from error
    finally:
        os.chdir(place)
        sys.path[:] = path
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]


def run(block: Block, names: dict) -> None:
    """Run a block as its language and its comments have it."""
    if block.language not in LANGUAGES:
        raise DocsError(f"blocks in {block.language or 'no language'} cannot be tested; known: {', '.join(LANGUAGES)}")
    if block.skip is not None or not all(importlib.util.find_spec(name) for name in block.needs):
        return
    exec(compile(block.before, f"{block.where}, before", "exec"), names)
    if block.file is not None:
        Path(block.file).parent.mkdir(parents=True, exist_ok=True)
        Path(block.file).write_text(block.code)
    LANGUAGES[block.language](block, names)


def python(block: Block, names: dict) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(block.code, block.where, "exec"), names)


def shell(block: Block, names: dict) -> None:
    for words in commands(block.code):
        line = " ".join(words)
        only = longest(block.only_read, line)
        if words[0] == "python":
            if words[1] != "-m" or only is None or not importlib.util.find_spec(words[2]):
                raise DocsError(f"{line}: modules are only looked for; say so")
            continue
        if only is not None:
            command(words, None)
            continue
        more = [longest(SMALL, line) or "", longest(block.options, line) or ""]
        command([*words, *(one for text in more for one in text.split())], 0)


def console(block: Block, names: dict) -> None:
    """A command after ``$`` and what it says, which may be broken into lines."""
    first, *said = block.code.splitlines()
    (words,) = commands(first.removeprefix("$ "))
    found = command(words, 2 if said[0].startswith("error: ") else 0)
    assert found.split() == " ".join(said).split()


def commands(code: str) -> list[list[str]]:
    """How a block calls each command, by a real shell; any other program is an error."""
    words = ["/bin/bash", "-euc", f"{PROGRAMS}\n{code}"]
    done = subprocess.run(words, capture_output=True, text=True, env={"PATH": "", "SLURM_ARRAY_TASK_ID": "0"})
    if done.returncode:
        raise DocsError(done.stderr)
    return [line.split("\0")[:-1] for line in done.stdout.splitlines()]


def command(words: list[str], code: int | None) -> str:
    """Call a command, or read its options where no exit code is expected; what it says on stderr."""
    name = words[0].removeprefix("crystalgfn-").replace("-", "_")
    said, printed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
        if code is None:
            flags, options = app.flags_of(words[1:])
            compose_config(name, options, flags.config_dir)
            return said.getvalue()
        found = app.main([name, *words[1:]])
    assert found == code, f"{' '.join(words)} ends with {found}: {said.getvalue()}"
    return said.getvalue()


def longest(table: dict[str, str], line: str) -> str | None:
    """What stands for the longest start of this command."""
    fitting = [start for start in table if line.startswith(start)]
    return table[max(fitting, key=len)] if fitting else None


def as_yaml(block: Block, names: dict) -> None:
    assert yaml.safe_load(block.code)


def as_toml(block: Block, names: dict) -> None:
    assert tomllib.loads(block.code)


def output(block: Block, names: dict) -> None:
    """What a command printed; nothing to run."""
    assert block.code.strip()


LANGUAGES = {"python": python, "sh": shell, "console": console, "yaml": as_yaml, "toml": as_toml, "text": output}


def main(folder: Path, pages: list[str]) -> None:
    """Run pages, each in a folder of its own that holds the data and no more."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    make_data(folder / "data")
    for page in pages:
        start, why = time.process_time(), None
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                shutil.copytree(folder / "data", folder / page)
                run_page(page, folder / page)
        except Exception:
            why = traceback.format_exc()
        print(json.dumps([page, why, time.process_time() - start]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
