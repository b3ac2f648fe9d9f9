"""The new candidates of several discoveries: ``python collect.py LIMIT TABLE.csv ... > candidates.csv``."""

import sys
from pathlib import Path

import pandas as pd


def collect(limit: float, tables: list[str]) -> pd.DataFrame:
    """New crystals at most ``limit`` eV/atom above the hull, the lowest first."""
    frames = [pd.read_csv(path).assign(system=Path(path).parent.name) for path in tables]
    everything = pd.concat(frames, ignore_index=True)
    new = everything[everything["status"].eq("candidate") & everything["e_above_hull"].le(limit)]
    columns = ["system", "formula", "space_group", "e_above_hull", "e_above_hull_std", "decomposition"]
    return new.sort_values("e_above_hull")[columns]


if __name__ == "__main__":
    print(collect(float(sys.argv[1]), sys.argv[2:]).to_csv(index=False), end="")
