"""What commands say: results to stdout, notes and warnings to stderr, through ``logging``."""

from __future__ import annotations

import logging
import sys
import warnings
from contextlib import contextmanager
from typing import Any, TextIO

from crystalgfn.errors import sentence

log = logging.getLogger("crystalgfn")
_QUIET, _USUAL, _VERBOSE = logging.WARNING, logging.INFO, logging.DEBUG


class _Handler(logging.Handler):
    """Results to stdout, everything else to stderr."""

    def __init__(self, to_stderr: bool) -> None:
        super().__init__()
        self.to_stderr = to_stderr

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line; a letter that the terminal does not have is replaced."""
        result = record.levelno == logging.INFO and not self.to_stderr
        write_text(record.getMessage(), sys.stdout if result else sys.stderr)


def write_text(text: str, stream: TextIO) -> None:
    """Print, also in a locale that lacks some letters."""
    try:
        print(text, file=stream, flush=True)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        print(text.encode(encoding, "replace").decode(encoding), file=stream, flush=True)


@contextmanager
def console(quiet: bool = False, verbose: bool = False, to_stderr: bool = False, silent: bool = False) -> Any:
    """Within this context commands are heard, and Python's warnings of this package are sentences.

    ``quiet``: warnings and errors alone; ``verbose``: also what is looked up and loaded; ``to_stderr``: results too,
    where stdout is for something else; ``silent``: nothing at all, for processes whose first one speaks for all.

    Yields:
        What was warned of, as it comes.
    """
    handler = logging.NullHandler() if silent else _Handler(to_stderr)
    level, propagate = log.level, log.propagate
    said: list[str] = []

    def warn(message: Any, *_: Any, **__: Any) -> None:
        said.append(sentence(message))
        log.warning("warning: %s", said[-1])

    log.setLevel(_VERBOSE if verbose else _QUIET if quiet else _USUAL)
    log.propagate = False
    log.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", module="crystalgfn")
            warnings.showwarning = warn
            yield said
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


def tell(text: object) -> None:
    """A result."""
    log.info("%s", text)


def note(text: object) -> None:
    """What the user should know beside the results, to stderr."""
    log.warning("%s", text)
