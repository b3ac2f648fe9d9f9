"""The atoms of the asymmetric unit, the elements they are, and all their images in the cell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from string import ascii_letters

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.data.formats.base import MAX_OCCUPANCY, MOLECULES, element_number
from crystalgfn.data.formats.cif_symmetry import UNKNOWN, Operations, Tags
from crystalgfn.errors import DataError

LAST_NATURAL = 98
LABEL_OF_OXYGEN = frozenset(("Oa", "Ob", "Oc", "Od", "Oe", "Om", "Op", "Ot", "Ox"))
"""Names of oxygen sites in mineralogy; no element has one of these symbols."""
SAME = 1e-4
"""Fractional coordinates that differ by less are those of one site."""
CLOSE = 0.5
"""Å; images of a rounded site that lie farther apart are different atoms however few digits are written."""
ROUNDING = 4.0
"""Images of a site that is rounded by u differ by at most this many u (rows of rotations have at most two entries)."""


@dataclass(eq=False, kw_only=True)
class Site:
    """An independent site.

    Attributes:
        label: its name, for messages.
        point: fractional coordinates [3].
        digits: decimals that are written, the fewest of its coordinates that are no fraction in full.
        species: atomic number -> occupancy.
    """

    label: str
    point: np.ndarray
    digits: int
    species: dict[int, float]
    images: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))


def expand(sites: Sequence[Site], operations: Operations, rows: np.ndarray) -> list[Site]:
    """The sites with their images, those at one place merged to one; ``rows`` are the cell's vectors, Å.

    Raises:
        DataError: a site whose images are no orbit, or whose occupancies sum to more than 1.
    """
    merged: list[Site] = []
    points, owner = np.zeros((0, 3)), np.zeros(0, dtype=np.int64)
    for site in sites:
        place = _settled(site, operations, rows)
        gaps = points - place[0]
        near = np.flatnonzero((np.abs(gaps - np.rint(gaps)) < SAME).all(axis=1))
        if len(near):
            species = merged[owner[near[0]]].species
            for z, share in site.species.items():
                species[z] = species.get(z, 0.0) + share
        else:
            owner = np.concatenate([owner, np.full(len(place), len(merged))])
            points = np.concatenate([points, place])
            merged.append(
                Site(label=site.label, point=place[0], digits=site.digits, species=dict(site.species), images=place)
            )
    for site in merged:
        total = sum(site.species.values())
        if total > MAX_OCCUPANCY:
            raise DataError(f"the occupancies at {site.label} sum to {total:.4g}, more than 1")
        if total > 1:
            site.species = {z: share / total for z, share in site.species.items()}
    return merged


def _settled(site: Site, operations: Operations, rows: np.ndarray) -> np.ndarray:
    """The orbit of a site, moved onto the special position that its rounded coordinates mean, [n, 3]."""
    slack = max(SAME, ROUNDING * 0.5 * 10.0**-site.digits * (1 + 1e-9))
    point, kept = site.point, None
    for _ in range(3):
        images = operations.images(point)
        gaps = images - point
        gaps -= np.rint(gaps)
        stays = (np.abs(gaps) <= slack).all(axis=1) & (np.linalg.norm(gaps @ rows, axis=1) < CLOSE)
        if kept is not None and (stays == kept).all():
            break
        kept = stays
        shift = gaps[stays].mean(axis=0)
        if np.abs(shift).max() > 1e-12:
            point = point + shift
    images = operations.images(point)
    images -= np.floor(images)
    orbit = _unique(images)
    if len(orbit) * int(stays.sum()) != len(operations):
        raise DataError(
            f"the coordinates of {site.label} are rounded so that its images are no orbit of the space group; "
            "write more digits"
        )
    return orbit


def _unique(images: np.ndarray) -> np.ndarray:
    """Images that differ, in order; coordinates that differ by a lattice vector are the same."""
    gaps = images[:, None] - images[None]
    same = (np.abs(gaps - np.rint(gaps)) < SAME).all(axis=2)
    return images[same.argmax(axis=1) == np.arange(len(images))]


def in_capitals(tags: Tags) -> bool:
    """Whether the symbols of a block are written in capitals throughout ("NA", "CL")."""
    words = [*tags.get("_atom_site_type_symbol", []), *tags.get("_atom_site_label", [])]
    return not any(re.match(r"[A-Z][a-z]", word) for word in words)


def element_of(label: str, kind: str, capitals: bool) -> tuple[int, tuple[str, ...]]:
    """The atomic number of a site by its type, or else by its label, and what has to be said of it.

    Where other symbols of the block are not in ``capitals``, "HO" is no holmium.

    Raises:
        DataError: it names no element.
    """
    if kind in UNKNOWN:
        symbol = _symbol_of_label(label)
        if _is_mixed(label) or symbol == "T" or (_letters(label) in MOLECULES and not capitals):
            symbol = ""  # "Mg/Fe1", "Al0.5Si0.5", "HO1"
        wrong = f"the site {label!r} has no type, and its label names no element"
    else:
        symbol = _symbol_of_type(kind, capitals)
        wrong = f"{label if label not in UNKNOWN else 'an atom'} has the type {kind!r}, which is no element"
    if symbol not in elements.NUMBER and symbol not in ("D", "T"):
        raise DataError(wrong)
    return element_number(symbol)


def _symbol_of_type(kind: str, capitals: bool) -> str:
    found = re.fullmatch(r"([A-Za-z]{1,2})(?:\d*|\d*\.?\d*[+-]|[+-]\d*\.?\d*)", kind)
    if not found or (found[1] in MOLECULES and not capitals):
        return ""
    if found[1].isupper() and len(found[1]) == 2 and kind[2:].isdigit():
        return ""  # "CO3", "NO3": molecules
    return _symbol(found[1])


def _letters(label: str) -> str:
    return label[: len(label) - len(label.lstrip(ascii_letters))]


def _is_mixed(label: str) -> bool:
    """Whether a label goes on with another element: "Mg/Fe1", "Al0.5Si0.5"."""
    rest = label[len(_letters(label)) :]
    named = any(one in elements.NUMBER for one in re.findall(r"[A-Z][a-z]", rest))
    return named or re.search(r"[/,] *[A-Z]|\.\d+[A-Z]", rest) is not None


def _symbol_of_label(label: str) -> str:
    letters = _letters(label)
    symbol = _symbol(letters[:2]) if len(letters) <= 3 else ""
    if symbol in LABEL_OF_OXYGEN:
        return "O"
    if len(letters) == 3:  # "Feb", "NaA": a letter that tells sites apart, in the other case
        return symbol if letters[1].islower() != letters[2].islower() else ""
    if len(letters) == 2 and letters.isupper() and symbol not in elements.NUMBER and letters[1] not in "HW":
        return letters[0] if letters != "VA" else ""  # "OA", "FB"; a vacancy
    return symbol


def _symbol(letters: str) -> str:
    """A symbol as it is spelled; capitals are those of an element that occurs in nature ("CL"), not of "NH" or "NO"."""
    symbol = letters.capitalize()
    return "" if len(letters) == 2 and letters.isupper() and elements.NUMBER.get(symbol, 0) > LAST_NATURAL else symbol
