"""Goals: what is not predicted to meet them is never placed."""

import math

import pytest
import torch

from crystalgfn.discovery.goals import Goal, goals_of, meeting
from crystalgfn.discovery.proposer import Proposer, ProposerConfig
from crystalgfn.errors import RewardError
from crystalgfn.rewards import Density
from crystalgfn.rewards.base import example_crystals
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.space.space import CrystalSpace


def test_crystals_outside_the_limits_are_left_out_in_their_order():
    crystals = example_crystals()
    density = crystals.density.double()
    low, high = density.sort().values[[1, 4]].tolist()
    kept = meeting([Goal(prop=Density(), low=low, high=high)], crystals)
    inside = (density >= low) & (density <= high)
    assert int(inside.sum()) == 4 and torch.equal(kept.composition, crystals.composition[inside])
    assert meeting((), crystals) is crystals


def test_all_proposals_of_a_round_meet_them():
    space = CrystalSpace(elements=["Na", "K", "Cl", "Br"], n_atoms=(2, 4))
    sampler, goal = Sampler.untrained(space), Goal(prop=Density(), low=2.0, high=2.5)
    config = ProposerConfig(draws=400, pool=1000, beta=1.0)
    free = Proposer(sampler, space, 0, config).draw(0)
    bound = Proposer(sampler, space, 0, config, lambda number: sampler.sample(100, seed=9), goals=[goal]).draw(0)
    expected = int(goal.holds(free).sum()) + int(goal.holds(sampler.sample(100, seed=9)).sum())
    assert 0 < len(bound) == expected < 500 and bool(goal.holds(bound).all())


def test_what_is_placed_in_a_cell_of_its_own_meets_them_too():
    space = CrystalSpace(elements=["Na", "Cl"], n_elements=(2, 2), n_atoms=(2, 2), space_groups=[221, 225])
    sampler = Sampler.untrained(space)
    config = ProposerConfig(draws=30, beta=1.0, build={"lattice": "generate", "n_candidates": 1, "draws": 2})
    free = Proposer(sampler, space, 0, config)
    placed = free.place(free.draw(0)[:4], 0)
    densities = sorted(float(one.crystal.density[0]) for one in placed)
    goal = Goal(prop=Density(), low=densities[1], high=math.inf)
    kept = Proposer(sampler, space, 0, config, goals=[goal]).place(free.draw(0)[:4], 0)
    assert len(placed) > len(kept) > 0
    assert sorted(float(one.crystal.density[0]) for one in kept) == [one for one in densities if one >= densities[1]]


def test_a_goal_that_nothing_meets_leaves_nothing():
    space = CrystalSpace(elements=["Na", "Cl"], n_atoms=(2, 2))
    nothing = Goal(prop=Density(), low=90.0, high=math.inf)
    proposer = Proposer(Sampler.untrained(space), space, 0, ProposerConfig(draws=50, beta=1.0), goals=[nothing])
    assert len(proposer.draw(0)) == 0 and proposer.ess == 0.0


@pytest.mark.parametrize("pair", [[1.8, 1.2], [1.2], 1.5, "1-2", [1.2, float("nan")], [None, "a"]])
def test_limits_are_two_numbers_in_order(pair):
    with pytest.raises(RewardError, match="goals: band_gap=.*give the least and the largest value"):
        goals_of({"band_gap": pair}, CrystalSpace())


def test_a_proxy_that_knows_nothing_of_the_space_is_refused():
    with pytest.raises(RewardError, match="all of its data have Li"):
        goals_of({"ionic_conductivity": [-4, None]}, CrystalSpace(elements=["Na", "P", "S"]))
    (goal,) = goals_of({"ionic_conductivity": [-4, None]}, CrystalSpace(elements=["Li", "P", "S"]))
    assert goal.low == -4 and goal.high == math.inf
