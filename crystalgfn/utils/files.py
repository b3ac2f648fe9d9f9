"""Files that are whole or not there: written aside, then renamed."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile
from zlib import error as ZlibError  # noqa: N812

from crystalgfn.errors import CheckpointError, ConfigurationError, DataError, sentence

PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = PACKAGE / "weights"
"""Weights and tables that come with the package."""
log = logging.getLogger(__name__)


FULL = 1_000_000
"""Free bytes below which a write that failed is put down to a full disk."""


def data_folder(name: str) -> Path:
    """The folder ``config`` or ``proxies``: inside an installed package, beside the package in a checkout."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def cache_folder() -> Path:
    """Where what takes minutes to make is kept between runs: ``$XDG_CACHE_HOME/crystalgfn``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crystalgfn"


def path_of(value: Any, name: str = "path") -> Path:
    """A path from what a caller gives as one; ``name``: the argument's, for the message.

    Raises:
        ConfigurationError: no text and no path, or an empty one.
    """
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ConfigurationError(
            f"{name} is {type(value).__name__} {str(value)[:40]!r}; give the path of a file or folder"
        )
    if is_pipe(path := Path(value)):
        raise ConfigurationError(f"{path} is a pipe, which may never end; give the path of a file or folder")
    return path


def is_pipe(path: Path) -> bool:
    """Whether a path names a pipe or a socket, from which reading may wait for ever."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # none, or no name that there can be
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def keep_aside(path: Path, save: Callable[[Path], Any], what: str) -> None:
    """Save a file of a cache; where that fails, it costs a warning, not the run. ``what``: what cannot be kept."""
    import warnings

    try:
        save(path)
    except Exception as error:
        warnings.warn(f"{what} cannot be kept in {path.parent}: {sentence(error)}", stacklevel=3)


def write_aside(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` make a file beside ``path``, then rename it; on failure ``path`` stays as it was.

    Raises:
        CheckpointError: the folder cannot be written or the disk is full.
    """
    # A random suffix, since processes in two containers may have the same id.
    aside = path.with_name(f".{path.name}.part{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(aside)
        aside.chmod(0o666 & ~_umask())  # some writers make files that only their owner may read
        os.replace(aside, path)
        log.debug("wrote %s", path)
    except Exception as error:
        # PyTorch raises a RuntimeError and safetensors its own; importing that here would slow down `--help`.
        if not isinstance(error, OSError | RuntimeError) and type(error).__name__ != "SafetensorError":
            raise
        reason = getattr(error, "strerror", None) or _why_unwritten(path, error)
        raise CheckpointError(f"cannot write {path}: {reason}; free space or choose another folder") from error
    finally:
        with suppress(OSError):
            aside.unlink()


def _why_unwritten(path: Path, error: Exception) -> str:
    """What PyTorch and safetensors say of a full disk is an assertion about a position in the file."""
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:
        free = None
    said = sentence(error)
    if "os error 28" in said or (free is not None and free < FULL):
        return "no space left on device"
    return f"the file was not written whole ({said})"


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays as a compressed ``.npz``, aside and then renamed.

    Raises:
        CheckpointError: see `write_aside`.
    """
    import numpy as np  # not needed for `--help`

    def write(aside: Path) -> None:
        with aside.open("wb") as file:  # given a name without .npz, numpy would add it
            np.savez_compressed(file, **arrays)

    write_aside(path, write)


def load_arrays(path: Path, what: str = ".npz file", remedy: str = "") -> dict[str, Any]:
    """Arrays of a ``.npz``, read without pickle; ``what`` it holds and the ``remedy`` if it does not are for messages.

    Raises:
        DataError: no such file, damaged, or of another kind.
    """
    import numpy as np

    try:
        with path_of(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise DataError(f"there is no {what} {path}") from error
    except (OSError, ValueError, KeyError, EOFError, AttributeError, BadZipFile, ZlibError) as error:
        rest = f"; {remedy}" if remedy else ""
        raise DataError(f"{path} is no {what}, or damaged ({sentence(error)}){rest}") from error


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed had begun to write aside; none may be writing there now."""
    for leftover in folder.glob(".*.part" + "[0-9a-f]" * 8):
        leftover.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
