"""Ctrl-C that waits for the end of a step."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupts:
    """Within this context Ctrl-C is only noted; a second one interrupts at once, as without it.

    Only in the main thread and where nobody else has taken charge of SIGINT; elsewhere it does nothing.

    Args:
        patient: let no number of further ones interrupt at once. torchrun hands on to its processes what a terminal
            has sent to them already.

    Attributes:
        seen: how many there were.
    """

    def __init__(self, patient: bool = False) -> None:
        self.patient, self.seen = patient, 0
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.seen += 1
        if self.seen > 1 and not self.patient:
            raise KeyboardInterrupt
