"""Known phases by formula and energy, for phase diagrams and for what is new: read once, without their structures."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from crystalgfn.discovery.phases import ENERGY, IDENTIFIERS, KnownPhase, KnownPhases
from crystalgfn.errors import DataError

if TYPE_CHECKING:
    from pymatgen.core import Structure

SCALE = "charge"
"""Of energies above the hull, as `crystalgfn discover` has it."""


class PhaseTable:
    """Tables of known phases (Parquet or CSV with formulas and formation energies).

    Args:
        files: the tables; what is no table is left out, since its energies cannot be read without its structures.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self.files = [Path(one) for one in files if Path(one).suffix.lower() in (".parquet", ".csv")]
        self._lock = threading.Lock()
        self._systems: dict[frozenset[str], KnownPhases] = {}

    def __bool__(self) -> bool:
        return bool(self.files)

    @cached_property
    def _frame(self) -> pd.DataFrame:
        """Formula, energy (eV/atom), identifier, elements."""
        parts = []
        for path in self.files:
            frame = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else pd.read_csv(path)
            if not {"formula", ENERGY} <= set(frame.columns):
                raise DataError(f"{path.name} has no columns formula and {ENERGY}, so there is no phase diagram")
            name = next((one for one in IDENTIFIERS if one in frame), None)
            names = frame["formula"] if name is None else frame[name]
            parts.append(
                pd.DataFrame({"formula": frame["formula"], "energy": frame[ENERGY], "identifier": names.astype(str)})
            )
        found = pd.concat(parts, ignore_index=True).dropna(subset=["energy"])
        found["elements"] = [frozenset(re.findall(r"[A-Z][a-z]?", one)) for one in found["formula"]]
        return found

    def warm(self) -> None:
        """Read the tables, so that the first question need not wait."""
        with suppress(DataError, OSError, ValueError), self._lock:  # said when they are asked for
            _ = self._frame

    def _rows(self, symbols: Sequence[str]) -> pd.DataFrame:
        with self._lock:
            frame, wanted = self._frame, frozenset(symbols)
        return frame.loc[[one <= wanted for one in frame["elements"]]]

    def within(self, symbols: Sequence[str]) -> KnownPhases:
        """The phases of some elements.

        Raises:
            DataError: there is none.
        """
        from pymatgen.core import Composition

        system = frozenset(symbols)
        if system in self._systems:
            return self._systems[system]
        rows = self._rows(symbols)
        if not len(rows):
            raise DataError(f"the reference has no phases of {', '.join(symbols)}")
        phases = [
            KnownPhase(
                identifier=row["identifier"],
                amounts=tuple((one.Z, float(n)) for one, n in Composition(row["formula"]).items()),
                energy=float(row["energy"]),
            )
            for row in rows.to_dict("records")
        ]
        self._systems[system] = KnownPhases("the reference", phases, SCALE)
        return self._systems[system]

    def above(self, structure: Structure, energy: float) -> float | None:
        """Energy above the hull of a formation energy, eV/atom; None where the reference has none of the elements."""
        try:
            return self.within([one.symbol for one in structure.composition.elements]).above(structure, energy)
        except DataError:
            return None

    def known(self, formula: str) -> str | None:
        """The identifier of a phase of a formula, the lowest in energy; None where none is known."""
        from pymatgen.core import Composition

        wanted = Composition(formula).reduced_formula
        rows = self._rows(re.findall(r"[A-Z][a-z]?", formula)).sort_values("energy")
        same = [name for name, one in zip(rows["identifier"], rows["formula"], strict=True)
                if Composition(one).reduced_formula == wanted]  # fmt: skip
        return same[0] if same else None
