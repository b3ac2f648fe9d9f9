"""Progress of long work: a terminal's bar by default, anything else that implements `Progress` in its place."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

Item = TypeVar("Item")


@runtime_checkable
class Progress(Protocol):
    """Where progress is shown: a terminal, a notebook, a browser.

    Example:
        >>> class Recorder:
        ...     def __init__(self):
        ...         self.seen = []
        ...     def update(self, done, total, message):
        ...         self.seen.append((done, total, message))
        ...     def result(self, row):
        ...         self.seen.append(row)
        >>> recorder = Recorder()
        >>> with shown_by(recorder):
        ...     list(track([7, 8], "counting"))
        [7, 8]
        >>> recorder.seen[-1]
        (2, 2, 'counting')
    """

    def update(self, done: int, total: int | None, message: str) -> None:
        """``done`` of ``total`` items are finished (None: the total is not known)."""

    def result(self, row: Mapping[str, Any]) -> None:
        """A finished item, to be shown while the work goes on."""


_current: ContextVar[Progress | None] = ContextVar("progress", default=None)


def check_progress(progress: Any) -> None:
    """Refuse what cannot show progress.

    Raises:
        TypeError: an object without ``update`` and ``result``.
    """
    if not isinstance(progress, Progress):
        raise TypeError(
            f"{type(progress).__name__} shows no progress: it needs update(done, total, message) and result"
        )
    progress.update(0, 1, "checking")
    progress.update(1, 1, "checking")
    progress.result({"checked": True})


@contextmanager
def shown_by(progress: Progress) -> Any:
    """Within this context all progress is shown by ``progress`` instead of the terminal."""
    token = _current.set(progress)
    try:
        yield progress
    finally:
        _current.reset(token)


def current_progress() -> Progress | None:
    """What shows progress in place of the terminal; None: nothing does."""
    return _current.get()


class NoProgress(Progress):
    """Shows nothing, wherever the work is done."""


PROGRESS_FILE = "CRYSTALGFN_PROGRESS"
"""The variable of the environment that names the file into which a command writes how far it is."""


class ProgressFile:
    """Writes the latest state into a file of JSON for other programs: done, total and message.

    Args:
        path: the file; replaced at most twice a second.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "progress.json")
        >>> with shown_by(ProgressFile(path)):
        ...     list(track([7, 8], "counting"))
        [7, 8]
        >>> json.loads(path.read_text())
        {'done': 2, 'total': 2, 'message': 'counting'}
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self._last = Path(path), 0.0

    def update(self, done: int, total: int | None, message: str) -> None:
        """Write it down, unless that was done just before."""
        now = time.monotonic()
        if now - self._last < 0.5 and done != total:
            return
        self._last = now
        text = json.dumps({"done": done, "total": total, "message": message})
        with suppress(OSError):  # the work goes on without
            aside = self.path.with_name(f".{self.path.name}.part")
            aside.write_text(text, encoding="utf-8")
            aside.replace(self.path)

    def result(self, row: Mapping[str, Any]) -> None:
        """Results are in the run's own files."""


def report(row: Mapping[str, Any]) -> None:
    """Hand a finished item to whoever shows progress; nothing on a terminal."""
    progress = _current.get()
    if progress is not None:
        progress.result(row)


class Bar(Generic[Item]):
    """The progress of one piece of work; a context manager, and iterable where it was given items.

    Args:
        items: what `__iter__` yields.
        total: how many there are; None: their length.
        description: what is done, in words.
        initial: how many were done before.
        unit: of the items.
        shown: False shows nothing; on the terminal bars are shown only where stderr is one.
        options: of tqdm, for the terminal.
    """

    def __init__(
        self,
        items: Iterable[Item] = (),
        *,
        total: int | None = None,
        description: str | None = "",
        initial: int = 0,
        unit: str = "",
        shown: bool = True,
        **options: Any,
    ) -> None:
        self.items, self.description, self.done = items, description or "", initial
        self.total = len(items) if total is None and hasattr(items, "__len__") else total  # pyright: ignore
        self._progress = _current.get() if shown else None
        self._terminal: Any = None
        stream = options.pop("file", None) or sys.stderr
        if shown and self._progress is None and stream.isatty():  # a log file is no place for bars
            from tqdm import tqdm

            options = {"mininterval": 1, "file": stream, **options}
            self._terminal = tqdm(total=self.total, initial=initial, desc=description, unit=unit or "it", **options)

    def __enter__(self) -> Bar[Item]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Item]:
        with self:
            for item in self.items:
                yield item
                self.update()

    def update(self, n: int = 1) -> None:
        """``n`` more items are finished."""
        self.done += n
        if self._terminal is not None:
            self._terminal.update(n)
        elif self._progress is not None:
            self._progress.update(self.done, self.total, self.description)

    def note(self, text: str) -> None:
        """A few words beside the bar, such as the present loss."""
        if self._terminal is not None:
            self._terminal.set_postfix_str(text, refresh=False)
        elif self._progress is not None:
            self._progress.update(self.done, self.total, f"{self.description}: {text}")

    def close(self) -> None:
        """Leave the terminal to others."""
        if self._terminal is not None:
            self._terminal.close()


def track(items: Iterable[Item], description: str, shown: bool = True, **options: Any) -> Bar[Item]:
    """A bar over items, to be iterated over."""
    return Bar(items, description=description, shown=shown, **options)
