"""Builds ``weights/tables/oxidation_states.json``: how often known crystals have an element in an oxidation state.

``python -m scripts.maintain.build_oxidation_states``: the occurrences in the ICSD that pymatgen ships for its bond
valence analysis, and for states that it only lists 5 (common ones) and 1 (those of the ICSD). State 0 counts a tenth,
and only for elements that are anions in some crystals, where it stands for bonds between atoms of its own kind.
"""

from __future__ import annotations

import argparse
import json
import re
from importlib.resources import files

import yaml

from crystalgfn.crystallography import elements
from crystalgfn.properties.oxidation import ANIONIC, TABLE
from crystalgfn.utils.files import write_aside
from scripts.maintain.program import run

COMMON, LISTED, ZERO = 5.0, 1.0, 0.1


def counts() -> dict[str, dict[str, float]]:
    """Symbol -> state -> weight."""
    text = (files("pymatgen.core") / "icsd_bv.yaml").read_text(encoding="utf-8")
    found: dict[str, dict[int, float]] = {symbol: {} for symbol in elements.SYMBOLS}
    for name, number in yaml.safe_load(text)["occurrence"].items():
        symbol, size, sign = re.fullmatch(r"([A-Z][a-z]?)(\d*)([+-])", name).groups()
        state = int(size or 1) * (1 if sign == "+" else -1)
        weight = number if state else ZERO * number * (symbol in ANIONIC)
        if weight:
            found[symbol][state] = found[symbol].get(state, 0) + weight
    for z, symbol in enumerate(elements.SYMBOLS):
        for table, weight in (("common", COMMON), ("icsd", LISTED)):
            for state in elements.OXIDATION_STATES[table][z]:
                found[symbol][state] = found[symbol].get(state, 0) + weight
        if not found[symbol]:
            found[symbol] = dict.fromkeys(elements.OXIDATION_STATES["all"][z], 1.0)
    return {
        symbol: {str(state): round(weight, 1) for state, weight in sorted(states.items())}
        for symbol, states in found.items()
        if states
    }


def main(arguments: list[str] | None = None) -> None:
    """The command: writes the table."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    source = "occurrences in the ICSD, icsd_bv.yaml of pymatgen, and its lists of oxidation states"
    text = json.dumps({"source": source, "counts": counts()}, indent=1)
    write_aside(TABLE, lambda aside: aside.write_text(text + "\n"))


if __name__ == "__main__":
    run(main)
