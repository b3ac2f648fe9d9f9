"""Limits on the volume that depend on the composition."""

import itertools

import numpy as np
import pytest
import torch

from crystalgfn import Crystals, CrystalSpace, EmptySpace, Sampler
from crystalgfn.crystallography import elements
from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.gfn.rollout import teacher_forced
from crystalgfn.policy.network import PolicyConfig
from crystalgfn.space.constraints.limits import relative_volume
from crystalgfn.space.patterns import realisable_patterns
from crystalgfn.typing import DENSITY_UNIT

SMALL = PolicyConfig(width=32, blocks=1, components=3)
CENTRING = {221: 1, 225: 4, 229: 2, 200: 1}
LIMITS = {
    "relative volume": {"relative_volume": (0.8, 1.1)},
    "density": {"density": (3.0, 6.0)},
    "both": {"relative_volume": (0.7, 1.2), "density": (3.0, 6.0)},
    "both, from zero": {"relative_volume": (0.0, 0.8), "density": (0.0, 9.0)},
}


def open_interval(space, number, counts):
    """The volumes of the primitive cell that all limits leave, as a range."""
    n = sum(counts.values())
    mass = DENSITY_UNIT * sum(elements.MASS[elements.NUMBER[s] - 1] * k for s, k in counts.items())
    typical = sum(elements.VOLUME[elements.NUMBER[s] - 1] * k for s, k in counts.items())
    low = [n * space.volume_per_atom[0], space.lengths[0] ** 3 / CENTRING[number]]
    high = [n * space.volume_per_atom[1], space.lengths[1] ** 3 / CENTRING[number]]
    if space.density is not None:
        low.append(mass / space.density[1])
        high += [mass / space.density[0]] if space.density[0] else []
    if space.relative_volume is not None:
        low.append(space.relative_volume[0] * typical)
        high.append(space.relative_volume[1] * typical)
    return max(low), min(high)


@pytest.mark.parametrize("name", LIMITS)
def test_exactly_the_compositions_with_a_cell_can_be_drawn(name):
    """By enumeration: the others have probability 0, and these have all of it."""
    space = CrystalSpace(
        elements=["Li", "H", "Pb", "O"], space_groups=list(CENTRING), n_atoms=(1, 6), lengths=(3.0, 5.0),
        oxidation_states=None, **LIMITS[name],
    )  # fmt: skip
    cases = []
    for counts in itertools.product(range(7), repeat=4):
        if not 1 <= sum(counts) <= 6:
            continue
        realisable = realisable_patterns(np.array([sorted((n for n in counts if n), reverse=True)]))[:, 0]
        named = {s: n for s, n in zip(("Li", "H", "Pb", "O"), counts, strict=True) if n}
        cases += [(g, named, *open_interval(space, g, named)) for g in CENTRING if realisable[g - 1]]
    open_ = torch.tensor([high > low for *_, low, high in cases])
    assert 10 < int(open_.sum()) < len(cases) - 10
    composition = torch.zeros(len(cases), 118, dtype=torch.int64)
    for i, (_, counts, *_) in enumerate(cases):
        for symbol, n in counts.items():
            composition[i, elements.NUMBER[symbol] - 1] = n
    edges = [(0.5 * (low + high) * CENTRING[number]) ** (1 / 3) for number, _, low, high in cases]
    lattice = torch.tensor([[a, a, a, 90, 90, 90] for a in edges], dtype=torch.float64)
    crystals = Crystals(torch.tensor([number for number, *_ in cases]), composition, lattice)
    assert torch.equal(space.contains(crystals), open_)

    sampler = Sampler.untrained(space, policy=SMALL)
    assert torch.equal(torch.isfinite(sampler.log_prob(crystals)), open_)
    network = sampler.network.double()
    env = CrystalEnvironment(space)
    walked = teacher_forced(env, crystals[open_], int(open_.sum()))
    total = torch.zeros(int(open_.sum()), dtype=torch.float64)
    for turn in walked.steps:
        if turn.head not in env.lattice.names:
            distribution = network.distribution(env.heads[turn.head], network.trunk(turn.observation), turn.options)
            total[turn.rows] += distribution.log_prob(turn.action)
    assert abs(float(total.detach().exp().sum()) - 1) < 1e-6


def test_real_crystals_take_up_about_what_is_typical():
    known = {("NaCl", 225): 5.64, ("MgO", 225): 4.21, ("Fe", 229): 2.87, ("CsCl", 221): 4.12, ("C", 227): 3.57}
    counts = [{"Na": 1, "Cl": 1}, {"Mg": 1, "O": 1}, {"Fe": 1}, {"Cs": 1, "Cl": 1}, {"C": 2}]
    composition = torch.zeros(5, 118, dtype=torch.int64)
    for row, atoms in zip(composition, counts, strict=True):
        for symbol, n in atoms.items():
            row[elements.NUMBER[symbol] - 1] = n
    lattice = torch.tensor([[a, a, a, 90, 90, 90] for a in known.values()], dtype=torch.float64)
    ratio = relative_volume(Crystals(torch.tensor([g for _, g in known]), composition, lattice))
    assert ((ratio > 0.6) & (ratio < 1.4)).all(), ratio


@pytest.mark.unchecked
def test_without_a_range_in_common_the_space_is_empty():
    with pytest.raises(EmptySpace, match="leaves no crystal"):
        CrystalSpace(elements=["Cs", "I"], volume_per_atom=(4, 10), relative_volume=(0.65, 3.0))
    with pytest.raises(EmptySpace, match="leaves no crystal"):
        CrystalSpace(elements=["Li", "H"], n_atoms=(1, 8), relative_volume=(0.65, 3.0)).narrowed(density=(5, 6))
    space = CrystalSpace(elements=["Li", "H"], relative_volume=(0.6, 2))
    assert space.narrowed(relative_volume=(0.7, 3)).relative_volume == (0.7, 2.0)
