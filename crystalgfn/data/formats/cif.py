"""CIF files: every data block with atoms is a crystal, in the setting of its operations or of the symbol it names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gemmi
import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.atoms import CELL, Atoms, Record, SkippedRecord, cell_fault, volume_of_parameters
from crystalgfn.crystallography.orbits import cell_matrix
from crystalgfn.data.formats.base import first_line, read_text
from crystalgfn.data.formats.cif_sites import Site, element_of, expand, in_capitals
from crystalgfn.data.formats.cif_symmetry import (
    HALL,
    NAMES,
    NUMBERS,
    OPERATIONS,
    UNKNOWN,
    Tags,
    as_number,
    candidate_settings,
    claimed_group,
    contradictions,
    value,
)
from crystalgfn.errors import DataError

LENGTHS = tuple(f"_cell_{'length' if len(x) == 1 else 'angle'}_{x}" for x in CELL)
FRACTIONS = tuple(f"_atom_site_fract_{x}" for x in "xyz")
REPEATED = " repeated"
"""Key of the tags that a block gives twice with other values; no tag begins with a space."""
IMPOSSIBLE = 0.5
"""Of the sum of two radii; closer atoms show that another origin is meant."""


class Cif:
    """Crystallographic Information Files, also of several blocks; magnetic ones without their moments."""

    suffixes = (".cif", ".mcif")
    structures = True

    def open(self, uri: str | Path) -> Iterator[Record | SkippedRecord]:
        """One record a data block with atoms."""
        path = Path(uri)
        try:
            text = read_text(path)
        except DataError as error:
            yield SkippedRecord(path.name, str(error))
            return
        yield from read_cif(path.name, text)


def read_cif(where: str, text: str) -> list[Record | SkippedRecord]:
    """The crystals of the text of a CIF; blocks without a cell are passed over."""
    try:
        blocks = parse(text)
    except DataError as error:
        return [SkippedRecord(where, f"not a CIF that can be read ({error})")]
    crystals = [(name, tags) for name, tags in blocks if _told(tags)]
    if not crystals:
        return [SkippedRecord(where, "not a CIF that can be read (no data block has a cell and atoms)")]
    if len(crystals) == 1:
        return [_record(where, crystals[0][1])]
    names = [name for name, _ in crystals]
    return [
        _record(f"{where}, block {name if names.count(name) == 1 else i + 1}", tags)
        for i, (name, tags) in enumerate(crystals)
    ]


def parse(text: str) -> list[tuple[str, dict[str, list[str]]]]:
    """Name and values by tag of each data block; tags in lower case, with an underscore for the dot of newer ones.

    Raises:
        DataError: text that breaks the grammar of CIF, with line and column.
    """
    letters = text.encode("ascii", "replace").decode("ascii")  # what CIF allows; no other letter has a meaning here
    try:
        document = gemmi.cif.read_string(letters, check_level=0)
    except (ValueError, RuntimeError) as error:
        raise DataError(first_line(error).removeprefix("string:")) from error
    found = []
    for block in document:
        tags: dict[str, list[str]] = {}
        for item in block:
            pair: Any = item.pair
            columns = [] if pair is None else [(pair[0], [pair[1]])]
            if item.loop is not None:
                values, width = list(item.loop.values), item.loop.width()
                columns = [(name, values[i::width]) for i, name in enumerate(item.loop.tags)]
            for name, texts in columns:
                plain = [gemmi.cif.as_string(one) or _bare(one) for one in texts]
                if tags.setdefault(_tag(name), plain) != plain:
                    tags.setdefault(REPEATED, []).append(_tag(name))
        found.append((block.name, tags))
    return found


def _tag(name: str) -> str:
    return name.lower().replace(".", "_")


def _bare(text: str) -> str:
    """'?' or '.' as they stand, which gemmi makes empty."""
    return text if text in UNKNOWN else ""


def _told(tags: Tags) -> bool:
    return LENGTHS[0] in tags or FRACTIONS[0] in tags


def _record(where: str, tags: Tags) -> Record | SkippedRecord:
    try:
        lattice = _cell(tags)
        _check_once(tags)
        sites, notes = _sites(tags)
        found, more = _chosen(tags, lattice, sites)
        notes = (*notes, *more, *contradictions(tags), *_not_listed(tags, found))
        return Record(where, _atoms(where, lattice, found, claimed_group(tags)), {}, notes)
    except DataError as error:
        return SkippedRecord(where, str(error))


def _check_once(tags: Tags) -> None:
    """Refuse a block that says something of its crystal twice.

    Raises:
        DataError: names the tag.
    """
    for name in tags.get(REPEATED, []):
        if name in (*LENGTHS, *NAMES, *NUMBERS, *HALL, *OPERATIONS) or name.startswith("_atom_site_fract"):
            raise DataError(f"gives {name} twice, with different values")


def _not_listed(tags: Tags, sites: list[Site]) -> tuple[str, ...]:
    """What has to be said where the formula of the block has elements that its atoms lack."""
    formula = value(tags, ("_chemical_formula_sum",)) or ""
    wanted = {elements.NUMBER["H"] if a in ("D", "T") else elements.NUMBER.get(a, 0) for a, _ in amounts_of(formula)}
    lacking = wanted - {0} - {z for site in sites for z in site.species}
    names = ", ".join(elements.SYMBOLS[z - 1] for z in sorted(lacking))
    return (f"it lists no {names}, which its formula {formula!r} has",) if names else ()


def amounts_of(formula: str) -> list[tuple[str, str]]:
    """Symbols and amounts of a formula such as 'Li1 Fe0.5 O2'."""
    return re.findall(r"([A-Z][a-z]?)([\d.]*)", formula)


def _cell(tags: Tags) -> np.ndarray:
    found = []
    for name in LENGTHS:
        text = tags.get(name, [""])[0]
        if (number := as_number(text)) is None:
            raise DataError(f"{name} is {text!r}; it must be a number" if text else f"the CIF has no {name}")
        found.append(number)
    lattice = np.array(found)
    if (reason := cell_fault(lattice)) is not None:
        raise DataError(reason)
    return lattice


def _sites(tags: Tags) -> tuple[list[Site], tuple[str, ...]]:
    sites: list[Site] = []
    notes: list[str] = []
    _check_located(tags)
    capitals = in_capitals(tags)
    for i, (label, kind, share, *texts) in enumerate(_atom_columns(tags)):
        name = label if label not in UNKNOWN else f"atom {i + 1}"
        if share == "?":
            notes.append(f"the unknown occupancy of {name} is taken as 1")
        occupancy = _occupancy(share, name)
        if occupancy == 0:
            continue  # no atom is there
        number, said = element_of(label, kind, capitals)
        notes += [note for note in said if note not in notes]
        point, digits = _point(texts, name)
        sites.append(Site(label=name, point=point, digits=digits, species={number: occupancy}))
    if not sites:
        raise DataError("the CIF has no atoms")
    return sites, tuple(notes)


def _check_located(tags: Tags) -> None:
    """Refuse atoms without a place of their own: dummies, and hydrogen that is only counted at the atom it sits on.

    Raises:
        DataError: names the first.
    """
    labels = tags.get("_atom_site_label", [])
    for i, flag in enumerate(tags.get("_atom_site_calc_flag", [])):
        if flag == "dum":
            raise DataError(f"{labels[i] if i < len(labels) else 'an atom'} is a dummy (calc_flag dum), no atom")
    for i, text in enumerate(tags.get("_atom_site_attached_hydrogens", [])):
        if (as_number(text) or 0) > 0:
            name = labels[i] if i < len(labels) else "an atom"
            raise DataError(f"the {text} hydrogen atoms attached to {name} have no coordinates")


def _atom_columns(tags: Tags) -> Iterator[tuple[str, ...]]:
    """Label, type, occupancy and coordinates of each atom, as they are written."""
    missing = [name for name in FRACTIONS if name not in tags]
    if missing:
        raise DataError(f"the CIF has a cell and no atoms: {', '.join(missing)} is missing")
    n = len(tags[FRACTIONS[0]])
    defaults = {"_atom_site_label": "?", "_atom_site_type_symbol": "?", "_atom_site_occupancy": "1"}
    columns = [tags.get(name, [text] * n) for name, text in defaults.items()] + [tags[name] for name in FRACTIONS]
    if any(len(one) != n for one in columns):
        raise DataError("its columns of atoms are of different lengths")
    return zip(*columns, strict=True)


def _occupancy(text: str, name: str) -> float:
    if text in (".", "?"):
        return 1.0  # the default of the dictionary
    share = as_number(text)
    if share is None or not share >= 0 or not np.isfinite(share):
        raise DataError(f"the occupancy of {name} is {text!r}; it must be a number from 0 to 1")
    return share


def _point(texts: list[str], name: str) -> tuple[np.ndarray, int]:
    """Coordinates, and the decimals that are written; thirds and sixths are meant where they are rounded."""
    found, digits = [], []
    for text in texts:
        number = as_number(text)
        if number is None or not np.isfinite(number):
            raise DataError(f"{name} has the coordinate {text!r}, so its place is not known")
        mantissa = re.sub(r"\(.*", "", text)
        places = len(mantissa.partition(".")[2]) if "e" not in mantissa.lower() else 12
        sixths = round(number * 6)
        off = (abs(number) - abs(sixths / 6)) * 10.0**places
        if places >= 3 and sixths % 3 and -1 < off < 0.5001:
            number = sixths / 6
        found.append(number)
        if places and number * 24 % 1:  # a fraction such as 0.5 or 0.25 is exact however short it is written
            digits.append(places)
    return np.array(found), min(digits, default=12)


def _chosen(tags: Tags, lattice: np.ndarray, sites: list[Site]) -> tuple[list[Site], tuple[str, ...]]:
    """The sites under the operations that the block means; where it leaves the origin open, the likelier one."""
    rows = cell_matrix(lattice.tolist())
    sets = candidate_settings(tags, lattice)
    if len(sets) == 1:
        return expand(sites, sets[0][0], rows), ()
    possible, faults = [], []
    for operations, name in sets:
        try:
            found = expand(sites, operations, rows)
            possible.append((found, name, _nearest(_atoms("", lattice, found, 0), rows)))
        except DataError as error:
            faults.append(str(error))
    if not possible:
        raise DataError(faults[0])
    possible = [one for one in possible if one[2] >= IMPOSSIBLE] or possible
    units, formula = value(tags, ("_cell_formula_units_z",)), value(tags, ("_chemical_formula_sum",))
    possible = [one for one in possible if _agrees(one[0], formula, units)] or possible
    found, name, _ = possible[0]
    return found, () if len(possible) == 1 else (f"its setting leaves the origin open; {name} is taken",)


def _agrees(sites: list[Site], formula: str | None, units: str | None) -> bool:
    """Whether the sites are the formula's atoms, as many times as the block says."""
    if formula is None or units is None or not units.isdigit():
        return False
    wanted = {a: float(n or 1) * int(units) for a, n in amounts_of(formula)}
    found: dict[str, float] = {}
    for site in sites:
        for z, share in site.species.items():
            name = elements.SYMBOLS[z - 1]
            found[name] = found.get(name, 0.0) + share * len(site.images)
    return wanted.keys() == found.keys() and all(abs(found[a] - n) < 0.01 * n + 0.01 for a, n in wanted.items())


