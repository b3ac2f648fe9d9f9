"""The 230 space groups in one setting: pyxtal's (origin choice 2, hexagonal axes for R, unique axis b, cell choice 1).

Arrays are indexed by ``number - 1``. The values were read from pyxtal and spglib once
(``scripts/maintain/build_tables``) and are shipped as ``weights/tables/groups.npz``;
importing this module touches neither library.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np

from crystalgfn.utils import files

DATA = files.SHIPPED / "tables"
TRANSLATION_UNIT = 24
"""Every translation of the 230 groups is a multiple of 1 / 24 in this setting."""
CRYSTAL_LATTICE_SYSTEMS: tuple[str, ...] = (
    "triclinic",
    "monoclinic",
    "orthorhombic",
    "tetragonal",
    "trigonal-rhombohedral",
    "trigonal-hexagonal",
    "hexagonal",
    "cubic",
)
"""Names of the values of ``CRYSTAL_LATTICE_SYSTEM``."""
POINT_SYMMETRIES: tuple[str, ...] = (
    "centrosymmetric",
    "enantiomorphic-polar",
    "polar",
    "enantiomorphic",
    "non-centrosymmetric",
)
"""Names of the values of ``POINT_SYMMETRY``; the last one is what none of the other four holds."""


@dataclass(frozen=True, eq=False, kw_only=True)
class WyckoffPosition:
    """One Wyckoff position of a group.

    ``operations`` [multiplicity, 3, 4] maps (x, y, z, 1) of the representative onto every point of the orbit in the
    conventional cell, the representative itself first; ``n_free`` of x, y, z matter.
    """

    letter: str
    multiplicity: int
    primitive_multiplicity: int
    n_free: int
    operations: np.ndarray

    @property
    def free(self) -> bool:
        """Whether the position has a free parameter, so that it may be used more than once."""
        return self.n_free > 0


def _read() -> tuple[dict[str, np.ndarray], tuple[tuple[WyckoffPosition, ...], ...]]:
    with np.load(DATA / "groups.npz") as file:
        raw = {name: file[name] for name in file.files}
    operations = np.concatenate(
        [raw["rotations"].astype(np.float64), raw["translations"][:, :, None] / TRANSLATION_UNIT], axis=2
    )
    for array in (operations, *raw.values()):
        array.flags.writeable = False
    positions: list[list[WyckoffPosition]] = [[] for _ in range(230)]
    start = 0
    for group, letter, multiplicity, n_free in zip(
        raw["wyckoff_group"].tolist(),
        raw["wyckoff_letter"].tolist(),
        raw["wyckoff_multiplicity"].tolist(),
        raw["wyckoff_n_free"].tolist(),
        strict=True,
    ):
        orbit = operations[start : start + multiplicity]
        primitive = multiplicity // int(raw["centring"][group])
        positions[group].append(
            WyckoffPosition(
                letter=letter,
                multiplicity=multiplicity,
                primitive_multiplicity=primitive,
                n_free=n_free,
                operations=orbit,
            )
        )
        start += multiplicity
    return raw, tuple(tuple(group) for group in positions)


_raw, WYCKOFF = _read()
"""For each group its Wyckoff positions from letter a to the general one."""
SYMBOL: tuple[str, ...] = tuple(_raw["symbol"].tolist())
"""Hermann-Mauguin symbols."""
CRYSTAL_LATTICE_SYSTEM: np.ndarray = _raw["crystal_lattice_system"]
"""[230] index into ``CRYSTAL_LATTICE_SYSTEMS``."""
POINT_SYMMETRY: np.ndarray = _raw["point_symmetry"]
"""[230] index into ``POINT_SYMMETRIES``."""
CENTRING: np.ndarray = _raw["centring"]
"""[230] lattice points in the conventional cell: P 1; A, C, I 2; R 3; F 4."""
HALL_NUMBER: np.ndarray = _raw["hall_number"]
"""[230] spglib's Hall number of this setting."""
POINT_GROUP_ORDER: np.ndarray = _raw["point_group_order"]
"""[230] order of the point group: operations in the primitive cell."""
AXIS_PERMUTATIONS: np.ndarray = _raw["axis_permutations"]
"""[230, 6] bool: whether lengths (l0, l1, l2) and (l[p0], l[p1], l[p2]) describe the same lattices of this group, for p
in the order of ``itertools.permutations(range(3))``; all False but the identity outside the orthorhombic system."""
MONOCLINIC_REDUCTION: np.ndarray = _raw["monoclinic_reduction"]
"""[230] which bases of the ac plane keep the setting (b may change its sign): 0 not monoclinic; 1 a+c for a, a+c for c
and the exchange of a and c; 2 a+c for a, but only c+2a for c; 3 a+c for c, but only a+2c for a."""


def words_for(number: int) -> str:
    """A group in words: "space group 225 (Fm-3m)"."""
    return f"space group {number} ({SYMBOL[number - 1]})"


def number_of(symbol: str) -> int:
    """The ITA number of a group from its number or Hermann-Mauguin symbol, short or full, in any of its settings.

    Spaces and underscores mean nothing; ":1", ":2", ":H" and ":R" may follow.

    Raises:
        ValueError: no such group.

    Example:
        >>> number_of("Fm-3m"), number_of("P 21/n"), number_of("P2_1/c")
        (225, 14, 14)
    """
    text = re.sub(r"[\s_]", "", symbol.partition(":")[0])
    if text.isdigit():
        text = str(int(text))
        if 1 <= int(text) <= 230:
            return int(text)
        raise ValueError(f"{symbol!r} is not an ITA number from 1 to 230")
    known = {re.sub(r"[\s_]", "", one).lower(): i + 1 for i, one in enumerate(SYMBOL)}
    found = known.get(text.lower()) or _settings().get(text.lower())
    if found is None:
        raise ValueError(f"{symbol!r} is no symbol of a space group; write it as Fm-3m or P2_1/c, or give its number")
    return found


@cache
def _settings() -> dict[str, int]:
    """Symbols of all settings that spglib knows, short and full, without spaces, in lower case."""
    import spglib

    # of the groups with an e-glide as they were written before 1992
    found = {"abm2": 39, "aba2": 41, "cmca": 64, "cmma": 67, "ccca": 68}
    for hall_number in range(1, 531):
        kind = spglib.get_spacegroup_type(hall_number)
        if kind is None:
            continue
        texts = [kind.international_short, *kind.international_full.split("="), *kind.international.split("=")]
        if 3 <= kind.number <= 15:  # the axes that a monoclinic group leaves out need not be written: P 21/n
            texts += [" ".join(part for part in text.split() if part != "1") for text in texts]
        for text in texts:
            found.setdefault(re.sub(r"[\s_]", "", text).lower(), kind.number)
    return found
