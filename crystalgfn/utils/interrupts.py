"""Ctrl-C and SIGTERM: alike, and waiting for the end of a step."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class Terminations:
    """Within this context SIGTERM, which Slurm, Kubernetes and ``kill`` send, does what Ctrl-C does.

    Only in the main thread and where nobody else has taken charge of SIGTERM; elsewhere it does nothing.
    """

    def __init__(self) -> None:
        self._taken = False

    def __enter__(self) -> Terminations:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _interrupt)
            self._taken = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._taken:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._taken = False


class Interrupts:
    """Within this context Ctrl-C is only noted; a second one interrupts at once, as without it.

    The same holds for SIGTERM within `Terminations`. Only in the main thread and where nobody else has taken charge of
    the signals; elsewhere it does nothing.

    Args:
        patient: let no number of further ones interrupt at once. torchrun hands on to its processes what a terminal
            has sent to them already.

    Attributes:
        seen: how many there were.
    """

    def __init__(self, patient: bool = False) -> None:
        self.patient, self.seen = patient, 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, _interrupt)):
                if signal.getsignal(number) is handler:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.seen += 1
        if self.seen > 1 and not self.patient:
            raise KeyboardInterrupt
