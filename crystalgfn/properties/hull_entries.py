"""Reference entries of a convex hull: formulas with formation energies, and compositions as tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.elements import NUMBER
from crystalgfn.errors import DataError, InvalidCrystal
from crystalgfn.typing import Fractions, OfElements, RowFractions, RowValues
from crystalgfn.utils.files import path_of

MOST_ATOMS = 1e12
"""Of an element in a formula or composition."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A phase of the most stable mixture at a composition.

    Attributes:
        formula: reduced.
        share: of the atoms of the mixture.
        energy: formation energy, eV/atom; 0 for an element.
        identifier: of its entry; empty where that has none, and for elements.
    """

    formula: str
    share: float
    energy: float
    identifier: str = ""


def read_entries(
    entries: Any, formula: str, energy: str, skip: bool, identifier: str = "material_id"
) -> tuple[RowFractions, RowValues, list[str] | None]:
    """Compositions, formation energies (eV/atom), float64, and identifiers; see ``ExactHull.from_entries``."""
    formulas, energies, names = _columns(entries, formula, energy, identifier)
    values = torch.tensor([_number(value, i) for i, value in enumerate(energies)], dtype=torch.float64)
    known = torch.isfinite(values)
    if not skip and not bool(known.all()):
        row = int((~known).nonzero()[0])
        raise DataError(
            f"entry {row} ({formulas[row]}) has the formation energy {energies[row]!r}; a hull needs a finite number, "
            "eV/atom: give it, or pass skip=True to leave such rows out"
        )
    kept = known.nonzero().flatten().tolist()
    rows = [composition_of(str(formulas[i]), i) for i in kept]
    if not rows:
        raise DataError("a hull needs at least one entry with a formation energy, and there is none")
    return torch.stack(rows), values[known], names and [str(names[i]) for i in kept]


def compositions(
    crystals: Crystals | Sequence[str] | Fractions,
) -> tuple[Fractions, torch.device]:
    """Amounts, float64 [B, 118] on the CPU, and where the question came from.

    Raises:
        DataError: a formula that cannot be read.
        InvalidCrystal: a composition without atoms, with a negative amount, or not of 118 columns.
    """
    if isinstance(crystals, Crystals):
        given: torch.Tensor = crystals.composition
    elif isinstance(crystals, torch.Tensor):
        given = crystals
    else:
        rows = [composition_of(str(text), i) for i, text in enumerate(crystals)]
        given = torch.stack(rows) if rows else torch.zeros(0, 118)
    if given.ndim != 2 or given.shape[1] != 118:
        raise InvalidCrystal(f"compositions need shape [B, 118], one column an element, not {list(given.shape)}")
    composition = given.double().cpu()
    wrong = (composition < 0).any(1) | ~(composition.sum(1) > 0) | (composition > MOST_ATOMS).any(1)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise InvalidCrystal(
            f"composition {row} has no atoms, or a negative or endless amount; give the amounts of its elements"
        )
    return composition, given.device


def composition_of(text: str, row: int) -> OfElements:
    """Amounts of the elements in a formula; ``row`` is where it stands, for the error."""
    from pymatgen.core import Composition

    try:
        amounts = Composition(text).get_el_amt_dict()
        known = {NUMBER[symbol]: amount for symbol, amount in amounts.items() if amount > 0}
    except (ValueError, KeyError) as error:
        raise DataError(
            f"entry {row}: the formula {text!r} cannot be read ({error}); write it as in LiFePO4"
        ) from error
    if not known or max(known.values()) > MOST_ATOMS:
        what = f"more than {MOST_ATOMS:.0e} atoms of an element" if known else "no atoms"
        raise DataError(f"entry {row}: the formula {text!r} has {what}; write it as in LiFePO4")
    counts = torch.zeros(118, dtype=torch.float64)
    for number, amount in known.items():
        counts[number - 1] = amount
    return counts


def _number(value: Any, row: int) -> float:
    try:
        return float("nan") if value is None else float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"entry {row}: the formation energy {value!r} is no number, eV/atom") from error


def _joined(parts: Sequence[tuple[list, list, list | None]]) -> tuple[list, list, list | None]:
    """The columns of several files as those of one."""
    named = any(names is not None for _, _, names in parts)
    names = [name for _, values, own in parts for name in own or [""] * len(values)] if named else None
    return [x for one, _, _ in parts for x in one], [x for _, one, _ in parts for x in one], names


def _columns(entries: Any, formula: str, energy: str, identifier: str) -> tuple[list, list, list | None]:
    """Formulas, energies, and identifiers where the entries have them."""
    import pandas as pd

    if isinstance(entries, Mapping):
        return list(entries), list(entries.values()), None
    where = "the table"
    if isinstance(entries, str | Path):
        where, entries = str(entries), _read_table(Path(entries))
    if isinstance(entries, pd.DataFrame):
        return _of_table(where, entries, formula, energy, identifier)
    if not isinstance(entries, Iterable):
        raise DataError(f"entries must be a file, a table, a mapping or pairs (formula, energy), not {entries!r}")
    listed = list(entries)
    if listed and all(isinstance(one, str | Path) for one in listed):
        return _joined([_columns(Path(one), formula, energy, identifier) for one in listed])
    return _of_pairs(listed)


def _of_pairs(pairs: list) -> tuple[list, list, None]:
    if not all(isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2 for pair in pairs):
        raise DataError("entries in a list must be pairs (formula, formation energy in eV/atom)")
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs], None


def _of_table(where: str, table: Any, formula: str, energy: str, identifier: str) -> tuple[list, list, list | None]:
    if missing := {formula, energy} - set(table.columns):
        raise DataError(
            f"{where} has no column {', '.join(sorted(missing))}; name the columns with formula= and energy="
        )
    return table[formula].tolist(), table[energy].tolist(), table[identifier].tolist() if identifier in table else None


def _read_table(path: Path) -> Any:
    import pandas as pd

    if not path_of(path).is_file():
        raise DataError(f"there is no file of entries {path}")
    try:
        return pd.read_csv(path) if path.suffix.lower() == ".csv" else pd.read_parquet(path)
    except Exception as error:
        raise DataError(f"{path} cannot be read as Parquet or CSV: {error}") from error
