"""Ctrl-C and SIGTERM: as an exception, or noted until the end of a step."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM, which stops a command as Ctrl-C does."""


def terminate(number: int, frame: FrameType | None) -> None:
    """The handler of SIGTERM."""
    raise Terminated


class Terminations:
    """Within this context SIGTERM, which Slurm, Kubernetes and ``kill`` send, raises `Terminated`.

    Only in the main thread and where nobody else has taken charge of SIGTERM; elsewhere it does nothing.
    """

    def __init__(self) -> None:
        self._taken = False

    def __enter__(self) -> Terminations:
        if _main() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, terminate)
            self._taken = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._taken:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._taken = False


class Interrupts:
    """Within this context Ctrl-C and SIGTERM are only noted; a second one interrupts at once, as without it.

    Only in the main thread, and where nobody else has taken charge of the signal; elsewhere it does nothing.

    Args:
        patient: let no number of further ones interrupt at once. torchrun hands on to its processes what a terminal
            has sent to them already.

    Attributes:
        seen: how many there were.
    """

    def __init__(self, patient: bool = False) -> None:
        self.patient, self.seen = patient, 0
        self._before: dict[int, Any] = {}
        self._kind: type[KeyboardInterrupt] = KeyboardInterrupt

    def __enter__(self) -> Interrupts:
        if _main():
            for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, terminate)):
                if signal.getsignal(number) is usual:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()

    def interrupt(self) -> None:
        """Stop here if there was one.

        Raises:
            KeyboardInterrupt: there was; `Terminated` for SIGTERM.
        """
        if self.seen:
            raise self._kind

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.seen += 1
        self._kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        if self.seen > 1 and not self.patient:
            raise self._kind


def _main() -> bool:
    return threading.current_thread() is threading.main_thread()
