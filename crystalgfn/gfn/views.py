"""How a training is shown to people: a live block on a terminal, lines in a log, or any other progress."""

from __future__ import annotations

import math
import shutil
import sys
import time
from dataclasses import dataclass, field
from typing import Protocol, TextIO

from crystalgfn.utils.progress import Progress, current_progress

#: Names of the figures of a step that a view shows, what it calls them, and how it writes them.
SHOWN = (
    ("loss", "loss", "{:.3g}"),
    ("log_z", "ln Z", "{:.2f}"),
    ("log_reward", "mean ln R", "{:.2f}"),
    ("ess", "ESS while exploring", "{:.2f}"),
)


@dataclass(frozen=True, kw_only=True)
class Status:
    """Where a training stands.

    Attributes:
        step: steps done.
        share: of the whole training that is done, 0 to 1.
        seconds: of training so far.
        left: seconds to the end, or None where that cannot be said yet.
        rate: objects trained a second, lately.
        figures: of the last step; its ESS is that of the few samples of one batch.
        best: the best objects so far in words, best first.
    """

    step: int
    share: float
    seconds: float
    left: float | None
    rate: float
    figures: dict[str, float]
    best: list[str] = field(default_factory=list)


class View(Protocol):
    """Shows people how a training goes."""

    def due(self) -> bool:
        """Whether it is time to show something again."""
        ...

    def show(self, status: Status) -> None:
        """Show where the training stands."""

    def close(self) -> None:
        """The training has ended; what was shown last stays."""


class NoView(View):
    """Shows nothing."""

    def due(self) -> bool:
        """Never."""
        return False


class Lines(View):
    """One line every few seconds, for logs and pipes."""

    def __init__(self, stream: TextIO | None = None, seconds: float = 10.0) -> None:
        self.stream, self.seconds = stream or sys.stderr, seconds
        self._shown = time.monotonic()

    def due(self) -> bool:
        """Whether the last line is long enough ago."""
        return time.monotonic() - self._shown >= self.seconds

    def show(self, status: Status) -> None:
        """Write a line."""
        best = f"; best: {' '.join(status.best[0].split())}" if status.best else ""
        figures = ", ".join([*_figures(status), _left(status)])
        self.stream.write(f"{status.share:4.0%}  step {status.step}, {figures}{best}\n")
        self.stream.flush()
        self._shown = time.monotonic()


class Terminal:
    """A block of lines, refreshed in place."""

    def __init__(self, stream: TextIO | None = None, seconds: float = 0.5) -> None:
        self.stream, self.seconds = stream or sys.stderr, seconds
        self._shown, self._lines = -math.inf, 0

    def due(self) -> bool:
        """Whether the last refreshment is long enough ago."""
        return time.monotonic() - self._shown >= self.seconds

    def show(self, status: Status) -> None:
        """Write the block over the one before."""
        width = max(shutil.get_terminal_size().columns - 1, 20)
        filled = round(24 * status.share)
        lines = [
            f"training {status.share:4.0%} |{'█' * filled}{' ' * (24 - filled)}| step {status.step}, "
            f"{duration(status.seconds)} so far, {_left(status)}",
            "   ".join(_figures(status)),
            *(f"{'best' if i == 0 else '':<6}{line}" for i, line in enumerate(status.best)),
        ]
        # The cursor goes up to the block's first line; what is left of the old one after each new line is erased.
        up = f"\x1b[{self._lines}F" if self._lines else ""
        text = "".join(f"{line[:width]}\x1b[K\n" for line in lines)
        self.stream.write(f"{up}{text}\x1b[J")
        self.stream.flush()
        self._shown, self._lines = time.monotonic(), len(lines)

    def close(self) -> None:
        """The block stays."""
        self._lines = 0


class Reported(View):
    """Hands the share that is done to a progress that is shown elsewhere: a notebook, a browser, a file, nowhere."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self._shown = progress, -math.inf

    def due(self) -> bool:
        """Twice a second at most."""
        return time.monotonic() - self._shown >= 0.5

    def show(self, status: Status) -> None:
        """Per cent that are done, and the figures in words."""
        self._shown = time.monotonic()
        self.progress.update(int(100 * status.share), 100, ", ".join(["training", *_figures(status)]))


def live(stream: TextIO | None = None) -> View:
    """The view that suits a stream; None: whatever shows progress now, otherwise standard error."""
    progress = current_progress()
    if stream is None and progress is not None:
        return Reported(progress)
    shown = stream or sys.stderr
    return Terminal(shown) if shown.isatty() else Lines(shown)


def duration(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:23:45."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _figures(status: Status) -> list[str]:
    said = []
    for name, words, form in SHOWN:
        value = status.figures.get(name, math.nan)
        said.append(f"{words} {'-' if math.isnan(value) else form.format(value)}")
    return [*said, f"{status.rate:,.0f}/s"]


def _left(status: Status) -> str:
    return "time left unknown" if status.left is None else f"{duration(status.left)} left"
