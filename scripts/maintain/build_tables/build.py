"""Builds the shipped tables from pymatgen, spglib and pyxtal.

``python -m scripts.maintain.build_tables.build [names]``
"""

from __future__ import annotations

import argparse
from pathlib import Path

from crystalgfn.utils import files
from scripts.maintain.build_tables.elements import build_elements
from scripts.maintain.build_tables.realizable import build_realisable
from scripts.maintain.build_tables.space_groups import build_groups
from scripts.maintain.program import run

BUILDERS = {"elements": build_elements, "groups": build_groups, "realisable": build_realisable}


def main(arguments: list[str] | None = None) -> None:
    """Builds the named tables (all by default) into the package's data folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which of {', '.join(BUILDERS)}; all by default")
    parser.add_argument("--folder", type=Path, default=files.SHIPPED / "tables")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(BUILDERS))
    if unknown:
        parser.error(f"no table named {', '.join(unknown)}: choose from {', '.join(BUILDERS)}")
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.names or BUILDERS:
        BUILDERS[name](options.folder)
        print(f"{name} written to {options.folder}")


if __name__ == "__main__":
    run(main)
