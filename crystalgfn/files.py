"""Files that are whole or not there at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def aside(path: str | Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, which takes its place when all went well and is removed otherwise."""
    path = Path(path)
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")  # the suffix tells libraries the format
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def make_folder(path: str | Path) -> Path:
    """The folder, made where it is missing.

    Raises:
        OSError: it cannot be made, or nothing can be written there.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):  # better before the work than after it
        pass
    return path
