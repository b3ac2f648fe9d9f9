"""Processes of their own for tests that need them, begun at once and without shape checks.

An ordinary process takes about five seconds of CPU to import what a command needs. Here one process per pytest process
(this file as a program) imports it, and forks the others. `Forks.start` gives the program and its arguments.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: Commands import their modules late; here all are there before the first fork.
MODULES = (
    "crystalgfn.cli.app", "crystalgfn.cli.options.compose", "crystalgfn.cli.options.objects", "crystalgfn.cli.train",
    "crystalgfn.cli.sample", "crystalgfn.cli.train_refiner", "crystalgfn.sampling.plots", "crystalgfn.sampling.sharded",
    "hydra", "matplotlib.pyplot", "pandas", "pyarrow.parquet", "torch._dynamo", "torch.distributed",
)  # fmt: skip
#: A command of the package: its name in `crystalgfn.cli.app`, then its arguments.
COMMAND = "import sys; from crystalgfn.cli import app; sys.exit(getattr(app, sys.argv[1])(sys.argv[2:]))"


def as_command(module: str) -> str:
    """The program that ``python -W ignore -m module`` runs."""
    return f"import runpy, warnings; warnings.simplefilter('ignore'); runpy.run_module({module!r}, None, '__main__')"


@dataclass
class Fork:
    """A process that was begun; ``out`` and ``err`` are the files that it prints to."""

    forks: "Forks"
    pid: int
    out: Path
    err: Path
    returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, or minus the signal, once it has ended."""
        if self.returncode is None:
            self.returncode = self.forks.ask(poll=self.pid)
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end; what it said on stdout and stderr."""
        begun = time.monotonic()
        while self.poll() is None:
            if time.monotonic() - begun > timeout:
                self.kill()
                raise TimeoutError(f"no end within {timeout} s: {self.err.read_text()}")
            time.sleep(0.01)
        return self.out.read_text(), self.err.read_text()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


class Forks:
    """Starts processes. What they print goes to files in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def ask(self, **request: Any) -> Any:
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, "the process that forks has ended"
        return json.loads(answer)

    def start(
        self, program: str, *arguments: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Fork:
        """Begin a process that runs a program as ``python -c`` does."""
        self.count += 1
        out, err = (self.folder / f"{self.count}.{name}" for name in ("out", "err"))
        pid = self.ask(
            program=program, arguments=[str(one) for one in arguments], env=dict(env or {}), cwd=str(cwd or ROOT),
            out=str(out), err=str(err),
        )  # fmt: skip
        return Fork(self, pid, out, err)

    def run(self, program: str, *arguments: object, timeout: float = 300) -> str:
        """What a program prints; it must succeed."""
        process = self.start(program, *arguments)
        out, err = process.communicate(timeout)
        assert process.returncode == 0, err
        return out

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Starts processes that have imported the package already."""
    found = Forks(tmp_path_factory.mktemp("forks"))
    yield found
    found.close()


def work(request: dict[str, Any]) -> int:
    """What a forked process does: the exit status."""
    for descriptor, path in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
        os.dup2(os.open(path, flags), descriptor)
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    sys.argv = ["-c", *request["arguments"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        exec(compile(request["program"], "<program>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Fork a process for each program on stdin, and say how earlier ones ended."""
    sys.path[0] = str(ROOT)
    for name in MODULES:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if not answer:
                code = 1
                try:
                    code = work(request)
                    sys.stdout.flush()
                    sys.stderr.flush()
                finally:
                    os._exit(code)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
