"""Makes labels in the background, in numbered shards: ``python -m scripts.maintain.labels.make --help``."""

from __future__ import annotations

import argparse
import re
import signal
import time
from collections import Counter
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from tqdm import tqdm

from crystalgfn.calculators.registry import DEFAULT
from crystalgfn.data.labelled import read_labelled
from crystalgfn.data.standard_cells import Parents
from crystalgfn.errors import DataError
from crystalgfn.utils.files import save_arrays
from scripts.maintain.labels.labelling import Labeller, RawLabel
from scripts.maintain.program import run

HELD_UNITS = 7
"""Units of strained crystals for the report, with at most 24 labels each."""


def make_labels(
    train: str | Path,
    val: str | Path,
    folder: str | Path,
    seconds: float,
    shard_seconds: float = 60.0,
    seed: int = 0,
    progress: bool = True,
    sampler: str = "formation-energy",
    calculator: str = DEFAULT,
) -> None:
    """Add shards to a folder, where an earlier run stopped, until the time is up or the user interrupts.

    Each shard holds whole units of all sources in turn, each source with its share of the time, so that a run may be
    stopped at any time. What a killed run loses is its last shard.

    Args:
        train: Parquet file (as MP-20's) of the crystals that labels start from.
        val: another; crystals that share (reduced formula, space group) with it are not started from, and a few
            strained copies of its own are made for the report.
        folder: for the shards.
        seconds: of this run.
        shard_seconds: of one shard.
        seed: of all draws.
        progress: shows a bar.
        sampler: name or folder of the sampler whose draws are labelled.
        calculator: see `crystalgfn.calculators.registry.load_calculator`.

    Raises:
        DataError: files that cannot be read.
        NotAvailable: the calculator's package is not installed.
    """
    folder = Path(folder)
    taken = frozenset().union(*read_labelled(val, progress=progress).keys)
    labeller = Labeller(Parents.read(train, taken), Parents.read(val), seed, sampler, calculator)
    units, spent, number = _state(folder)
    end = time.monotonic() + seconds
    bar = tqdm(desc="labels", unit=" labels", disable=not progress, mininterval=5)
    stopped = False
    while not stopped and time.monotonic() < end:
        shard_end = min(end, time.monotonic() + shard_seconds)
        rows: list[tuple[str, int, RawLabel]] = []
        try:
            while time.monotonic() < shard_end:
                source = _next(labeller, units, spent)
                start = time.monotonic()
                labels = labeller.sources[source][1](units[source])
                spent[source] += time.monotonic() - start
                rows += [(source, units[source], label) for label in labels]
                units[source] += 1
                bar.update(len(labels))
        except KeyboardInterrupt:
            stopped = True
        if rows:
            _write(folder / f"shard-{number:05d}.npz", rows, units, spent, labeller.calculator.name)
            number += 1
    bar.close()


def _next(labeller: Labeller, units: Counter, spent: Counter) -> str:
    """The source that is furthest behind its share of the time."""
    open_ = [name for name in labeller.sources if name != "held" or units[name] < HELD_UNITS]
    return min(open_, key=lambda name: spent[name] / labeller.sources[name][0])


def _write(path: Path, rows: list[tuple[str, int, RawLabel]], units: Counter, spent: Counter, calculator: str) -> None:
    columns = {name: np.array([getattr(label, name) for *_, label in rows]) for name in RawLabel.__dataclass_fields__}
    columns["composition"] = columns["composition"].astype(np.int8)
    columns["source"] = np.array([source for source, *_ in rows])
    columns["refined"] = ~np.isin(columns["source"], ("strained", "held"))  # the refiner placed their candidates' atoms
    columns["calculator"] = np.array([calculator])
    columns["unit"] = np.array([unit for _, unit, _ in rows])
    columns["units"] = np.array([[name, count, spent[name]] for name, count in units.items()])
    save_arrays(path, columns)


def _state(folder: Path) -> tuple[Counter, Counter, int]:
    """Units made and seconds spent by source, and the number of the next shard."""
    shards = shards_of(folder)
    if not shards:
        return Counter(), Counter(), 0
    try:
        with open(shards[-1], "rb") as opened, np.load(opened) as last:
            table = last["units"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(f"{shards[-1]} is not a shard of labels ({error}); remove it to go on") from error
    number = int(re.findall(r"\d+", shards[-1].stem)[-1]) + 1
    return Counter({n: int(c) for n, c, _ in table}), Counter({n: float(s) for n, _, s in table}), number


def spent_on(folder: Path) -> dict[str, float]:
    """Seconds that all runs together spent on each source."""
    return dict(_state(folder)[1])


def shards_of(folder: Path) -> list[Path]:
    """The shards of a folder, in order."""
    return sorted(folder.glob("shard-[0-9]*.npz"))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("folder", type=Path, help="for the shards")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sampler", default="formation-energy", help="name or folder; its draws are labelled")
    parser.add_argument("--calculator", default=DEFAULT, help="name, or module:factory")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended like this, too, a run keeps what it has
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start a job with this one ignored
    seconds = 60 * options.minutes
    make_labels(
        options.train,
        options.val,
        options.folder,
        seconds,
        seed=options.seed,
        sampler=options.sampler,
        calculator=options.calculator,
    )


if __name__ == "__main__":
    run(main)
