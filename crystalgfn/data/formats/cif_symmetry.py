"""The symmetry operations of a CIF's data block: as they are listed, or those of the setting that it names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gemmi
import numpy as np

from crystalgfn.crystallography.orbits import cell_matrix
from crystalgfn.errors import DataError

OPERATIONS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
MAGNETIC = ("_space_group_symop_magn_operation_xyz", "_space_group_symop_magn_centering_xyz")
HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
NAMES = ("_space_group_name_h-m_alt", "_symmetry_space_group_name_h-m", "_space_group_name_h-m_full")
NUMBERS = ("_space_group_it_number", "_symmetry_int_tables_number")
SYSTEMS = ("_symmetry_cell_setting", "_space_group_crystal_system")
UNKNOWN = ("", "?", ".")
CELL_SLACK = 0.02
"""How far a cell may be from the symmetry of the setting that is named, relative to the largest entry of its metric."""

Tags = Mapping[str, Sequence[str]]


@dataclass(frozen=True, eq=False)
class Operations:
    """Symmetry operations: rotations [n, 3, 3] and translations [n, 3] of fractional coordinates."""

    rotations: np.ndarray
    translations: np.ndarray

    def __len__(self) -> int:
        return len(self.rotations)

    def images(self, point: np.ndarray) -> np.ndarray:
        """All images of a point [n, 3]."""
        return self.rotations @ point + self.translations

    def fits(self, lattice: np.ndarray) -> bool:
        """Whether the cell has the symmetry, within `CELL_SLACK`."""
        rows = cell_matrix(lattice.tolist())
        metric = rows @ rows.T
        moved = np.swapaxes(self.rotations, 1, 2) @ metric @ self.rotations
        return bool(np.abs(moved - metric).max() <= CELL_SLACK * np.abs(metric).max())


def value(tags: Tags, names: Sequence[str]) -> str | None:
    """The first of some values that is there and known."""
    return next((tags[name][0] for name in names if tags.get(name) and tags[name][0] not in UNKNOWN), None)


def claimed_group(tags: Tags) -> int:
    """The number of the space group that a block names, 0 where it names none."""
    if number := _claimed_by_name(tags):
        return number
    group = _hall(value(tags, HALL) or "")
    one = gemmi.find_spacegroup_by_ops(group) if group else None
    return one.number if one else 0


def _claimed_by_name(tags: Tags) -> int:
    """The number by the tags of number and Hermann-Mauguin symbol."""
    if (text := value(tags, NUMBERS)) is not None and text.isdigit() and 1 <= int(text) <= 230:
        return int(text)
    name = value(tags, NAMES)
    found = _by_name(name, None) if name else []
    return found[0].number if found else 0


def candidate_settings(tags: Tags, lattice: np.ndarray) -> list[tuple[Operations, str]]:
    """The sets of operations that a block may mean, the likeliest first, each with its name.

    More than one only where the block lists no operations and the name of its setting leaves the origin open.

    Raises:
        DataError: the block names a setting that is not known, that its cell contradicts, or none.
    """
    if _superspace(tags):
        raise DataError("is a modulated structure; its atoms are waves of more than three dimensions")
    if listed := _texts(tags):
        return [(_fitting(_listed(tags, listed), "symmetry operations", lattice), "operations")]
    if tags.get(MAGNETIC[0]):
        centring = tags.get(MAGNETIC[1], ("x,y,z,+1",))
        return [(_checked_group(_unprimed(tags[MAGNETIC[0]]), _unprimed(centring)), "")]
    if (hall := value(tags, HALL)) is not None and (group := _hall(hall)) is not None:
        if said := contradictions(tags):
            raise DataError(f"lists no symmetry operations; it {said[0]}")
        return [(_fitting(of_group(group), f"Hall symbol {hall!r}", lattice), hall)]
    if (named := _named(tags, lattice)) is None:  # it says nothing of symmetry: all atoms are listed
        _check_silent(tags)
        return [(_operations([gemmi.Op("x,y,z")]), "P 1")]
    found, words = named
    sets = [(of_group(one.operations()), one.xhm()) for one in found]
    fitting = [pair for pair in sets if pair[0].fits(lattice)]
    return fitting or [(_fitting(sets[0][0], words, lattice), "")]


def _texts(tags: Tags) -> tuple[str, ...]:
    """The operations as they are listed; none where their value is unknown.

    Raises:
        DataError: they are listed twice, and not the same.
    """
    found = [tuple(tags[name]) for name in OPERATIONS if tags.get(name) and set(tags[name]) - set(UNKNOWN)]
    if len({frozenset(text.replace(" ", "").lower() for text in one) for one in found}) > 1:
        raise DataError(f"lists other symmetry operations as {OPERATIONS[0]} than as {OPERATIONS[1]}")
    return found[0] if found else ()


def _superspace(tags: Tags) -> bool:
    dimension = value(tags, ("_cell_modulation_dimension",))
    return any(name.startswith("_space_group_ssg_") for name in tags) or dimension not in (None, "0")


def _check_silent(tags: Tags) -> None:
    """Refuse a block that names its symmetry under a tag that is not known, as if it named none.

    Raises:
        DataError: names the tag.
    """
    for name in tags:
        told = value(tags, (name,))
        if re.match(r"_(symmetry|space_group|spacegroup)_", name) and told is not None:
            if name in SYSTEMS and told.lower() == "triclinic":
                continue
            raise DataError(f"lists no symmetry operations and no space group that can be read, only {name} {told!r}")


def contradictions(tags: Tags) -> tuple[str, ...]:
    """What has to be said where operations are those of another space group than the block names."""
    claimed = _claimed_by_name(tags)
    listed = _texts(tags)
    hall = value(tags, HALL)
    group: gemmi.GroupOps | None = None
    if listed:
        group = gemmi.GroupOps([gemmi.Op(text.replace(" ", "").lower()) for text in listed])
    elif hall is not None:
        group = _hall(hall)
    found = None if group is None else gemmi.find_spacegroup_by_ops(group)
    if found is None or claimed in (0, found.number):
        return ()
    given = "symmetry operations" if listed else f"the Hall symbol {hall!r}"
    return (f"has {given} of space group {found.number} ({found.hm}), and names number {claimed}",)


def _named(tags: Tags, lattice: np.ndarray) -> tuple[list[gemmi.SpaceGroup], str] | None:
    """The space groups that a block may name, and how; None where it has no such tag.

    Raises:
        DataError: a name or number that is not known, or two that contradict each other.
    """
    name, number = value(tags, NAMES), value(tags, NUMBERS)
    if name is None and number is None:
        if (hall := value(tags, HALL)) is not None:
            raise DataError(f"lists no symmetry operations, and its Hall symbol {hall!r} cannot be read")
        if any(name in tags for name in (*HALL, *NAMES, *NUMBERS, *OPERATIONS)):
            raise DataError("lists no symmetry operations, and its space group is unknown ('?')")
        return None
    if name is None:
        return _by_number(str(number), lattice), f"space group {number}"
    found, words = _by_name(name, lattice), f"space group {name!r}"
    if not found:
        raise DataError(f"lists no symmetry operations, and the setting of its {words} is not known")
    if number is not None and number.isdigit() and int(number) != found[0].number:
        raise DataError(
            f"lists no symmetry operations; it names {words}, which has number {found[0].number}, and {number}"
        )
    return found, words


def of_group(group: gemmi.GroupOps) -> Operations:
    """The operations of a group of gemmi."""
    return _operations(list(group))


def _operations(found: list[gemmi.Op]) -> Operations:
    rotations = np.array([one.rot for one in found], dtype=np.float64) / gemmi.Op.DEN
    return Operations(rotations, np.array([one.tran for one in found], dtype=np.float64) / gemmi.Op.DEN)


def _fitting(found: Operations, words: str, lattice: np.ndarray) -> Operations:
    if not found.fits(lattice):
        cell = ", ".join(f"{x:.6g}" for x in lattice)
        raise DataError(f"names {words}, whose symmetry the cell {cell} does not have")
    return found


def _listed(tags: Tags, texts: tuple[str, ...]) -> Operations:
    found = _checked_group(texts, ("x,y,z",))
    name = value(tags, NAMES)
    group = _by_name(name, None) if name and len(found) > 1 else []
    centring = 1 if not group else len(group[0].operations().cen_ops)
    if centring > 1 and len(found) * centring == len(group[0].operations()) and not _centred(found):
        raise DataError(f"lists {len(found)} operations without the centring of its space group {name!r}")
    return found


def _centred(found: Operations) -> bool:
    identity = (found.rotations == np.eye(3)).all(axis=(1, 2))
    return int(identity.sum()) > 1


@lru_cache(maxsize=256)
def _checked_group(texts: tuple[str, ...], centring: tuple[str, ...]) -> Operations:
    """Operations as they are written, in order.

    Raises:
        DataError: one cannot be read, or they are no group.
    """
    found = []
    for text in texts:
        for shift in centring:
            try:
                one = gemmi.Op(shift) * gemmi.Op(text.replace(" ", "").lower())
            except (RuntimeError, ValueError) as error:
                raise DataError(f"lists the symmetry operation {text!r}, which cannot be read") from error
            if abs(one.det_rot()) != gemmi.Op.DEN**3:
                raise DataError(f"lists the symmetry operation {text!r}, which does not keep volumes, so it is none")
            found.append(one)
    unique = list(dict.fromkeys(one.wrap().triplet() for one in found))
    operations = [gemmi.Op(text) for text in unique]
    keys = {_key(one) for one in operations}
    if any(_key(one * other) not in keys for one in operations for other in _generators(operations)):
        raise DataError(f"lists {len(unique)} symmetry operations that are no group: some are missing or wrong")
    return _operations(operations)


def _generators(operations: list[gemmi.Op]) -> list[gemmi.Op]:
    """Operations that give all others: enough to test that a set is closed."""
    chosen: list[gemmi.Op] = []
    reached = {_key(gemmi.Op("x,y,z"))}
    members = [gemmi.Op("x,y,z")]
    for one in operations:
        if _key(one) in reached:
            continue
        chosen.append(one)
        frontier = members[:]
        while frontier and len(members) <= 2 * len(operations):
            new = []
            for member in frontier:
                for generator in chosen:
                    product = (member * generator).wrap()
                    if (key := _key(product)) not in reached:
                        reached.add(key)
                        members.append(product)
                        new.append(product)
            frontier = new
    return chosen


def _key(one: gemmi.Op) -> str:
    return one.wrap().triplet()


def _unprimed(texts: Sequence[str]) -> tuple[str, ...]:
    """Operations without their time reversal."""
    return tuple(",".join(text.split(",")[:3]) for text in texts)


@lru_cache(maxsize=256)
def _hall(symbol: str) -> gemmi.GroupOps | None:
    try:
        return gemmi.symops_from_hall(symbol)
    except (RuntimeError, ValueError):
        return None


def _by_number(text: str, lattice: np.ndarray) -> list[gemmi.SpaceGroup]:
    number = int(text) if text.isdigit() else 0
    if not 1 <= number <= 230:
        raise DataError(f"lists no symmetry operations, and its space group number is {text!r}; they go from 1 to 230")
    return _origins(gemmi.find_spacegroup_by_number(number), lattice)


def _by_name(name: str, lattice: np.ndarray | None) -> list[gemmi.SpaceGroup]:
    """Space groups that a Hermann-Mauguin symbol may mean: one, or two where it leaves the origin open."""
    plain, choice = _spelled(name)
    for symbol in _spellings(plain):
        angles = (0.0, 0.0) if lattice is None else (float(lattice[3]), float(lattice[5]))
        found = gemmi.find_spacegroup_by_name(f"{symbol}:{choice}" if choice else symbol, *angles)
        if found is not None:
            return [found] if choice or lattice is None else _origins(found, lattice)
    return []


def _spelled(name: str) -> tuple[str, str]:
    """A symbol without underscores, and its choice of origin or axes, as ":2", "S" and "Z", "H" and "R" say it."""
    text = " ".join(re.sub(r"\((\d)\)", r"\1", name.replace("_", "")).split())  # SHELX writes "P2(1)/c"
    found = re.fullmatch(r"(.*?)\s*(?::\s*([12HRhr])|([SZ]|\s[HR])|\(\s*origin choice\s*([12])\s*\))", text)
    if not found:
        return text, ""
    choice = (found[2] or found[3] or found[4]).strip().upper()
    return found[1], {"S": "1", "Z": "2"}.get(choice, choice)


def _spellings(symbol: str) -> list[str]:
    """A symbol as it is, and a full one ("F 4/m -3 2/m") made short."""
    spellings = [symbol, symbol[:1].upper() + symbol[1:].lower()]
    parts = symbol.split()
    later = [re.sub(r"^\d+/", "", part) for part in parts[2:]]
    if len(parts) > 2:
        spellings.append(" ".join([*parts[:2], *later]))
        spellings.append(" ".join([parts[0], re.sub(r"^\d+/", "", parts[1]), *later]))
    return list(dict.fromkeys(spellings))


def _origins(found: gemmi.SpaceGroup, lattice: np.ndarray) -> list[gemmi.SpaceGroup]:
    """A group and its other origin choice, or the one on the axes that the cell has."""
    if found.ext in "12" and found.ext.strip():
        name = found.xhm().partition(":")[0]
        return [gemmi.find_spacegroup_by_name(f"{name}:{choice}") for choice in "12"]
    if found.ext in ("H", "R"):
        name = found.xhm().partition(":")[0]
        return [gemmi.find_spacegroup_by_name(f"{name}:{'H' if abs(lattice[5] - 120) < 1 else 'R'}")]
    return [found]


def as_number(text: str) -> Any:
    """A number without its standard uncertainty; None where it is unknown or none."""
    try:
        return None if "_" in text else float(re.sub(r"\(.*", "", text))
    except ValueError:
        return None
