"""Features of pairs: sums over all images, in any description of the crystal."""

import itertools

import numpy as np
import pytest
import torch

from crystalgfn.crystallography.distances import reduced_basis
from crystalgfn.crystallography.orbit_batch import OrbitBatch
from crystalgfn.structures.refiner.geometry import _bumps, reduction, surroundings


def test_reduction_is_that_of_one_cell():
    cells = torch.eye(3, dtype=torch.float64) * 4 + torch.randn(200, 3, 3, dtype=torch.float64)
    change = reduction(cells)
    assert torch.equal(change, change.round())
    assert torch.linalg.det(change).abs() == pytest.approx(np.ones(200))
    reduced = (change @ cells).norm(dim=2)
    wanted = [np.linalg.norm(reduced_basis(cell), axis=1) for cell in cells.numpy()]
    assert reduced == pytest.approx(np.array(wanted))


def test_sums_over_images_in_space(random_orbits):
    batch = OrbitBatch.of([random_orbits[i] for i in (13, 61, 147, 226)], torch.float64)
    found = surroundings(batch, radial=6, waves=1, cutoff=5.0, tensors=True)
    cells, points = batch.cells(), batch.points()
    shifts = torch.tensor(list(itertools.product(range(-6, 7), repeat=3)), dtype=torch.float64)
    for b in range(len(batch)):
        for orbit in torch.flatten(batch.orbit_mask[b].nonzero()).tolist():
            for atom in torch.flatten(batch.atom_mask[b].nonzero()).tolist():
                gap = points[b, atom] - points[b, batch.first[b, orbit]]
                vectors = (gap - gap.round() + shifts) @ cells[b]
                distance = vectors.norm(dim=1)
                near = (distance < 5.0) & (distance > 1e-2)
                weights = _bumps(distance[near, None], 5.0, 6)
                unit = vectors[near] / distance[near, None]
                assert found.scalars[b, orbit, atom, :6] == pytest.approx(weights.sum(0).numpy(), abs=1e-9)
                assert found.vectors[b, orbit, atom, :, :6] == pytest.approx((unit.T @ weights).numpy(), abs=1e-9)
                products = torch.einsum("ij,ik,iw->jkw", unit, unit, weights)
                mine = found.tensors[b, orbit, atom]
                assert mine[:3] == pytest.approx(products[[0, 1, 2], [0, 1, 2]].numpy(), abs=1e-9)
                assert mine[3:] == pytest.approx(products[[0, 0, 1], [1, 2, 2]].numpy(), abs=1e-9)


def test_features_do_not_depend_on_the_cell(random_orbits):
    """Another primitive cell and a lattice translation of every orbit: the same features of the same pairs."""
    from dataclasses import replace

    batch = OrbitBatch.of(random_orbits[::7], torch.float64)
    change = torch.tensor([[1.0, 1, 0], [0, 1, 0], [-1, 0, 1]], dtype=torch.float64)
    turn = torch.linalg.inv(change).T
    other = replace(
        batch,
        primitive=change @ batch.primitive,
        linear=torch.einsum("ij,bnjk->bnik", turn, batch.linear),
        shift=batch.shift @ turn.T + torch.randint(-2, 3, batch.shift.shape),
    )
    one, two = surroundings(batch, 8, 4, 5.0, True), surroundings(other, 8, 4, 5.0, True)
    for name in ("scalars", "vectors", "tensors", "lattice"):
        assert getattr(one, name) == pytest.approx(getattr(two, name).numpy(), abs=1e-8), name
