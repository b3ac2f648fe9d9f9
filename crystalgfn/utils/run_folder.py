"""A run that is refused or stopped before there is anything to go on from leaves nothing in the way of the next."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from crystalgfn.errors import CheckpointError, CrystalGFNError
from crystalgfn.utils import distributed


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
        if distributed.first() and not (described or stopped or kept()):
            for name in (*parts, CONFIG):
                with suppress(OSError):
                    (out / name).unlink(missing_ok=True)
            if not there:
                with suppress(OSError):
                    out.rmdir()
        raise


CONFIG = "config.yaml"


class Journal:
    """Records of a file by their key; a line that a kill cut off is removed and its work done again.

    Args:
        path: of the file, made with the first record.
        key: the field that names a record; a record whose key is there already is not added again.

    Raises:
        CheckpointError: a line in the middle is no record.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.records: dict[Any, dict[str, Any]] = {}
        if path.exists():
            self._read()

    def __contains__(self, name: Any) -> bool:
        return name in self.records

    def __len__(self) -> int:
        return len(self.records)

    def add(self, *records: Mapping[str, Any]) -> None:
        """Append records and see them on the disk.

        Raises:
            CheckpointError: they cannot be written.
        """
        new = {record[self.key]: dict(record) for record in records if record[self.key] not in self.records}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(record, default=_plain) + "\n" for record in new.values()))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CheckpointError(
                f"cannot write {self.path}: {error.strerror or error}; free space or choose another folder"
            ) from error
        self.records.update(new)

    def _read(self) -> None:
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                record = json.loads(line)
                self.records.setdefault(record[self.key], record)
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointError(
                    f"{self.path}, line {number}, is no record; delete that line to do its work again"
                ) from error
        if len(whole) < len(raw):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))


def _plain(value: Any) -> Any:
    """A number of numpy's as one of Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is nothing that JSON has")
