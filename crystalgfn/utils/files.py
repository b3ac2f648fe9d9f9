"""Files that are whole or not there: written aside, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalgfn.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np

PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = PACKAGE / "weights"
"""Weights and tables that come with the package."""


def data_folder(name: str) -> Path:
    """The folder ``config`` or ``proxies``: inside an installed package, beside the package in a checkout."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


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
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder"
        ) from error
    except RuntimeError as error:  # torch.save wraps a full disk in a RuntimeError
        raise CheckpointError(f"cannot write {path}: {error}; free space or choose another folder") from error
    finally:
        with suppress(OSError):
            aside.unlink()


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as a compressed ``.npz``, aside and then renamed.

    Raises:
        CheckpointError: see `write_aside`.
    """
    import numpy as np  # not needed for `--help`

    def write(aside: Path) -> None:
        with aside.open("wb") as file:  # given a name without .npz, numpy would add it
            np.savez_compressed(file, **arrays)

    write_aside(path, write)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed had begun to write aside; none may be writing there now."""
    for leftover in folder.glob(".*.part" + "[0-9a-f]" * 8):
        leftover.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
