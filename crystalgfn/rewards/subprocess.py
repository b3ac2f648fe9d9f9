"""An external program as a function of crystals: a table in, one number a line out."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.typing import Floats
from crystalgfn.utils.parallel import killed_with_parent


@dataclass(frozen=True, eq=False)
class Program:
    """Crystals as CSV on the standard input of a program (columns of ``Crystals.to_pandas``), numbers on its output.

    Attributes:
        command: the program and its arguments.
    """

    command: tuple[str, ...]
    _running: set[subprocess.Popen] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.command or not all(isinstance(part, str) for part in self.command):
            raise RewardError(f"program: a command and its arguments are needed, not {self.command!r}.")

    def __call__(self, crystals: Crystals) -> Floats:
        """The number that the program prints for each crystal, float64 [B]; see :meth:`run`."""
        return self.run(crystals, None)

    def run(self, crystals: Crystals, timeout: float | None) -> Floats:
        """The same, within ``timeout`` seconds.

        Raises:
            RewardError: a program that cannot be started, fails, or prints anything but one number a crystal.
            TimeoutError: it takes too long; it is killed, with all that it started.
        """
        table = crystals.to("cpu").to_pandas().to_csv(index=False)
        try:
            process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,  # a group of its own, which can be killed as a whole
                preexec_fn=killed_with_parent(),
            )
        except OSError as error:
            raise RewardError(f"the program {self.name!r} cannot be started: {error.strerror}") from error
        self._running.add(process)
        with process:
            try:
                out, errors = process.communicate(table, timeout)
            except subprocess.TimeoutExpired as error:
                raise TimeoutError from error
            finally:
                _kill(process)
                self._running.discard(process)
        if process.returncode:
            said = errors.strip().splitlines()[-1:] or ["it says nothing"]
            raise RewardError(f"the program {self.name!r} ended with code {process.returncode}: {said[0]}")
        return self._numbers(out.split("\n"), len(crystals))

    def stop(self) -> None:
        """Kill what is running."""
        for process in tuple(self._running):
            _kill(process)

    @property
    def name(self) -> str:
        """The command as one would type it."""
        return shlex.join(self.command)

    def _numbers(self, lines: list[str], n: int) -> torch.Tensor:
        lines = [line.strip() for line in lines if line.strip()]
        if len(lines) != n:
            raise RewardError(f"the program {self.name!r} prints {len(lines)} lines for {n} crystals; one number each")
        try:
            return torch.tensor([float(line) for line in lines], dtype=torch.float64)
        except ValueError as error:
            raise RewardError(f"the program {self.name!r} prints what is no number: {error}") from error

    def config(self) -> dict[str, Any]:
        """The configuration that builds it."""
        return {"_target_": "crystalgfn.rewards.Program", "command": list(self.command)}


def _kill(process: subprocess.Popen) -> None:
    """End it with all that it started, if it still runs."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
