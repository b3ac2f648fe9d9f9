"""Draws in the target's proportions: several lattices a composition, resampling without repeats, Pareto k."""

import math
import warnings

import pytest
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import InvalidSpace
from crystalgfn.sampling.proportions import inclusion, keep, pareto_k, systematic, worth
from crystalgfn.sampling.sampler import ResamplingWarning, Sampler
from crystalgfn.space.space import CrystalSpace

SMALL = CrystalSpace(elements=["Na", "Mg", "Cl", "O"], space_groups=[221, 225, 123], n_atoms=(1, 4), n_elements=(2, 2))


def wanted(crystals: Crystals) -> torch.Tensor:
    """A reward that depends on lattice and composition."""
    return -3 * (crystals.volume_per_atom / 20).log().square() - (crystals.composition[:, 10] > 0).to(crystals.lattice)


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    sampler = Sampler.untrained(SMALL, seed=0)
    sampler.reward = wanted
    return sampler


def shares(sampler: Sampler, tries: int, n: int = 3000) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Estimates of Z and of the target's share of crystals with Na and mean ln volume; ESS / N."""
    draws = sampler._draws(None, None)
    crystals, log_weight = draws.weighted(n, tries, torch.Generator().manual_seed(tries))
    assert len(crystals) == n and bool(torch.isfinite(log_weight).all())
    weight = log_weight.exp()
    share = torch.softmax(log_weight, 0)
    columns = torch.stack([(crystals.composition[:, 10] > 0).double(), crystals.volume_per_atom.double().log()])
    found = torch.cat([weight.mean()[None], (columns * share).sum(1)])
    error = torch.cat(
        [(weight.std() / math.sqrt(n))[None], (columns - (columns * share).sum(1)[:, None]).mul(share).norm(dim=1)]
    )
    return found, error, float(1 / (share.square().sum() * n))


def test_several_lattices_are_as_exact_and_better(sampler: Sampler) -> None:
    (one, error, ess), (many, error_many, ess_many) = shares(sampler, 1, 20_000), shares(sampler, 8)
    assert ((one - many).abs() < 4 * (error.square() + error_many.square()).sqrt()).all()
    assert ess_many > 1.3 * ess
    with_tries = sampler.diagnostics(1500, tries=8, seed=3)
    assert with_tries.ess == pytest.approx(ess_many, rel=0.25)
    assert with_tries.log_z == pytest.approx(float(many[0].log()), abs=0.15)


def test_the_kept_lattice_is_of_the_drawn_composition(sampler: Sampler) -> None:
    plain, tried = sampler.sample(40, seed=5), sampler.sample(40, seed=5, tries=4)
    assert torch.equal(plain.space_group, tried.space_group) and torch.equal(plain.composition, tried.composition)
    assert SMALL.contains(tried).all() and not torch.equal(plain.lattice, tried.lattice)
    assert wanted(tried).mean() > wanted(plain).mean()


def test_auto_keeps_no_crystal_twice_and_says_what_it_is_worth(sampler: Sampler) -> None:
    kept = sampler.sample(300, resample="auto", tries=4, seed=1)
    done = sampler.resampling
    assert len(kept) == 300 and done.distinct == 1 and done.worth >= 0.9 and done.candidates >= 600
    assert len(torch.unique(kept.lattice, dim=0)) > 290
    estimate = shares(sampler, 8)[0]
    assert float((kept.composition[:, 10] > 0).double().mean()) == pytest.approx(float(estimate[1]), abs=0.1)
    again = sampler.sample(300, resample="auto", tries=4, seed=1)
    assert torch.equal(kept.lattice, again.lattice)


def test_a_hopeless_sampler_is_named(sampler: Sampler) -> None:
    steep = Sampler(SMALL, sampler.network, lambda crystals: 400 * wanted(crystals))
    with pytest.warns(ResamplingWarning, match="far from its target"):
        steep.sample(50, resample="auto")


def test_chances_are_proportional_up_to_certainty() -> None:
    weight = torch.tensor([8.0, 1, 1, 1, 1, 0.5, 0.5], dtype=torch.float64)
    chance = inclusion(weight.log(), 3)
    assert float(chance.sum()) == pytest.approx(3) and float(chance[0]) == 1
    assert torch.allclose(chance[1:], weight[1:] * 2 / 5)
    counts = torch.zeros(7)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4000):
        places = systematic(chance, generator)
        assert len(places) == len(places.unique()) == 3
        counts[places] += 1
    assert torch.allclose(counts / 4000, chance.float(), atol=0.03)
    even = torch.zeros(9, dtype=torch.float64)
    # Equal weights stand for the same; one that is kept for certain stands for more.
    assert worth(even, inclusion(even, 3)) == pytest.approx(1)
    held = weight / chance
    expected = float((chance * held).sum() ** 2 / (chance * held.square()).sum() / 3)
    assert worth(weight.log(), chance) == pytest.approx(expected) and expected < 1
    assert float(inclusion(even[:4], 4).sum()) == 4


def test_with_repeats_the_copies_go_with_the_weights() -> None:
    weight = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64).repeat(20)
    crystals = Sampler.untrained(SMALL, seed=0).sample(80, seed=0)
    kept, done = keep(lambda n: (crystals[:n], weight[:n].log()), 10, False, torch.Generator().manual_seed(0))
    assert len(kept) == 10 and done.candidates == 80
    assert done.ess == pytest.approx(float(weight.sum() ** 2 / weight.square().sum() / 80))


@pytest.mark.parametrize("shape", [0.3, 0.7, 1.2])
def test_pareto_k_is_the_shape_of_the_tail(shape: float) -> None:
    draws = torch.rand(200_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight = draws ** (-shape)  # exact Pareto tails of index 1 / shape
    assert pareto_k(weight.log()) == pytest.approx(shape, abs=0.12)
    assert pareto_k(weight.log() + 300) == pytest.approx(pareto_k(weight.log()), abs=1e-9)
    assert math.isnan(pareto_k(weight[:20].log())) and pareto_k(torch.zeros(1000, dtype=torch.float64)) == -math.inf


def test_bad_numbers_are_refused(sampler: Sampler) -> None:
    for arguments in ({"tries": 0}, {"resample": "often"}):
        with pytest.raises(InvalidSpace, match="tries is at least 1, resample true, false or auto"):
            sampler.sample(5, **arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(sampler.sample(0, resample="auto")) == 0
