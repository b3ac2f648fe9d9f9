"""The queue of runs: a folder each on disk, one after the other, each by the same commands as in a terminal.

A run is ``<runs>/<id>/``, which its commands write into like any other run folder; ``<id>/app/`` holds what the page
adds: ``job.json`` (what was asked, the commands, the state), ``log.txt`` and ``progress.json``. Runs that were waiting
or running when the server ended are taken up when it starts again.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from crystalgfn.app.forms import RequestError
from crystalgfn.app.plans import TRAINING, Plan
from crystalgfn.utils.files import write_aside
from crystalgfn.utils.progress import PROGRESS_FILE
from crystalgfn.utils.run_folder import RECORD, RunFolder

OWN, JOB, LOG, PROGRESS = "app", "job.json", "log.txt", "progress.json"
QUEUED, RUNNING, DONE, FAILED, STOPPED = "queued", "running", "done", "failed", "stopped"
KINDS = ("sample", "discover", "predict", "evaluate")
MOST_WAITING = 100
GRACE = 20.0
"""Seconds that a command has to end by itself after SIGTERM."""
PROGRAM = (sys.executable, "-m", "crystalgfn.cli")
"""What is run with the arguments of a command."""
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,120}")


@dataclass(kw_only=True)
class AppRun:
    """A run.

    Attributes:
        id: name of its folder.
        kind: sample, discover, predict or evaluate.
        title: in a few words.
        commands: arguments of `crystalgfn`, one after the other.
        python: lines that do the same.
        request: what was asked.
        state: queued, running, done, failed or stopped.
        words: why it failed.
        created: seconds since 1970, as ``started`` and ``ended``.
    """

    id: str
    kind: str
    title: str
    commands: list[list[str]]
    python: str = ""
    request: dict[str, Any] = field(default_factory=dict)
    state: str = QUEUED
    words: str = ""
    created: float = 0.0
    started: float | None = None
    ended: float | None = None


@dataclass(kw_only=True)
class Work:
    """What a runner is handed: the job, its folder, and an event that asks it to stop."""

    job: AppRun
    folder: Path
    stop: threading.Event

    @property
    def log(self) -> Path:
        """What the commands print."""
        return self.folder / OWN / LOG


Runner = Callable[[Work], str | None]
"""Does the work of a job; why it failed, or None. Where ``stop`` is set it ends soon."""


class JobQueue:
    """Runs jobs one after the other in a thread; a context, within which the folder is this process's own.

    Args:
        runs: the folder of all runs.
        runner: does the work of one; None: the commands, each in a process group of its own.

    Raises:
        CheckpointError: another server works in the folder.
    """

    def __init__(self, runs: str | Path, runner: Runner | None = None) -> None:
        self.runs, self.runner = Path(runs), runner or run_commands
        self._jobs: dict[str, AppRun] = {}
        self._lock, self._more = threading.RLock(), threading.Condition()
        self._closing, self._stop, self._current = False, threading.Event(), ""
        self._folder = RunFolder(self.runs, "a page in the browser", lock=".app.lock")
        self._thread = threading.Thread(target=self._work, name="runs", daemon=True)

    def __enter__(self) -> JobQueue:
        self._folder.__enter__()
        for path in sorted(self.runs.glob(f"*/{OWN}/{JOB}")):
            with suppress(OSError, ValueError, TypeError):  # not of ours
                job = AppRun(**json.loads(path.read_text(encoding="utf-8")))
                if job.id == path.parent.parent.name:
                    self._jobs[job.id] = job
                    if job.state == RUNNING:  # the server ended before it did
                        self._change(job, state=QUEUED)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._more:
            self._closing = True
            self._stop.set()
            self._more.notify_all()
        self._thread.join(GRACE + 10)
        self._folder.__exit__(None, None, None)

    def add(self, plan: Plan) -> AppRun:
        """Put a run at the end of the queue.

        Raises:
            RequestError: too many runs wait already.
        """
        with self._lock:
            if sum(one.state == QUEUED for one in self._jobs.values()) >= MOST_WAITING:
                raise RequestError(f"{MOST_WAITING} runs are waiting already; try again when some have ended")
            name = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{plan.kind}_{len(self._jobs) + 1:04d}"
            folder = self.runs / name
            folder.mkdir(parents=True)
            for file, content in plan.files.items():
                path = folder / OWN / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            commands = [[part.replace("{out}", str(folder)) for part in one] for one in plan.commands]
            python = plan.python.replace("{out}", str(folder))
            job = AppRun(
                id=name, kind=plan.kind, title=plan.title, commands=commands, python=python, request=plan.request,
                created=time.time(),
            )  # fmt: skip
            self._jobs[name] = job
            self._change(job)
        with self._more:
            self._more.notify_all()
        return job

    def jobs(self) -> list[AppRun]:
        """All runs, the latest first; those that a terminal made in the folder are among them once they have ended."""
        with self._lock:
            self._adopt()
            return sorted(self._jobs.values(), key=lambda one: (one.created, one.id), reverse=True)

    def get(self, name: str) -> AppRun | None:
        """The run of a name, if there is one."""
        with self._lock:
            return self._jobs.get(name)

    def folder(self, job: AppRun) -> Path:
        """Where a run is."""
        return self.runs / job.id

    def ahead(self, job: AppRun) -> int:
        """Runs that come before a waiting one."""
        with self._lock:
            before = [one for one in self._jobs.values() if (one.created, one.id) < (job.created, job.id)]
            return sum(one.state in (QUEUED, RUNNING) for one in before)

    def stop(self, job: AppRun) -> None:
        """Take a waiting run out of the queue, or ask a running one to stop."""
        with self._lock:
            if job.state == QUEUED:
                self._change(job, state=STOPPED, ended=time.time())
            elif job.state == RUNNING and job.id == self._current:
                self._stop.set()

    def _change(self, job: AppRun, **values: Any) -> None:
        """Change a job in memory and on disk."""
        with self._lock:
            for name, value in values.items():
                setattr(job, name, value)
            path = self.folder(job) / OWN / JOB
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(asdict(job), indent=1)
            write_aside(path, lambda aside: aside.write_text(text, encoding="utf-8"))

    def _adopt(self) -> None:
        """Take in the runs that were made by other commands in the same folder."""
        for path in self.runs.glob(f"*/{RECORD}"):
            name = path.parent.name
            if name in self._jobs or not _ID.fullmatch(name):
                continue
            with suppress(OSError, ValueError, KeyError, IndexError):
                said = json.loads(path.read_text(encoding="utf-8"))
                words = shlex.split(said["command"])
                kind = words[1] if words[0] == "crystalgfn" else words[0].removeprefix("crystalgfn-")
                if kind in KINDS:
                    at = path.stat().st_mtime
                    arguments = [kind, *words[2 if words[0] == "crystalgfn" else 1 :]]
                    self._jobs[name] = AppRun(
                        id=name, kind=kind, title=name, commands=[arguments], state=DONE, created=at,
                        started=at - float(said.get("seconds", 0)), ended=at,
                    )  # fmt: skip

    def _next(self) -> AppRun | None:
        """The first that waits; None when the server ends."""
        with self._more:
            while not self._closing:
                with self._lock:
                    waiting = [one for one in self._jobs.values() if one.state == QUEUED]
                    if waiting:
                        job = min(waiting, key=lambda one: (one.created, one.id))
                        self._stop.clear()
                        self._current = job.id
                        self._change(job, state=RUNNING, started=time.time(), words="")
                        return job
                self._more.wait(timeout=5)
        return None

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                words = self.runner(Work(job=job, folder=self.folder(job), stop=self._stop))
            except Exception as error:  # whatever a run does, the next ones are run
                words = f"{type(error).__name__}: {error}"
            if self._closing and words is not None:
                self._change(job, state=QUEUED)  # goes on when the server starts again
            elif self._stop.is_set() and words is not None:
                self._change(job, state=STOPPED, ended=time.time())
            else:
                self._change(job, state=DONE if words is None else FAILED, words=words or "", ended=time.time())


def run_commands(work: Work) -> str | None:
    """The commands of a job, each in a process group of its own; why the first that failed did, or None."""
    for command in work.job.commands:
        if command[0] == "train":
            folder = work.folder / TRAINING
            if (folder / RECORD).exists():
                continue
            shutil.rmtree(folder, ignore_errors=True)  # of a server that ended within it
        words = _run_command(command, work)
        if words is not None:
            return words
    return None


def _run_command(command: Sequence[str], work: Work) -> str | None:
    environment = {**os.environ, PROGRESS_FILE: str(work.folder / OWN / PROGRESS)}
    with work.log.open("a", encoding="utf-8") as log:
        log.write(f"$ crystalgfn {shlex.join(command)}\n")
        log.flush()
        process = subprocess.Popen(
            [*PROGRAM, *command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )  # fmt: skip
        while True:
            try:
                code = process.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                if work.stop.is_set():
                    _end(process)
    (work.folder / OWN / PROGRESS).unlink(missing_ok=True)
    return None if code == 0 else _why(code, work)


def _why(code: int, work: Work) -> str:
    if work.stop.is_set():
        return "stopped"
    if code < 0:
        return f"the run was killed (signal {-code})"
    lines = work.log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = next((line for line in reversed(lines) if line.startswith("error: ")), "")
    return said.removeprefix("error: ") or f"the run ended with exit code {code}; its log says more"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and all that it started: politely, then not."""
    for how, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        with suppress(OSError):
            os.killpg(process.pid, how) if hasattr(os, "killpg") else process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=seconds)
            return


_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None
_PARENT_DEATH = 1
"""PR_SET_PDEATHSIG: the kernel sends a signal when the thread that started a process is gone."""


def _end_with_parent() -> None:
    """In the child on Linux: SIGTERM when the server is gone, however it went."""
    if _LIBRARY is not None:
        _LIBRARY.prctl(_PARENT_DEATH, signal.SIGTERM)
