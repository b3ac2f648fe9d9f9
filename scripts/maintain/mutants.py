"""Changes one line of the package at a time and looks whether the tests notice.

``python -m scripts.maintain.mutants --out mutants.json``; ``--only 3,17``: some; ``--check``: only looks for the lines.

The mutants stand in ``mutants.txt``. Each is tried in a copy of the tree, with the tests that should catch it, up to
the first failure. A line is looked for in its room, not in a file, so that it is found where a module has moved.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 900


@cache
def mutants() -> list[tuple[str, str, str, str]]:
    """Room, line, what it becomes, tests; as ``mutants.txt`` has them."""
    text = (ROOT / "scripts" / "maintain" / "mutants.txt").read_text(encoding="utf-8")
    found = []
    for block in text.split("\n\n")[1:]:
        head, old, new = block.rstrip("\n").split("\n")
        room, _, tests = head.partition(": ")
        found.append((room, old.removeprefix("- "), new.removeprefix("+ "), tests))
    return found


def place(room: str, line: str) -> Path | None:
    """The one file of a room that holds a text, once; None where it is not so."""
    files = sorted((ROOT / "crystalgfn" / room).rglob("*.py"))
    found = [(path, path.read_text(encoding="utf-8").count(line)) for path in files]
    found = [(path, count) for path, count in found if count]
    return found[0][0].relative_to(ROOT) if len(found) == 1 and found[0][1] == 1 else None


def attempt(number: int, tree: Path) -> dict[str, str | int]:
    """What the tests say of one mutant."""
    room, old, new, tests = mutants()[number]
    path = place(room, old)
    said: dict[str, str | int] = {"number": number, "room": room, "line": old, "becomes": new, "tests": tests}
    if path is None:
        return {**said, "outcome": "line not found"}
    target = tree / path
    text = target.read_text(encoding="utf-8")
    target.write_text(text.replace(old, new), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests.split()]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=SECONDS)  # noqa: S603
        outcome = "survived" if done.returncode == 0 else "caught"
        last = next((one for one in reversed(done.stdout.splitlines()) if one.startswith(("FAILED", "ERROR"))), "")
    except subprocess.TimeoutExpired:
        outcome, last = "caught", f"no end within {SECONDS} s"
    finally:
        target.write_text(text, encoding="utf-8")
    return {**said, "file": str(path), "outcome": outcome, "by": last[:200]}


def main() -> None:
    """The command: each mutant and what became of it; a fault where one survives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="numbers between commas")
    parser.add_argument("--check", action="store_true", help="only look for the lines")
    parser.add_argument("--out", type=Path, help="JSON file of the outcomes, written after each")
    options = parser.parse_args()
    numbers = list(range(len(mutants()))) if options.only is None else [int(one) for one in options.only.split(",")]
    if options.check:
        lost = [n for n in numbers if place(*mutants()[n][:2]) is None]
        sys.stdout.write(f"{len(numbers)} mutants, without their line: {lost}\n")
        sys.exit(bool(lost))
    found = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", "runs", "*.pyc", "__pycache__"))
        for number in numbers:
            found.append(attempt(number, tree))
            sys.stdout.write(f"{number}: {found[-1]['outcome']} {found[-1].get('by', '')}\n")
            sys.stdout.flush()
            if options.out is not None:
                options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.exit(any(one["outcome"] != "caught" for one in found))


if __name__ == "__main__":
    main()
