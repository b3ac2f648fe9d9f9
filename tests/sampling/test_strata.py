"""Inverse temperatures in units of the reward's own, and ln Z between the points of the grid."""

import pytest
import torch

from crystalgfn.errors import RewardError
from crystalgfn.gfn.diagnostics import Diagnostics, reading
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.sampling.strata import interpolated, level_of


def test_ln_z_is_linear_between_the_points():
    grid = torch.linspace(0.5, 2.5, 9, dtype=torch.float64)
    log_z = torch.stack([3 * grid - 1, 5 - grid], 1)
    for level in (0.5, 0.6, 1.0, 1.37, 2.2501, 2.5):
        expected = torch.tensor([3 * level - 1, 5 - level], dtype=torch.float64)
        torch.testing.assert_close(interpolated(log_z, (0.5, 2.5), level), expected)


def test_ln_z_bends_at_the_points_alone():
    log_z = torch.tensor([[0.0], [4.0], [1.0]], dtype=torch.float64)
    found = [float(interpolated(log_z, (0.0, 2.0), level)) for level in (0.0, 0.25, 1.0, 1.5, 2.0)]
    assert found == [0.0, 1.0, 4.0, 2.5, 1.0]


def test_the_sampler_uses_it():
    """ln(omega_k R / Z_k) of a conditioned sampler at an inverse temperature between two points."""

    class Dense:
        beta = 2.0

        def __call__(self, crystals):
            return -crystals.density

    import crystalgfn as cg

    space = cg.CrystalSpace(elements=["Na", "Cl"], n_elements=(1, 2), n_atoms=(1, 2), space_groups=[225])
    policy = cg.PolicyConfig(width=8, blocks=0, conditioned=True)
    plain, omega = Sampler.untrained(space, policy=policy), (0.5, 0.5)
    log_z = torch.tensor([[0.0, 1.0, 10.0], [0.0, 3.0, 20.0]])
    sampler = Sampler(space, plain.network, Dense(), omega=omega, log_z=log_z, betas=(0.0, 1.0))
    crystals = sampler.sample(20, beta=0.5)
    k = crystals.n_elements
    expected = -crystals.density * 0.25 + sampler.log_omega[k] - torch.tensor([0.0, 1.5, 12.5], dtype=torch.float64)[k]
    torch.testing.assert_close(sampler.log_reward(crystals, beta=0.5), expected)


def test_levels():
    assert level_of(None, None, 8.0) is None and level_of(8.0, None, 8.0) is None
    assert level_of(None, (0, 1), 8.0) == 1.0 and level_of(4.0, (0, 1), 8.0) == 0.5
    assert level_of(8.0, (0, 1), 8.0) == 1.0 and level_of(0.0, (0, 1), 8.0) == 0.0
    with pytest.raises(RewardError, match="beta=7.0: .*at beta 8 alone"):
        level_of(7.0, None, 8.0)
    with pytest.raises(RewardError, match="beta=9.0: .*from 0 to 8"):
        level_of(9.0, (0, 1), 8.0)


def test_an_ess_is_said_with_its_reading():
    assert reading(0.04) == "4 %: not usable here without adapt"
    assert reading(0.0004) == "0.04 %: not usable here without adapt"
    assert reading(0.1) == "10 %: usable with resample=true"
    assert reading(0.5) == "50 %: close to the target"
    assert reading(float("nan")).endswith("not usable here without adapt")
    part = Diagnostics(n=20, ess=0.04, log_z=0.0, correlation=0.9, log_weight_std=1.0, strata={})
    whole = Diagnostics(n=100, ess=0.62, log_z=0.0, correlation=0.9, log_weight_std=1.0, strata={2: part})
    first, second = str(whole).splitlines()
    assert first.startswith("ESS 62 %: close to the target (effective sample size over 100 samples)")
    assert second == "  2 elements: ESS 4 %: not usable here without adapt (20)"
