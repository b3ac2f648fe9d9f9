"""The shortest translations agree with an enumeration of lattice points, for every group."""

import itertools

import numpy as np
import pytest
import torch

import crystalgfn as cg
from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.lattice_vectors import successive_minima

CENTRED = {
    "P": [],
    "A": [(0, 1 / 2, 1 / 2)],
    "C": [(1 / 2, 1 / 2, 0)],
    "I": [(1 / 2, 1 / 2, 1 / 2)],
    "F": [(1 / 2, 1 / 2, 0), (1 / 2, 0, 1 / 2), (0, 1 / 2, 1 / 2)],
    "R": [(2 / 3, 1 / 3, 1 / 3), (1 / 3, 2 / 3, 2 / 3)],
}


def enumerated(number: int, lattice: np.ndarray) -> list[float]:
    """Lengths of three independent translations, shortest first, among those of four cells along each axis."""
    from pymatgen.core import Lattice

    matrix = Lattice.from_parameters(*lattice).matrix
    points = [(0, 0, 0), *CENTRED[space_groups.SYMBOL[number - 1][0]]]
    shifts = np.array(list(itertools.product(range(-4, 5), repeat=3)))
    every = np.concatenate([shifts + point for point in points]) @ matrix
    length = np.linalg.norm(every, axis=1)
    chosen: list[np.ndarray] = []
    for vector in every[np.argsort(length)]:
        if np.linalg.matrix_rank(np.array([*chosen, vector]), tol=1e-6) > len(chosen):
            chosen.append(vector)
        if len(chosen) == 3:
            break
    return [float(np.linalg.norm(vector)) for vector in chosen]


def test_they_are_those_of_an_enumeration() -> None:
    crystals = cg.Sampler.untrained(cg.CrystalSpace(n_elements=(1, 2)), seed=3).sample(600, seed=5)
    found = successive_minima(crystals.space_group, crystals.lattice.double())
    for number, lattice, minima in zip(
        crystals.space_group.tolist(), crystals.lattice.double().numpy(), found, strict=True
    ):
        assert minima.tolist() == pytest.approx(enumerated(number, lattice), rel=1e-5), (number, lattice)


def test_of_known_lattices() -> None:
    group = torch.tensor([225, 229, 221, 166, 194])
    lattice = torch.tensor(
        [[4.0, 4, 4, 90, 90, 90], [4, 4, 4, 90, 90, 90], [4, 4, 4, 90, 90, 90], [3, 3, 20, 90, 90, 120],
         [3, 3, 5, 90, 90, 120]], dtype=torch.float64
    )  # fmt: skip
    skew = float(np.hypot(3 / 3**0.5, 20 / 3))
    expected = [[8**0.5] * 3, [12**0.5] * 3, [4.0] * 3, [3.0, 3.0, skew], [3.0, 3.0, 5.0]]
    assert torch.allclose(successive_minima(group, lattice), torch.tensor(expected, dtype=torch.float64))


def test_they_scale_with_the_cell() -> None:
    crystals = cg.Sampler.untrained(cg.CrystalSpace(elements=["Na", "Cl"]), seed=0).sample(50, seed=1)
    lattice = crystals.lattice.double()
    larger = torch.cat([2 * lattice[:, :3], lattice[:, 3:]], 1)
    small, large = (successive_minima(crystals.space_group, one) for one in (lattice, larger))
    assert torch.allclose(2 * small, large)
