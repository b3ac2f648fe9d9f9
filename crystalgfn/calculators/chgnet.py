"""CHGNet, a potential fitted to relaxations of the Materials Project: a second opinion, not DFT.

Deng et al., Nature Machine Intelligence 5, 1031 (2023). Its energies are on the Materials Project's corrected scale.
Extra ``[relax]``.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from crystalgfn.calculators.base import ForcesAndStress, formula
from crystalgfn.errors import NotAvailable

if TYPE_CHECKING:
    from pymatgen.core import Structure

VERSION = "0.3.0"
HEAVIEST = 94
"""The heaviest element of its embedding, plutonium."""


class CHGNet:
    """CHGNet on the CPU.

    Args:
        model: its version, "0.3.0", or "r2scan" for the one fitted to r2SCAN energies.

    Raises:
        NotAvailable: the package is not installed, or has no such model.
    """

    def __init__(self, model: str = VERSION) -> None:
        self.model = model
        self.name = "CHGNet" if model == VERSION else f"CHGNet-{model}"
        self._network = _load(model)

    def __reduce__(self) -> tuple[Any, ...]:
        return CHGNet, (self.model,)  # each process loads the model once

    def knows(self, numbers: Sequence[int]) -> bool:
        """Whether all atomic numbers are in its embedding."""
        return all(1 <= z <= HEAVIEST for z in numbers)

    def energies(self, structures: Sequence[Structure]) -> np.ndarray:
        """Total energies in eV/atom, float64 [B]; NaN of a structure with an atom that has no neighbour."""
        values = np.full(len(structures), np.nan)
        good, graphs, _ = self._graphs(structures)
        if graphs:
            with torch.no_grad():
                values[good] = self._network(graphs, task="e")["e"].numpy()
        return values

    def forces_and_stress(self, structures: Sequence[Structure]) -> list[ForcesAndStress]:
        """Energies, forces and stresses, [B]."""
        good, graphs, errors = self._graphs(structures)
        found = {i: ForcesAndStress.missing(structures[i], error) for i, error in errors.items()}
        leaves: list[torch.Tensor] = []
        for graph in graphs:
            # Derivatives are taken here, by coordinates and cell: the model's own task "efs" would also build the
            # graph of second derivatives, at three times the cost.
            graph.atom_frac_coord = graph.atom_frac_coord.detach().requires_grad_()
            graph.lattice = graph.lattice.detach().requires_grad_()
            leaves += [graph.atom_frac_coord, graph.lattice]
        if graphs:
            with torch.enable_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # volumes as scalars, inside CHGNet
                energy = self._network(graphs, task="e")["e"]
                atoms = torch.tensor([len(structures[i]) for i in good])
                slopes = torch.autograd.grad((energy * atoms).sum(), leaves)
            for k, i in enumerate(good):
                by_points, by_cell = (slopes[2 * k + j].numpy().astype(np.float64) for j in (0, 1))
                cell = graphs[k].lattice.detach().numpy().astype(np.float64)
                stress = cell.T @ by_cell / abs(np.linalg.det(cell))
                found[i] = ForcesAndStress(
                    energy=float(energy[k]),
                    forces=-by_points @ np.linalg.inv(cell).T,
                    stress=(stress + stress.T) / 2,
                )
        return [found[i] for i in range(len(structures))]

    def _graphs(self, structures: Sequence[Structure]) -> tuple[list[int], list[Any], dict[int, str]]:
        """Positions and graphs of structures, and why others have none."""
        good, graphs, errors = [], [], {}
        for i, structure in enumerate(structures):
            try:
                graphs.append(self._network.graph_converter(structure))
                good.append(i)
            except (ValueError, RuntimeError, IndexError) as error:
                if "isolated" in str(error) or isinstance(error, IndexError):
                    cutoff = self._network.graph_converter.atom_graph_cutoff
                    errors[i] = f"an atom of {formula(structure)} has no neighbour within {cutoff} Å"
                else:
                    errors[i] = f"{self.name} cannot read {formula(structure)}: {error}"
        return good, graphs, errors


@cache
def _load(model: str) -> Any:
    """The model in evaluation mode on the CPU, its weights frozen."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from chgnet.model.model import CHGNet as Model
    except ImportError as error:
        raise NotAvailable(
            f'the calculator chgnet needs the package of that name ({error}); install it with pip install -e ".[relax]"'
        ) from error
    try:
        with redirect_stdout(StringIO()):  # it says how many parameters it has
            loaded = Model.load(model_name=model, use_device="cpu", verbose=False).eval()
    except ValueError as error:
        raise NotAvailable(f"CHGNet has no model {model!r}: {error}") from error
    for parameter in loaded.parameters():
        parameter.requires_grad_(False)  # only derivatives by positions and cell are wanted, at a third of the cost
    return loaded
