"""One scale for energies: references that turn CHGNet's total energies into formation energies as MP-20 has them.

Per element one number, fitted by ridge regression to E_CHGNet - E_f over real crystals, both in eV/atom and at the
database's own geometry, with the fractions of the elements as features. No correction of the Materials Project is put
on top: CHGNet was fitted to corrected energies. The fit that is shipped (``references.json``) is of MP-20 training rows
without those that share (reduced formula, space group) with the validation split; its errors there are in the file.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.errors import DataError
from crystalgfn.utils import files
from crystalgfn.utils.files import write_aside

SHIPPED = files.SHIPPED / "tables" / "energy_references.json"

RIDGE = 1e-3

#: Classes of crystals by their most electronegative element, where it is one of these.
ANIONS = ("F", "O", "Cl", "N", "Br", "I", "S", "Se", "Te", "C", "H", "P", "As", "Sb", "Si", "Ge", "B")


@dataclass(frozen=True)
class References:
    """Energies of the elements on CHGNet's scale.

    Attributes:
        energies: eV/atom by atomic number, 118 of them, NaN where the fit has seen no crystal with the element.
        model: of CHGNet.
        rows: crystals that were fitted.
        checks: what was measured on crystals not fitted: class -> rows, MAE and bias in eV/atom.
    """

    energies: tuple[float, ...]
    model: str
    rows: int
    checks: dict[str, dict[str, float]]

    def formation_energy(self, composition: np.ndarray, energy: np.ndarray) -> np.ndarray:
        """Formation energies in eV/atom, [B]; NaN where an element has no reference.

        Args:
            composition: atoms by element, [B, 118].
            energy: CHGNet's total energies, eV/atom [B].
        """
        shares = composition / composition.sum(1, keepdims=True)
        known = np.nan_to_num(np.array(self.energies))
        unknown = (composition[:, np.isnan(self.energies)] > 0).any(1)
        return np.where(unknown, np.nan, energy - shares @ known)

    def save(self, path: Path) -> None:
        """Write a JSON file (elements without a reference are left out)."""
        named = {s: round(e, 5) for s, e in zip(elements.SYMBOLS, self.energies, strict=True) if np.isfinite(e)}
        text = json.dumps({**asdict(self), "energies": named}, indent=1)
        write_aside(path, lambda aside: aside.write_text(text + "\n"))


def fit(composition: np.ndarray, energy: np.ndarray, formation: np.ndarray, model: str = "0.3.0") -> References:
    """References from crystals with both energies.

    Args:
        composition: atoms by element, [B, 118].
        energy: CHGNet's total energies, eV/atom [B]; rows with NaN are left out.
        formation: formation energies, eV/atom [B].
        model: of CHGNet.

    Raises:
        DataError: no row has both energies.
    """
    good = np.isfinite(energy) & np.isfinite(formation)
    if not good.any():
        raise DataError("references need crystals with both CHGNet's energy and a formation energy; there are none")
    shares = composition[good] / composition[good].sum(1, keepdims=True)
    seen = shares.any(0)
    shares, target = shares[:, seen], (energy - formation)[good]
    # The ridge pulls towards the mean, which only matters for elements seen a few times.
    mean = target.mean()
    fitted = mean + np.linalg.solve(shares.T @ shares + RIDGE * np.eye(seen.sum()), shares.T @ (target - mean))
    values = np.full(118, np.nan)
    values[seen] = fitted
    return References(tuple(values.tolist()), model, int(good.sum()), {})


def check(
    references: References, composition: np.ndarray, energy: np.ndarray, formation: np.ndarray
) -> dict[str, dict[str, float]]:
    """Rows, MAE and bias (eV/atom) over all crystals and in every anion class; arguments as in `fit`."""
    error = references.formation_energy(composition, energy) - formation
    classes = np.array([anion(row) for row in composition])
    known = np.isfinite(error)
    table = {}
    for name in ("all", *ANIONS, "other"):
        errors = error[known & ((classes == name) | (name == "all"))]
        if len(errors):
            table[name] = {
                "rows": len(errors),
                "mae": round(float(np.abs(errors).mean()), 4),
                "bias": round(float(errors.mean()), 4),
            }
    return table


def anion(composition: np.ndarray) -> str:
    """The class of one composition [118]: its most electronegative element if one of `ANIONS`, else "other"."""
    present = np.flatnonzero(composition)
    symbol = elements.SYMBOLS[max(present, key=lambda z: elements.ELECTRONEGATIVITY[z])]
    return symbol if symbol in ANIONS else "other"


@functools.cache
def shipped() -> References:
    """The references that come with the package.

    Raises:
        DataError: the file is missing or is not one of references.
    """
    return load(SHIPPED)


def load(path: Path) -> References:
    """References from a file that `References.save` wrote.

    Raises:
        DataError: the file is missing or is not one of references.
    """
    try:
        found = json.loads(path.read_text())
        values = [float(found["energies"].get(symbol, np.nan)) for symbol in elements.SYMBOLS]
        return References(tuple(values), found["model"], int(found["rows"]), found["checks"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} holds no references ({error}); fit them with python -m scripts.maintain.fit_energy_references"
        ) from error
