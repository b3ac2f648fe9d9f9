"""Kills commands at random moments, lets them go on, and compares the end with that of a run that was left alone.

``python -m scripts.maintain.kill_commands --moments 40 --out kills.json`` (``--commands train,evaluate``: some)

Each command does a tiny job in a process that is forked from this one, which has the package loaded. It is ended by
SIGKILL, SIGTERM and SIGINT in turn, up to three times before it may end. Figures, tables and weights must be those of
the run that was left alone; what was finished before a kill must not be done again; and nothing may be left over: parts
of files, locks, processes, shared memory.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
"""Exit codes of commands that are ended by a signal that can be handled."""
CHAIN = 3
PATIENCE = 900.0
WAIT = 10.0
"""Seconds after which no process of a run may be there; workers look after their parent each half second."""
CLOCK = frozenset({"started", "command", "machine", "time", "cpu", "warnings", "rows_per_second", "elapsed", "resume"})
"""Values that may differ, besides those with "second" in their names."""
WHOLE = ("shards/part-*.parquet", "**/labels-*.npz", "**/drawn.pt", "parts/part-*.parquet")
"""Files that are finished when they are there."""
LOADED = ("crystalgfn", "pymatgen", "spglib", "matplotlib", "scipy", "ase", "gemmi", "pandas", "pyarrow", "sklearn")
"""Packages whose modules a first run loads for all others."""
SMALL = ["elements=[Li,O]", "space_groups=[221,225]", "n_atoms=[1,6]"]


def data(folder: Path) -> None:
    """What the tiny jobs work on: rock salts, salts with an energy, alloys, EMT's references, two samplers."""
    import numpy as np
    import pandas as pd
    import torch
    from pymatgen.core import Lattice, Structure

    import crystalgfn as cg
    from crystalgfn.calculators.energy_references import References
    from crystalgfn.crystallography.elements import ELECTRONEGATIVITY, NUMBER
    from crystalgfn.fitting.labels import read_labels

    for name in ("cifs", "alloys"):
        (folder / name).mkdir()
    for i, (cation, a) in enumerate((("Na", 5.64), ("K", 6.29), ("Li", 5.14), ("Rb", 6.58))):
        one = Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), [cation, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
        one.to(filename=str(folder / "cifs" / f"{i}.cif"))
    for i, a in enumerate((3.7, 3.8, 3.9, 4.0)):
        one = Structure.from_spacegroup("Pm-3m", Lattice.cubic(a), ["Au", "Cu"], [[0, 0, 0], [0, 0.5, 0.5]])
        one.to(filename=str(folder / "alloys" / f"{i}.cif"))
    pairs = [
        (a, b)
        for a in "Cu Au Li Na K Rb Cs Mg Ca Sr Ba Ti V Cr Mn Fe Co".split()
        for b in "F Cl Br I O S Se Te N P".split()
    ]
    table = pd.DataFrame({"formula": [a + b for a, b in pairs]})
    table = table.assign(spacegroup=123, n_atoms=2, a=3.5, b=3.5, c=4.5, alpha=90, beta=90, gamma=90)
    table["formation_energy_per_atom"] = [
        -abs(float(ELECTRONEGATIVITY[NUMBER[a] - 1] - ELECTRONEGATIVITY[NUMBER[b] - 1])) for a, b in pairs
    ]
    table[:120].to_csv(folder / "train.csv", index=False)
    table[110:].to_csv(folder / "val.csv", index=False)
    known = {"formula": ["CuAu", "Cu3Au", "Cu", "Au"], "formation_energy_per_atom": [-0.04, -0.02, 0.0, 0.0]}
    pd.DataFrame(known).to_csv(folder / "known.csv", index=False)
    read_labels()[:50].save(folder / "labels.npz")
    energies = np.full(118, np.nan)
    energies[[28, 78]] = -0.0057, 0.0002
    checks = {"all": {"rows": 1, "mae": 0.02, "bias": 0.0}}
    References(energies=tuple(energies), calculator="EMT", model="ase", rows=2, checks=checks).save(folder / "emt.json")
    space = {"elements": ["Cu", "Au"], "n_atoms": (1, 4), "space_groups": [221, 225], "oxidation_states": None}
    sampler = cg.Sampler.untrained(cg.CrystalSpace(**space), policy=cg.PolicyConfig(width=16, blocks=1, components=2))
    sampler.reward = cg.rewards.boltzmann(cg.load_proxy("formation_energy"), 8.0)
    sampler.save(folder / "sampler")
    torch.set_num_threads(1)


def jobs(folder: Path) -> dict[str, list[str]]:
    """Arguments of the tiny job of each command; what it works on is made in the folder."""
    data(folder)
    cifs = folder / "cifs"
    train = ["train", "reward=density", "policy=small", *SMALL, "batch_size=20", "diagnostics=0", "trainer.log_every=3"]
    emt = ["calculator=ase.calculators.emt:EMT", f"energy_references={folder / 'emt.json'}"]
    fit = [f"train={folder / 'train.csv'}", f"val={folder / 'val.csv'}", "settings.members=2", "settings.width=8"]
    sample = ["sample", "sampler=density", "n_atoms=[1,6]", "diagnostics=0"]
    found = {
        "train": [*train, "steps=24", "trainer.checkpoint_seconds=0.2"],
        "sample": [*sample, "n=5", "n_jobs=1"],
        "sample two processes": [*sample, "n=10", "n_jobs=2", "refiner=null"],
        "sample shards": [*sample, "n=200", "shard_size=20", "structures=false", "picture=false"],
        "evaluate": ["evaluate", f"samples={cifs}", f"reference={cifs}"],
        "evaluate relaxed": ["evaluate", f"samples={folder / 'alloys'}", f"reference={folder / 'known.csv'}",
                             "relax=true", *emt, "report=false"],
        "check": ["check", f"sampler={folder / 'sampler'}", "n=6", "chunk=1", *emt, "n_candidates=2", "steps=5",
                  "full_steps=5"],
        "discover": ["discover", f"sampler={folder / 'sampler'}", f"reference={folder / 'known.csv'}", *emt,
                     "refiner=null", "budget=6", "batch=2", "shortlist=4", "draws=60", "pool=20", "beta=20",
                     "report=false"],
        "benchmark csp": ["benchmark", "task=csp", f"csp.data={cifs}", "csp.methods=[random]", "csp.k=2", "csp.n=3",
                          "csp.tasks=[T1,T3]"],
        "benchmark placement": ["benchmark", "task=placement", f"sampler={folder / 'sampler'}", "placed=6",
                                "placed_by=[random]", emt[0]],
        "train-proxy": ["train-proxy", *fit, "settings.epochs=8"],
        "train-proxy active": ["train-proxy", *fit, "settings.epochs=2", "settings.depth=1", "active=true", "rounds=1",
                               "draws=18", f"labels={folder / 'labels.npz'}", *emt, "space.elements=[Cu,Au]",
                               "space.oxidation_states=null", "space.space_groups=[221,225]", "space.n_atoms=[1,4]",
                               "policy=small", "trainer.steps=10", "trainer.batch_size=20"],
        "train-refiner": ["train-refiner", f"train={cifs}", f"val={cifs / '0.cif'}", "epochs=6", "width=16"],
    }  # fmt: skip
    return {name: [*arguments, "progress=false"] for name, arguments in found.items()}


def start(arguments: list[str], log: Path, listed: Path | None = None) -> int:
    """A process of its own group that runs a command; its number. ``listed``: where it names the modules it has."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS[1:])
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        return pid
    code = 1
    try:
        os.setsid()
        for stream in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from crystalgfn.cli import app

        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            code = app.main(arguments)
        except KeyboardInterrupt:  # before the command's own handler stood
            code = CODES[signal.SIGINT]
        if listed is not None:
            listed.write_text("\n".join(sys.modules), encoding="utf-8")
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)


def ended(pid: int, after: float, how: signal.Signals | None) -> tuple[int | None, int]:
    """Exit code of a process, or the signal that it died of, negative; it is sent ``how`` after so many seconds.

    The second number says whether the signal was sent before it had ended.
    """
    begun, sent = time.monotonic(), 0
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), sent
        if how is not None and not sent and time.monotonic() - begun > after:
            os.kill(pid, how)
            sent = 1
        if time.monotonic() - begun > PATIENCE:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None, sent
        time.sleep(0.005)


def timed(name: str) -> bool:
    """Whether a value may differ from run to run."""
    return name in CLOCK or "second" in name


def plain(value: Any) -> Any:
    """A value of a JSON file without what the clock and the machine put in."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items() if not timed(key)}
    return [plain(one) for one in value] if isinstance(value, list) else value


def content(folder: Path) -> dict[str, str]:
    """What a run has made, by file, without what may differ."""
    import pandas as pd
    from safetensors.numpy import load_file

    found = {}
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            found[name] = str({key: value.tobytes().hex()[:4000] for key, value in sorted(load_file(path).items())})
        elif path.suffix in (".csv", ".parquet"):
            frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
            found[name] = frame[[c for c in frame if not timed(c)]].to_json(default_handler=str)
        elif path.suffix == ".json":
            found[name] = json.dumps(plain(json.loads(path.read_text(encoding="utf-8"))), sort_keys=True)
        elif path.suffix == ".jsonl":
            rows = [json.dumps(plain(json.loads(line)), sort_keys=True) for line in path.read_text().splitlines()]
            found[name] = "\n".join(sorted(set(rows)))
        else:
            found[name] = path.read_text(encoding="utf-8") if path.suffix in (".cif", ".yaml") else ""
        found[name] = found[name].replace(str(folder), "<out>")
    return found


def difference(wanted: Mapping[str, str], got: Mapping[str, str], name: str) -> str:
    """Where the content of a file begins to differ."""
    if name not in got or name not in wanted:
        return "it is missing" if name not in got else "it should not be there"
    at = next((i for i, (a, b) in enumerate(zip(wanted[name], got[name], strict=False)) if a != b), 0)
    return f"{wanted[name][max(at - 60, 0) : at + 60]!r}, now {got[name][max(at - 60, 0) : at + 60]!r}"


def finished(folder: Path) -> dict[str, str]:
    """Work that is done: lines of journals, and when the files were written that are whole once they are there."""
    found = {}
    for path in folder.rglob("*.jsonl"):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        found |= {f"{path}\n{line}": "" for line in lines if line.endswith("\n")}
    paths = [path for pattern in WHOLE for path in folder.glob(pattern)]
    return found | {str(path): str(path.stat().st_mtime_ns) for path in paths}


def lost(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What was done and was done again, or is gone from a file that is there."""
    return [
        key[:200] for key, value in before.items() if after.get(key) != value and Path(key.partition("\n")[0]).exists()
    ]


def leftovers(folder: Path, groups: list[int], shared: set[str]) -> list[str]:
    """Parts of files, locks, processes and shared memory that runs have left."""
    found = [str(path.relative_to(folder)) for path in folder.rglob(".*") if path.is_file()]
    stop = time.monotonic() + WAIT
    while (alive := processes(groups)) and time.monotonic() < stop:
        time.sleep(0.1)
    return [*found, *alive] + [
        f"/dev/shm/{name}" for name in set(os.listdir("/dev/shm")) - shared if "psm" in name or "joblib" in name
    ]


def processes(groups: list[int]) -> list[str]:
    """The processes of groups that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, group = path.joinpath("stat").read_text().rpartition(")")[2].split()[:3]
            if int(group) in groups and state != "Z":
                found.append(f"process {path.joinpath('cmdline').read_bytes().decode()[:100]}")
    return found


def chain(arguments: list[str], out: Path, length: float, first: int, rng: random.Random) -> dict[str, Any]:
    """A run that is ended up to `CHAIN` times and then left alone; what was sent, and what was wrong."""
    groups: list[int] = []
    sent: list[str] = []
    wrong: list[str] = []
    shared, log, done = set(os.listdir("/dev/shm")), out.with_suffix(".log"), {}
    for turn in range(CHAIN + 1):
        if (out / "run.json").exists():  # the last signal came when all was done
            break
        how = SIGNALS[(first + turn) % len(SIGNALS)] if turn < CHAIN else None
        resume = arguments[0] == "train" and (out / "config.yaml").exists()
        given = ["train", "resume=true", f"out={out}"] if resume else [*arguments, f"out={out}"]
        pid = start(given, log)
        groups.append(pid)
        code, hit = ended(pid, rng.uniform(0, length), how)
        if how is not None and hit:
            sent.append(how.name)
        now = finished(out)
        wrong += [f"lost: {one}" for one in lost(done, now)]
        done = now
        if code == 0:
            break
        if how is None or not hit or code not in (-how, CODES.get(how)):
            said = " ".join(log.read_text(encoding="utf-8").split())[-600:]
            wrong.append(f"exit code {code} after {how.name if how and hit else 'no signal'}: {said}")
            break
    if "Traceback" in log.read_text(encoding="utf-8"):
        wrong.append(f"traceback: {' '.join(log.read_text(encoding='utf-8').split())[-600:]}")
    return {"sent": sent, "wrong": wrong + [f"left over: {one}" for one in leftovers(out, groups, shared)]}


def main() -> None:
    """The command: how often each was ended, and what came out otherwise than undisturbed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=40, help="signals sent to each command, at least")
    parser.add_argument("--commands", help="names between commas; all without it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file of the outcomes, written after each chain")
    options = parser.parse_args()
    import pymatgen.io.cif  # noqa: F401
    import torch

    from crystalgfn.cli.options.commands import COMMANDS

    for name in COMMANDS:
        import_module(f"crystalgfn.cli.{name}")
    torch.set_num_threads(1)
    rng = random.Random(options.seed)
    report: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = jobs(folder)
        for command in given if options.commands is None else options.commands.split(","):
            arguments = given[command]
            quiet = [folder / f"{command.replace(' ', '_')}_quiet{i}" for i in range(2)]
            modules, log = folder / "modules", quiet[0].with_suffix(".log")
            code, _ = ended(start([*arguments, f"out={quiet[0]}"], log, modules), 0.0, None)
            wrong = [] if code == 0 else [f"undisturbed: exit code {code}: {log.read_text()[-600:]}"]
            for module in modules.read_text().splitlines() if code == 0 else ():
                if module.partition(".")[0] in LOADED:
                    with suppress(Exception):
                        import_module(module)
            torch.set_num_threads(1)
            begun = time.monotonic()
            ended(start([*arguments, f"out={quiet[1]}"], quiet[1].with_suffix(".log")), 0.0, None)
            length, wanted, again = time.monotonic() - begun, content(quiet[0]), content(quiet[1])
            wrong += [f"undisturbed: another {one}" for one in wanted if wanted[one] != again.get(one)]
            counts: Counter[str] = Counter()
            for number in range(10 * options.moments):
                if sum(counts.values()) >= options.moments or code != 0:
                    break
                out = folder / f"{command.replace(' ', '_')}_{number}"
                found = chain(arguments, out, length, number, rng)
                counts.update(found["sent"])
                got = content(out)
                changed = [one for one in wanted.keys() | got.keys() if wanted.get(one) != got.get(one)]
                wrong += [f"chain {number} ({', '.join(found['sent'])}): {one}" for one in found["wrong"]]
                wrong += [
                    f"chain {number} ({', '.join(found['sent'])}): another {one}: {difference(wanted, got, one)}"
                    for one in sorted(changed)
                ]
                report[command] = {"seconds": round(length, 1), "signals": dict(counts), "wrong": wrong}
                if options.out is not None:
                    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            report[command] = {"seconds": round(length, 1), "signals": dict(counts), "wrong": wrong}
            if options.out is not None:
                options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    sys.exit(any(one["wrong"] for one in report.values()))


if __name__ == "__main__":
    main()
