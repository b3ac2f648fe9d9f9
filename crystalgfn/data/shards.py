"""Shards: a data set of crystals as Parquet files beside a manifest, read back exactly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from crystalgfn.crystallography.atoms import CELL
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import ShardError
from crystalgfn.typing import Compositions
from crystalgfn.utils.files import path_of, write_aside

MANIFEST = "manifest.json"
FOLDER = "shards"  # only shards are in it, so that every reader of Parquet takes it for one data set
KIND = "crystalgfn shards"
VERSION = 1
#: What a crystal is read from; atoms per primitive cell as two lists, since of 118 columns nearly all are zero.
CRYSTAL = ["space_group", "atomic_numbers", "counts", *CELL]
_MARK = b"crystalgfn"


class Damaged(Exception):
    """A file that is no whole shard."""


@dataclass(frozen=True)
class Manifest:
    """What run the shards of a folder are of.

    Attributes:
        name: what the sampler is called; its content is among the settings.
        settings: all that the rows depend on, ``n`` and ``shard_size`` among it, as JSON has it.
    """

    name: str | None
    settings: dict[str, Any]

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-self.settings["n"] // self.settings["shard_size"])

    def first(self, i: int) -> int:
        """The ``id`` of the first row of shard ``i``."""
        return i * self.settings["shard_size"]

    def rows(self, i: int) -> int:
        """Rows of shard ``i``."""
        return min(self.settings["shard_size"], self.settings["n"] - self.first(i))

    @cached_property
    def run(self) -> str:
        """SHA-256 of the settings; every shard carries it."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    @property
    def content(self) -> dict[str, Any]:
        """What stands in ``manifest.json``."""
        return {"kind": KIND, "version": VERSION, "name": self.name, "settings": self.settings}

    @staticmethod
    def read(out: str | Path) -> Manifest:
        """The manifest of a run's folder.

        Raises:
            ShardError: there is none, or it is something else.
        """
        path = path_of(out, "out") / MANIFEST
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if (content["kind"], content["version"]) != (KIND, VERSION):
                raise ValueError
            manifest = Manifest(content["name"], content["settings"])
            manifest.rows(0)
        except FileNotFoundError as error:
            raise ShardError(f"there are no shards in {out}: {path} is missing; give the folder of a run") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ShardError(f"{path} is no manifest of {KIND}, version {VERSION}; give the folder of a run") from error
        return manifest


def shard_path(out: str | Path, i: int) -> Path:
    """Where shard ``i`` is."""
    return path_of(out, "out") / FOLDER / f"part-{i:05d}.parquet"


def read_shards(out: str | Path, partial: bool = False) -> Iterator[Crystals]:
    """The crystals of a run, exactly as drawn, a batch a shard, in order.

    Args:
        out: the folder of the run.
        partial: leave out shards that are not there (yet), instead of refusing.

    Raises:
        ShardError: no run, a missing or damaged shard, or one of another run.
    """
    return (_crystals(arrow) for arrow in _tables(out, CRYSTAL, partial))


def read_table(out: str | Path, columns: Sequence[str] | None = None, partial: bool = False) -> pd.DataFrame:
    """The rows of a run as one table, in order of ``id``: all of it in memory, so name the columns that are needed.

    Args:
        out: the folder of the run.
        columns: names of columns; None: all.
        partial: leave out shards that are not there (yet), instead of refusing.

    Raises:
        ShardError: no run, no such column, a missing or damaged shard, or one of another run.
    """
    tables = list(_tables(out, columns, partial))
    return pa.concat_tables(tables).to_pandas() if tables else pd.DataFrame(columns=list(columns or ()))


