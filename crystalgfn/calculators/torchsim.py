"""Batches of torch-sim: forces of many structures at once by a model on the CPU or a GPU; extra ``[torchsim]``.

Cohen et al., AI for Science 1, 025003 (2025). Its states, its models and its packing by memory are used; the steps of a
relaxation are those of `crystalgfn.calculators.relaxation`, so that the number of steps, the lowest structure and the
reason of a failure mean the same with and without it.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from crystalgfn.calculators.base import BATCH_ATOMS, Calculator, ForcesAndStress
from crystalgfn.crystallography.elements import NUMBER
from crystalgfn.errors import CalculatorError, NotAvailable

if TYPE_CHECKING:
    from pymatgen.core import Structure

CALL_ATOMS = 50_000
"""Atoms in one call, which torch-sim packs into batches."""
PADDING = 0.8
"""Of the memory that torch-sim finds, what a batch takes at most."""


class TorchSimCalculator:
    """A model of torch-sim (``torch_sim.models.interface.ModelInterface``), on the device that the model is on.

    Structures go into batches of ``batch_atoms``; on a GPU, where that is None, into batches that fit its memory, which
    torch-sim measures at the first call.

    Args:
        model: an instance that gives energies and forces; without stresses cells cannot relax.
        name: of the results; None: that of its class.
        elements: symbols that it knows; None: whatever it does not refuse.
        batch_atoms: atoms in a batch, at most; None: 400 on the CPU, by memory on a GPU.

    Raises:
        NotAvailable: torch-sim is not installed.
    """

    call_atoms = CALL_ATOMS

    def __init__(
        self,
        model: Any,
        name: str | None = None,
        elements: Collection[str] | None = None,
        batch_atoms: int | None = None,
    ) -> None:
        require_torch_sim()
        self.model = model
        self.name = type(model).__name__ if name is None else name
        self.numbers = None if elements is None else frozenset(NUMBER[symbol] for symbol in elements)
        on_cpu = torch.device(model.device).type == "cpu"
        self.batch_atoms = BATCH_ATOMS if batch_atoms is None and on_cpu else batch_atoms
        self._memory: float | None = None

    def knows(self, numbers: Sequence[int]) -> bool:
        """Whether all are among the ``elements``."""
        return self.numbers is None or self.numbers.issuperset(numbers)

    def energies(self, structures: Sequence[Structure]) -> np.ndarray:
        """Total energies in eV/atom, float64 [B]."""
        return np.array([one.energy for one in self.forces_and_stress(structures)], dtype=np.float64)

    def forces_and_stress(self, structures: Sequence[Structure]) -> list[ForcesAndStress]:
        """Energies, forces and stresses, [B]."""
        import torch_sim

        if not structures:
            return []
        state = torch_sim.initialize_state(
            [_right_handed(one) for one in structures], self.model.device, self.model.dtype
        )
        found: dict[int, ForcesAndStress] = {}
        for places in self._bins(structures, state):
            output = {
                name: values.detach().cpu().double().numpy() for name, values in self.model(state[places]).items()
            }
            sizes = [len(structures[i]) for i in places]
            forces = np.split(output["forces"], np.cumsum(sizes)[:-1])
            stress = output.get("stress", np.full((len(places), 3, 3), np.nan))
            for k, i in enumerate(places):
                energy = float(output["energy"][k]) / sizes[k]
                found[i] = ForcesAndStress(energy=energy, forces=forces[k], stress=stress[k])
        return [found[i] for i in range(len(structures))]

    def _bins(self, structures: Sequence[Structure], state: Any) -> list[list[int]]:
        """Places of the structures of each batch, as torch-sim packs them."""
        if self.batch_atoms is not None:
            return self._packed(state, "n_atoms", float(max(self.batch_atoms, *map(len, structures))))
        by = self.model.memory_scales_with
        try:
            return self._packed(state, by, self._memory)
        except ValueError:
            if self._memory is None:
                raise
            return self._packed(state, by, None)  # a structure is larger than those that memory was measured with

    def _packed(self, state: Any, by: str, limit: float | None) -> list[list[int]]:
        """By what memory scales with, up to a limit; None: as much as fits."""
        from torch_sim.autobatching import BinningAutoBatcher

        batcher = BinningAutoBatcher(
            self.model, memory_scales_with=by, max_memory_scaler=limit, max_memory_padding=PADDING
        )
        with redirect_stdout(StringIO()):  # it says what it tries
            self._memory = batcher.load_states(state)
        return [sorted(one) for one in batcher.index_bins]  # a state keeps the order of its parts


def in_batches(calculator: Calculator, torch_sim: bool | None = None) -> Calculator:
    """The calculator whose batches torch-sim runs, or the one that is given.

    Args:
        calculator: one with a method ``torch_sim()``, which returns a `TorchSimCalculator`, offers that.
        torch_sim: None: where torch-sim is installed and the calculator offers it; True: demand it; False: never.

    Raises:
        CalculatorError: it is demanded, and the calculator does not offer it.
        NotAvailable: it is demanded and not installed.
    """
    if torch_sim is False or isinstance(calculator, TorchSimCalculator):
        return calculator
    offer = getattr(calculator, "torch_sim", None)
    if torch_sim is None and (offer is None or find_spec("torch_sim") is None):
        return calculator
    if offer is None:
        raise CalculatorError(
            f"{calculator.name} offers no model of torch-sim (a method torch_sim()); leave torch_sim=True out"
        )
    require_torch_sim()
    return offer()


def require_torch_sim() -> None:
    """Import torch-sim, without the warnings of what it is built on.

    Raises:
        NotAvailable: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch_sim  # noqa: F401
    except ImportError as error:
        raise NotAvailable(
            f"batches of torch-sim need the package torch-sim-atomistic ({error}); install it with "
            'pip install -e ".[torchsim]"'
        ) from error


def _right_handed(structure: Structure) -> Structure:
    """The same crystal; two vectors of a left-handed cell are exchanged, as models divide by its determinant."""
    from pymatgen.core import Lattice, Structure

    matrix = structure.lattice.matrix
    if np.linalg.det(matrix) > 0:
        return structure
    swapped = Lattice(matrix[[1, 0, 2]])
    return Structure(swapped, structure.species, structure.frac_coords[:, [1, 0, 2]])
