"""Samplers: constraints obeyed, files, resampling, adaptation, exactness after training."""

import json
from dataclasses import replace

import pytest
import torch

import crystalgfn as cg
from crystalgfn.benchmarks.exactness import SoftVolume, small_space
from crystalgfn.errors import CheckpointError, EmptySpace, InvalidSpace, RewardError
from crystalgfn.gfn.diagnostics import diagnose
from crystalgfn.policy.network import PolicyConfig
from crystalgfn.sampling.sampler import ResamplingWarning, Sampler

SMALL = PolicyConfig(width=64, blocks=1, components=4)
SPACE = {"elements": ["Na", "Cl", "O"], "space_groups": [2, 62, 166, 221, 225], "n_atoms": (1, 8)}


@pytest.fixture(scope="module")
def trained():
    trainer = cg.Trainer(steps=250, batch_size=256, progress=False)
    return cg.train(cg.CrystalSpace(**SPACE), SoftVolume(), policy=SMALL, trainer=trainer, strata=(0.2, 0.5, 0.3, 0, 0))


CONSTRAINTS = {
    "A": {"elements": ["Fe", "O"], "atoms_per_element": (1, 10)},
    "B": {"elements": ["Li", "Mn", "O"], "required_elements": ["Li", "Mn", "O"]},
    "C": {"crystal_systems": ["cubic"]},
    "D": {"lengths": (10, 20), "angles": (75, 135)},
    "E": {"formula": "LiFePO4"},
    "F": {"space_groups": [14]},
}


@pytest.mark.parametrize("name", CONSTRAINTS)
@pytest.mark.unchecked
def test_one_sampler_obeys_every_constraint(name):
    sampler = Sampler.untrained(policy=SMALL)
    crystals = sampler.sample(300, space=CONSTRAINTS[name])
    assert cg.CrystalSpace(**CONSTRAINTS[name]).contains(crystals).all()
    assert torch.isfinite(sampler.log_prob(crystals, space=CONSTRAINTS[name])).all()
    with pytest.raises(EmptySpace):
        sampler.sample(1, space={"elements": ["He"]})


def test_a_space_object_narrows_as_its_constraints_do():
    sampler = Sampler.untrained(policy=SMALL)
    one = sampler.sample(50, space=cg.CrystalSpace(**CONSTRAINTS["B"]), seed=4)
    two = sampler.sample(50, space=CONSTRAINTS["B"], seed=4)
    assert torch.equal(one.composition, two.composition)
    assert torch.equal(one.lattice, two.lattice)


@pytest.mark.unchecked
def test_strata_have_their_marginal(trained):
    counts = torch.bincount(trained.sample(5000).n_elements, minlength=4)[1:4] / 5000
    torch.testing.assert_close(counts, torch.tensor([0.2, 0.5, 0.3]), atol=0.03, rtol=0)


def test_training_brought_it_near_its_target(trained):
    before = Sampler.untrained(trained.space, policy=SMALL, omega=trained.omega)
    crystals = before.sample(2000)
    untrained = diagnose(before.log_prob(crystals), trained.log_reward(crystals))
    assert trained.diagnostics(2000).ess > 2 * untrained.ess
    assert trained.diagnostics(2000).ess > 0.3


def test_seeds_repeat(trained):
    assert torch.equal(trained.sample(64, seed=5).lattice, trained.sample(64, seed=5).lattice)
    assert not torch.equal(trained.sample(64, seed=5).lattice, trained.sample(64, seed=6).lattice)


def test_save_and_load_is_the_same_sampler(trained, tmp_path):
    trained.save(tmp_path)
    loaded = Sampler.load(tmp_path, reward=SoftVolume())
    crystals = trained.sample(100)
    assert torch.equal(loaded.sample(100).lattice, crystals.lattice)
    assert torch.equal(loaded.log_prob(crystals), trained.log_prob(crystals))
    assert torch.equal(loaded.log_reward(crystals), trained.log_reward(crystals))
    assert loaded.space == trained.space
    assert Sampler.load(tmp_path).reward is None
    with pytest.raises(RewardError, match="no reward"):
        Sampler.load(tmp_path).log_reward(crystals)


