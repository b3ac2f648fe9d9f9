"""The density reward with a wall at close packing."""

import math

import pytest
import torch

import crystalgfn as cg
from crystalgfn.crystallography import elements
from crystalgfn.errors import RewardError
from crystalgfn.rewards import check_reward, dense, packing_fraction


def cube(symbol_z: int, packing: float) -> cg.Crystals:
    """One atom in a primitive cubic cell whose sphere fills a share of it."""
    a = float((4 / 3 * math.pi * elements.RADIUS[symbol_z - 1] ** 3 / packing) ** (1 / 3))
    composition = torch.zeros(1, 118, dtype=torch.int64)
    composition[0, symbol_z - 1] = 1
    lattice = torch.tensor([[a, a, a, 90, 90, 90]], dtype=torch.float64)
    return cg.Crystals(torch.tensor([221]), composition, lattice)


@pytest.mark.parametrize("z", [3, 26, 74])
@pytest.mark.parametrize("packing", [0.3, 0.7, 0.74, 1.2])
def test_the_wall_begins_at_close_packing_of_the_composition(z, packing):
    crystal = cube(z, packing)
    assert float(packing_fraction(crystal)) == pytest.approx(packing, rel=1e-6)
    expected = 0.5 * float(crystal.density) - max(0.0, (packing - 0.7) / 0.01) ** 2 / 2
    assert float(dense(0.5)(crystal)) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_it_keeps_the_contract_of_a_reward():
    check_reward(dense(0.5))


def test_denser_than_close_packing_is_never_better():
    """Along the volume the reward's best value is at the wall for every weight of the density in use."""
    best = max((0.2 + 0.001 * i for i in range(1500)), key=lambda p: float(dense(0.5)(cube(74, p))))
    assert 0.70 <= best < 0.72


@pytest.mark.parametrize("bad", [{"beta": 0}, {"beta": 1, "max_packing": -1}, {"beta": 1, "width": math.inf}])
def test_bad_settings_are_named(bad):
    with pytest.raises(RewardError, match=list(bad)[-1]):
        dense(**bad)
