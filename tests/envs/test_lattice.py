"""The lattice moves: densities that integrate to one, and sets that are exactly what the limits leave."""

import pytest
import torch

from crystalgfn.benchmarks import exactness
from crystalgfn.benchmarks.exactness import disturbed
from crystalgfn.envs.open_sets import open_set
from crystalgfn.policy.network import PolicyConfig
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.space.space import CrystalSpace

SMALL = PolicyConfig(width=32, blocks=1, components=3)


def trained_like(space, seed=0, scale=0.2):
    return disturbed(Sampler.untrained(space, policy=SMALL), scale, seed)


@pytest.mark.parametrize(("case", "tolerance"), list(zip(exactness.CASES, (1e-3, 3e-3, 3e-3, 2e-2, 2e-2), strict=True)))
def test_the_density_of_the_lattice_integrates_to_one(case, tolerance):
    """Quadrature over the free parameters under the reference measure; nothing but log_prob is used."""
    number, counts, *_ = case
    sampler = disturbed(Sampler.untrained(exactness.cell_space(number, counts), policy=SMALL), scale=0.05)
    drawn = sampler.sample(2000)
    assert (drawn.composition == exactness.grid_crystals(number, counts, drawn.lattice).composition).all()
    assert abs(exactness.density_mass(sampler, *case) - 1) < tolerance


@pytest.mark.parametrize("number", [1, 2, 3, 5, 14, 15])
@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"lengths": (4, 9), "volume_per_atom": (11, 14)},
        {"lengths": (3, 6), "angles": (65, 125)},
        {"lengths": (5, 7), "angles": (80, 120), "volume_per_atom": (12, 40)},
    ],
)
def test_every_cell_within_the_limits_can_be_drawn(number, limits):
    """Cells drawn at wide limits: those that narrow limits contain are exactly those with a density there."""
    wide = CrystalSpace(
        elements=["Na", "Cl"], n_elements=(2, 2), n_atoms=(8, 8), space_groups=[number], lengths=(2.5, 12)
    )
    narrow = wide.narrowed(**limits) if limits else wide
    drawn = Sampler.untrained(wide, policy=SMALL).sample(1500)
    inside = narrow.contains(drawn)
    log_q = Sampler.untrained(narrow, policy=SMALL).log_prob(drawn)
    assert torch.equal(torch.isfinite(log_q), inside)
    own = Sampler.untrained(narrow, policy=SMALL).sample(500)
    assert narrow.contains(own).all()


@pytest.mark.parametrize("number", [2, 5, 14])
def test_monte_carlo_mass_of_skew_cells(number):
    """Self-normalised check in many dimensions: E over an independent sampler of q / p is one."""
    counts = {"n_atoms": (8, 8), "space_groups": [number], "elements": ["Na", "Cl"], "n_elements": (2, 2)}
    space = CrystalSpace(**counts, lengths=(2.5, 9), volume_per_atom=(12, 30))
    p, q = Sampler.untrained(space, policy=SMALL), trained_like(space, seed=3)
    drawn = p.sample(40_000, seed=5)
    ratio = (q.log_prob(drawn) - p.log_prob(drawn)).exp()
    error = float(ratio.std() / len(ratio) ** 0.5)
    assert error < 0.03
    assert abs(float(ratio.mean()) - 1) < 4 * error


def test_open_set_finds_both_ends():
    """A parabola below a ceiling, split at its top, leaves two pieces."""
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    pieces = open_set([zero, one / 2, one], lambda x: x * (1 - x), one * 0.16, lambda x: x * 0 + 1, zero)
    torch.testing.assert_close(pieces, torch.tensor([[[0, 0.2], [0.8, 1.0]]], dtype=torch.float64))
