"""What the commands that fit to an index of real crystals have in common."""

from __future__ import annotations

import argparse
from pathlib import Path

from crystalgfn.data.structure_index import Prototypes


def parser(description: str | None, out: Path, epochs: int) -> argparse.ArgumentParser:
    """The options of such a command, with where its weights go and its passes over the crystals."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("source", help="real crystals: a Parquet or CSV file, a folder of CIFs, or an index (.npz)")
    found.add_argument("--exclude", help="crystals that share formula and group with this source are left out")
    found.add_argument("--cache", help="folder where the indices of sources are kept")
    found.add_argument("--out", type=Path, default=out)
    found.add_argument("--epochs", type=int, default=epochs)
    found.add_argument("--seed", type=int, default=0)
    return found


def read_index(options: argparse.Namespace) -> Prototypes:
    """The crystals that are to be fitted to."""
    index = Prototypes.read(options.source, options.cache, progress=True)
    if options.exclude:
        index = index.without(key for keys in Prototypes.read(options.exclude, options.cache).keys() for key in keys)
    return index
