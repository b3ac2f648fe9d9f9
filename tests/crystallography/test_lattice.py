"""The fundamental domain: every lattice has a cell in it, whatever cell it was given in."""

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.lattice import KIND, canonical_lattice, cell_volume, in_domain


def test_volume_agrees_with_the_metric_tensor():
    rng = np.random.default_rng(0)
    cells = [Lattice(rng.normal(size=(3, 3)) * 5) for _ in range(50)]
    parameters = torch.tensor([c.parameters for c in cells], dtype=torch.float64)
    torch.testing.assert_close(cell_volume(parameters), torch.tensor([c.volume for c in cells], dtype=torch.float64))


@pytest.mark.parametrize("number", [1, 2])
def test_niggli_cells_of_any_basis(number):
    rng = np.random.default_rng(1)
    for _ in range(100):
        lattice = Lattice(rng.normal(size=(3, 3)) * 4 + np.eye(3) * 3)
        cell = canonical_lattice(number, np.array(lattice.parameters))
        assert in_domain(torch.tensor([number]), torch.tensor(cell)[None], 1e-6, 1e-3).all()
        expected = lattice.get_niggli_reduced_lattice(tol=1e-6)
        np.testing.assert_allclose(sorted(cell[:3]), sorted(expected.abc), rtol=1e-5)


@pytest.mark.parametrize("number", [n for n in range(3, 16)])
def test_monoclinic_cells_of_every_allowed_basis_are_one(number):
    """The basis changes that keep the group's symbol lead to the same reduced cell."""
    rng = np.random.default_rng(number)
    kind = int(space_groups.MONOCLINIC_REDUCTION[number - 1])
    steps = {1: (1, 1), 2: (1, 2), 3: (2, 1)}[kind]  # a -> a + n c, c -> c + n a
    for _ in range(40):
        a, c = rng.uniform(2, 20, 2)
        b, beta = rng.uniform(2, 20), rng.uniform(60, 120)
        basis = np.array([[a, 0.0], [c * np.cos(np.radians(beta)), c * np.sin(np.radians(beta))]])
        change = np.eye(2)
        for _ in range(4):
            i = rng.integers(2)
            move = np.eye(2)
            move[i, 1 - i] = rng.choice([-1, 1]) * steps[i]
            change = move @ change
        other = change @ basis

        def parameters(m, b=b):
            x, z = np.linalg.norm(m, axis=1)
            return np.array([x, b, z, 90, np.degrees(np.arccos(m[0] @ m[1] / (x * z))), 90])

        one, two = canonical_lattice(number, parameters(basis)), canonical_lattice(number, parameters(other))
        np.testing.assert_allclose(one, two, rtol=1e-6)
        assert one[4] >= 90
        assert in_domain(torch.tensor([number]), torch.tensor(one)[None], 1e-6, 1e-4).all()


@pytest.mark.parametrize("number", [16, 17, 25, 29, 61, 62, 64, 73])
def test_orthorhombic_axes_have_one_order(number):
    import itertools

    lengths = np.array([3.0, 5.0, 7.0])
    permutations = list(itertools.permutations(range(3)))
    inside = [
        bool(in_domain(torch.tensor([number]), torch.tensor([[*lengths[list(p)], 90, 90, 90]], dtype=torch.float64)))
        for p in permutations
    ]
    assert sum(inside) * int(space_groups.AXIS_PERMUTATIONS[number - 1].sum()) == 6
    for p in permutations:
        kept = canonical_lattice(number, np.array([*lengths[list(p)], 90, 90, 90]))
        assert bool(in_domain(torch.tensor([number]), torch.tensor(kept)[None]))


def test_wrong_shapes_are_outside():
    cell = torch.tensor([[4.0, 5, 6, 90, 95, 90]], dtype=torch.float64)
    for number in range(16, 231):
        assert not in_domain(torch.tensor([number]), cell).any(), KIND[number - 1]
