"""A run that is refused or stopped before there is anything to go on from leaves nothing in the way of the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from crystalgfn import processes
from crystalgfn.errors import CrystalGFNError
from crystalgfn.options import CONFIG


@contextmanager
def begun(out: str | Path, kept: Callable[[], bool], parts: Sequence[str] = ()) -> Any:
    """Around a run that describes itself in a folder: ``config.yaml`` goes again if there is nothing to go on from.

    So does the folder if it was not there before and holds nothing else. A description that was there before stays.

    Args:
        out: the folder, before it is made.
        kept: whether there is something to go on from.
        parts: files that are made first. With one of them a run that was stopped goes on; of one that was refused
            they go too, as what is put right may make others of them.
    """
    out = Path(out)
    there, described = out.exists(), (out / CONFIG).exists()
    try:
        yield
    except (CrystalGFNError, OSError, KeyboardInterrupt) as error:
        stopped = isinstance(error, KeyboardInterrupt) and any((out / name).exists() for name in parts)
        if processes.first() and not (described or stopped or kept()):
            for name in (*parts, CONFIG):
                with suppress(OSError):
                    (out / name).unlink(missing_ok=True)
            if not there:
                with suppress(OSError):
                    out.rmdir()
        raise
