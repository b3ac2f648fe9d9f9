"""The energy above the hull as a property, and the reward made of it."""

import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.rewards import (
    EnergyAboveHull,
    Property,
    boltzmann,
    check_reward,
    describe,
    energy_above_hull,
    function,
    load,
    load_proxy,
    stable,
)
from crystalgfn.rewards.base import evaluate, example_crystals, properties
from crystalgfn.utils.instantiate import instantiate


def level(crystals: Crystals) -> torch.Tensor:
    return torch.full_like(crystals.lattice[:, 0], -2.0)


@pytest.fixture(scope="module")
def shipped() -> EnergyAboveHull:
    return load_proxy("energy_above_hull")


@pytest.fixture
def exact() -> EnergyAboveHull:
    hull = ExactHull.from_entries({"NaCl": -2.1, "TiO2": -3.5, "SiO2": -1.5})
    return EnergyAboveHull(energy=function(level, "formation_energy", "eV/atom"), hull=hull)


def test_it_is_energy_minus_hull(exact: EnergyAboveHull) -> None:
    crystals = example_crystals()[:4]  # Fe, NaCl, TiO2, SiO2
    wanted = torch.tensor([0.0, 0.1, 1.5, -0.5], dtype=torch.float64)
    assert torch.allclose(exact(crystals), wanted)
    assert torch.equal(exact.std(crystals), torch.zeros(4, dtype=torch.float64))
    assert torch.allclose(exact.confidence_bound(crystals, 3.0), wanted)


def test_the_shipped_one(shipped: EnergyAboveHull) -> None:
    assert isinstance(shipped, Property)
    assert (shipped.name, shipped.unit) == ("energy_above_hull", "eV/atom")
    crystals = example_crystals()
    real = shipped(crystals[:4])
    assert real.abs().max() < 0.2
    # Two errors that are added as independent ones.
    energy, hull = shipped.energy.std(crystals), shipped.hull.std(crystals)
    assert torch.allclose(shipped.std(crystals), torch.hypot(energy, hull))
    assert (shipped.std(crystals) >= energy).all()
    assert torch.allclose(shipped.confidence_bound(crystals, 2.0), shipped(crystals) + 2 * shipped.std(crystals))


def test_swollen_crystals_lie_higher(shipped: EnergyAboveHull) -> None:
    crystals = example_crystals()
    swollen = torch.cat([crystals.lattice[:, :3] * 1.15, crystals.lattice[:, 3:]], 1)
    assert (shipped(Crystals(crystals.space_group, crystals.composition, swollen)) > shipped(crystals)).sum() >= 6


def test_the_reward_rises_to_the_floor_and_no_further(exact: EnergyAboveHull) -> None:
    crystals = example_crystals()[:4]
    reward = stable(beta=20, floor=-0.05, prop=exact)
    wanted = [0.0, -20 * 0.1, -20 * 1.5, 20 * 0.05]  # the last is below the floor
    assert reward(crystals).tolist() == pytest.approx(wanted)
    assert reward.with_beta(2.0)(crystals).tolist() == pytest.approx([x / 10 for x in wanted])


def test_its_reward_keeps_the_contract_and_can_be_described(shipped: EnergyAboveHull) -> None:
    for reward in (stable(), stable(beta=5, floor=0.0, n_sigma=2.0), boltzmann(shipped, beta=3)):
        check_reward(reward)
        rebuilt = instantiate(reward.config(), trust=None)
        assert torch.equal(rebuilt(example_crystals()), reward(example_crystals()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": 0.0}, "stable: beta"),
        ({"n_sigma": -1.0}, "stable: n_sigma"),
        ({"floor": float("nan")}, "stable: floor must be a finite number"),
        ({"prop": level}, "stable: function is not a property"),
    ],
)
def test_wrong_settings_are_named(arguments: dict, message: str, exact: EnergyAboveHull) -> None:
    with pytest.raises(RewardError, match=message):
        stable(**{"prop": exact} | arguments)


def test_a_hull_of_ones_own_entries(tmp_path: Path, exact: EnergyAboveHull) -> None:
    table = pd.DataFrame({"formula": ["NaCl", "KCl"], "formation_energy_per_atom": [-2.1, None]})
    table.to_csv(tmp_path / "entries.csv", index=False)
    prop = energy_above_hull(energy="formation_energy", hull=tmp_path / "entries.csv", scale="mp2020")
    crystals = example_crystals()
    assert torch.allclose(prop(crystals) - prop.energy(crystals), -prop.hull.energy(crystals))
    assert float(prop.hull.energy(["NaCl"])) == pytest.approx(-2.1)
    rebuilt = instantiate(describe(prop), trust=None)
    assert torch.equal(rebuilt(crystals), prop(crystals))
    with pytest.raises(RewardError, match="in no file; write them to a Parquet or CSV file"):
        exact.config()


def test_ten_thousand_crystals_take_a_moment(shipped: EnergyAboveHull) -> None:
    crystals = Crystals.cat([example_crystals()] * 1429)[:10_000]
    start = time.process_time()
    evaluate(stable(prop=shipped), crystals)
    assert time.process_time() - start < 4  # a quarter of a second alone on one core


def test_claims_that_are_too_low_count_against_a_crystal(exact: EnergyAboveHull) -> None:
    crystals = example_crystals()
    for shift in (-0.4, -0.1, 0.0, 0.3):
        prop = function(lambda c, at=shift: torch.full((len(c),), at, dtype=torch.float64), "above")
        reward = stable(beta=10, prop=prop, too_low=-0.2)
        expected = -10 * (max(shift, -0.05) + max(-0.2 - shift, 0))
        assert reward(crystals).tolist() == pytest.approx([expected] * len(crystals))
    with pytest.raises(RewardError, match="too_low must be at most the floor, -0.05 eV/atom, not 0.1"):
        stable(prop=exact, too_low=0.1)


def test_the_plausibility_is_a_factor() -> None:
    crystals = example_crystals()
    prop = function(lambda c: torch.full((len(c),), 0.1, dtype=torch.float64), "above")
    known = function(lambda c: torch.linspace(0, 1, len(c), dtype=torch.float64), "known")
    with_it, without = stable(prop=prop, plausibility=known, weight=2), stable(prop=prop)
    p = torch.linspace(0, 1, len(crystals), dtype=torch.float64).clamp_min(1e-4)
    assert torch.allclose(with_it(crystals), without(crystals) + 2 * p.log())
    assert torch.equal(stable(prop=prop, plausibility=known, weight=0)(crystals), without(crystals))
    assert [one.name for one in properties(with_it)] == ["above", "known"]
    shipped = load("stable")
    assert torch.equal(instantiate(describe(shipped), trust=None)(crystals), shipped(crystals))
    check_reward(shipped)
