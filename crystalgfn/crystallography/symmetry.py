"""spglib behind one door: what would kill the process is refused before it gets there, and failure is None."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np

from crystalgfn.crystallography import space_groups

MAX_MATRIX = 1e6
"""Å; of the entries of a lattice. Squares of far larger ones overflow in the reductions."""
SpglibCell = tuple[Any, Any, Any]
"""Lattice rows [3, 3] in Å, fractional coordinates [N, 3], a whole number a site [N]."""


def is_sound(cell: SpglibCell, symprec: float) -> bool:
    """Whether a cell can be handed to spglib: finite numbers, a volume, sites."""
    rows, points, kinds = (np.asarray(part, dtype=np.float64) for part in cell)
    if rows.shape != (3, 3) or points.shape != (len(kinds), 3) or not len(kinds):
        return False
    if not (np.isfinite(rows).all() and np.isfinite(points).all() and np.isfinite(symprec) and symprec > 0):
        return False
    return bool(np.abs(rows).max() < MAX_MATRIX and abs(np.linalg.det(rows)) > 0)


def symmetry(cell: SpglibCell, symprec: float, hall_number: int = 0) -> Any | None:
    """spglib's dataset in its own setting or that of a Hall number; None where it finds no group."""
    os.environ.setdefault("SPGLIB_WARNING", "OFF")  # what spglib could not do is the answer, no news for the terminal
    import spglib

    if not is_sound(cell, symprec):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # spglib announces its coming error handling at each call
        try:
            return spglib.get_symmetry_dataset(cell, symprec=symprec, hall_number=hall_number)
        except spglib.SpglibError:  # what later versions do instead of None
            return None


def standard_symmetry(cell: SpglibCell, symprec: float) -> Any | None:
    """spglib's dataset in the package's setting of the group that it finds; None where it finds none."""
    found = symmetry(cell, symprec)
    if not found:
        return found
    wanted = int(space_groups.HALL_NUMBER[found.number - 1])
    return found if found.hall_number == wanted else symmetry(cell, symprec, wanted)


def standard_lattice(found: Any) -> np.ndarray:
    """Lengths in Å and angles in degrees of the standardised cell of a dataset, [6]."""
    return parameters_of(found.std_lattice)


def parameters_of(rows: np.ndarray) -> np.ndarray:
    """Lengths in Å and angles in degrees of the cell with these vectors [3, 3], [6]."""
    lengths = np.linalg.norm(rows, axis=1)
    unit = rows / lengths[:, None]
    cosines = np.clip([unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]], -1, 1)
    return np.concatenate([lengths, np.degrees(np.arccos(cosines))])