def open_shard(out: str | Path, manifest: Manifest, i: int) -> pq.ParquetFile:
    """Shard ``i`` with its footer, which is at the end of the file, read, and its rows counted.

    Raises:
        Damaged: it was cut, or has another number of rows.
        ShardError: it belongs to another run.
    """
    path = shard_path(out, i)
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise Damaged(f"{path} is damaged ({_first_line(error)})") from error
    if (file.metadata.metadata or {}).get(_MARK) != _mark(manifest, i):
        raise ShardError(f"{path} belongs to another run than {path_of(out, 'out') / MANIFEST} says; move it away")
    if file.metadata.num_rows != manifest.rows(i):
        raise Damaged(f"{path} has {file.metadata.num_rows} rows where {manifest.rows(i)} belong")
    return file


def write_shard(out: str | Path, manifest: Manifest, i: int, crystals: Crystals, frame: pd.DataFrame) -> None:
    """Shard ``i``: the rows of a table, numbered over the whole run, with the exact crystals.

    Raises:
        CheckpointError: it cannot be written.
    """
    first = manifest.first(i)
    frame.insert(0, "id", np.arange(first, first + len(frame)))
    atoms, counts = _lists(crystals.composition)
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    arrow = arrow.append_column("atomic_numbers", atoms).append_column("counts", counts)
    arrow = arrow.replace_schema_metadata({**arrow.schema.metadata, _MARK: _mark(manifest, i)})
    write_aside(
        shard_path(out, i),
        lambda aside: pq.write_table(arrow, aside, compression="zstd", write_page_checksum=True),
    )


def _tables(out: str | Path, columns: Sequence[str] | None, partial: bool) -> Iterator[pa.Table]:
    manifest = Manifest.read(out)
    there = [i for i in range(manifest.n_shards) if shard_path(out, i).exists()]
    if len(there) < manifest.n_shards and not partial:
        raise ShardError(
            f"{out} lacks {manifest.n_shards - len(there)} of {manifest.n_shards} shards; "
            "finish the run by its own command, or read with partial=True"
        )
    return (_read(out, manifest, i, columns) for i in there)


def _read(out: str | Path, manifest: Manifest, i: int, columns: Sequence[str] | None) -> pa.Table:
    try:
        with open_shard(out, manifest, i) as file:
            unknown = sorted(set(columns or ()) - set(file.schema_arrow.names))
            if unknown:
                raise ShardError(f"there is no column {unknown[0]!r}; choose from {', '.join(file.schema_arrow.names)}")
            return file.read(columns=None if columns is None else list(columns))
    except (Damaged, pa.ArrowException, OSError) as error:
        raise ShardError(
            f"{shard_path(out, i)} cannot be read ({_first_line(error)}); delete it and run its command again"
        ) from error


def _mark(manifest: Manifest, i: int) -> bytes:
    return json.dumps({"run": manifest.run, "shard": i}).encode()


def _crystals(arrow: pa.Table) -> Crystals:
    atoms, counts = (arrow[name].combine_chunks() for name in ("atomic_numbers", "counts"))
    rows = np.repeat(np.arange(len(arrow)), atoms.value_lengths().to_numpy())
    composition = np.zeros((len(arrow), 118), dtype=np.int64)
    composition[rows, atoms.flatten().to_numpy().astype(int) - 1] = counts.flatten().to_numpy()
    lattice = np.stack([arrow[name].to_numpy() for name in CELL], 1)
    return Crystals(
        torch.tensor(arrow["space_group"].to_numpy()), torch.from_numpy(composition), torch.from_numpy(lattice)
    )


def _lists(composition: Compositions) -> tuple[pa.ListArray, pa.ListArray]:
    """Atomic numbers of each row, and their counts."""
    counts = composition.cpu().numpy()
    rows, columns = np.nonzero(counts)
    offsets = pa.array(np.searchsorted(rows, np.arange(len(counts) + 1)), pa.int32())
    atoms = pa.ListArray.from_arrays(offsets, pa.array(columns + 1, pa.uint8()))
    return atoms, pa.ListArray.from_arrays(offsets, pa.array(counts[rows, columns], pa.uint16()))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
