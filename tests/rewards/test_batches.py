"""Empty batches, groups that there are not, and what a function of one's own may return."""

import numpy as np
import pytest
import torch

from crystalgfn import rewards
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.properties.hull_entries import compositions
from crystalgfn.properties.registry import PROXIES
from crystalgfn.rewards.base import check_reward, evaluate, example_crystals

NONE = example_crystals()[:0]
EXACT = [rewards.Density(), rewards.VolumePerAtom(), rewards.Scarcity()]
HULL = rewards.energy_above_hull(hull="default")


@pytest.mark.parametrize("prop", [*EXACT, HULL, *PROXIES], ids=lambda prop: getattr(prop, "name", prop))
def test_no_crystal_has_no_value(prop) -> None:
    prop = rewards.load_proxy(prop) if isinstance(prop, str) else prop
    for found in (prop(NONE), prop.std(NONE), prop.confidence_bound(NONE, 1.0)):
        assert found.shape == (0,) and found.is_floating_point()


@pytest.mark.parametrize("name", rewards.shipped())
def test_no_crystal_has_no_reward(name: str) -> None:
    assert evaluate(rewards.load(name), NONE).shape == (0,)


def test_other_rewards_of_no_crystal() -> None:
    distance = rewards.DistanceToData.fit(example_crystals(), n_centres=1)
    likely = rewards.probability(rewards.function(lambda c: c.n_elements.double() / 10, "p"))
    for reward in (
        rewards.boltzmann(distance, beta=1.0),
        rewards.floor(likely, -5.0),
        rewards.slow(rewards.Density(), workers=1),
        rewards.near_data("ionic_conductivity"),
    ):
        assert evaluate(reward, NONE).shape == (0,)
    assert compositions([])[0].shape == (0, 118)


@pytest.mark.parametrize("group", [0, 231, -5])
def test_a_group_that_there_is_not_is_a_sentence(group: int) -> None:
    one = example_crystals()[1:3]
    wrong = Crystals(torch.tensor([225, group]), one.composition, one.lattice)
    distance = rewards.DistanceToData.fit(example_crystals(), n_centres=1)
    proxies = [rewards.load_proxy(name) for name in PROXIES]
    for prop in (rewards.Density(), rewards.VolumePerAtom(), distance, *proxies, rewards.packing_fraction):
        with pytest.raises(RewardError, match=rf"crystal 1 \(TiO2\) has space group {group}; space groups are the num"):
            prop(wrong)
    with pytest.raises(RewardError, match=f"space group {group}"):
        evaluate(rewards.load("stable"), wrong)


@pytest.mark.parametrize(
    "kind",
    [
        lambda values: values.numpy(),
        lambda values: values.tolist(),
        lambda values: tuple(values.tolist()),
        lambda values: list(values),
        lambda values: values.numpy().astype(np.float32),
        lambda values: np.rint(values.numpy()).astype(int),
    ],
)
def test_arrays_and_lists_of_numbers_are_values(kind) -> None:
    crystals = example_crystals()

    def own(given: Crystals):
        return kind(given.density)

    wanted = torch.as_tensor(np.array(kind(crystals.density), dtype=np.float64))
    found = evaluate(own, crystals)
    assert found.dtype == torch.float64 and torch.equal(found, wanted)
    check_reward(own, crystals)
    prop = rewards.function(own, "own")
    assert torch.equal(prop(crystals), wanted) and torch.equal(prop.std(crystals), torch.zeros(7).double())
    for reward in (rewards.weighted([own, rewards.boltzmann(prop, 2.0)], [1.0, 1.0]), rewards.floor(own, -100.0)):
        assert evaluate(reward, crystals).shape == (7,)
    torch.testing.assert_close(evaluate(rewards.product(own, own), crystals), 2 * wanted)
