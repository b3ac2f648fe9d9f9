"""Distance to the data of a proxy, and the reward that keeps near them."""

from pathlib import Path

import pytest
import torch

from crystalgfn.errors import CheckpointError, RewardError
from crystalgfn.properties.hull_entries import composition_of
from crystalgfn.properties.training_distance import FILE, NearestCentre
from crystalgfn.rewards import check_reward, load, near_data
from crystalgfn.rewards.base import example_crystals
from crystalgfn.utils.instantiate import instantiate


@pytest.fixture
def centres() -> NearestCentre:
    rows = torch.stack([composition_of(formula, 0) for formula in ("NaCl", "TiO2", "SiO2", "SiO2")])
    return NearestCentre.fit(rows, n=3, seed=1, least=1)


def test_the_distance_is_the_share_of_atoms_to_exchange(centres: NearestCentre) -> None:
    distance = centres.distance(example_crystals()[:4])  # Fe, NaCl, TiO2, SiO2
    assert 2 <= len(centres.centres) <= 3
    assert float(distance[0]) == pytest.approx(1.0)
    every = NearestCentre(torch.eye(118)[[10, 16]], torch.zeros(3))  # pure Na, pure Cl
    assert float(every.distance(example_crystals()[1])) == pytest.approx(0.5)
    assert (every.distance(example_crystals()) <= 1 + 1e-6).all()


def test_clusters_of_a_few_compositions() -> None:
    rows = torch.stack([composition_of(formula, 0) for formula in ("Li2O", "Li2.1O", "Li1.9O", "NaCl", "Na1.1Cl")])
    found = NearestCentre.fit(rows, n=2, seed=0, least=1)
    assert found.within[2] < 0.6
    # A cluster of one would be a row of the data.
    lonely = NearestCentre.fit(torch.cat([rows[:3], rows[:3], rows[3:4]]), n=7, seed=0, least=2)
    assert not (torch.cdist(lonely.centres, composition_of("NaCl", 0)[None].float() / 2, p=1) < 0.01).any()
    assert torch.allclose(found.centres.sum(1), torch.ones(len(found.centres)))


def test_the_reward_is_a_wall() -> None:
    reward = near_data("ionic_conductivity", free=0.2, width=0.1)
    crystals = example_crystals()
    distance = reward.centres.distance(crystals)
    wanted = -0.5 * ((distance - 0.2).clamp_min(0) / 0.1) ** 2
    assert torch.allclose(reward(crystals), wanted)
    assert float(reward(crystals)[0]) < -10 and float(reward(crystals)[1]) < -2  # Fe, and NaCl without lithium
    check_reward(reward)
    assert torch.equal(instantiate(reward.config(), trust=None)(crystals), reward(crystals))


def test_the_reward_for_conductors_has_three_parts() -> None:
    reward = load("li_conductor")
    crystals = example_crystals()
    check_reward(reward)
    assert len(reward.rewards) == 3
    assert torch.allclose(reward(crystals), sum(part(crystals) for part in reward.rewards))


def test_files_and_settings_that_cannot_be_used_are_named(tmp_path: Path, centres: NearestCentre) -> None:
    with pytest.raises(CheckpointError, match=r"has no centres\.safetensors"):
        near_data(tmp_path)
    with pytest.raises(CheckpointError, match=r"has no centres\.safetensors"):
        near_data("formation_energy")
    path = centres.save(tmp_path)
    assert torch.equal(NearestCentre.load(tmp_path).centres, centres.centres)
    assert near_data(tmp_path).config()["source"] == str(tmp_path.resolve())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match=f"{FILE}.*is damaged"):
        near_data(tmp_path)
    with pytest.raises(RewardError, match="near_data: width must be"):
        near_data("ionic_conductivity", width=0.0)
