"""The environment of crystals: no dead end, only valid crystals, one exact path to each."""

import itertools

import numpy as np
import pytest
import torch
from checker import judge, packs

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.gfn.rollout import rollout, teacher_forced
from crystalgfn.gfn.scoring import log_forward
from crystalgfn.policy.network import PolicyConfig
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.space.patterns import realisable_patterns
from crystalgfn.space.space import CrystalSpace

SMALL = PolicyConfig(width=32, blocks=1, components=3)
NARROW = {
    "two elements": {"elements": ["Fe", "O"], "atoms_per_element": (1, 10)},
    "exactly three": {"elements": ["Li", "Mn", "O"], "required_elements": ["Li", "Mn", "O"]},
    "one group": {"space_groups": [227]},
    "P1": {"space_groups": [1], "n_atoms": (1, 6)},
    "formula": {"formula": "LiFePO4"},
    "olivine": {"formula": "LiFePO4", "n_atoms": (28, 28), "space_groups": [62]},
    "n atoms": {"n_atoms": (7, 7)},
    "long cells": {"lengths": (14, 40)},
    "flat limits": {"lengths": (10, 20), "angles": (75, 135)},
    "skew only": {"angles": (95, 115)},
    "acute only": {"space_groups": [1, 2], "angles": (70, 85), "lengths": (3, 6)},
    "tight volume": {"volume_per_atom": (15.0, 15.1)},
    "small monoclinic": {"crystal_systems": ["triclinic", "monoclinic"], "lengths": (4, 5), "angles": (60, 130)},
    "density": {"elements": ["Li", "Mn", "O", "H", "Pb"], "density": (3, 4), "volume_per_atom": (8, 12)},
    "relative volume": {"relative_volume": (0.65, 3.0)},
    "relative lengths": {"relative_volume": (0.8, 1.1), "lengths": (4, 6), "elements": ["Cs", "H", "O", "Mg"]},
    "close and heavy": {"relative_volume": (0.7, 1.4), "density": (8, 11), "elements": ["Li", "O", "Pb", "W"]},
    "alloys": {"alloys": True, "elements": ["Fe", "Ni", "Al", "O"]},
    "no charges": {"oxidation_states": None, "elements": ["Fe", "Ni", "Al", "O"]},
    "adjacent valence": {"mixed_valence": "adjacent", "elements": ["Fe", "La", "S", "O"]},
    "any valence": {"mixed_valence": True, "elements": ["Fe", "Sn", "S", "O"]},
    "large": {"elements": ["Li", "Fe", "P", "O"], "n_atoms": (40, 80), "atoms_per_element": (1, 48)},
}


def random_policy(space, seed=0):
    """A network far from uniform, so that rare moves are made too."""
    sampler = Sampler.untrained(space, seed, policy=SMALL)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in sampler.network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return sampler


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.unchecked
def test_narrow_spaces_have_no_dead_end(name):
    space = CrystalSpace(**NARROW[name])
    for sampler in (Sampler.untrained(space, policy=SMALL), random_policy(space)):
        crystals = sampler.sample(300, seed=1)
        assert space.explain(crystals) == [[]] * 300
        assert torch.isfinite(sampler.log_prob(crystals)).all()


@pytest.mark.unchecked
def test_untrained_crystals_pass_the_independent_checker():
    check_against_judge(Sampler.untrained(policy=SMALL).sample(1000))


def check_against_judge(crystals):
    for number, composition, cell in zip(
        crystals.space_group.tolist(), crystals.composition.numpy(), crystals.lattice.numpy(), strict=True
    ):
        counts = {elements.SYMBOLS[z]: int(composition[z]) for z in np.flatnonzero(composition)}
        assert judge(number, counts, cell) == [], (number, counts, cell)


@pytest.mark.slow
def test_twenty_thousand_crystals_and_a_million_rollouts():
    """The untrained sampler at length: valid, everything reachable is reached, no dead end."""
    sampler = Sampler.untrained()
    crystals = sampler.sample(20_000)
    check_against_judge(crystals)
    possible = np.flatnonzero(CrystalSpace().tables.allowed.any(1)) + 1
    assert set(crystals.space_group.tolist()) == set(possible.tolist())
    assert int((crystals.composition > 0).any(0).sum()) == 73
    assert set(crystals.n_elements.tolist()) == set(range(1, 6))
    assert set(crystals.n_atoms.tolist()) == set(range(1, 21))
    for i in range(10):
        part = sampler.sample(100_000, seed=i)
        assert sampler.space.contains(part[::100]).all()


