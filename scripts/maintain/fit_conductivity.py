"""Fits the ionic conductivity: ``python -m scripts.maintain.fit_conductivity obelix/train.csv OUT``."""

from __future__ import annotations

import argparse
import json

from crystalgfn.fitting.conductivity import fit_conductivity
from scripts.maintain.program import run


def main(arguments: list[str] | None = None) -> None:
    """The command: fits with the default config and prints the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.maintain.fit_conductivity", description="Fit the ionic conductivity."
    )
    parser.add_argument("data", help="OBELiX's CSV file, such as obelix/train.csv")
    parser.add_argument("out", help="folder to write to")
    given = parser.parse_args(arguments)
    print(json.dumps(fit_conductivity(given.data, given.out), indent=2))


if __name__ == "__main__":
    run(main)
