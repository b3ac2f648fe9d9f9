"""The convex hull of a reference's own formation energies, by pymatgen, one chemical system at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.tables import elements

if TYPE_CHECKING:
    from pymatgen.analysis.phase_diagram import PhaseDiagram
    from pymatgen.core import Composition

Amounts = Sequence[tuple[int, float]]
"""(Z, atoms) pairs."""


class ReferenceHull:
    """Energies above the hull of known crystals.

    The elements are in it with formation energy 0, and entries above the mixture of their elements are left out, since
    they cannot be on it.

    Args:
        compositions: (Z, atoms) pairs of each entry.
        energies: formation energies, eV/atom.
    """

    def __init__(self, compositions: Sequence[Amounts], energies: Sequence[float] | np.ndarray) -> None:
        self.n_entries = len(compositions)
        lowest: dict[tuple[tuple[int, float], ...], float] = {}
        for pairs, energy in zip(compositions, energies, strict=True):
            total = sum(n for _, n in pairs)
            key = tuple((z, round(n / total, 12)) for z, n in sorted(pairs))
            lowest[key] = min(float(energy), lowest.get(key, np.inf))
        self._systems: dict[frozenset[int], list[tuple[tuple[tuple[int, float], ...], float]]] = defaultdict(list)
        for key, energy in lowest.items():
            if energy < 0 and len(key) > 1:
                self._systems[frozenset(z for z, _ in key)].append((key, energy))
        self._diagrams: dict[frozenset[int], PhaseDiagram] = {}

    def energy(self, amounts: Amounts) -> float:
        """Formation energy of the most stable mixture at a composition, eV/atom."""
        if len(amounts) == 1:
            return 0.0
        diagram = self._diagram(frozenset(z for z, _ in amounts))
        return float(diagram.get_hull_energy_per_atom(_composition(amounts)))

    def above(self, amounts: Amounts, energy: float) -> float:
        """How far a formation energy lies above the hull, eV/atom; below 0 for what would be a new stable phase."""
        return energy - self.energy(amounts)

    @cached_property
    def known_elements(self) -> frozenset[int]:
        """Elements that some compound of the reference holds."""
        return frozenset(z for system in self._systems for z in system)

    def _diagram(self, system: frozenset[int]) -> Any:
        if system not in self._diagrams:
            from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram

            entries = [PDEntry(_composition([(z, 1)]), 0.0) for z in sorted(system)]
            for size in range(2, len(system) + 1):
                for part in combinations(sorted(system), size):
                    for key, energy in self._systems.get(frozenset(part), ()):
                        entries.append(PDEntry(_composition(key), energy))  # amounts sum to 1: energy per atom
            self._diagrams[system] = PhaseDiagram(entries)
        return self._diagrams[system]


def _composition(amounts: Amounts) -> Composition:
    from pymatgen.core import Composition

    return Composition({elements.SYMBOLS[z - 1]: n for z, n in amounts})
