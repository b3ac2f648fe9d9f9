"""Dense batches of orbits: coordinates, pull-back, padding."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from crystalgfn.crystallography.orbit_batch import OrbitBatch
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.crystallography.supergroups import primitive_basis
from crystalgfn.errors import PlacementError

CUBE = (5.0, 5.0, 5.0, 90.0, 90.0, 90.0)


@pytest.fixture(scope="module")
def batch(random_orbits):
    return OrbitBatch.of(random_orbits, torch.float64)


def test_atoms_are_those_of_the_conventional_cells(batch, random_orbits):
    points = batch.points()
    for i, structure in enumerate(random_orbits):
        mine = points[i, batch.atom_mask[i]].numpy() @ primitive_basis(structure.space_group)
        theirs, species = structure.sites()
        gaps = (theirs[:, None] - mine[None]) @ np.linalg.inv(primitive_basis(structure.space_group))
        same = (np.abs(gaps - np.rint(gaps)) < 1e-7).all(axis=2)
        same &= species[:, None] == batch.species[i][batch.orbit[i, batch.atom_mask[i]]].numpy()[None]
        assert same.any(axis=1).all() and same.any(axis=0).all(), structure.space_group


def test_structures_come_back(batch, random_orbits):
    again = OrbitBatch.of(batch.structures(), torch.float64)
    for field in fields(OrbitBatch):
        mine, theirs = getattr(batch, field.name), getattr(again, field.name)
        if field.name == "free":
            assert ((mine - theirs + 0.5) % 1 - 0.5).abs().max() < 1e-9
        else:
            assert mine.double() == pytest.approx(theirs.double().numpy(), abs=1e-9), field.name
    assert [s.wyckoff() for s in batch.structures()] == [s.wyckoff() for s in random_orbits]


def test_moving_the_origin_of_a_polar_group_moves_all_atoms_alike(batch):
    moved = batch.at(batch.free + 0.1 * batch.polar[..., 0])
    gaps = (moved.points() - batch.points()) * batch.atom_mask[..., None]
    for i in range(len(batch)):
        steps = gaps[i, batch.atom_mask[i]]
        apart = steps - steps[:1]
        assert (apart - apart.round()).abs().max() < 1e-9
    polar = batch.polar.abs().sum((1, 2, 3)) > 0
    assert int(polar.sum()) == 68
    drift = torch.einsum("boik,boil->bkl", batch.polar, batch.polar)
    assert drift == pytest.approx(torch.diag_embed(torch.diagonal(drift, dim1=1, dim2=2).round()).numpy(), abs=1e-9)
    field = torch.randn_like(batch.free) * batch.free_mask
    without = batch.without_drift(field)
    assert torch.einsum("boik,boi->bk", batch.polar, without).abs().max() < 1e-9
    assert torch.equal(without[~polar], field[~polar])


def test_rows_have_no_more_padding_than_they_need(batch):
    part = batch[torch.tensor([224, 1])]
    assert part.species.shape[1] == int((part.species > 0).sum(1).max())
    assert part.atom_mask.shape[1] == int(part.n_atoms.max())
    wide = part.padded(9, 60)
    assert wide.structures() == part.structures()


@pytest.mark.parametrize(
    ("structure", "words"),
    [
        (OrbitStructure(225, (5.0, 5.0, 6.0, 90.0, 90.0, 90.0), (Orbit("a", 11),)), "not one of the lattice system"),
        (OrbitStructure(194, CUBE, (Orbit("a", 11),)), "not one of the lattice system"),
        (OrbitStructure(225, CUBE, ()), "no orbit"),
        (OrbitStructure(225, CUBE, (Orbit("a", 11, occupancy=0.5),)), "partly occupied"),
        (OrbitStructure(225, CUBE, (Orbit("e", 11, (float("nan"), 0.0, 0.0)),)), "not finite"),
    ],
)
def test_structures_that_cannot_be_in_a_batch(structure, words):
    with pytest.raises(PlacementError, match=words):
        OrbitBatch.of([structure])


def test_any_representative_gives_the_same_atoms(batch):
    """Atoms put where another of the orbit's atoms stands as its representative: the same set of atoms."""
    away, among = batch.representatives()
    first = batch.first[..., None].expand(-1, -1, 3)
    assert among.gather(2, batch.first[..., None])[..., 0][batch.orbit_mask].all()
    own = away.gather(1, first) - batch.free
    assert ((own - own.round()) * batch.free_mask).abs().max() < 1e-9
    others, counts = 0, among.sum(2)
    for turn in range(int(counts.max())):
        chosen = among.int().cumsum(2).eq((turn % counts.clamp_min(1) + 1)[..., None]) & among
        moved = batch.at(away.gather(1, chosen.int().argmax(2)[..., None].expand(-1, -1, 3)))
        others += int((chosen.int().argmax(2) != batch.first)[batch.orbit_mask].sum())
        one, other = batch.points(), moved.points()
        gaps = one[:, :, None] - other[:, None]
        same = ((gaps - gaps.round()).abs() < 1e-7).all(3) & (batch.orbit[:, :, None] == batch.orbit[:, None])
        assert (same.any(2) | ~batch.atom_mask).all()
    assert others > 500


def test_all_atoms_of_a_general_position_can_represent_it(batch):
    _, among = batch.representatives()
    general = batch.free_mask.sum(2) == 3
    assert torch.equal(among.sum(2)[general], batch.multiplicity[general]) and general.sum() > 100
    fixed = (batch.free_mask.sum(2) == 0) & batch.orbit_mask
    assert (among.sum(2)[fixed] == 1).all()