def test_bad_sampler_files_are_named(trained, tmp_path):
    with pytest.raises(CheckpointError, match="there is no sampler"):
        Sampler.load(tmp_path / "missing")
    trained.save(tmp_path)
    weights = tmp_path / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:1000])
    with pytest.raises(CheckpointError, match="truncated"):
        Sampler.load(tmp_path)
    weights.write_bytes(content)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "kind": "other"}))
    with pytest.raises(CheckpointError, match="holds a other"):
        Sampler.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not the config"):
        Sampler.load(tmp_path)


@pytest.mark.filterwarnings("ignore::crystalgfn.sampling.sampler.ResamplingWarning")
def test_resampling_moves_towards_the_target(trained):
    """The share of a group after resampling is its importance estimate from independent samples, not its share in q."""
    space = {"space_groups": [2, 62]}
    kept = trained.sample(4000, space=space, seed=1, resample=True)
    assert trained.resampling.candidates == 32_000
    assert 0 < trained.resampling.ess <= 1
    plain = trained.sample(32_000, space=space, seed=2)
    weight = torch.softmax(trained.log_reward(plain) - trained.log_prob(plain, space=space), 0)
    target = float(weight[plain.space_group == 2].sum())
    in_q = float((plain.space_group == 2).double().mean())
    after = float((kept.space_group == 2).double().mean())
    assert abs(after - target) < 0.5 * abs(in_q - target) + 0.03


def test_poor_resampling_warns():
    class Spike:
        def __call__(self, crystals):
            return -300 * (crystals.volume_per_atom.log() - 1.7) ** 2

    sampler = Sampler.untrained(cg.CrystalSpace(**SPACE), policy=SMALL)
    sampler.reward = Spike()
    with pytest.warns(ResamplingWarning, match="adapt"):
        sampler.sample(200, resample=True)


@pytest.mark.unchecked
def test_adapt_raises_the_ess(trained):
    space = {"space_groups": [2], "n_atoms": (6, 8)}
    adapted = trained.adapt(space, seconds=6)
    assert adapted.space == trained.narrow(space)
    assert adapted.diagnostics(1500).ess > trained.diagnostics(1500, space=space).ess


def test_adapt_to_fewer_elements_than_the_strata_have(trained):
    adapted = trained.adapt({"n_elements": (2, 2)}, seconds=1)
    assert adapted.log_omega.shape == adapted.log_z.shape
    assert (adapted.sample(200).n_elements == 2).all() and adapted.diagnostics(500).ess > 0


@pytest.mark.slow
def test_two_minutes_on_a_small_space_reach_the_target():
    """Total variation over (group, composition), the lattice integrated out on both sides, is at most 0.01.

    The target's marginal is integrated by the importance weights of the sampler itself and of an untrained one.
    """
    found = small_space(seconds=120)
    print(found)
    assert (found.pairs, found.missing) == (59, 0)
    assert found.variation < 0.01
    assert found.noise < 0.02  # the untrained sampler's weights are the noisy ones


def test_training_starts_from_another_sampler(trained):
    """Without a step it is that sampler, also in a wider space; a conditioned policy is refused."""
    still = cg.Trainer(steps=1, batch_size=16, learning_rate=1e-12, muon_learning_rate=1e-12, progress=False)
    again = cg.train(trained.space, SoftVolume(), trainer=still, strata=trained.omega, init=trained)
    crystals = trained.sample(100)
    torch.testing.assert_close(again.log_prob(crystals), trained.log_prob(crystals), rtol=1e-6, atol=1e-6)
    wide = cg.CrystalSpace(**SPACE | {"n_atoms": (1, 30)})
    wider = cg.train(wide, SoftVolume(), trainer=still, strata=trained.omega, init=trained)
    size = trained.network.heads["count"].linear.out_features
    assert wider.network.heads["count"].linear.out_features > size  # counts that the first could not draw
    for name, old in trained.network.state_dict().items():
        torch.testing.assert_close(wider.network.state_dict()[name][: len(old)], old, rtol=1e-6, atol=1e-6)
    wider.sample(100)
    with pytest.raises(InvalidSpace, match="conditioned"):
        cg.train(trained.space, SoftVolume(), trainer=replace(still, betas=(0.0, 1.0)), init=trained)
