"""Samplers conditioned on the inverse temperature."""

import pytest
import torch

import crystalgfn as cg
from crystalgfn.errors import RewardError, TrainingError
from crystalgfn.gfn.objectives import TrajectoryBalance
from crystalgfn.policy.network import PolicyConfig

SMALL = PolicyConfig(width=64, blocks=1, components=4)


class Dense:
    """ln R = -beta * density / 4, with a beta of its own."""

    beta = 2.0

    def __call__(self, crystals):
        return -self.beta * crystals.density / 4


@pytest.fixture(scope="module")
def sampler():
    space = cg.CrystalSpace(elements=["Na", "Mg", "Cl"], n_elements=(2, 2), n_atoms=(1, 6), space_groups=[2, 62, 225])
    trainer = cg.Trainer(steps=250, batch_size=400, betas=(0.0, 1.5), progress=False)
    return cg.train(space, Dense(), policy=SMALL, trainer=trainer, seed=1)


@pytest.mark.unchecked
def test_every_temperature_is_near_its_target(sampler):
    for beta in (0.0, 1.0, 2.0, 3.0):
        assert sampler.diagnostics(3000, beta=beta).ess > 0.8


@pytest.mark.unchecked
def test_at_beta_0_the_marginals_are_those_of_the_space_itself(sampler):
    """Against the measure of the space from the exact weights of an untrained sampler."""
    base = cg.Sampler.untrained(sampler.space)
    drawn = base.sample(40_000, seed=3)
    weight = torch.softmax(-base.log_prob(drawn), 0)  # uniform under the reference measure
    own = sampler.sample(20_000, beta=0.0, seed=4)

    def shares(crystals, weight):
        kinds = {}
        table = zip(crystals.space_group.tolist(), crystals.n_atoms.tolist(), weight.tolist(), strict=True)
        for group, atoms, w in table:
            kinds[group, atoms] = kinds.get((group, atoms), 0.0) + w
        return kinds

    expected = shares(drawn, weight)
    own_weight = torch.softmax(-sampler.log_prob(own, beta=0.0), 0)
    found = shares(own, own_weight)
    plain = shares(own, torch.full((len(own),), 1 / len(own)))
    kinds = expected.keys() | found.keys()
    assert sum(abs(expected.get(k, 0) - found.get(k, 0)) for k in kinds) / 2 < 0.05
    assert sum(abs(expected.get(k, 0) - plain.get(k, 0)) for k in kinds) / 2 < 0.1
    assert sampler.log_reward(own, beta=0.0).abs().max() == 0


def test_likelihoods_and_draws_depend_on_beta(sampler):
    crystals = sampler.sample(200, beta=2.0)
    assert torch.equal(sampler.log_prob(crystals), sampler.log_prob(crystals, beta=2.0))  # its own is the default
    assert not torch.allclose(sampler.log_prob(crystals, beta=0.0), sampler.log_prob(crystals))
    assert torch.allclose(sampler.log_reward(crystals, beta=1.0), sampler.log_reward(crystals) / 2)
    cold, hot = (sampler.sample(2000, beta=b).density.mean() for b in (3.0, 0.0))
    assert cold < hot


def test_saved_and_loaded(sampler, tmp_path):
    sampler.save(tmp_path)
    again = cg.Sampler.load(tmp_path, reward=Dense())
    crystals = again.sample(50, beta=1.0)
    assert torch.equal(crystals.lattice, sampler.sample(50, beta=1.0).lattice)
    assert torch.equal(again.log_prob(crystals, beta=1.0), sampler.log_prob(crystals, beta=1.0))


@pytest.mark.unchecked
def test_strata_have_their_ln_z_at_every_beta():
    space = cg.CrystalSpace(elements=["Na", "Cl"], n_atoms=(1, 4), space_groups=[166, 225])
    trainer = cg.Trainer(steps=150, batch_size=400, betas=(0.0, 1.0), progress=False)
    sampler = cg.train(space, Dense(), policy=SMALL, trainer=trainer, strata=(0.5, 0.5, 0, 0, 0))
    for beta in (0.0, 0.7, 2.0):
        found = sampler.diagnostics(4000, beta=beta)
        assert abs(found.log_z) < 0.05  # omega_k R / Z_k sums to 1
        assert found.ess > 0.8


def test_what_is_refused(sampler):
    with pytest.raises(RewardError, match="beta=9.*from 0 to 3"):
        sampler.sample(1, beta=9.0)
    space = sampler.space
    with pytest.raises(TrainingError, match="VarGrad"):
        cg.train(space, Dense(), objective=TrajectoryBalance(), trainer=cg.Trainer(steps=1, betas=(0, 1)))
    with pytest.raises(RewardError, match="beta=1.5.*at beta 1 alone"):
        cg.Sampler.untrained(space).sample(1, beta=1.5)
    with pytest.raises(ValueError, match="betas="):
        cg.Trainer(steps=1, betas=(1, 0))
