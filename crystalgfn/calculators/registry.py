"""Calculators by name: shipped ones, those of installed packages, a user's own.

A package offers a class, or a function that returns a calculator, in its ``pyproject.toml``::

    [project.entry-points."crystalgfn.calculators"]
    mine = "my_package.calculators:Mine"
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.calculators.base import Calculator, ForcesAndStress
from crystalgfn.crystallography.elements import NUMBER
from crystalgfn.errors import CalculatorError, CrystalGFNError, sentence

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from pymatgen.core import Structure


GROUP = "crystalgfn.calculators"
DEFAULT = "chgnet"
SHIPPED = {DEFAULT: "crystalgfn.calculators.chgnet:CHGNet", "sevennet": "crystalgfn.calculators.sevennet:SevenNet"}
"""Name -> factory; what follows the name after a colon is its argument."""

NEEDED = ("name", "knows", "energies", "forces_and_stress")


def load_calculator(spec: Any = DEFAULT) -> Calculator:
    """A calculator, ready to use.

    Args:
        spec: "chgnet"; "sevennet" (7net-l3i5) or "sevennet:7net-0"; the name of an entry point
            ``crystalgfn.calculators``; "module:factory" of your own, where ``factory`` is a calculator, a class of one
            or a function that returns one; a calculator of ase or a model of torch-sim (an instance); or a
            `Calculator`, which is returned.

    Raises:
        CalculatorError: there is no such calculator, or it is not one.
        NotAvailable: its package is not installed.

    Example:
        >>> from ase.calculators.lj import LennardJones
        >>> load_calculator(LennardJones(sigma=3.4, epsilon=0.0103)).name
        'LennardJones'
    """
    if not isinstance(spec, str):
        return _as_calculator(spec, type(spec).__name__)
    name, colon, argument = spec.partition(":")
    found = SHIPPED.get(name.lower())
    if found is None:
        points = installed()
        if name in points:
            found = points[name].value
        elif colon and name and argument:
            found, colon = spec, ""
        else:
            offered = ", ".join([*SHIPPED, *points])
            raise CalculatorError(
                f"there is no calculator {spec!r}; give one of {offered}, module:factory of your own, or a calculator "
                "of ase"
            )
    return _as_calculator(_made(found, (argument,) if colon else (), spec), spec)


def installed() -> dict[str, EntryPoint]:
    """The calculators of installed packages, by name."""
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


def _made(target: str, arguments: tuple[str, ...], spec: str) -> Any:
    """What stands at ``module:name``, called where it can be."""
    module, _, name = target.partition(":")
    try:
        found = getattr(import_module(module), name)
        is_factory = isinstance(found, type) or not _is_calculator(found)
        return found(*arguments) if callable(found) and is_factory else found
    except CrystalGFNError:
        raise
    except ModuleNotFoundError as error:
        raise CalculatorError(
            f"calculator={spec}: {sentence(error)}; modules are looked for in the working folder and among the "
            "installed packages"
        ) from error
    except Exception as error:
        raise CalculatorError(f"calculator={spec}: {type(error).__name__}: {sentence(error)}") from error


def _is_calculator(found: Any) -> bool:
    return all(hasattr(found, name) for name in NEEDED) or hasattr(found, "get_potential_energy")


def _as_calculator(found: Any, spec: str) -> Calculator:
    """A calculator of this package, of ase or of torch-sim, as one of this package."""
    if isinstance(found, Calculator):
        return found
    if hasattr(found, "get_potential_energy") and hasattr(found, "implemented_properties"):
        return ASECalculator(found)
    if hasattr(found, "memory_scales_with") and hasattr(found, "compute_forces"):
        from crystalgfn.calculators.torchsim import TorchSimCalculator

        return TorchSimCalculator(found)
    lacking = [name for name in NEEDED if not hasattr(found, name)]
    raise CalculatorError(
        f"calculator={spec} is a {type(found).__name__}, no calculator: it lacks {', '.join(lacking)} "
        "(crystalgfn.calculators.base.Calculator), and it is none of ase"
    )


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
