"""The index of the weights and tables that come with the package: size, checksum, licence and card of each file."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from crystalgfn.errors import CheckpointError
from crystalgfn.utils.files import SHIPPED, data_folder

INDEX = SHIPPED / "index.json"

#: Files that hold weights or tables; cards, recipes and measurements beside them are not listed.
SUFFIXES = (".safetensors", ".npz", ".json")
UNLISTED = ("index.json", "metrics.json")
REMEDY = "install the package again, or copy the file anew"


def roots() -> dict[str, Path]:
    """The folders that the index covers, by the first part of the names in it."""
    return {"weights": SHIPPED, "proxies": data_folder("proxies")}


def shipped_files() -> dict[str, Path]:
    """Every file of weights or tables that is there, by its name in the index."""
    return {
        f"{root}/{path.relative_to(folder).as_posix()}": path
        for root, folder in roots().items()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in SUFFIXES and path.name not in UNLISTED
    }


def shipped_index() -> dict[str, dict[str, Any]]:
    """What the index says of each file: ``file``, ``size`` (bytes), ``sha256``, ``licence``, ``data``, ``card``.

    Raises:
        CheckpointError: the index is missing or damaged.
    """
    try:
        return _read(INDEX, INDEX.stat().st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{INDEX} cannot be read ({error}); {REMEDY}") from error


@cache
def _read(path: Path, changed: int) -> dict[str, dict[str, Any]]:
    """The index as it was when it was last ``changed``."""
    return {entry["file"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}


def check_size(path: Path) -> None:
    """Refuse a shipped file of another size than the index says; files elsewhere are a user's own and pass.

    Raises:
        CheckpointError: another size, as after an interrupted download.
    """
    for root, folder in roots().items():
        if path.is_relative_to(folder):
            entry = shipped_index().get(f"{root}/{path.relative_to(folder).as_posix()}")
            if entry is not None and path.is_file() and path.stat().st_size != entry["size"]:
                raise CheckpointError(f"{path} has {path.stat().st_size} bytes, not {entry['size']}; {REMEDY}")


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_weights() -> int:
    """Compare every shipped file of weights or tables with the index, by its checksum; how many there are.

    Raises:
        CheckpointError: files that are missing, changed or not listed, all of them named.

    Example:
        >>> verify_weights() > 20
        True
    """
    found, listed = shipped_files(), shipped_index()
    wrong = [f"{name} is missing" for name in listed if name not in found]
    wrong += [f"{name} is not listed" for name in found if name not in listed]
    wrong += [
        f"{name} has another checksum"
        for name, path in found.items()
        if name in listed and sha256(path) != listed[name]["sha256"]
    ]
    if wrong:
        raise CheckpointError(f"shipped files differ from {INDEX.name}: {'; '.join(wrong)}; {REMEDY}")
    return len(listed)
