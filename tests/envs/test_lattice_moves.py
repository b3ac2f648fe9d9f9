"""The lattice moves: densities that integrate to one, and sets that are exactly what the limits leave."""

import numpy as np
import pytest
import torch

from crystalgfn.domain.crystals import Crystals
from crystalgfn.domain.lattice import in_domain
from crystalgfn.domain.space import CrystalSpace
from crystalgfn.envs.lattice import open_set
from crystalgfn.policy.network import PolicyConfig
from crystalgfn.sampler import Sampler
from crystalgfn.tables import elements, groups

SMALL = PolicyConfig(width=32, blocks=1, components=3)


def trained_like(space, seed=0, scale=0.2):
    sampler = Sampler.untrained(space, policy=SMALL)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in sampler.network.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return sampler


def crystals(number, counts, lattice):
    composition = torch.zeros(len(lattice), 118, dtype=torch.int64)
    for symbol, n in counts.items():
        composition[:, elements.NUMBER[symbol] - 1] = n
    return Crystals(torch.full((len(lattice),), number), composition, lattice)


def points(n, number, counts, free):
    """Low-discrepancy ln-lengths [n, free] that fill the allowed volumes, and the measure that each stands for.

    Drawn as axis ratios and ln of the cell volume, from which the ln-lengths follow linearly with Jacobian 1/3.
    """
    x = torch.quasirandom.SobolEngine(free, scramble=True, seed=0).draw(n, dtype=torch.float64)
    width = HIGH - LOW
    ratios = width * (2 * x[:, :-1] - 1)
    atoms = sum(counts.values()) * groups.CENTRING[number - 1]
    low, high = (np.log(v * atoms) for v in SPACE["volume_per_atom"])
    sigma = low + (high - low) * x[:, -1] - (np.log(0.75**0.5) if number in range(143, 195) else 0)
    if free == 1:
        lengths = sigma[:, None] / 3
    elif free == 2:  # a = b, v = ln(a / c)
        lengths = torch.stack([sigma + ratios[:, 0], sigma - 2 * ratios[:, 0]], 1) / 3
    else:
        u, v = ratios.unbind(1)
        lengths = torch.stack([sigma + 2 * u + v, sigma - u + v, sigma - u - 2 * v], 1) / 3
    return lengths, (2 * width) ** (free - 1) * (high - low) / 3 / n


def cell(number, x):
    """Cells from ln-lengths (and beta / 60) [N, free]."""
    right = torch.full((len(x), 1), 90.0, dtype=torch.float64)
    length = x[:, : {1: 1, 2: 2}.get(x.shape[1], 3)].exp()
    if number >= 195:
        lengths, gamma = length.expand(-1, 3), right
    elif number >= 143:
        lengths, gamma = torch.stack([length[:, 0], length[:, 0], length[:, 1]], 1), right + 30
    elif number >= 75:
        lengths, gamma = torch.stack([length[:, 0], length[:, 0], length[:, 1]], 1), right
    else:
        lengths, gamma = length, right
    beta = x[:, 3:4] * 60 if x.shape[1] == 4 else right
    return torch.cat([lengths, right, beta, gamma], 1)


LOW, HIGH = np.log(2.5), np.log(9.0)
SPACE = {"elements": ["Na", "Cl"], "n_elements": (2, 2), "lengths": (2.5, 9.0), "volume_per_atom": (12.0, 30.0)}


def within(space, x):
    """The limits without the tolerances of `contains`."""
    per_atom = x.volume_per_atom
    inside = (per_atom >= space.volume_per_atom[0]) & (per_atom <= space.volume_per_atom[1])
    inside &= (x.lattice[:, :3] >= space.lengths[0]).all(1) & (x.lattice[:, :3] <= space.lengths[1]).all(1)
    return inside & in_domain(x.space_group, x.lattice, 0.0, 1e-9)


@pytest.mark.parametrize(
    ("number", "counts", "free", "log2_n", "tolerance"),
    [
        (225, {"Na": 1, "Cl": 1}, 1, 13, 1e-3),
        (194, {"Na": 2, "Cl": 2}, 2, 17, 3e-3),
        (123, {"Na": 1, "Cl": 1}, 2, 17, 3e-3),
        (62, {"Na": 4, "Cl": 4}, 3, 16, 2e-2),
        (61, {"Na": 8, "Cl": 8}, 3, 16, 2e-2),
    ],
)
def test_the_density_of_the_lattice_integrates_to_one(number, counts, free, log2_n, tolerance):
    """Quadrature over the free parameters under the reference measure; nothing but log_prob is used.

    Where an interval closes (an edge of the ratios' polygon) the density has an integrable spike, which sets the
    accuracy in two and three dimensions.
    """
    total = sum(counts.values())
    space = CrystalSpace(**SPACE, space_groups=[number], n_atoms=(total, total))
    sampler = trained_like(space, scale=0.05)
    x_all, size = points(2**log2_n, number, counts, free)
    log_q = []
    for part in x_all.split(100_000):
        x = crystals(number, counts, cell(number, part))
        inside = within(space, x)
        value = torch.full((len(part),), -torch.inf, dtype=torch.float64)
        value[inside] = sampler.log_prob(x[inside])
        log_q.append(value)
    mass = float(torch.cat(log_q).exp().sum() * size)
    drawn = sampler.sample(2000)
    share = float((drawn.composition == crystals(number, counts, drawn.lattice).composition).all(1).double().mean())
    assert share == 1.0
    assert abs(mass - 1) < tolerance


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