def _nearest(atoms: Atoms, rows: np.ndarray) -> float:
    """The smallest distance over the sum of radii, in the cell and to its neighbours."""
    gaps = atoms.points[:, None] - atoms.points[None]
    gaps -= np.rint(gaps)
    distance = np.linalg.norm(gaps @ rows, axis=2)
    radius = elements.RADIUS[atoms.numbers - 1]
    if atoms.sites is not None:
        distance[atoms.sites[:, None] == atoms.sites[None]] = np.inf
    np.fill_diagonal(distance, np.inf)
    return float((distance / (radius[:, None] + radius[None])).min(initial=np.inf))


def _atoms(where: str, lattice: np.ndarray, sites: list[Site], group: int) -> Atoms:
    """All atoms, sites in ascending order of electronegativity."""
    if not volume_of_parameters(lattice) > 0:
        raise DataError("its cell has no volume")
    places = [(site.species, point) for site in sorted(sites, key=_order) for point in site.images]
    parts = [(z, share, point, i) for i, (species, point) in enumerate(places) for z, share in species.items()]
    numbers, shares, points, owners = zip(*parts, strict=True)
    whole = all(share == 1 for share in shares)
    return Atoms(
        where=where,
        lattice=lattice,
        points=np.array(points),
        numbers=np.array(numbers, dtype=np.int64),
        space_group=group,
        occupancies=None if whole else np.array(shares),
        sites=None if whole else np.array(owners),
    )


def _order(site: Site) -> tuple[float, str]:
    mean = sum(share * elements.ELECTRONEGATIVITY[z - 1] for z, share in site.species.items())
    return float(mean), " ".join(sorted(elements.SYMBOLS[z - 1] for z in site.species))


CIF = Cif()
