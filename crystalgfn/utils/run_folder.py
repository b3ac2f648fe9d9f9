"""The folder of a run: its settings, one process at a time, journals that survive a kill, and a record at the end."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import yaml

from crystalgfn.errors import CheckpointError, CrystalGFNError
from crystalgfn.utils.files import path_of, remove_leftovers, write_aside

CONFIG = "config.yaml"
RECORD = "run.json"
LOCK = ".lock"


class RunFolder:
    """A folder in which one run works: a context that holds its lock.

    A run that is refused, or stopped before it has made anything to go on from, leaves its settings and its parts not
    behind, so that they do not refuse the next; nor the folder, where it made it.

    Args:
        path: the folder; made on entry.
        what: what a run is called in messages, such as "a training".
        parts: files that are made first. With one of them a run that was stopped goes on; of one that was refused
            they go too, as what is put right may make others of them.
        lock: name of the lock; processes with other names may share the folder.
        active: False makes, locks and removes nothing: for processes whose first one does it for all.

    Raises:
        CheckpointError: another process works there.
        OSError: it cannot be made, or nothing can be written there.

    Example:
        >>> import tempfile
        >>> with RunFolder(tempfile.mkdtemp(), "a test") as folder:
        ...     folder.agree({"seed": 0})
        ...     (folder.path / "run.json").exists()
        False
    """

    def __init__(
        self, path: str | Path, what: str = "a run", parts: Sequence[str] = (), lock: str = LOCK, active: bool = True
    ) -> None:
        self.path, self.what, self.parts, self.active = path_of(path), what, tuple(parts), active
        self._lock = _Lock(self.path / lock)
        self._own: list[str] = []
        self._made: list[Path] = []
        self._before: frozenset[str] = frozenset()

    def __enter__(self) -> RunFolder:
        if self.active:
            self._made = _make(self.path)
            try:
                self._lock.take()
            except (OSError, CheckpointError):
                _unmake(self._made)
                raise
            if self._alone:  # others that share the folder may be writing
                for folder in {self.path, *(path.parent for path in self.path.rglob(".*.part*"))}:
                    remove_leftovers(folder)
            self._before = _names(self.path)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if not self.active:
            return
        if self._alone and isinstance(error, (CrystalGFNError, OSError, KeyboardInterrupt)):
            stopped = isinstance(error, KeyboardInterrupt) and any((self.path / name).exists() for name in self.parts)
            if not stopped and not self.begun:
                for name in (*self.parts, *self._own):
                    with suppress(OSError):
                        (self.path / name).unlink(missing_ok=True)
        self._lock.release()
        if error is not None:
            _unmake(self._made)

    @property
    def _alone(self) -> bool:
        """Whether no other process may work here."""
        return self._lock.path.name == LOCK

    @property
    def begun(self) -> bool:
        """Whether there is something to go on from: files that were there before, or that this run has made."""
        passing = {*self.parts, *self._own, self._lock.path.name, RECORD}
        held = any(name in self._before for name in (*self.parts, *self._own))
        return held or bool(_names(self.path) - self._before - passing)

    @property
    def ended(self) -> bool:
        """Whether a run has come to its end here; one that was killed before its record was written has not."""
        return (self.path / RECORD).exists()

    def agree(
        self, settings: Mapping[str, Any], free: Collection[str] = (), file: str = CONFIG, section: str | None = None
    ) -> None:
        """Write the settings of the run down, or compare them with those of the run that is there.

        Args:
            settings: by name, as JSON has them.
            free: names of those that may differ between the calls that a run is made in.
            file: where they stand.
            section: part of the file, for a run whose stages have settings of their own.

        Raises:
            CheckpointError: another run is there; the message names the first setting that differs.
        """
        path, now = self.path / file, json.loads(json.dumps(settings, default=str))
        kept = read_settings(path) if path.exists() else {}
        before = kept if section is None else kept.get(section, {})
        if before:
            for name in (*now, *(name for name in before if name not in now)):
                if name not in free and before.get(name) != now.get(name):
                    self._refuse(name, before.get(name), now.get(name))
            return
        self._own.append(file)
        write_settings(path, now if section is None else {**kept, section: now})

    def _refuse(self, name: str, before: Any, now: Any) -> NoReturn:
        while isinstance(before, dict) and isinstance(now, dict):
            key = next(one for one in (*now, *before) if before.get(one) != now.get(one))
            name, before, now = f"{name}.{key}", before.get(key), now.get(key)
        raise CheckpointError(
            f"{self.path} holds {self.what} with {name}={_short(before)}, not {_short(now)}; "
            "give what it was begun with, or choose another out=<folder>"
        )

    def record(self, content: Mapping[str, Any]) -> None:
        """Write ``run.json``: what the run was, and what it made.

        Raises:
            CheckpointError: it cannot be written.
        """
        text = json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
        write_aside(self.path / RECORD, lambda path: path.write_text(text, encoding="utf-8"))


def shared_lock(shard: Sequence[int] | None) -> str:
    """The lock of process i of k (i, k) that share a folder out; that of a process alone for k = 1 and None."""
    return LOCK if shard is None or shard[1] == 1 else f"{LOCK}-{shard[0]}-of-{shard[1]}"


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a YAML or JSON file.

    Raises:
        CheckpointError: it holds none.
    """
    try:
        text = path.read_text(encoding="utf-8")  # YAML would take 1e-05 for a text
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        if not isinstance(content, dict):
            raise ValueError("it holds no settings")
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())[:100]
        raise CheckpointError(f"{path} is damaged ({said}); delete {path.parent} to begin anew") from error
    return content


