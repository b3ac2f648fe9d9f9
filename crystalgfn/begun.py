"""A run that is refused or stopped before there is anything to go on from leaves nothing in the way of the next."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from crystalgfn import processes
from crystalgfn.errors import CrystalGFNError
from crystalgfn.options import CONFIG


@contextmanager
def begun(out: str | Path, kept: Callable[[], bool]) -> Any:
    """Around a run that describes itself in a folder: ``config.yaml`` goes again if there is nothing to go on from.

    So does the folder if it was not there before and holds nothing else.

    Args:
        out: the folder, before it is made.
        kept: whether there is something to go on from.
    """
    out = Path(out)
    there = out.exists()
    try:
        yield
    except (CrystalGFNError, KeyboardInterrupt):
        if processes.first() and not kept():
            (out / CONFIG).unlink(missing_ok=True)
            if not there:
                with suppress(OSError):
                    out.rmdir()
        raise
