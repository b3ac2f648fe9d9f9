"""Exactness figures: right where the truth is known, and not blind where something is wrong."""

import math

import pytest
import torch

import crystalgfn as cg
from crystalgfn.benchmarks import exactness
from crystalgfn.benchmarks.exactness import SoftVolume, marginal, marginals, variation
from crystalgfn.envs.hypergrid import HyperGrid
from crystalgfn.gfn.objectives import TrajectoryBalance
from crystalgfn.policy.network import PolicyConfig
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.utils.provenance import markdown_table

SMALL = PolicyConfig(width=32, blocks=1, components=3)


def test_marginals_and_variation_of_known_shares():
    keys = torch.tensor([[1, 2], [1, 3], [1, 2], [4, 0]])
    weights = torch.tensor([1.0, 2.0, 1.0, 4.0], dtype=torch.float64)
    found = marginal(keys, weights)
    assert found == {(1, 2): 0.25, (1, 3): 0.25, (4, 0): 0.5}
    assert variation(found, {(1, 2): 0.25, (1, 3): 0.75}) == pytest.approx(0.5)
    assert variation(found, found) == 0


def test_a_sampler_is_exact_for_its_own_density():
    space = cg.CrystalSpace(elements=["Na", "Cl"], space_groups=[2, 225], n_atoms=(1, 4))
    sampler = Sampler.untrained(space, policy=SMALL)

    class Own(SoftVolume):
        """q itself, times e²."""

        def __call__(self, crystals):
            return sampler.log_prob(crystals) + 2

    drawn, target, log_z = marginals(sampler, Own(), 500)
    assert variation(drawn, target) < 1e-9
    assert log_z == pytest.approx(2)
    assert all(number in (2, 225) for number, *_ in drawn)


@pytest.mark.unchecked
def test_a_short_training_comes_near_and_says_how_near():
    found = exactness.small_space(6, n=20_000, policy=SMALL)
    assert 40 <= found.pairs <= 59  # few draws may miss the rarest
    assert found.trained > 0
    assert found.trained % 512 == 0
    assert 6 <= found.seconds < 60
    assert 0 < found.ess <= 1
    before, target, _ = marginals(Sampler.untrained(cg.CrystalSpace(**exactness.SPACE)), SoftVolume(), 20_000)
    assert found.variation < variation(before, target)
    assert found.log_z == pytest.approx(2.65, abs=0.15)


@pytest.mark.unchecked
def test_longer_training_on_the_hypergrid_comes_nearer():
    few, more = (exactness.hypergrid(HyperGrid(2, 8), TrajectoryBalance(), steps) for steps in (20, 200))
    assert (few.trajectories, more.trajectories) == (320, 3200)
    assert more.error < few.error
    assert abs(more.log_z_error) < abs(few.log_z_error)


def test_quadrature_sees_a_density_that_is_too_large():
    number, counts, free, _ = exactness.CASES[0]
    sampler = Sampler.untrained(exactness.cell_space(number, counts), policy=SMALL)
    true = sampler.log_prob
    sampler.log_prob = lambda crystals: true(crystals) + 0.1
    assert exactness.density_mass(sampler, number, counts, free, 12) == pytest.approx(math.exp(0.1), abs=2e-3)


def test_tables_hold_every_figure():
    small = exactness.SmallSpace(
        pairs=59,
        missing=0,
        variation=0.002,
        noise=0.011,
        ess=0.996,
        log_z=2.65,
        log_z_error=0.01,
        trained=51200,
        seconds=120.0,
    )
    grids = [exactness.Grid(dimensions=2, height=8, trajectories=32000, error=2.7e-4, log_z_error=0.003)]
    text = exactness.exactness_tables(small, grids, [exactness.GridDensity(225, 1, 8192, 1.0)])
    for word in ("0.002", "0.996", "8^2", "2.7e-04", "8192"):
        assert word in text


def test_markdown():
    assert markdown_table(("a", "b", "c"), [("x", 1.0, None), ("y", 12345.6, 2)]).splitlines() == [
        "| a | b | c |",
        "| --- | ---: | ---: |",
        "| x | 1 |  |",
        "| y | 12,346 | 2 |",
    ]
