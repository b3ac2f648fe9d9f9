"""Lattices as coefficients of a logarithmic metric."""

import numpy as np
import pytest
import torch

from crystalgfn.crystallography import lattice_vectors as lattice_basis
from crystalgfn.crystallography.orbits import cell_matrix


def test_basis_is_orthonormal():
    assert torch.einsum("kij,lij->kl", lattice_basis.BASIS, lattice_basis.BASIS) == pytest.approx(
        torch.eye(6).numpy(), abs=1e-12
    )


def test_there_and_back_in_every_group(random_orbits):
    number = torch.tensor([s.space_group for s in random_orbits])
    lattices = np.array([s.lattice for s in random_orbits])
    metric = torch.from_numpy(lattice_basis.log_metric_of(lattices))
    assert lattice_basis.restricted(number, metric) == pytest.approx(
        metric.numpy(), abs=1e-9
    )  # what is fixed is fixed so
    assert lattice_basis.lattices_of(number, metric) == pytest.approx(lattices, rel=1e-9)
    volumes = [np.linalg.det(cell_matrix(lattice)) for lattice in lattices.tolist()]
    assert torch.exp(metric[:, 5] * 3**0.5).numpy() == pytest.approx(np.array(volumes))


def test_any_coefficients_make_a_lattice_of_the_system():
    number = torch.arange(1, 231)
    metric = torch.randn(230, 6, dtype=torch.float64)
    lattices = lattice_basis.lattices_of(number, metric)
    assert lattice_basis.free_of(number).sum(1).tolist() == [
        {0: 6, 1: 4, 2: 3, 3: 2, 4: 2, 5: 1}[k] for k in np.asarray(lattice_basis.KIND).tolist()
    ]
    again = torch.from_numpy(lattice_basis.log_metric_of(lattices))
    assert again == pytest.approx(lattice_basis.restricted(number, metric).numpy(), abs=1e-6)
    cubic = lattices[194:]
    assert (cubic[:, 0] == cubic[:, 1]).all() and (cubic[:, 0] == cubic[:, 2]).all() and (cubic[:, 3:] == 90).all()
    hexagonal = lattices[142:194]
    assert (hexagonal[:, 0] == hexagonal[:, 1]).all() and (hexagonal[:, 3:] == [90, 90, 120]).all()


def test_strain_is_bounded():
    around = torch.zeros(50, 6, dtype=torch.float64)
    near = lattice_basis.bounded(torch.randn(50, 6, dtype=torch.float64), around, 0.05)
    strain = torch.linalg.eigvalsh(torch.einsum("bk,kij->bij", near, lattice_basis.BASIS))
    assert strain.abs().amax(1) == pytest.approx(np.full(50, 0.05))
    inside = torch.full((1, 6), 1e-3, dtype=torch.float64)
    assert torch.equal(lattice_basis.bounded(inside, around[:1], 0.05), inside)