def write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write settings as JSON or YAML, by the name of the file."""
    if path.suffix == ".json":
        text = json.dumps(settings, indent=1) + "\n"
    else:
        text = yaml.dump(dict(settings), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    write_aside(path, lambda aside: aside.write_text(text, encoding="utf-8"))


class _Dumper(yaml.SafeDumper):
    """Quotes texts that some reader of YAML takes for numbers."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    number = re.fullmatch(r"[-+.]?[\d_]+(\.[\d_]*)?(e[-+]?\d+)?", value, re.IGNORECASE)
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="'" if number else None)


_Dumper.add_representer(str, _text)
_Dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]


class _Lock:
    """One process at a time: the system's lock on a file, which a kill releases."""

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, None

    def take(self) -> None:
        """Take it.

        Raises:
            CheckpointError: another process has it.
        """
        while True:
            file = self.path.open("a+", encoding="utf-8")
            if not _locked(file):
                file.seek(0)
                holder = file.read().strip() or "another process"
                file.close()
                raise CheckpointError(
                    f"{self.path.parent} is in use by {holder}; wait for it, or choose another out=<folder>"
                )
            with suppress(OSError):  # whoever had it may have removed the file meanwhile
                if os.fstat(file.fileno()).st_ino == self.path.stat().st_ino:
                    break
            file.close()
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give it back."""
        if self._file is not None:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
            with suppress(OSError):
                self._file.close()
            self._file = None


def _locked(file: Any) -> bool:
    """Whether the lock on an open file could be taken."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _make(path: Path) -> list[Path]:
    """Make a folder and try to write there; the folders that were made, innermost first."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing


def _unmake(folders: Sequence[Path]) -> None:
    """Remove folders that are empty again; those within the first one too."""
    with suppress(OSError):
        for inner in sorted((one for one in folders[:1] for one in one.rglob("*") if one.is_dir()), reverse=True):
            with suppress(OSError):
                inner.rmdir()
        for folder in folders:
            folder.rmdir()


def _names(folder: Path) -> frozenset[str]:
    return frozenset(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


class Journal:
    """Records of a file by their key; a line that a kill cut off is removed and its work done again.

    Args:
        path: of the file, made with the first record.
        key: the field that names a record, or several that do together.
        latest: whether a later record of the same name counts instead of the first, which is then not added again.

    Raises:
        CheckpointError: a line in the middle is no record.
    """

    def __init__(self, path: Path, key: str | Sequence[str], latest: bool = False) -> None:
        self.path, self.key, self.latest = path, key, latest
        self.records: dict[Any, dict[str, Any]] = {}
        if path.exists():
            self._read()

    def __contains__(self, name: Any) -> bool:
        return name in self.records

    def __len__(self) -> int:
        return len(self.records)

    def name(self, record: Mapping[str, Any]) -> Any:
        """What a record goes by."""
        return record[self.key] if isinstance(self.key, str) else tuple(record[one] for one in self.key)

    def add(self, *records: Mapping[str, Any]) -> None:
        """Append records and see them on the disk.

        Raises:
            CheckpointError: they cannot be written.
        """
        new = {self.name(one): dict(one) for one in records if self.latest or self.name(one) not in self.records}
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
                if self.latest:
                    self.records[self.name(record)] = record
                else:
                    self.records.setdefault(self.name(record), record)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise CheckpointError(
                    f"{self.path}, line {number}, is no record; delete that line to do its work again"
                ) from error
        if len(whole) < len(raw):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))


def _plain(value: Any) -> Any:
    """A number of numpy's as one of Python's."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{value!r} is nothing that JSON has")
