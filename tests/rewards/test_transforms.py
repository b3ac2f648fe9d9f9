import math
from dataclasses import dataclass

import pytest
import torch

from crystalgfn import rewards
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.rewards import Density, VolumePerAtom, boltzmann, floor, product, target, weighted
from crystalgfn.rewards.base import example_crystals
from crystalgfn.utils.instantiate import instantiate


@dataclass
class Uncertain:
    """The density with a spread that grows with the volume, so that the bound is not the mean."""

    name: str = "uncertain"
    unit: str = "g/cm3"

    def __call__(self, crystals: Crystals) -> torch.Tensor:
        return crystals.density

    def std(self, crystals: Crystals) -> torch.Tensor:
        return crystals.volume_per_atom / 10

    def confidence_bound(self, crystals: Crystals, n_sigma: float) -> torch.Tensor:
        return self(crystals) + n_sigma * self.std(crystals)


@pytest.fixture
def crystals() -> Crystals:
    return example_crystals()


def same(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_boltzmann_sees_the_pessimistic_end(crystals: Crystals) -> None:
    prop = Uncertain()
    mean, spread = prop(crystals), prop.std(crystals)
    same(boltzmann(prop, 3.0)(crystals), -3 * (mean + spread))
    same(boltzmann(prop, 3.0, n_sigma=2)(crystals), -3 * (mean + 2 * spread))
    same(boltzmann(prop, 3.0, direction="maximise")(crystals), 3 * (mean - spread))
    same(boltzmann(prop, 3.0, n_sigma=0, direction="maximise")(crystals), 3 * mean)


def test_with_beta_changes_beta_alone(crystals: Crystals) -> None:
    reward = boltzmann(Uncertain(), 3.0, n_sigma=0.5, direction="maximise")
    same(reward.with_beta(6.0)(crystals), 2 * reward(crystals))
    assert reward.beta == 3.0


def test_target_is_a_gaussian_of_the_farther_end(crystals: Crystals) -> None:
    prop = Uncertain()
    mean, spread = prop(crystals), prop.std(crystals)
    same(target(prop, 4.0, 0.5, n_sigma=0)(crystals), -((mean - 4) ** 2) / (2 * 0.5**2))
    same(target(prop, 4.0, 0.5)(crystals), -(((mean - 4).abs() + spread) ** 2) / (2 * 0.5**2))
    exact = Density()
    assert float(target(exact, float(exact(crystals)[0]), 0.5)(crystals)[0]) == pytest.approx(0.0, abs=1e-20)


def test_product_adds_and_weights_multiply(crystals: Crystals) -> None:
    one, other = boltzmann(Density(), 1.0), target(VolumePerAtom(), 10.0, 2.0)
    same(product(one, other)(crystals), one(crystals) + other(crystals))
    same(weighted([one, other], [0.5, 2.0])(crystals), 0.5 * one(crystals) + 2 * other(crystals))
    same(weighted({one: 0.5, other: 2.0})(crystals), 0.5 * one(crystals) + 2 * other(crystals))


def test_weight_zero_leaves_a_reward_out(crystals: Crystals) -> None:
    one = boltzmann(Density(), 1.0)
    reward = weighted([one, lambda c: torch.full((len(c),), -math.inf)], [1.0, 0.0])
    same(reward(crystals), one(crystals))


def test_floor_lifts_zero_rewards_and_keeps_nan(crystals: Crystals) -> None:
    values = torch.tensor([-math.inf, -50.0, -3.0, 2.0, math.nan, 0.0, -10.0])
    lifted = floor(lambda c: values, -10)(crystals)
    assert lifted[:4].tolist() == [-10, -10, -3, 2]
    assert math.isnan(lifted[4])
    assert torch.equal(values[:1], torch.tensor([-math.inf]))  # not in place


BUILT_IN = {
    "boltzmann": lambda: boltzmann(Density(), 2.0, n_sigma=0.5, direction="maximise"),
    "target": lambda: target(VolumePerAtom(), 15.0, 3.0, n_sigma=2.0),
    "product": lambda: product(boltzmann(Density(), 1.0), target(Density(), 4.0, 1.0)),
    "weighted": lambda: weighted({boltzmann(Density(), 1.0): 0.3, floor(target(Density(), 4.0, 1.0), -5.0): 0.7}),
    "floor": lambda: floor(boltzmann(VolumePerAtom(), 1.0), -20.0),
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_hydra_rebuilds_every_built_in_reward_from_its_config(name: str, crystals: Crystals) -> None:
    reward = BUILT_IN[name]()
    rebuilt = instantiate(reward.config(), trust=None)
    assert type(rebuilt) is type(reward)
    assert torch.equal(rebuilt(crystals), reward(crystals))
    assert rebuilt.config() == reward.config()


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_reward_keeps_the_contract(name: str) -> None:
    rewards.check_reward(BUILT_IN[name]())


@pytest.mark.parametrize("name", BUILT_IN)
def test_moving_a_reward_keeps_its_values(name: str, crystals: Crystals) -> None:
    reward = BUILT_IN[name]()
    assert torch.equal(reward.to("cpu")(crystals), reward(crystals))


ONE = {"_target_": "crystalgfn.rewards.boltzmann", "prop": {"_target_": "crystalgfn.rewards.Density"}, "beta": 2}


def test_products_of_a_configuration_have_names(crystals: Crystals) -> None:
    built = instantiate({"_target_": "crystalgfn.rewards.product", "light": ONE, "also": ONE}, trust=None)
    same(built(crystals), -4 * crystals.density)
    weights = {"also": 0.5, "light": 2.0}
    built = instantiate(
        {"_target_": "crystalgfn.rewards.weighted", "weights": weights, "light": ONE, "also": ONE}, trust=None
    )
    same(built(crystals), -5 * crystals.density)
    assert built.weights == (2.0, 0.5)


def test_weights_of_other_names_are_refused() -> None:
    with pytest.raises(RewardError, match=r"weights \(heavy\) and of the rewards \(light\) must be the same"):
        weighted(weights={"heavy": 1.0}, light=boltzmann(Density(), 1.0))


REFUSED = [
    (lambda: boltzmann(Density(), 0.0), "beta must be a finite number greater than 0, not 0.0"),
    (lambda: boltzmann(Density(), -8.0), "direction='maximise'"),
    (lambda: boltzmann(Density(), math.nan), "beta must be a finite number"),
    (lambda: boltzmann(Density(), 1.0, n_sigma=-1), "n_sigma must be a finite number at least 0"),
    (lambda: boltzmann(Density(), 1.0, direction="up"), "direction must be 'minimise' or 'maximise', not 'up'"),
    (lambda: boltzmann("density", 1.0), "str is not a property"),
    (lambda: boltzmann(lambda c: c.density, 1.0), r"crystalgfn\.rewards\.function"),
    (lambda: target(Density(), 4.0, 0.0), "width must be a finite number greater than 0"),
    (lambda: target(Density(), 4.0, -1.0), "width must be a finite number greater than 0"),
    (lambda: target(Density(), math.inf, 1.0), "value must be finite"),
    (lambda: weighted({}), "at least one reward"),
    (lambda: weighted([boltzmann(Density(), 1.0)], [-1.0]), "every weight must be a finite number at least 0, not -1"),
    (lambda: weighted([boltzmann(Density(), 1.0)], [0.0]), "all weights are 0"),
    (lambda: weighted([boltzmann(Density(), 1.0)], [1.0, 2.0]), "1 rewards and 2 weights"),
    (lambda: weighted([boltzmann(Density(), 1.0)]), "weights are missing"),
    (lambda: weighted({boltzmann(Density(), 1.0): 1.0}, [1.0]), "not both"),
    (lambda: product(), "at least one reward"),
    (lambda: product(Density()), "density is a property in g/cm3, not a reward"),
    (lambda: floor(3.0, -5.0), "must be callable"),
    (lambda: floor(boltzmann(Density(), 1.0), -math.inf), "log_r_min must be finite"),
]


@pytest.mark.parametrize(("build", "sentence"), REFUSED)
def test_what_makes_no_reward_is_refused_when_it_is_built(build, sentence: str) -> None:
    with pytest.raises(RewardError, match=sentence):
        build()


def test_a_reward_with_a_users_function_cannot_be_described() -> None:
    with pytest.raises(RewardError, match="cannot be described"):
        product(lambda c: c.density).config()