def test_log_prob_is_the_sum_along_the_sampled_path():
    """In float64, from the turns as they were walked; and replaying the crystal gives the same number."""
    sampler = random_policy(CrystalSpace(n_atoms=(1, 12)))
    network = sampler.network.double()
    env = CrystalEnvironment(sampler.space)
    walked = rollout(env, network, 200, generator=torch.Generator().manual_seed(0))
    total = torch.zeros(200, dtype=torch.float64)
    for turn in walked.steps:
        distribution = network.distribution(env.heads[turn.head], network.trunk(turn.observation), turn.options)
        total[turn.rows] += distribution.log_prob(turn.action)
    torch.testing.assert_close(log_forward(env, network, walked), total, rtol=0, atol=1e-10)
    log_q = Sampler(sampler.space, network).log_prob(walked.objects)
    torch.testing.assert_close(log_q, total - walked.log_backward, rtol=0, atol=1e-8)


def test_replay_rebuilds_the_crystals():
    sampler = random_policy(CrystalSpace())
    crystals = sampler.sample(300)
    rebuilt = teacher_forced(CrystalEnvironment(sampler.space), crystals, 300)
    assert rebuilt.valid.all()
    assert torch.equal(rebuilt.objects.space_group, crystals.space_group)
    assert torch.equal(rebuilt.objects.composition, crystals.composition)
    torch.testing.assert_close(rebuilt.objects.lattice, crystals.lattice, rtol=1e-9, atol=1e-9)


def test_log_prob_is_minus_infinity_outside():
    space = CrystalSpace(elements=["Li", "Mn", "O"], n_atoms=(1, 10), lengths=(3, 12))
    crystals = Sampler.untrained(CrystalSpace(elements=["Li", "Mn", "O", "F"], n_atoms=(1, 12)), policy=SMALL).sample(
        800
    )
    inside = space.contains(crystals)
    log_q = Sampler.untrained(space, policy=SMALL).log_prob(crystals)
    assert 0 < inside.sum() < 800
    assert torch.equal(torch.isfinite(log_q), inside)


def brute_force(space):
    """All (group, composition) pairs of a small space, by enumeration of everything and the independent checker."""
    symbols = [elements.SYMBOLS[z - 1] for z in space.element_numbers]
    low, high = space.n_atoms
    found = []
    for counts in itertools.product(range(high + 1), repeat=len(symbols)):
        if not low <= sum(counts) <= high:
            continue
        composition = {s: n for s, n in zip(symbols, counts, strict=True) if n}
        if not space.rules.charge.neutral({elements.NUMBER[s]: n for s, n in composition.items()}):
            continue
        pattern = np.array([sorted(composition.values(), reverse=True)])
        realisable = realisable_patterns(pattern)[:, 0]
        for number in space.space_groups:
            if realisable[number - 1]:
                assert packs(number, tuple(pattern[0]))
                found.append((number, composition))
    return found


def test_the_probabilities_of_an_enumerable_space_sum_to_one():
    """Exhaustively: the discrete moves of every crystal that the rules admit, and nothing else."""
    space = CrystalSpace(
        elements=["Li", "Mn", "O"], space_groups=[1, 2, 5, 62, 166, 194, 216, 221, 225, 227], n_atoms=(1, 8)
    )
    pairs = brute_force(space)
    assert len(pairs) > 100
    sampler = random_policy(space)
    network = sampler.network.double()
    env = CrystalEnvironment(space)
    composition = torch.zeros(len(pairs), 118, dtype=torch.int64)
    for i, (_, counts) in enumerate(pairs):
        for symbol, n in counts.items():
            composition[i, elements.NUMBER[symbol] - 1] = n
    cells = {number: example_cell(space, number) for number in space.space_groups}
    lattice = torch.stack([cells[number] for number, _ in pairs])
    crystals = Crystals(torch.tensor([number for number, _ in pairs]), composition, lattice)
    walked = teacher_forced(env, crystals, len(pairs))
    total = torch.zeros(len(pairs), dtype=torch.float64)
    for turn in walked.steps:
        if turn.head in env.lattice.names:
            continue
        distribution = network.distribution(env.heads[turn.head], network.trunk(turn.observation), turn.options)
        total[turn.rows] += distribution.log_prob(turn.action)
    assert abs(float(total.detach().exp().sum()) - 1) < 1e-6
    drawn = {(int(c.space_group[0]), c.formulas()[0], int(c.n_atoms[0])) for c in sampler.sample(3000)}
    listed = {(int(c.space_group[0]), c.formulas()[0], int(c.n_atoms[0])) for c in crystals}
    assert drawn <= listed


def example_cell(space, number):
    """Any cell of the group's fundamental domain."""
    narrow = space.narrowed(space_groups=[number])
    return Sampler.untrained(narrow, policy=SMALL).sample(1).lattice[0]
