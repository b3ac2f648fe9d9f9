"""Rewards and properties that take long: in batches, in workers, with a time limit, and never twice for a crystal."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import shlex
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import RewardError, check_kind
from crystalgfn.properties.base import describe, label
from crystalgfn.properties.exact import dotted_path, imported
from crystalgfn.rewards.subprocess import Program
from crystalgfn.typing import Floats
from crystalgfn.utils.instantiate import check_trusted
from crystalgfn.utils.parallel import end_pool, worker_pool


class _Crash(Exception):
    """A worker died; with several at work, nobody knows on which batch."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Slow:
    """A slow function of crystals as a fast one, as far as that can be: a reward, or the ``fn`` of a property.

    Crystals that were seen before are looked up; the others go in batches to worker processes (a :class:`Program`
    runs as a process anyway). A batch fails if its worker raises, dies or takes too long; a crystal fails if its value
    is NaN.

    Attributes:
        fn: crystals (on the CPU) -> values, one a crystal; what it needs must be picklable.
        batch_size: crystals a call of ``fn``, at most.
        workers: processes at once.
        timeout: seconds a call of ``fn`` may take; None: as long as it likes.
        cache: file (SQLite) in which values are kept from run to run; None: in memory.
        failed: the value of crystals that fail, each time with a warning; None: an error that names the crystal.
    """

    fn: Callable[[Crystals], Any]
    batch_size: int = 32
    workers: int = 1
    timeout: float | None = 600.0
    cache: str | None = None
    failed: float | None = None
    _cache: Cache = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise RewardError(f"slow: a function of crystals is needed; {self.fn!r} cannot be called.")
        for name in ("batch_size", "workers"):
            if getattr(self, name) < 1:
                raise RewardError(f"slow: {name} must be at least 1, not {getattr(self, name)}.")
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise RewardError(f"slow: timeout must be a number of seconds > 0, or null, not {self.timeout}.")
        if self.failed is not None and math.isnan(self.failed):
            raise RewardError("slow: failed must be a number; leave it out to have an error instead.")
        if self.cache is not None:
            check_kind("cache", self.cache, (str, PathLike), "the name of a file", RewardError)
            check_trusted("crystalgfn.rewards.slow", f"keeps its values in the file {self.cache}", own=False)
        object.__setattr__(self, "_cache", Cache(self.cache, self.name))

    def __call__(self, crystals: Crystals) -> Floats:
        """The value of each crystal, float64 [B], on the crystals' device.

        Raises:
            RewardError: a crystal or batch that fails, where ``failed`` is None; it is named.
        """
        here = crystals.to("cpu")
        keys = crystal_keys(here)
        known = self._cache.get(list(dict.fromkeys(keys)))
        first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in known}
        new = sorted(first.values())
        batches = [new[i : i + self.batch_size] for i in range(0, len(new), self.batch_size)]
        results = self._in_threads if isinstance(self.fn, Program) else self._in_processes
        for rows, outcome in results(here, batches):
            values = self._accepted(here[rows], outcome)
            done = {keys[i]: value for i, value in zip(rows, values, strict=True) if not math.isnan(value)}
            self._cache.put(done)
            known.update({keys[i]: self._replaced(value) for i, value in zip(rows, values, strict=True)})
        values = torch.tensor([known[key] for key in keys], dtype=torch.float64)
        return values.to(crystals.device)

    @property
    def name(self) -> str:
        """What it computes, in words; with a few digits of the function's source, so that caches know it again."""
        if isinstance(self.fn, Program):
            return self.fn.name
        if callable(getattr(self.fn, "config", None)):
            return json.dumps(self.fn.config(), sort_keys=True)
        kind = self.fn if hasattr(self.fn, "__qualname__") else type(self.fn)
        try:
            source = inspect.getsource(kind)
        except (OSError, TypeError):
            source = ""
        digest = hashlib.blake2b(source.encode(), digest_size=4).hexdigest()
        return f"{kind.__module__}.{kind.__qualname__} ({digest})"

    def to(self, device: torch.device | str) -> Slow:
        """Itself: it computes on the CPU and answers where the crystals are."""
        return self

    def config(self) -> dict[str, Any]:
        """The configuration that builds it.

        Raises:
            RewardError: a function that cannot be imported by name.
        """
        path = describe(self.fn) if hasattr(self.fn, "config") else dotted_path(self.fn, "slow reward")
        names = ("batch_size", "workers", "timeout", "cache", "failed")
        return {"_target_": "crystalgfn.rewards.slow", "fn": path, **{name: getattr(self, name) for name in names}}

    def _accepted(self, crystals: Crystals, outcome: list[float] | Exception) -> list[float]:
        """The values of a batch, NaN for those that fail: with a warning, where that is allowed."""
        if isinstance(outcome, Exception):
            values, reason = [math.nan] * len(crystals), self._reason(outcome)
        else:
            values, reason = outcome, "its value is NaN"
        bad = [i for i, value in enumerate(values) if math.isnan(value)]
        if bad:
            others = "" if len(bad) == 1 else f" and {len(bad) - 1} more of its batch"
            words = f"{self.name} fails for {label(crystals, bad[0])}{others}: {reason}"
            if self.failed is None:
                raise RewardError(f"{words}. Mend that, or give failed=<value> to go on with that value.")
            warnings.warn(f"{words}; {self.failed:g} is taken", stacklevel=3)
        return values

    def _replaced(self, value: float) -> float:
        return float(self.failed) if math.isnan(value) and self.failed is not None else value

    def _reason(self, error: Exception) -> str:
        if isinstance(error, TimeoutError) and not str(error):
            return f"it takes longer than timeout={self.timeout} s"
        if isinstance(error, _Crash):
            return "its worker process died"
        said = " ".join(str(error).split()).rstrip(".")
        return said if isinstance(error, RewardError) else f"{type(error).__name__}: {said}"

    def _in_threads(self, crystals: Crystals, batches: list[list[int]]) -> Iterator[tuple[list[int], Any]]:
        """Each batch with its values or what it raised, of a program."""
        with ThreadPoolExecutor(self.workers) as pool:
            futures = [pool.submit(self.fn.run, crystals[rows], self.timeout) for rows in batches]
            try:
                for rows, future in zip(batches, futures, strict=True):
                    yield rows, _outcome(future, len(rows))
            finally:  # not reached in order where the caller gives up
                for future in futures:
                    future.cancel()
                self.fn.stop()

    def _in_processes(self, crystals: Crystals, batches: list[list[int]]) -> Iterator[tuple[list[int], Any]]:
        """The same, of a function; batches that a killed worker takes with it are done again."""
        workers = self.workers
        while batches:
            pool = worker_pool(workers)
            futures = [pool.submit(_numbers, self.fn, crystals[rows]) for rows in batches]
            done = 0
            try:
                for rows, future in zip(batches, futures, strict=True):
                    outcome = _outcome(future, len(rows), self.timeout)
                    if isinstance(outcome, _Crash) and workers > 1:
                        workers = 1  # one at a time from here, so that the right one is named
                        break
                    done += 1
                    yield rows, outcome
                    if isinstance(outcome, _Crash) or not future.done():
                        break
            finally:
                if any(not future.done() or isinstance(future.exception(), BrokenProcessPool) for future in futures):
                    end_pool(pool)
            batches = batches[done:]


