"""Rewards on structures are rewards: the same value alone, in a batch, and again."""

import numpy as np
import pytest
import torch

import crystalgfn as cg
from crystalgfn.errors import PlacementError, RewardError
from crystalgfn.rewards.base import example_crystals
from crystalgfn.structures.build import requests_of
from crystalgfn.structures.reward import stream_of


def nearest(structures):
    """Sensitive to every coordinate."""
    return [-float(s.distance_matrix[np.triu_indices(len(s), 1)].min(initial=5.0)) for s in structures]


@pytest.mark.parametrize("options", [{"refiner": None}, {"steps": 2, "draws": 3}])
def test_it_keeps_the_contract_of_rewards(options):
    crystals = example_crystals()[[0, 1, 2, 3]]
    reward = cg.rewards.on_structures(nearest, **options)
    cg.check_reward(reward, crystals)
    values = reward(crystals)
    assert len(set(values.tolist())) == 4
    for order in ([3, 1], [2, 0, 3]):
        assert reward(crystals[order]).tolist() == values[order].tolist()


def test_what_cannot_be_placed_has_the_value_of_failures(make_crystals):
    good = (225, {"Na": 1, "Cl": 1}, (5.64, 5.64, 5.64, 90.0, 90.0, 90.0))
    bad = (225, {"Na": 1, "Cl": 1, "O": 1}, good[2])
    seen = []
    reward = cg.rewards.on_structures(lambda s: seen.append(len(s)) or torch.ones(len(s)), failed=-7.0, refiner=None)
    assert reward(make_crystals(bad, good, bad)).tolist() == [-7.0, 1.0, -7.0] and seen == [1]
    assert reward(make_crystals(bad)).tolist() == [-7.0] and seen == [1]


def test_streams_are_the_crystals_own(make_crystals):
    rows = [(225, {"Na": 1, "Cl": 1}, (a, a, a, 90.0, 90.0, 90.0)) for a in (5.6, 5.7, 5.6)]
    one, other, again = (stream_of(request) for request in requests_of(make_crystals(*rows)))
    assert one == again != other


def test_what_is_wrong_is_said(make_crystals):
    salt = make_crystals((225, {"Na": 1, "Cl": 1}, (5.64, 5.64, 5.64, 90.0, 90.0, 90.0)))
    with pytest.raises(RewardError, match=r"gives shape \[2\] for 1 structures"):
        cg.rewards.on_structures(lambda s: [0.0, 1.0], refiner=None)(salt)
    with pytest.raises(RewardError, match="needs a function"):
        cg.rewards.on_structures(3)
    with pytest.raises(RewardError, match="failed=-inf"):
        cg.rewards.on_structures(nearest, failed=float("-inf"))
    with pytest.raises(PlacementError, match="lattice='keep'"):
        cg.rewards.on_structures(nearest, refiner=None, lattice="refine")
