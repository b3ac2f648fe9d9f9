"""The atoms of the asymmetric unit and all their images in the cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from crystalgfn.data.formats.base import MAX_OCCUPANCY
from crystalgfn.data.formats.cif_symmetry import Operations
from crystalgfn.errors import DataError

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