def slow(
    fn: Callable | str,
    batch_size: int = 32,
    workers: int = 1,
    timeout: float | None = 600.0,
    cache: str | None = None,
    failed: float | None = None,
) -> Slow:
    """A slow function of crystals, or the dotted path of one; see :class:`Slow`."""
    return Slow(
        fn=imported(fn, "slow"), batch_size=batch_size, workers=workers, timeout=timeout, cache=cache, failed=failed
    )


def program(
    command: str | Sequence[str],
    batch_size: int = 32,
    workers: int = 1,
    timeout: float | None = 600.0,
    cache: str | None = None,
    failed: float | None = None,
) -> Slow:
    """A program that reads crystals as CSV and prints a number for each; see :class:`Program`, :class:`Slow`."""
    check_kind("command", command, (str, list, tuple), "a command, or a list of its words", RewardError)
    try:
        words = shlex.split(command) if isinstance(command, str) else list(command)
    except ValueError as error:
        raise RewardError(f"the command {command!r} cannot be parted into words ({error})") from error
    return Slow(
        fn=Program(tuple(words)), batch_size=batch_size, workers=workers, timeout=timeout, cache=cache, failed=failed
    )


def _numbers(fn: Callable, crystals: Crystals) -> list[float]:
    """In a worker: the function's values as plain numbers."""
    torch.set_num_threads(1)
    with torch.no_grad():
        values = torch.as_tensor(fn(crystals), dtype=torch.float64)
    if values.shape != (len(crystals),):
        raise RewardError(
            f"it returns shape {list(values.shape)} for {len(crystals)} crystals; one value each is needed"
        )
    return values.tolist()


