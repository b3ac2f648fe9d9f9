"""One scale for energies: references that turn a calculator's total energies into formation energies as MP-20 has them.

Per element one number, fitted by ridge regression to E_calculator - E_f over real crystals, both in eV/atom and at the
database's own geometry, with the fractions of the elements as features. Some calculators learned energies that carry
the Materials Project's corrections (CHGNet), others raw ones (SevenNet), to which `mp2020_corrections` are added first:
numbers for elements cannot carry what only anions get. The fit finds out which. Those that are shipped (one file a
calculator in ``weights/tables/energy_references``) are of MP-20 training rows without those that share (reduced
formula, space group) with the validation split; their errors there are in the files. For another calculator
``python -m scripts.maintain.fit_energy_references`` makes such a file.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from crystalgfn.calculators.base import Calculator
from crystalgfn.crystallography import elements
from crystalgfn.errors import DataError
from crystalgfn.properties.energy_scale import mp2020_corrections
from crystalgfn.utils import files
from crystalgfn.utils.files import path_of, write_aside

FOLDER = files.SHIPPED / "tables" / "energy_references"

COMMAND = "scripts.maintain.fit_energy_references"
#: Classes of crystals by their most electronegative element, where it is one of these.
ANIONS = ("F", "O", "Cl", "N", "Br", "I", "S", "Se", "Te", "C", "H", "P", "As", "Sb", "Si", "Ge", "B")


@dataclass(frozen=True, kw_only=True)
class References:
    """Energies of the elements on a calculator's scale.

    Attributes:
        energies: eV/atom by atomic number, 118 of them, NaN where the fit has seen no crystal with the element.
        calculator: its name.
        model: its version.
        rows: crystals that were fitted.
        checks: what was measured on crystals not fitted: class -> rows, MAE and bias in eV/atom.
        raw: whether the calculator's energies lack the Materials Project's corrections, which are then added.
    """

    energies: tuple[float, ...]
    calculator: str
    model: str
    rows: int
    checks: dict[str, dict[str, float]]
    raw: bool = False

    def formation_energy(self, composition: np.ndarray, energy: np.ndarray) -> np.ndarray:
        """Formation energies in eV/atom, [B], of atoms by element [B, 118]; NaN where an element has no reference."""
        shares = composition / composition.sum(1, keepdims=True)
        known = np.nan_to_num(np.array(self.energies))
        unknown = (composition[:, np.isnan(self.energies)] > 0).any(1)
        return np.where(unknown, np.nan, corrected(composition, energy, self.raw) - shares @ known)

    def save(self, path: Path) -> None:
        """Write a JSON file (elements without a reference are left out)."""
        named = {s: round(e, 5) for s, e in zip(elements.SYMBOLS, self.energies, strict=True) if np.isfinite(e)}
        text = json.dumps({**asdict(self), "energies": named}, indent=1)
        write_aside(path, lambda aside: aside.write_text(text + "\n"))


def corrected(composition: np.ndarray, energy: np.ndarray, raw: bool) -> np.ndarray:
    """Total energies in eV/atom [B] with the Materials Project's corrections, added where they are ``raw``."""
    if not raw:
        return energy
    return energy + mp2020_corrections(torch.from_numpy(np.asarray(composition, dtype=np.float64))).numpy()


def references_of(calculator: Calculator | str, path: str | Path | None = None) -> References:
    """The energy references of a calculator.

    Args:
        calculator: it or its name.
        path: a file that `References.save` wrote; None: the one that comes with the package.

    Raises:
        DataError: there is none, the file is not one of references, or it is of another calculator.

    Example:
        >>> references_of("SevenNet-l3i5").raw, references_of("CHGNet").raw
        (True, False)
    """
    name = calculator if isinstance(calculator, str) else calculator.name
    if path is None:
        found = _shipped(name)
    else:
        found = load_references(path_of(path))
    if found.calculator != name:
        raise DataError(f"{path} holds the energy references of {found.calculator}, which do not go with {name}")
    return found


@functools.cache
def _shipped(name: str) -> References:
    path = FOLDER / f"{name.lower()}.json"
    if not path.is_file():
        raise DataError(
            f"there are no energy references of {name}, which make formation energies of its total energies; fit them "
            f"with python -m {COMMAND} and give energy_references=<file>"
        )
    return load_references(path)


def load_references(path: Path) -> References:
    """References from a file that `References.save` wrote.

    Raises:
        DataError: the file is missing or is not one of references.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        values = [float(found["energies"].get(symbol, np.nan)) for symbol in elements.SYMBOLS]
        return References(
            energies=tuple(values),
            calculator=found["calculator"],
            model=found["model"],
            rows=int(found["rows"]),
            checks=found["checks"],
            raw=bool(found.get("raw", False)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} holds no references ({error}); fit them with python -m {COMMAND}") from error


def anion(composition: np.ndarray) -> str:
    """The class of one composition [118]: its most electronegative element if one of `ANIONS`, else "other"."""
    present = np.flatnonzero(composition)
    symbol = elements.SYMBOLS[max(present, key=lambda z: elements.ELECTRONEGATIVITY[z])]
    return symbol if symbol in ANIONS else "other"
