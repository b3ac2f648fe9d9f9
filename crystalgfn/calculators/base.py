"""Calculators: what gives energies, forces and stresses of structures, and the two calls that the package makes of it.

Energies are total energies in eV/atom (crystals of all sizes compare, and energy references apply to them), forces in
eV/Å, and the stress is (1 / V) dE/dε in eV/Å³ for a cell that is strained by ε with its atoms, as ase has it.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.errors import CalculatorError, CrystalGFNError, sentence
from crystalgfn.utils.progress import Bar

if TYPE_CHECKING:
    from pymatgen.core import Structure

BATCH_ATOMS = 400
"""Atoms in one call of a calculator, at most (a larger structure is a call of its own)."""
VOLUMES = (0.5, 1e5)
"""Å³ an atom; lists of neighbours outside are endless, or their search is, so such cells have no energy."""


@dataclass(frozen=True, kw_only=True)
class ForcesAndStress:
    """Energy, forces and stress of one structure.

    Attributes:
        energy: eV/atom, NaN where there is none.
        forces: eV/Å [N, 3].
        stress: (1 / V) dE/dε, symmetric, eV/Å³ [3, 3]; NaN of a calculator that has none.
        error: why there is no energy, in a sentence; None where there is one.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray
    error: str | None = None

    @classmethod
    def missing(cls, structure: Structure, error: str) -> ForcesAndStress:
        """Of a structure without an energy."""
        return cls(energy=np.nan, forces=np.zeros((len(structure), 3)), stress=np.full((3, 3), np.nan), error=error)


@runtime_checkable
class Calculator(Protocol):
    """Energies, forces and stresses of ordered structures (pymatgen's), periodic in all directions.

    Both functions are called with at most `BATCH_ATOMS` atoms or one structure (or with as many as an attribute
    ``call_atoms`` says, where there is one). They answer in the structures' order, change none of them, and give each
    what they would give it alone: `crystalgfn.calculators.contract.check_calculator` tests it. A method ``torch_sim()``
    offers batches of torch-sim (`crystalgfn.calculators.torchsim`).

    Example:
        >>> class Springs:
        ...     name = "Springs"
        ...     def knows(self, numbers):
        ...         return True
        ...     def energies(self, structures):
        ...         return np.array([(s.volume / len(s) - 20) ** 2 / 100 for s in structures])
        ...     def forces_and_stress(self, structures):
        ...         slopes = [(s.volume / len(s) - 20) / 50 for s in structures]  # dE/dV
        ...         return [
        ...             ForcesAndStress(energy=e, forces=np.zeros((len(s), 3)), stress=slope * np.eye(3))
        ...             for s, e, slope in zip(structures, self.energies(structures), slopes)
        ...         ]
        >>> calculate_energies(Springs(), [])
        array([], dtype=float64)
    """

    name: str
    """Stands in tables, and names the file of the energy references: "SevenNet-l3i5"."""

    def knows(self, numbers: Sequence[int]) -> bool:
        """Whether crystals of all these elements (atomic numbers) can have an energy."""
        ...

    def energies(self, structures: Sequence[Structure]) -> np.ndarray:
        """Total energies in eV/atom, [B]; NaN where there is none."""
        ...

    def forces_and_stress(self, structures: Sequence[Structure]) -> list[ForcesAndStress]:
        """Energies, forces and stresses, [B]; with an ``error`` where there are none."""
        ...


def calculate_energies(calculator: Calculator, structures: Sequence[Structure], progress: bool = False) -> np.ndarray:
    """Total energies in eV/atom, float64 [B]; NaN where there is none. Primitive cells are cheaper than conventional.

    A structure at which the calculator raises has none, and a warning says why; the others keep theirs.

    Raises:
        CalculatorError: the calculator does not return one number a structure.
    """
    found = np.full(len(structures), np.nan)

    def work(part: list[int]) -> list[float]:
        values = np.asarray(calculator.energies([structures[i] for i in part]))
        if values.shape != (len(part),) or values.dtype.kind not in "fiu":
            raise CalculatorError(
                f"{calculator.name}.energies returns {values.dtype} of shape {values.shape} for {len(part)} "
                f"structures; it must return an array of {len(part)} energies in eV/atom"
            )
        return np.where(np.isfinite(values), values, np.nan).astype(np.float64).tolist()

    failed = None
    for i, value in _each(calculator, structures, work, progress):
        if not isinstance(value, str):
            found[i] = value
        elif isinstance(value, _Raised):
            failed = failed or value
    if failed is not None:
        warnings.warn(failed, stacklevel=2)
    return found


def calculate_forces(calculator: Calculator, structures: Sequence[Structure]) -> list[ForcesAndStress]:
    """Energies, forces and stresses, [B]; what has no finite ones has an ``error``.

    Raises:
        CalculatorError: the calculator's answers are of other kinds or shapes.
    """

    def work(part: list[int]) -> list[ForcesAndStress]:
        answers = calculator.forces_and_stress([structures[i] for i in part])
        if not isinstance(answers, Sequence) or len(answers) != len(part):
            raise CalculatorError(
                f"{calculator.name}.forces_and_stress must return a list of {len(part)} ForcesAndStress for "
                f"{len(part)} structures, not {_words(answers)}"
            )
        return [_sound(calculator, structures[i], one) for i, one in zip(part, answers, strict=True)]

    found: list[Any] = [None] * len(structures)
    for i, one in _each(calculator, structures, work, progress=False):
        found[i] = ForcesAndStress.missing(structures[i], one) if isinstance(one, str) else one
    return found


