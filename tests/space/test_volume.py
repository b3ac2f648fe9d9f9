"""Limits on the volume that depend on the composition."""

import itertools
import time

import numpy as np
import pytest
import torch

from crystalgfn import Crystals, CrystalSpace, EmptySpace, InvalidSpace, Sampler
from crystalgfn.crystallography import elements
from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.gfn.rollout import teacher_forced
from crystalgfn.policy.network import PolicyConfig
from crystalgfn.space.constraints.limits import relative_volume
from crystalgfn.space.patterns import realisable_patterns
from crystalgfn.space.sum_lookahead import SumLookahead
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


@pytest.mark.parametrize("required", [[], ["Li", "O"]])
def test_kind_8_sums_are_reached_exactly_where_a_composition_has_them(required):
    """Narrow windows around and between the masses that compositions have, against all of them."""
    space = CrystalSpace(
        elements=["Li", "Mg", "N", "O", "F"], required_elements=required, n_atoms=(1, 7), n_elements=(1, 3)
    )
    rules, table = space.rules.composition, space.tables.composition
    masses = elements.MASS[None]
    lookahead = SumLookahead(rules, table, masses, torch.device("cpu"))
    patterns = {tuple(row[row > 0].tolist()): i for i, row in enumerate(table.patterns)}
    found: dict[int, set[float]] = {}
    for counts in itertools.product(range(8), repeat=5):
        named = {z: n for z, n in zip((3, 12, 7, 8, 9), counts, strict=True) if n}
        missing = any(elements.NUMBER[symbol] not in named for symbol in required)
        if not named or sum(counts) > 7 or len(named) > 3 or missing or not rules.charge.neutral(named):
            continue
        pattern = patterns[tuple(sorted(named.values(), reverse=True))]
        found.setdefault(pattern, set()).add(sum(n * masses[0, z - 1] for z, n in named.items()))
    cases = []
    for pattern, own in found.items():
        ends = sorted(own)
        cases += [(pattern, mass - 0.01, mass + 0.01, True) for mass in ends]
        cases += [(pattern, a + 0.01, b - 0.01, False) for a, b in itertools.pairwise(ends) if b - a > 0.03]
        cases += [(pattern, ends[-1] + 0.01, ends[-1] + 9, False), (pattern, ends[0] - 9, ends[0] - 0.01, False)]
    of, low, high, there = (torch.tensor(column) for column in zip(*cases, strict=True))
    reached = lookahead.possible(of, low.double()[:, None], high.double()[:, None])
    assert 10 < int(there.sum()) < len(cases) - 20
    assert torch.equal(reached, there)


@pytest.mark.parametrize(
    ("constraints", "built"),
    [
        ({"n_atoms": (1, 80)}, True),
        (
            {"required_elements": ("Gd", "Cl"), "n_atoms": (20, 32), "space_groups": (119,), "density": (15, 30),
             "relative_volume": (0.9, 0.95)},
            True,
        ),
        ({"relative_volume": (1, 1.0001), "density": (2, 2.001), "volume_per_atom": (15, 15.01)}, False),
    ],
)  # fmt: skip
@pytest.mark.unchecked
def test_kind_8_a_space_is_built_or_refused_in_ten_seconds_of_one_processor(constraints, built):
    begun = time.process_time()
    try:
        assert CrystalEnvironment(CrystalSpace(**constraints)).space.tables.allowed.any() and built
    except InvalidSpace as error:
        assert not built and "widen" in str(error)
    assert time.process_time() - begun < 10


def test_cells_of_tiny_and_of_huge_volumes_are_feasible_in_their_room_alone():
    """Cubic cells with edges from 3 to 5 Å have 27 to 125 Å3."""
    cell = CrystalSpace(space_groups=[221], lengths=(3, 5)).rules.cell
    ends = np.array([[10, 26.9], [10, 27.1], [60, 61], [124, 200], [125.1, 200], [60, 59], [61, 60.5]])
    expected = [False, True, True, True, False, False, False]
    assert cell.feasible(221, *ends.T).tolist() == expected


def test_every_limit_on_the_volume_bounds_the_volume():
    """Densities of at least 4 and at most 4.2 g/cm3 leave volumes of MgO's two atoms from 31.87 to 33.46 Å3."""
    space = CrystalSpace(formula="MgO", n_atoms=(2, 2), space_groups=[221], density=(4.0, 4.2))
    crystals = Sampler.untrained(space, policy=SMALL).sample(50, seed=0)
    env = CrystalEnvironment(space)
    turn = next(one for one in teacher_forced(env, crystals, 50).steps if one.head == "volume")
    mass = 40.304 * DENSITY_UNIT
    low, high = turn.options.pieces.unbind(-1)
    assert float((high.amax() - low[high > low].amin()).exp()) == pytest.approx(4.2 / 4.0, rel=1e-6)
    assert bool((crystals.volume * 1.0001 >= mass / 4.2).all() and (crystals.volume <= 1.0001 * mass / 4.0).all())
