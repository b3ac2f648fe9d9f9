import math

import pytest
import torch

from crystalgfn import check_reward, rewards
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.properties.base import describe
from crystalgfn.rewards.base import example_crystals

CRYSTALS = example_crystals()


def synthesizability(crystals: Crystals) -> torch.Tensor:
    """A made-up model: the fewer elements the better."""
    return 1 / crystals.n_elements.double()


def certain(crystals: Crystals) -> torch.Tensor:
    return torch.where(crystals.n_elements == 1, 0.0, 1.0)


def too_sure(crystals: Crystals) -> torch.Tensor:
    return crystals.n_elements.double()


class Unsure:
    name, unit = "synthesizability", ""

    def __call__(self, crystals: Crystals) -> torch.Tensor:
        return torch.full((len(crystals),), 0.9)

    def std(self, crystals: Crystals) -> torch.Tensor:
        return torch.full((len(crystals),), 0.2)

    def confidence_bound(self, crystals: Crystals, n_sigma: float) -> torch.Tensor:
        return self(crystals) + n_sigma * self.std(crystals)


def test_the_reward_is_the_probability_to_a_power() -> None:
    prop = rewards.function(synthesizability, "synthesizability")
    reward = rewards.probability(prop, weight=2)
    check_reward(reward)
    torch.testing.assert_close(reward(CRYSTALS).exp(), CRYSTALS.n_elements.double() ** -2)
    again = rewards.product(reward, rewards.boltzmann(rewards.Density(), beta=1))
    check_reward(again)


def test_no_crystal_has_none() -> None:
    reward = rewards.probability(rewards.function(certain, "certain"), smallest=0.01)
    assert reward(CRYSTALS)[0] == pytest.approx(math.log(0.01)) and (reward(CRYSTALS)[1:] == 0).all()


def test_pessimism_lowers_the_probability() -> None:
    for k, p in ((0, 0.9), (1, 0.7), (5, 1e-3)):
        assert float(rewards.probability(Unsure(), n_sigma=k)(CRYSTALS)[0]) == pytest.approx(math.log(p))


def test_what_is_no_probability_is_named() -> None:
    reward = rewards.probability(rewards.function(too_sure, "sure"))
    with pytest.raises(RewardError, match="sure is 2 for NaCl, space group 225.*between 0 and 1"):
        reward(CRYSTALS)
    with pytest.raises(RewardError, match="is not a property"):
        rewards.probability(synthesizability)
    for name in ("weight", "smallest"):
        with pytest.raises(RewardError, match=f"{name} must be greater than 0"):
            rewards.probability(Unsure(), **{name: 0.0})
    with pytest.raises(RewardError, match="n_sigma must be"):
        rewards.probability(Unsure(), n_sigma=-1)


def test_its_configuration() -> None:
    from crystalgfn.utils.instantiate import instantiate

    reward = rewards.probability(rewards.Density(), weight=0.5, smallest=0.1, n_sigma=0)
    again = instantiate(describe(reward), trust=None)
    assert (again.weight, again.smallest, again.n_sigma, again.prop.name) == (0.5, 0.1, 0, "density")
