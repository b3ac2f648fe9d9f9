"""What the network must not see: order, padding, cell, origin, representatives."""

from dataclasses import replace

import pytest
import torch

from crystalgfn.crystallography.orbit_batch import OrbitBatch
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.structures.refiner.network import ScoreNetwork


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = ScoreNetwork(width=16, layers=2, radial=6, waves=4, cutoff=5.0).double()
    for last in (network.out[-1], network.pooled[-1]):  # they start at zero
        torch.nn.init.normal_(last.weight, std=0.3)
    return network.requires_grad_(False)


def answer(network, batch):
    n = len(batch)
    sigma = torch.full((n,), 0.1, dtype=torch.float64)
    z = network.standard(batch, batch.log_metric)
    return network(batch, z, sigma, 3 * sigma, True)


@pytest.fixture(scope="module")
def structures(random_orbits):
    return random_orbits[::6]


@pytest.fixture(scope="module")
def batch(structures):
    return OrbitBatch.of(structures, torch.float64)


@pytest.fixture(scope="module")
def field(network, batch):
    return answer(network, batch)


def close(one, two):
    return (one - two).abs().max() < 1e-7 * max(1.0, float(one.abs().max()))


def test_it_says_something(field, batch):
    assert field[0][batch.free_mask].abs().mean() > 1e-2 and field[1].abs().mean() > 1e-2
    assert (field[0][~batch.free_mask] == 0).all()


def test_padding_and_company_do_not_matter(network, batch, field):
    wide = answer(network, batch.padded(batch.species.shape[1] + 3, batch.atom_mask.shape[1] + 11))
    assert close(field[0], wide[0][:, : batch.species.shape[1]]) and close(field[1], wide[1])
    alone = batch[torch.tensor([5])]
    one = answer(network, alone)
    assert close(field[0][5:6, : alone.species.shape[1]], one[0]) and close(field[1][5:6], one[1])


def test_order_of_orbits(network, structures, batch, field):
    turned = [OrbitStructure(s.space_group, s.lattice, s.orbits[::-1]) for s in structures]
    other = answer(network, OrbitBatch.of(turned, torch.float64))
    for i, structure in enumerate(structures):
        n = len(structure.orbits)
        assert close(field[0][i, :n], other[0][i, :n].flip(0))
    assert close(field[1], other[1])


def test_lattice_translations(network, batch, field):
    moved = replace(batch, free=batch.free + torch.randint(-2, 3, batch.free.shape) * batch.free_mask)
    assert close(field[0], answer(network, moved)[0])


def test_origin_of_polar_groups(network, batch, field):
    shifted = batch.at(batch.free + batch.polar.sum(3) * 0.17)
    assert ((shifted.free - batch.free).abs().sum((1, 2)) > 1e-3).sum() > 5
    other = answer(network, shifted)
    assert close(field[0], other[0]) and close(field[1], other[1])
    assert torch.einsum("boik,boi->bk", batch.polar, field[0]).abs().max() < 1e-9


def represented_by_next(batch):
    """The same batch with the next atom of each orbit as its first, and u defined by that."""
    wide = torch.arange(batch.atom_mask.shape[1]).expand(len(batch), -1)
    start, size = batch.of_atoms(batch.first), batch.of_atoms(batch.multiplicity).clamp_min(1)
    index = torch.where(batch.atom_mask, start + (wide - start + 1) % size, wide)[..., None]
    linear = batch.linear.gather(1, index[..., None].expand_as(batch.linear))
    own = linear.gather(1, batch.first[..., None, None].expand(-1, -1, 3, 3))
    shift = batch.shift.gather(1, index.expand_as(batch.shift))
    return replace(batch, linear=linear, shift=shift, inverse=torch.linalg.pinv(own) * batch.free_mask[..., None])


def test_any_atom_may_represent_its_orbit(network, batch, field):
    """So the field at one representative is the average over the whole orbit."""
    for _ in range(3):
        batch = represented_by_next(batch)
        other = answer(network, batch)
        assert close(field[0], other[0]) and close(field[1], other[1])


def test_gradients_reach_every_weight(batch):
    network = ScoreNetwork(width=8, layers=2, radial=4, waves=2, cutoff=4.0)
    for last in (network.out[-1], network.pooled[-1]):
        torch.nn.init.normal_(last.weight, std=0.3)
    part = OrbitBatch(**{name: t.float() if t.is_floating_point() else t for name, t in vars(batch).items()})
    sigma = torch.full((len(part),), 0.1)
    coordinates, lattice = network(part, part.log_metric, sigma, sigma, True)
    (coordinates.square().sum() + lattice.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_lattices_are_standardised(batch):
    network = ScoreNetwork(width=8, layers=1, radial=4, waves=2).double()
    network.fit_lattices(batch)
    z = network.standard(batch, batch.log_metric)
    assert network.metric(batch, z) == pytest.approx(batch.log_metric.numpy(), abs=1e-9)
    assert z.abs().max() < 10 and (z == 0).any()


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize(
    ("group", "lattice", "free"),
    [
        (225, (5.64, 5.64, 5.64, 90.0, 90.0, 90.0), ()),
        (136, (4.6, 4.6, 2.96, 90.0, 90.0, 90.0), ()),
        (2, (5.1, 6.2, 7.3, 82.0, 95.0, 101.0), (0.1, 0.2, 0.3)),
    ],
)
def test_lattices_of_one_crystal_or_of_copies_have_the_least_deviation(group, lattice, free, copies):
    orbits = (Orbit("a", 25), Orbit("f" if group == 136 else "i", 8, free or (0.3, 0.0, 0.0)))
    one = OrbitStructure(group, lattice, orbits if group != 225 else (Orbit("a", 11), Orbit("b", 17)))
    few = OrbitBatch.of([one] * copies, torch.float64)
    network = ScoreNetwork(width=8, layers=1, radial=4, waves=2).double()
    network.fit_lattices(few)
    z = network.standard(few, few.log_metric)
    assert z.numpy() == pytest.approx(0, abs=1e-9)
    assert network.metric(few, z).numpy() == pytest.approx(few.log_metric.numpy(), abs=1e-9)
    assert network.std.min() == pytest.approx(0.02) and network.std.max() <= 1
