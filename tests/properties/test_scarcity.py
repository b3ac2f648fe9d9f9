import math

import pytest
import torch

from crystalgfn import check_reward, rewards
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.elements import NUMBER, SYMBOLS
from crystalgfn.properties.base import describe
from crystalgfn.properties.exact import CRUST
from crystalgfn.rewards.base import example_crystals


def crystal(**counts: int) -> Crystals:
    composition = torch.zeros(1, 118, dtype=torch.int64)
    for symbol, count in counts.items():
        composition[0, NUMBER[symbol] - 1] = count
    return Crystals(torch.tensor([221]), composition, torch.tensor([[4.0, 4, 4, 90, 90, 90]]).double())


def scarcity(**counts: int) -> float:
    return float(rewards.Scarcity()(crystal(**counts)))


def test_the_table_is_a_crust() -> None:
    assert sum(CRUST.values()) == pytest.approx(1e6, rel=0.01)  # mass fractions add up to one
    assert set(CRUST) <= set(SYMBOLS)
    assert sorted(CRUST, key=CRUST.get)[-8:] == ["K", "Mg", "Na", "Ca", "Fe", "Al", "Si", "O"]
    missing = set(SYMBOLS[:92]) - set(CRUST)
    assert missing == {"Tc", "Pm", "At", "Fr"}


def test_scarcity_is_the_mean_over_the_atoms() -> None:
    assert scarcity(Fe=2) == pytest.approx(-math.log10(0.0563))
    assert scarcity(Si=1, O=2) == pytest.approx(-(math.log10(0.282) + 2 * math.log10(0.461)) / 3)
    assert scarcity(Si=2, O=4) == scarcity(Si=1, O=2)
    assert scarcity(Au=1) == pytest.approx(8.4, abs=0.01)
    assert scarcity(Si=1, O=2) < scarcity(Li=1, Co=1, O=2) < scarcity(Te=1) < scarcity(Rn=1) == scarcity(Tc=1)


def test_a_penalty_on_scarce_elements() -> None:
    from crystalgfn.utils.instantiate import instantiate

    reward = rewards.boltzmann(rewards.Scarcity(), beta=2)
    check_reward(reward)
    again = instantiate(describe(reward), trust=None)
    assert torch.equal(again(example_crystals()), reward(example_crystals()))
    assert (rewards.Scarcity().std(example_crystals()) == 0).all()
