"""Kills commands at random moments, lets them go on, and compares the end with that of a run that was left alone.

``python -m scripts.maintain.kill_commands --moments 40 --out kills.json`` (``--commands train,evaluate``: some)

Each command does a tiny job in a process that is forked from this one, which has the package loaded. It is ended by
SIGKILL, SIGTERM and SIGINT in turn, up to three times before it may end. Figures, tables and weights must be those of
the run that was left alone, and nothing may be left over: parts of files, locks, processes, shared memory.
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
from importlib import import_module
from pathlib import Path
from typing import Any

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
"""Exit codes of commands that are ended by a signal that can be handled."""
CHAIN = 3
PATIENCE = 900.0
CLOCK = ("second", "started", "command", "machine", "versions", "time", "out", "settings", "warnings", "files")
"""Names, or parts of names, of values that may differ."""
SMALL = ["elements=[Li,O]", "space_groups=[221,225]", "n_atoms=[1,6]"]


def jobs(folder: Path) -> dict[str, list[str]]:
    """Arguments of the tiny job of each command; what it works on is made in the folder."""
    from pymatgen.core import Lattice, Structure

    cifs = folder / "cifs"
    cifs.mkdir()
    for i, (cation, a) in enumerate((("Na", 5.64), ("K", 6.29), ("Li", 5.14), ("Rb", 6.58), ("Ag", 5.55), ("Cs", 7.0))):
        one = Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), [cation, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
        one.to(filename=str(cifs / f"{i}.cif"))
    train = ["train", "reward=density", "policy=small", *SMALL, "batch_size=20", "diagnostics=0", "trainer.log_every=3"]
    return {
        "train": [*train, "steps=36", "trainer.checkpoint_seconds=0.2", "progress=false"],
        "sample": ["sample", "sampler=density", "n=8", "n_atoms=[1,6]", "diagnostics=0", "n_jobs=1", "progress=false"],
        "sample, shards": [
            *("sample", "sampler=density", "n=400", "n_atoms=[1,6]", "shard_size=40", "structures=false"),
            *("diagnostics=0", "picture=false", "progress=false"),
        ],
        "evaluate": ["evaluate", f"samples={cifs}", f"reference={cifs}", "report=false", "progress=false"],
        "benchmark csp": ["benchmark", "task=csp", f"csp.data={cifs}", "csp.methods=[random]", "csp.k=2",
                          "progress=false"],
        "train-refiner": ["train-refiner", f"train={cifs}", f"val={cifs / '0.cif'}", "epochs=3", "width=16",
                          "progress=false"],
    }  # fmt: skip


def start(arguments: list[str], log: Path) -> int:
    """A process of its own group that runs a command; its number."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    for one in SIGNALS[1:]:
        signal.signal(one, signal.SIG_DFL if one == signal.SIGTERM else signal.default_int_handler)
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    from crystalgfn.cli import app

    code = 1
    try:
        code = app.main(arguments)
    finally:
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


def plain(value: Any) -> Any:
    """A value of a JSON file without what the clock, the folder and the machine put in."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items() if not any(part in key for part in CLOCK)}
    return [plain(one) for one in value] if isinstance(value, list) else value


def content(folder: Path) -> dict[str, str]:
    """What a run has made, by file, without what may differ."""
    import pandas as pd
    from safetensors.numpy import load_file

    found = {}
    for path in sorted(one for one in folder.rglob("*") if one.is_file() and one.suffix not in (".pt", ".html", ".md")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            found[name] = str({key: value.tobytes().hex()[:4000] for key, value in sorted(load_file(path).items())})
        elif path.suffix in (".csv", ".parquet"):
            frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
            found[name] = frame[[c for c in frame if not any(part in c for part in CLOCK)]].to_json()
        elif path.suffix == ".json":
            found[name] = json.dumps(plain(json.loads(path.read_text(encoding="utf-8"))), sort_keys=True)
        elif path.suffix == ".jsonl":
            rows = [json.dumps(plain(json.loads(line)), sort_keys=True) for line in path.read_text().splitlines()]
            found[name] = "\n".join(sorted(set(rows)))
        elif path.suffix == ".cif":
            found[name] = path.read_text(encoding="utf-8")
        else:
            found[name] = ""
    return found


def leftovers(folder: Path, groups: list[int], shared: set[str]) -> list[str]:
    """Parts of files, processes and shared memory that runs have left."""
    found = [str(path.relative_to(folder)) for path in folder.rglob("*") if ".part" in path.name]
    for group in groups:
        try:
            os.killpg(group, 0)
            found.append(f"processes of group {group}")
        except ProcessLookupError:
            continue
    return found + [
        f"/dev/shm/{name}" for name in set(os.listdir("/dev/shm")) - shared if "psm" in name or "joblib" in name
    ]


def chain(arguments: list[str], out: Path, length: float, first: int, rng: random.Random) -> dict[str, Any]:
    """A run that is ended up to `CHAIN` times and then left alone; what was sent, and what was wrong."""
    groups, sent, wrong = [], [], []
    shared = set(os.listdir("/dev/shm"))
    for turn in range(CHAIN + 1):
        how = SIGNALS[(first + turn) % len(SIGNALS)] if turn < CHAIN else None
        resume = ["resume=true"] if arguments[0] == "train" and (out / "config.yaml").exists() else []
        given = [arguments[0], "resume=true", f"out={out}"] if resume else [*arguments, f"out={out}"]
        pid = start(given, out.with_suffix(".log"))
        groups.append(pid)
        code, hit = ended(pid, rng.uniform(0, length), how)
        if how is not None and hit:
            sent.append(how.name)
        if code == 0:
            break
        if not hit or code not in (-how, CODES.get(how)):
            wrong.append(f"exit code {code} after {how.name if hit else 'no signal'}")
            break
    time.sleep(0.2)
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
    rng, report = random.Random(options.seed), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for command, arguments in jobs(folder).items():
            if options.commands and command not in options.commands.split(","):
                continue
            quiet = folder / f"{command.replace(' ', '_')}_quiet"
            begun = time.monotonic()
            code, _ = ended(start([*arguments, f"out={quiet}"], quiet.with_suffix(".log")), 0.0, None)
            length, wanted = time.monotonic() - begun, content(quiet) if code == 0 else {}
            counts, wrong = Counter(), [] if code == 0 else [f"undisturbed: exit code {code}"]
            for number in range(10 * options.moments):
                if sum(counts.values()) >= options.moments or code != 0:
                    break
                out = folder / f"{command.replace(' ', '_')}_{number}"
                found = chain(arguments, out, length, number, rng)
                counts.update(found["sent"])
                got = content(out)
                changed = [one for one in wanted.keys() | got.keys() if wanted.get(one) != got.get(one)]
                wrong += [f"chain {number} ({', '.join(found['sent'])}): {one}" for one in found["wrong"]]
                wrong += [f"chain {number} ({', '.join(found['sent'])}): another {one}" for one in sorted(changed)]
                report[command] = {"seconds": round(length, 1), "signals": dict(counts), "wrong": wrong}
                if options.out is not None:
                    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            report[command] = {"seconds": round(length, 1), "signals": dict(counts), "wrong": wrong}
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    sys.exit(any(one["wrong"] for one in report.values()))


if __name__ == "__main__":
    main()
