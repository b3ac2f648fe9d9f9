"""Soft spheres against a potential from pymatgen's distances."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.distances import contacts_of
from crystalgfn.crystallography.orbit_batch import OrbitBatch
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.structures.sources.random import REACH, SoftSpheres

CASES = [
    (1, (3.4, 4.4, 5.0, 65.0, 72.0, 81.0), "aaa", [3, 8, 26]),
    (14, (3.9, 6.0, 5.1, 90.0, 118.0, 90.0), "eae", [8, 26, 3]),
    (166, (3.6, 3.6, 17.0, 90.0, 90.0, 120.0), "ach", [3, 8, 27]),
    (227, (8.1, 8.1, 8.1, 90.0, 90.0, 90.0), "ade", [12, 13, 8]),
    (82, (3.2, 3.2, 12.0, 90.0, 90.0, 90.0), "ag", [30, 16]),
    (225, (5.6, 5.6, 5.6, 90.0, 90.0, 90.0), "ab", [11, 17]),
]


def structures(seed):
    rng = np.random.default_rng(seed)
    return [
        OrbitStructure(
            number,
            cell,
            tuple(Orbit(f, z, tuple(rng.random(3).tolist())) for f, z in zip(letters, species, strict=True)),
        )
        for number, cell, letters, species in CASES
    ]


def potential(structure):
    """Of the primitive cell, by pymatgen's distances."""
    atoms = structure.to_structure()
    centre, other, _, distances = atoms.get_neighbor_list(8.0)
    radius = elements.RADIUS[[site.specie.Z - 1 for site in atoms]]
    missing = np.maximum(REACH * (radius[centre] + radius[other]) - distances, 0.0)
    return 0.25 * (missing**2).sum() * sum(structure.composition.values()) / len(atoms)


def room(batch):
    return np.array([float(contacts.nearest(p)[0][0]) for contacts, p in map(contacts_of, batch.structures())])


def test_forces_are_the_gradient_of_the_potential():
    batch = OrbitBatch.of(structures(0), torch.float64)
    forces = SoftSpheres(batch).forces(batch.free)
    atom = batch.linear.gather(1, batch.first[..., None, None].expand(-1, -1, 3, 3))
    along = torch.einsum("boij,boi->boj", batch.cells().mT[:, None] @ atom, forces) * batch.multiplicity[..., None]
    step = 1e-5
    for i, o, k in batch.free_mask.nonzero().tolist():
        moved = torch.zeros_like(batch.free)
        moved[i, o, k] = step
        up, down = (potential(batch.at(batch.free + sign * moved)[i : i + 1].structures()[0]) for sign in (1, -1))
        assert float(along[i, o, k]) == pytest.approx((down - up) / (2 * step), abs=1e-4, rel=1e-4), (i, o, k)
    pushed = forces.abs().amax((1, 2)) > 0.01
    assert pushed[:5].all() and not pushed[5]  # rock salt: no atom is free


def test_a_structure_does_not_mind_what_else_is_in_the_batch():
    together = OrbitBatch.of(structures(1), torch.float64)
    moved = SoftSpheres(together).spread(10)
    for i, structure in enumerate(structures(1)):
        alone = OrbitBatch.of([structure], torch.float64)
        orbits = alone.free.shape[1]
        assert moved[i, :orbits] == pytest.approx(SoftSpheres(alone).spread(10)[0].numpy(), abs=1e-9)
        assert not moved[i, orbits:].any()


def test_spreading_makes_room_and_lowers_the_potential():
    before = OrbitBatch.of([s for seed in range(20) for s in structures(seed)], torch.float64)
    after = before.at(SoftSpheres(before).spread(25))
    assert not (after.free - before.free)[~before.free_mask].any()
    start, end = room(before).reshape(20, -1), room(after).reshape(20, -1)
    free = before.free_mask.any((1, 2)).reshape(20, -1)[0].numpy()
    assert (np.median(end, 0) > np.median(start, 0))[free].all() and (end.max(0) >= start.max(0) - 0.05).all()
    energies = [np.array([potential(s) for s in batch.structures()]) for batch in (before, after)]
    assert energies[1].mean() < 0.5 * energies[0].mean()


def test_atoms_with_room_stay_where_they_are():
    far = [
        replace(one, lattice=(*(4 * length for length in one.lattice[:3]), *one.lattice[3:])) for one in structures(2)
    ]
    batch = OrbitBatch.of([far[0], far[5]], torch.float64)
    assert torch.equal(SoftSpheres(batch).spread(25), batch.free)
