"""The room that atoms take up, fitted to crystals."""

import numpy as np
import torch

from crystalgfn import Crystals
from crystalgfn.crystallography import elements
from scripts.maintain.fit_atomic_volumes import fit_volumes, relative_volume


def test_volumes_that_add_up_are_found_again():
    """Cells made of known volumes, one in ten twice as large as they should be."""
    rng = np.random.default_rng(0)
    true = {"Li": 10.0, "O": 8.0, "Fe": 12.0, "Th": 30.0}
    columns = [elements.NUMBER[s] - 1 for s in true]
    composition = torch.zeros(400, 118, dtype=torch.int64)
    composition[:, columns] = torch.from_numpy(rng.integers(0, 5, (400, 4)))
    composition = composition[composition.sum(1) > 0]
    volume = composition[:, columns].double() @ torch.tensor(list(true.values()), dtype=torch.float64)
    volume[::10] *= 2
    lattice = torch.stack([volume ** (1 / 3)] * 3 + [torch.full_like(volume, 90.0)] * 3, 1)
    crystals = Crystals(torch.full((len(volume),), 221), composition, lattice)
    volumes = fit_volumes(crystals)
    np.testing.assert_allclose(volumes[columns], list(true.values()), rtol=0.01)
    ratio = relative_volume(crystals, volumes)
    np.testing.assert_allclose(ratio[1:10], 1, rtol=0.01)
    np.testing.assert_allclose(ratio[::10], 2, rtol=0.01)
    # who is not there is like the nearest of the group (Na like Li, Ru like Fe), actinides like the heaviest of them
    for missing, like in {"Na": "Li", "Cs": "Li", "S": "O", "Ru": "Fe", "U": "Th", "Lr": "Th"}.items():
        assert volumes[elements.NUMBER[missing] - 1] == volumes[elements.NUMBER[like] - 1]