class _Raised(str):
    """Why a structure has no energy, where the calculator raised."""


def _each(
    calculator: Calculator, structures: Sequence[Structure], work: Any, progress: bool
) -> Iterator[tuple[int, Any]]:
    """Position and answer of each structure; the answer is a sentence where there is none.

    Structures go to ``work`` in batches; where that raises, one by one, so that one that fails is alone with it.
    """
    with Bar(
        total=len(structures), description=f"{calculator.name} energies", shown=progress, mininterval=1, leave=False
    ) as bar:
        good = []
        for i, structure in enumerate(structures):
            error = why_none(calculator, structure)
            if error is None:
                good.append(i)
            else:
                yield i, error
                bar.update()
        for part in _batches(good, structures, getattr(calculator, "call_atoms", BATCH_ATOMS)):
            try:
                answers = work(part)
            except CrystalGFNError:
                raise
            except Exception as error:
                answers = [_alone(calculator, structures, i, work, error if len(part) == 1 else None) for i in part]
            yield from zip(part, answers, strict=True)
            bar.update(len(part))


def _alone(calculator: Calculator, structures: Sequence[Structure], i: int, work: Any, error: Exception | None) -> Any:
    """The answer of one structure, or why there is none."""
    if error is None:
        try:
            return work([i])[0]
        except CrystalGFNError:
            raise
        except Exception as own:
            error = own
    return _Raised(f"{calculator.name} fails at {formula(structures[i])}: {type(error).__name__}: {sentence(error)}")


def formula(structure: Structure) -> str:
    """Reduced formula in the order of the sites (pymatgen's warns of noble gases)."""
    counts = Counter(site.specie.symbol for site in structure)
    divisor = gcd(*counts.values())
    return "".join(f"{symbol}{n // divisor if n > divisor else ''}" for symbol, n in counts.items())


def _batches(good: Sequence[int], structures: Sequence[Structure], largest: int) -> Iterator[list[int]]:
    batch: list[int] = []
    atoms = 0
    for i in good:
        if batch and atoms + len(structures[i]) > largest:
            yield batch
            batch, atoms = [], 0
        batch.append(i)
        atoms += len(structures[i])
    if batch:
        yield batch


def why_none(calculator: Calculator, structure: Structure) -> str | None:
    """Why a structure can have no energy, in a sentence; None where nothing speaks against one."""
    if not structure.is_ordered:
        return "partially occupied sites have no energy; order them first"
    if not len(structure):
        return "a structure without atoms has no energy"
    if not (np.isfinite(structure.lattice.matrix).all() and np.isfinite(structure.frac_coords).all()):
        return "its cell or coordinates are not finite"
    volume = structure.volume / len(structure)
    if not VOLUMES[0] <= volume <= VOLUMES[1]:
        low, high = VOLUMES
        return f"its cell has {volume:.3g} Å³ an atom, and energies are for {low:g} to {high:g}"
    for z in sorted({site.specie.Z for site in structure}):
        if not 1 <= z <= len(elements.SYMBOLS) or not calculator.knows([z]):
            symbol = elements.SYMBOLS[z - 1] if 1 <= z <= len(elements.SYMBOLS) else "an element"
            return f"{calculator.name} does not know {symbol} (Z = {z}), and so not {formula(structure)}"
    return None


def _sound(calculator: Calculator, structure: Structure, one: Any) -> ForcesAndStress:
    """The answer, where its kind and shapes are right; with an error where it is not finite."""
    if not isinstance(one, ForcesAndStress):
        raise CalculatorError(
            f"{calculator.name}.forces_and_stress must return a list of ForcesAndStress, and it holds {_words(one)}"
        )
    if one.error is not None:
        return ForcesAndStress.missing(structure, one.error)
    forces, stress = np.asarray(one.forces), np.asarray(one.stress)
    if forces.shape != (len(structure), 3) or stress.shape != (3, 3) or np.ndim(one.energy) != 0:
        raise CalculatorError(
            f"{calculator.name}.forces_and_stress returns an energy of shape {np.shape(one.energy)}, forces of shape "
            f"{forces.shape} and a stress of shape {stress.shape} for {len(structure)} atoms; they must be a number, "
            f"({len(structure)}, 3) and (3, 3)"
        )
    if not (np.isfinite(one.energy) and np.isfinite(forces).all()):
        return ForcesAndStress.missing(
            structure, f"{calculator.name}'s energy or forces are not finite; atoms may be too close"
        )
    return ForcesAndStress(energy=float(one.energy), forces=forces.astype(np.float64), stress=stress.astype(np.float64))


def _words(value: Any) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else f"a {type(value).__name__}"
