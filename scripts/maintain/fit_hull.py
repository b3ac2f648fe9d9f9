"""Fits the convex hull's surrogate: ``python -m scripts.maintain.fit_hull REFERENCES --out OUT``."""

from __future__ import annotations

import argparse
import json

from crystalgfn.fitting.hull import fit_hull
from scripts.maintain.program import run


def main(arguments: list[str] | None = None) -> None:
    """The command: fits with the default settings and prints the figures."""
    parser = argparse.ArgumentParser(prog="python -m scripts.maintain.fit_hull", description="Fit the shipped hull.")
    parser.add_argument("references", nargs="+", help="Parquet or CSV files of known compounds with formation energies")
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument("--scale", default="charge", help="of the hull, charge or mp2020")
    given = parser.parse_args(arguments)
    print(json.dumps(fit_hull(given.references, given.out, given.scale), indent=2))


if __name__ == "__main__":
    run(main)
