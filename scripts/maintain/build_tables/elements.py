"""Reads the table of elements from pymatgen and writes data/elements.json."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

ALLEN_ELECTRONEGATIVITY = {"He": 4.16, "Ne": 4.79, "Ar": 3.24}  # no Pauling value exists
LAST_COVALENT = 96  # Cordero et al. 2008 end at Cm


def element_table() -> dict:
    """The table as plain lists, one entry an element."""
    from pymatgen.analysis.molecule_structure_comparator import CovalentRadius
    from pymatgen.core.periodic_table import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns for each missing value; the rules below replace them
        elements = [Element.from_Z(z) for z in range(1, 119)]

        def radius(element: Element) -> float:
            value = element.atomic_radius or element.atomic_radius_calculated
            if value is None:
                value = CovalentRadius.radius[Element.from_Z(min(element.Z, LAST_COVALENT)).symbol]
            return round(float(value), 4)

        def electronegativity(element: Element) -> float:
            value = float(element.X)
            if math.isnan(value):
                value = ALLEN_ELECTRONEGATIVITY.get(element.symbol, float(Element("Lr").X))
            return value

        def states(name: str) -> list[list[int]]:
            return [sorted({int(s) for s in getattr(e, name)} - {0}) for e in elements]

        return {
            "symbol": [e.symbol for e in elements],
            "mass": [float(e.atomic_mass) for e in elements],
            "radius": [radius(e) for e in elements],
            "electronegativity": [electronegativity(e) for e in elements],
            "metal": [bool(e.is_metal) for e in elements],
            "noble_gas": [bool(e.is_noble_gas) for e in elements],
            "group": [int(e.group) for e in elements],
            "row": [int(e.row) for e in elements],
            "oxidation_states": {
                "icsd": states("icsd_oxidation_states"),
                "common": states("common_oxidation_states"),
                "all": states("oxidation_states"),
            },
        }


def build_elements(folder: Path) -> None:
    """Writes ``folder / "elements.json"``."""
    (folder / "elements.json").write_text(json.dumps(element_table(), separators=(",", ":")) + "\n")
