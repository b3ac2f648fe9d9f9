"""Fits the convex hull's surrogate: ``python -m scripts.maintain.fit_hull TRAIN VAL OUT``."""

from __future__ import annotations

import argparse
import json

from crystalgfn.fitting.hull import fit_hull
from scripts.maintain.program import run


def main(arguments: list[str] | None = None) -> None:
    """The command: fits with the default settings and prints the figures."""
    parser = argparse.ArgumentParser(prog="python -m scripts.maintain.fit_hull", description="Fit the shipped hull.")
    parser.add_argument("train", help="Parquet file of crystals with formation energies, such as mp20/train.parquet")
    parser.add_argument("val", help="Parquet file whose crystals are not used, such as mp20/val.parquet")
    parser.add_argument("out", help="folder to write to")
    parser.add_argument("--also", nargs="*", default=[], help="further files as the first, for what it lacks")
    given = parser.parse_args(arguments)
    print(json.dumps(fit_hull([given.train, *given.also], given.val, given.out), indent=2))


if __name__ == "__main__":
    run(main)
