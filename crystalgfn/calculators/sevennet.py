"""SevenNet, equivariant potentials fitted to relaxations of the Materials Project: a second opinion, not DFT.

Park et al., J. Chem. Theory Comput. 20, 4857 (2024). Package ``sevenn``, the weights in its wheel; extra
``[sevennet]``.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from crystalgfn.calculators.base import ForcesAndStress
from crystalgfn.calculators.torchsim import TorchSimCalculator, require_torch_sim
from crystalgfn.crystallography.elements import SYMBOLS
from crystalgfn.errors import NotAvailable, sentence

if TYPE_CHECKING:
    from pymatgen.core import Structure

MODELS = ("7net-l3i5", "7net-0")
"""Those whose weights come with the package."""
VOIGT = [[0, 3, 5], [3, 1, 4], [5, 4, 2]]
"""Places of a 3 x 3 matrix in its order xx, yy, zz, xy, yz, zx."""


class SevenNet:
    """SevenNet on the CPU, or by torch-sim on a GPU where there is one (`torch_sim`).

    Raises:
        NotAvailable: the package is not installed, or there is no such model.
    """

    def __init__(self, model: str = MODELS[0]) -> None:
        self.model = model
        self.name = f"SevenNet-{model.removeprefix('7net-')}"
        self._full, self._energy = _load(model)

    def __reduce__(self) -> tuple[Any, ...]:
        return SevenNet, (self.model,)  # each process loads the model once

    def knows(self, numbers: Sequence[int]) -> bool:
        """Whether all atomic numbers are in its table of elements."""
        return all(z in self._full.type_map for z in numbers)

    def energies(self, structures: Sequence[Structure]) -> np.ndarray:
        """Total energies in eV/atom, float64 [B]."""
        if not structures:
            return np.zeros(0)
        with torch.no_grad():
            output = _quiet(self._energy, self._batch(structures))
        return self._per_atom(output, structures)

    def forces_and_stress(self, structures: Sequence[Structure]) -> list[ForcesAndStress]:
        """Energies, forces and stresses, [B]."""
        import sevenn._keys as key

        if not structures:
            return []
        with torch.enable_grad():
            output = _quiet(self._full, self._batch(structures))
        energies = self._per_atom(output, structures)
        ends = np.cumsum([len(structure) for structure in structures])
        forces = np.split(output[key.PRED_FORCE].detach().numpy().astype(np.float64), ends[:-1])
        stress = -output[key.PRED_STRESS].detach().numpy().astype(np.float64)  # theirs is that of pressure
        return [
            ForcesAndStress(energy=float(energies[i]), forces=forces[i], stress=stress[i][VOIGT])
            for i in range(len(structures))
        ]

    def torch_sim(self) -> TorchSimCalculator:
        """The same potential in torch-sim's batches, on a GPU where there is one.

        Raises:
            NotAvailable: torch-sim is not installed.
        """
        return _in_torch_sim(self.model, "cuda" if torch.cuda.is_available() else "cpu")

    def _batch(self, structures: Sequence[Structure]) -> Any:
        crystals = (([site.specie.Z for site in one], one.cart_coords, one.lattice.matrix) for one in structures)
        return _graphs(crystals, self._full.cutoff)

    @staticmethod
    def _per_atom(output: Any, structures: Sequence[Structure]) -> np.ndarray:
        import sevenn._keys as key

        total = output[key.PRED_TOTAL_ENERGY].detach().numpy().astype(np.float64).reshape(-1)
        return total / [len(structure) for structure in structures]


def _quiet(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call it without the warnings of what it is built on (`torch.jit.script` is deprecated)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments)


def _graphs(crystals: Iterable[tuple[Any, np.ndarray, np.ndarray]], cutoff: float) -> Any:
    """The graphs of crystals (atomic numbers, Cartesian positions, cell in rows) as one."""
    from ase import Atoms
    from sevenn.atom_graph_data import AtomGraphData
    from sevenn.train.dataload import unlabeled_atoms_to_graph
    from torch_geometric.data import Batch

    graphs = []
    for numbers, positions, cell in crystals:
        atoms = Atoms(numbers=numbers, positions=positions, cell=cell, pbc=True)
        graphs.append(AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(atoms, cutoff)))
    return Batch.from_data_list(graphs)


@cache
def _in_torch_sim(model: str, device: str) -> TorchSimCalculator:
    """The model as one of torch-sim's; that of either package works with some versions of the other alone."""
    require_torch_sim()
    import sevenn._keys as key
    from torch_sim.models.interface import ModelInterface

    full = _load(model)[0]
    network = full if device == "cpu" else copy.deepcopy(full).to(device)

    class Network(ModelInterface):
        def __init__(self) -> None:
            super().__init__()
            self._device, self._dtype = torch.device(device), torch.float32
            self._compute_stress = self._compute_forces = True
            self._memory_scales_with = "n_atoms_x_density"

        def forward(self, state: Any, **_: Any) -> dict[str, torch.Tensor]:
            cells = state.row_vector_cell.cpu().numpy()
            ends = torch.bincount(state.system_idx).cumsum(0)[:-1].tolist()
            numbers, positions = (
                np.split(values.cpu().numpy(), ends) for values in (state.atomic_numbers, state.positions)
            )
            graphs = _graphs(zip(numbers, positions, cells, strict=True), network.cutoff).to(self.device)
            with torch.enable_grad():
                output = _quiet(network, graphs)
            return {
                "energy": output[key.PRED_TOTAL_ENERGY].detach().reshape(-1),
                "forces": output[key.PRED_FORCE].detach(),
                "stress": -output[key.PRED_STRESS].detach()[:, VOIGT],  # theirs is that of pressure
            }

    symbols = [SYMBOLS[z - 1] for z in full.type_map]
    return TorchSimCalculator(Network(), f"SevenNet-{model.removeprefix('7net-')}", symbols)


@cache
def _load(model: str) -> tuple[Any, Any]:
    """The model for batches on the CPU, its weights frozen, and a copy that gives energies alone."""
    if model not in MODELS:
        raise NotAvailable(f"there is no SevenNet model {model!r} whose weights come with it; there are {MODELS}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch_geometric.data  # noqa: F401  (imported here, where its warnings are left out)
            from sevenn.util import load_checkpoint
    except ImportError as error:
        raise NotAvailable(
            f'the calculator sevennet needs the package sevenn ({error}); install it with pip install -e ".[sevennet]"'
        ) from error
    try:
        full = _quiet(lambda: load_checkpoint(model).build_model().eval())
    except (OSError, ValueError, RuntimeError) as error:
        raise NotAvailable(f"SevenNet cannot load {model}: {sentence(error)}") from error
    full.set_is_batch_data(True)
    for parameter in full.parameters():
        parameter.requires_grad_(False)
    energy = copy.deepcopy(full)
    energy.delete_module_by_key("force_output")
    energy.key_grad = None
    return full, energy