def _outcome(future: Future, n: int, timeout: float | None = None) -> list[float] | Exception:
    try:
        values = future.result(timeout)
    except BrokenProcessPool:
        return _Crash()
    except Exception as error:
        return error
    return values if isinstance(values, list) else values.tolist()


#: Lengths count to 1e-4 Å and angles to 1e-3 degrees: what is equal up to that is the same crystal.
_STEPS = np.array([1e4] * 3 + [1e3] * 3)

#: Keys a query; SQLite limits the number of its variables.
_QUERY = 500


def crystal_keys(crystals: Crystals) -> list[bytes]:
    """A short name of each crystal: the same for the same space group, composition and rounded lattice."""
    crystals = crystals.to("cpu")
    columns = [
        crystals.space_group.numpy()[:, None],
        crystals.composition.numpy(),
        np.rint(crystals.lattice.detach().double().numpy() * _STEPS).astype(np.int64),
    ]
    rows = np.ascontiguousarray(np.concatenate(columns, 1), dtype=np.int64)
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


class Cache:
    """Values by crystal, in an SQLite file that several processes may share, or in memory.

    Args:
        path: the file; None: in memory.
        owner: what the values are of, in words; a file belongs to one owner.

    Raises:
        RewardError: a file that is not a cache, belongs to another owner, or cannot be written.
    """

    def __init__(self, path: str | None, owner: str) -> None:
        self.path = path
        try:
            self._file = sqlite3.connect(path or ":memory:", timeout=60, check_same_thread=False)
            with self._file as file:
                file.execute("CREATE TABLE IF NOT EXISTS crystals (key BLOB PRIMARY KEY, value REAL) WITHOUT ROWID")
                file.execute("CREATE TABLE IF NOT EXISTS owner (name TEXT UNIQUE)")
                file.execute("INSERT INTO owner SELECT ? WHERE NOT EXISTS (SELECT * FROM owner)", (owner,))
                (known,) = file.execute("SELECT name FROM owner").fetchone()
        except sqlite3.Error as error:
            raise RewardError(f"the cache {path} cannot be used: {error}; choose another file") from error
        if known != owner:
            self._file.close()
            raise RewardError(
                f"the cache {path} holds values of {known}, not of {owner}; choose another file, or delete it if the "
                "function was changed"
            )

    def get(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """The values that are known."""
        found: dict[bytes, float] = {}
        for start in range(0, len(keys), _QUERY):
            some = keys[start : start + _QUERY]
            marks = ",".join("?" * len(some))
            found.update(self._file.execute(f"SELECT key, value FROM crystals WHERE key IN ({marks})", some))
        return found

    def put(self, values: Mapping[bytes, float]) -> None:
        """Keep values, all or none."""
        with self._file as file:
            file.executemany("INSERT OR REPLACE INTO crystals VALUES (?, ?)", list(values.items()))

    def __len__(self) -> int:
        return self._file.execute("SELECT COUNT(*) FROM crystals").fetchone()[0]
