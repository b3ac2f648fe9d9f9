"""The 118 elements: mass, radius, electronegativity, place in the periodic table, oxidation states.

Every array is indexed by ``Z - 1``. The values were read from pymatgen once (``scripts/maintain/build_tables``) and are
shipped as ``weights/tables/elements.json``; importing this module touches no materials library.

Where pymatgen has no value:

* ``RADIUS``: Slater's atomic radius, else the calculated one (He, Ne, Kr, Xe, Rn), else the covalent radius of Cordero
  et al. 2008 (At, Fr, Cm); for Z >= 97 the radius of Cm.
* ``ELECTRONEGATIVITY``: Pauling's; He, Ne, Ar have Allen's (4.16, 4.79, 3.24); Z >= 104 have that of Lr (1.3).
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from crystalgfn.utils import files

DATA = files.SHIPPED / "tables"


def _constant(values: list | np.ndarray, dtype: type) -> np.ndarray:
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array


_raw = json.loads((DATA / "elements.json").read_text())

SYMBOLS: tuple[str, ...] = tuple(_raw["symbol"])
"""Symbols, hydrogen first."""
NUMBER: dict[str, int] = {symbol: z for z, symbol in enumerate(SYMBOLS, start=1)}
"""Symbol -> atomic number."""
MASS: np.ndarray = _constant(_raw["mass"], np.float64)
"""[118] atomic masses, u."""
RADIUS: np.ndarray = _constant(_raw["radius"], np.float64)
"""[118] radii in Å, all positive (sources above)."""
SPHERE_VOLUME: np.ndarray = _constant(4 / 3 * np.pi * RADIUS**3, np.float64)
"""[118] volumes of spheres of these radii, Å3."""
VOLUME: np.ndarray = _constant(json.loads((DATA / "atomic_volumes.json").read_text())["volume"], np.float64)
"""[118] volumes in Å3 that atoms typically take up in crystals: sums of them are closest to the cells of MP-20 train
(least mean absolute ln ratio, 0.077; ``scripts.maintain.fit_atomic_volumes``). H to Pu; others as their neighbours."""
ELECTRONEGATIVITY: np.ndarray = _constant(_raw["electronegativity"], np.float64)
"""[118] Pauling's electronegativities (sources of the missing ones above)."""
METAL: np.ndarray = _constant(_raw["metal"], np.bool_)
"""[118] pymatgen's ``is_metal``."""
NOBLE_GAS: np.ndarray = _constant(_raw["noble_gas"], np.bool_)
"""[118] pymatgen's ``is_noble_gas``."""
GROUP: np.ndarray = _constant(_raw["group"], np.float64)
"""[118] group of the periodic table, 1-18 (3 for lanthanides and actinides)."""
ROW: np.ndarray = _constant(_raw["row"], np.float64)
"""[118] row of the periodic table, 1-7."""
OXIDATION_STATES: dict[str, tuple[tuple[int, ...], ...]] = {
    name: tuple(tuple(states) for states in table) for name, table in _raw["oxidation_states"].items()
}
"""``"icsd" | "common" | "all"`` -> for each of the 118 elements its non-zero oxidation states, ascending."""
SPLITS: dict[str, frozenset[tuple[int, int]]] = {symbol: frozenset() for symbol in SYMBOLS}
"""Symbol -> pairs of consecutive oxidation states that one known compound or more has side by side, as Fe3O4 has Fe2+
and Fe3+; 28 elements have any (``scripts.maintain.build_mixed_valence`` says which compounds count)."""
for _row in json.loads((DATA / "mixed_valence.json").read_text())["splits"]:
    _low, _high = _row["states"]
    SPLITS[_row["element"]] |= {(_low, _high)}


def chemistry(*further: np.ndarray) -> np.ndarray:
    """Electronegativity, radius, group, row, metal and further columns, each of mean 0 and variance 1, [118, n]."""
    columns = np.stack([ELECTRONEGATIVITY, RADIUS, GROUP / 6, ROW / 2, METAL, *further], axis=1).astype(np.float64)
    return (columns - columns.mean(0)) / columns.std(0)


BRACKETS = "its brackets do not match or hold nothing"


def parse_formula(text: Any) -> dict[int, int]:
    """Atoms of each element in a formula, {Z: atoms}, in the order in which they come; brackets may be nested.

    Raises:
        ValueError: what is wrong, in words.

    Example:
        >>> parse_formula("Ca(OH)2")
        {20: 1, 8: 2, 1: 2}
    """
    if not isinstance(text, str) or not re.fullmatch(r"([A-Z][a-z]?\d*|[(\[]|[)\]]\d*)+", text):
        raise ValueError("write symbols and whole numbers, such as LiFePO4 or Ca(OH)2")
    stack: list[dict[int, int]] = [{}]
    for symbol, opening, number in re.findall(r"(?:([A-Z][a-z]?)|([(\[])|[)\]])(\d*)", text):
        times = _times(symbol, number)
        if opening:
            stack.append({})
            continue
        part = {_number_of(symbol): 1} if symbol else stack.pop()
        if not stack or not part:
            raise ValueError(BRACKETS)
        for z, count in part.items():
            stack[-1][z] = stack[-1].get(z, 0) + count * times
    if len(stack) != 1:
        raise ValueError(BRACKETS)
    return stack[0]


def _times(symbol: str, number: str) -> int:
    if number and int(number) == 0:
        raise ValueError(f"{symbol or 'a bracket'}{number} has no atoms")
    return int(number or 1)


def _number_of(symbol: str) -> int:
    if symbol not in NUMBER:
        raise ValueError(f"{symbol!r} is not an element")
    return NUMBER[symbol]
