"""Values of crystals that were computed before, in memory or in a file."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence

import numpy as np

from crystalgfn.domain.crystals import Crystals
from crystalgfn.errors import RewardError

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
