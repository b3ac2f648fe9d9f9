import pytest
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.rewards import Density, boltzmann, check_reward, describe, evaluate
from crystalgfn.rewards.base import example_crystals


@pytest.fixture
def crystals() -> Crystals:
    return example_crystals()


def good(crystals: Crystals) -> torch.Tensor:
    return -crystals.volume_per_atom


def test_a_reward_that_keeps_the_contract_passes() -> None:
    check_reward(good)
    check_reward(boltzmann(Density(), beta=0.5))


def test_evaluate_returns_the_rewards_own_values(crystals: Crystals) -> None:
    torch.testing.assert_close(evaluate(good, crystals), -crystals.volume_per_atom)


def test_evaluate_builds_no_graph(crystals: Crystals) -> None:
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    assert not evaluate(lambda c: weight * c.density, crystals).requires_grad


BROKEN_FORMS = {
    "text": (lambda c: "good", "returns str; it must return a tensor"),
    "nothing": (lambda c: [None] * len(c), "returns list; it must return a tensor"),
    "number": (lambda c: -1.0, "returns float; it must return a tensor"),
    "column": (lambda c: c.density[:, None], r"returns shape \[7, 1\] for 7 crystals"),
    "scalar": (lambda c: c.density.sum(), r"returns shape \[\] for 7 crystals"),
    "integers": (lambda c: c.space_group, "returns torch.int64; log R must be floating point"),
    "device": (lambda c: c.density.to("meta"), "returns values on meta for crystals on cpu"),
}


@pytest.mark.parametrize("name", BROKEN_FORMS)
@pytest.mark.parametrize("check", [check_reward, evaluate])
def test_a_wrong_form_is_named(name: str, check, crystals: Crystals) -> None:
    reward, sentence = BROKEN_FORMS[name]
    with pytest.raises(RewardError, match=sentence):
        check(reward, crystals)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("check", [check_reward, evaluate])
def test_the_first_crystal_without_a_finite_reward_is_named(value: float, check, crystals: Crystals) -> None:
    def reward(batch: Crystals) -> torch.Tensor:
        return torch.where(batch.space_group == 136, value, good(batch))

    with pytest.raises(RewardError, match=r"TiO2, space group 136, a b c = 4\.6 4\.6 2\.96 Å") as caught:
        check(reward, crystals)
    assert f"log R = {value}" in str(caught.value)
    assert "1 of 7" in str(caught.value)
    assert ("floor" in str(caught.value)) == (value == float("-inf"))


def test_a_reward_that_depends_on_its_batch_is_refused() -> None:
    with pytest.raises(RewardError, match="must not depend on the others"):
        check_reward(lambda c: c.density - c.density.mean())


def test_a_reward_that_draws_random_numbers_is_refused() -> None:
    with pytest.raises(RewardError, match="must not draw random numbers"):
        check_reward(lambda c: torch.randn(len(c)))


def test_a_reward_that_changes_its_crystals_is_refused(crystals: Crystals) -> None:
    before = crystals.lattice.clone()

    def reward(batch: Crystals) -> torch.Tensor:
        values = good(batch)
        batch.lattice[:, 0] = 1.0
        return values

    with pytest.raises(RewardError, match="changes the crystals"):
        check_reward(reward, crystals)
    assert torch.equal(crystals.lattice, before)  # the caller's own are not touched even then


def test_every_broken_clause_has_its_sentence() -> None:
    def reward(batch: Crystals) -> torch.Tensor:
        batch.composition.zero_()
        return batch.space_group

    with pytest.raises(RewardError) as caught:
        check_reward(reward)
    assert len(str(caught.value).splitlines()) == 2


def test_a_reward_that_squeezes_a_batch_of_one_is_refused() -> None:
    with pytest.raises(RewardError, match=r"returns \[\] for a batch of one crystal"):
        check_reward(lambda c: good(c).squeeze())


def test_what_cannot_be_called_is_no_reward() -> None:
    with pytest.raises(RewardError, match="cannot be called"):
        check_reward(3.0)


def test_no_crystals_prove_nothing(crystals: Crystals) -> None:
    with pytest.raises(RewardError, match="at least one crystal"):
        check_reward(good, crystals[:0])


def test_a_plain_function_cannot_be_described() -> None:
    with pytest.raises(RewardError, match="good cannot be described"):
        describe(good)


def test_the_examples_are_the_crystals_they_are_called(crystals: Crystals) -> None:
    assert crystals.formulas()[:4] == ["Fe", "NaCl", "TiO2", "SiO2"]
    measured = torch.tensor([7.87, 2.17, 4.23, 2.65, 4.4, 6.3, 3.3], dtype=torch.float64)  # g/cm3
    assert ((crystals.density / measured - 1).abs() < 0.05).all()
