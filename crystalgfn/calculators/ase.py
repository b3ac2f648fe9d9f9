"""Any calculator of ase (``ase.calculators.calculator.Calculator``) as a calculator of this package."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.calculators.base import ForcesAndStress
from crystalgfn.crystallography.elements import NUMBER

if TYPE_CHECKING:
    from pymatgen.core import Structure


class ASECalculator:
    """A calculator of ase, asked structure by structure.

    What it raises at a structure becomes the error of that one (`crystalgfn.calculators.base`); without a stress cells
    cannot relax.

    Args:
        calculator: an instance.
        name: of the results; None: that of its class.
        elements: symbols that it knows; None: whatever it does not refuse.

    Example:
        >>> from ase.calculators.emt import EMT
        >>> ASECalculator(EMT(), elements=["Cu", "Ag", "Au"]).name
        'EMT'
    """

    def __init__(self, calculator: Any, name: str | None = None, elements: Collection[str] | None = None) -> None:
        self.calculator = calculator
        self.name = type(calculator).__name__ if name is None else name
        self.numbers = None if elements is None else frozenset(NUMBER[symbol] for symbol in elements)

    def knows(self, numbers: Sequence[int]) -> bool:
        """Whether all are among the ``elements``."""
        return self.numbers is None or self.numbers.issuperset(numbers)

    def energies(self, structures: Sequence[Structure]) -> np.ndarray:
        """Total energies in eV/atom, float64 [B]."""
        return np.array([self._atoms(one).get_potential_energy() / len(one) for one in structures], dtype=np.float64)

    def forces_and_stress(self, structures: Sequence[Structure]) -> list[ForcesAndStress]:
        """Energies, forces and stresses, [B]."""
        from ase.calculators.calculator import PropertyNotImplementedError

        found = []
        for structure in structures:
            atoms = self._atoms(structure)
            energy, forces = atoms.get_potential_energy() / len(atoms), atoms.get_forces()
            try:
                stress = atoms.get_stress(voigt=False)
            except PropertyNotImplementedError:
                stress = np.full((3, 3), np.nan)
            found.append(ForcesAndStress(energy=float(energy), forces=forces, stress=stress))
        return found

    def _atoms(self, structure: Structure) -> Any:
        from ase import Atoms

        numbers = [site.specie.Z for site in structure]
        return Atoms(
            numbers=numbers,
            positions=structure.cart_coords,
            cell=structure.lattice.matrix,
            pbc=True,
            calculator=self.calculator,
        )
