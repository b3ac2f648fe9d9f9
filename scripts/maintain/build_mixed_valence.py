"""Builds ``weights/tables/mixed_valence.json``: elements that known compounds have in two oxidation states at a time.

``python -m scripts.maintain.build_mixed_valence DATA``, the folder as for `fit_crystal_plausibility`. Compounds are
formulas of ordered crystals that have been made (COD, AMCSD), with oxygen or a halogen and without both C and H, by the
ICSD's oxidation states. One that needs a split is neutral only with the atoms of one element in two consecutive states,
and only one element and pair of states will do. A pair is in the table where

* both states are positive: anions in two states are bonded to each other;
* the element is a metal or metalloid: nonmetals in two states are two molecular ions, such as nitrite and nitrate;
* at least `COMPOUNDS` compounds need it, and these are at least `SHARE` of the element's neutral compounds;
* the rarer state has at least `RARER` of the occurrences of both in the ICSD, as pymatgen counts them.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from pymatgen.core import Composition, Element

from crystalgfn.crystallography import elements
from crystalgfn.properties.oxidation import TABLE as OCCURRENCES
from crystalgfn.space.charge import ChargeRule
from crystalgfn.utils.files import write_aside
from scripts.maintain.fit_crystal_plausibility import sources
from scripts.maintain.program import run

COMPOUNDS, SHARE, RARER = 3, 0.005, 0.03
TABLE = elements.DATA / "mixed_valence.json"
STATES = elements.OXIDATION_STATES["icsd"]
SINGLE = ChargeRule(STATES, False, False)

Pair = tuple[int, int, int]
"""Atomic number and two consecutive states."""


def _sums(counts: Mapping[int, int]) -> set[int]:
    """Charges of atoms with one state for each element."""
    found = {0}
    for z, n in counts.items():
        found = {q + charge for q in found for charge in SINGLE.plain(z, n)}
    return found


def splits(counts: Mapping[int, int]) -> set[Pair]:
    """The splits of one element that make a composition {Z: atoms} neutral."""
    found = set()
    for z, n in counts.items():
        rest = _sums({other: m for other, m in counts.items() if other != z})
        for low, high in pairwise(STATES[z - 1]):
            if low * high > 0 and any(-(m * low + (n - m) * high) in rest for m in range(1, n)):
                found.add((z, low, high))
    return found


def tally(formulas: Iterable[str]) -> tuple[Counter[Pair], Counter[int]]:
    """Compounds that need each split; and of each element those that need none."""
    needed: Counter[Pair] = Counter()
    neutral: Counter[int] = Counter()
    for formula in formulas:
        # of two formula units, so that one atom in a unit may be split too
        counts = {element.Z: 2 * round(n) for element, n in Composition(formula).items()}
        ionic = {8, 9, 17, 35, 53} & set(counts) and not {1, 6} <= set(counts)
        if len(counts) < 2 or not ionic or not all(STATES[z - 1] for z in counts):
            continue
        if SINGLE.neutral(counts):
            neutral.update(list(counts))
        elif len(possible := splits(counts)) == 1:
            needed.update(possible)
    return needed, neutral


def main(arguments: list[str] | None = None) -> None:
    """The command: writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    known = sources(parser.parse_args(arguments).data)
    needed, neutral = tally({formula for formula, _ in known["cod"] | known["amcsd"]})
    occurrences = json.loads(OCCURRENCES.read_text(encoding="utf-8"))["counts"]
    rows: list[dict[str, Any]] = []
    for (z, low, high), n in sorted(needed.items()):
        element = Element.from_Z(z)
        both = [occurrences[element.symbol].get(str(state), 0) for state in (low, high)]
        if (
            low > 0
            and (element.is_metal or element.is_metalloid)
            and n >= max(COMPOUNDS, SHARE * (n + neutral[z]))
            and min(both) >= RARER * sum(both)
        ):
            rows.append({"element": element.symbol, "states": [low, high], "compounds": n, "neutral": neutral[z]})
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    source = "formulas of COD and AMCSD; occurrences of oxidation states in the ICSD as in pymatgen"
    write_aside(TABLE, lambda aside: aside.write_text(f'{{\n "source": "{source}",\n "splits": [\n{lines}\n ]\n}}\n'))
    print(f"{TABLE}: {len(rows)} splits of {len({row['element'] for row in rows})} elements")


if __name__ == "__main__":
    run(main)
