"""Dropped modes are found from outside, and a sampler without them passes."""

import copy
import json
import math

import pytest
import torch

import crystalgfn as cg
from crystalgfn.benchmarks.log_z import bennett, compare_log_z
from crystalgfn.benchmarks.mode_coverage import check_coverage, coverage, coverage_figures, jittered_inside
from crystalgfn.errors import DataError, RewardError
from crystalgfn.policy.network import PolicyConfig
from crystalgfn.sampling.sampler import Sampler

SPACE = cg.CrystalSpace(
    elements=["Na", "K", "Cl", "O"], n_elements=(1, 3), space_groups=[2, 14, 62, 166, 221, 225], n_atoms=(1, 6)
)
TINY = PolicyConfig(width=8, blocks=0)
QUICK = {"n": 800, "keep": 0.9, "n_q": 10_000}


class OwnDensity:
    """ln R: ln q of a sampler, so that this sampler is perfect, and ln Z is 0."""

    def __init__(self, sampler, offset=0.0):
        self.sampler, self.offset = sampler, offset

    def __call__(self, crystals):
        return self.sampler.log_prob(crystals) + self.offset


class Soft:
    """ln R: a Gaussian in ln(volume per atom), and sodium is good."""

    def __call__(self, crystals):
        volume = -0.5 * ((crystals.volume_per_atom.log() - 2.9) / 0.4) ** 2
        return volume + (crystals.composition[:, 10] > 0)


@pytest.fixture(scope="module")
def perfect():
    sampler = Sampler.untrained(SPACE, policy=TINY)
    sampler.reward = OwnDensity(Sampler.untrained(SPACE, policy=TINY), 2.5)
    return sampler


@pytest.fixture(scope="module")
def crystals(perfect):
    return perfect.sample(1500, seed=11)


def without_sodium(sampler):
    """The same sampler, but sodium is 10,000 times less probable wherever there is a choice."""
    network = copy.deepcopy(sampler.network)
    with torch.no_grad():
        network.heads["element"].next.bias[10] -= math.log(1e4)
    return Sampler(sampler.space, network, sampler.reward)


def test_a_perfect_sampler_misses_nothing(perfect, crystals):
    found = coverage(perfect, crystals, n=2000)
    assert found.recall == 1
    assert found.log_z[0] == pytest.approx(2.5, abs=1e-6)
    scored = found.excess[~found.excess.isnan()]
    assert len(scored) == found.inside - found.left_out
    assert float(scored.abs().max()) < 1e-6
    assert found.inside == found.given == 1500
    assert found.left_out < 100


def test_a_forbidden_element_is_found(perfect, crystals):
    dropped = without_sodium(perfect)
    own = dropped.diagnostics(2000)
    assert own.ess > 0.5  # its own samples say that nothing is wrong
    found = coverage(dropped, crystals, jitter=0.0, n=2000)
    sodium = crystals.composition[:, 10] > 0
    # where Na is the only choice left to balance the charge, its probability is that of the choices before it
    missed = found.excess > 3
    assert not (missed & ~sodium).any()
    assert found.recall == pytest.approx(1 - float(missed.double().mean()))
    assert 0.5 * float(sodium.double().mean()) < 1 - found.recall <= float(sodium.double().mean())
    expected = perfect.log_prob(crystals) + 2.5 - found.log_z[0] - dropped.log_prob(crystals)
    torch.testing.assert_close(found.excess, expected)
    assert found.log_z[0] < 2.3  # what was dropped is missing in ln Z
    assert all("Na" in one.formula and one.excess > 3 for one in found.worst)
    first = found.worst[0]
    assert first.excess == float(found.excess.max())
    assert crystals[first.index].formulas()[0] == first.formula
    assert int(crystals.space_group[first.index]) == first.space_group
    jitter = coverage(dropped, crystals, n=2000)
    assert jitter.recall == pytest.approx(found.recall, abs=0.03)


@pytest.mark.unchecked
def test_annealing_finds_the_probability_that_was_dropped(perfect):
    sampler = Sampler(SPACE, perfect.network, Soft())
    one = compare_log_z(sampler, **QUICK)[0]
    assert one.stratum is None
    assert one.error < 0.12
    assert abs(one.difference) < 4 * one.error
    assert one.bridge_difference == pytest.approx(0, abs=0.1)
    dropped = compare_log_z(without_sodium(sampler), **QUICK)[0]
    assert dropped.difference > 0.3
    assert dropped.difference > 4 * dropped.error
    assert dropped.from_annealing == pytest.approx(one.from_annealing, abs=1e-6)  # it does not depend on the sampler
    assert dropped.from_bridge == pytest.approx(one.from_q, abs=4 * dropped.from_bridge_error + 0.05)
    assert 0 < dropped.from_bridge_error < 0.2
    own = coverage(without_sodium(sampler), dropped.annealed.crystals, jitter=0.0, n=4000)
    assert own.recall < 0.7


def test_ladder_from_a_sampler_of_ones_own(perfect):
    """Annealing from the sampler at the target itself has weights without spread."""
    one = compare_log_z(perfect, base=perfect, n=100, islands=2, n_q=500)[0]
    assert one.from_annealing == pytest.approx(2.5, abs=1e-6)
    assert one.annealed.error < 1e-6
    assert len(one.annealed.schedule.steps) == 1


def test_bennett_on_two_gaussians():
    """q = N(0, 1), R = 5 exp(-(x - 1)² / 2 s²), of which the integral is known; one tenth of p where q has nothing."""
    generator = torch.Generator().manual_seed(0)
    s = 0.7
    x, y = torch.randn(20_000, generator=generator).double(), torch.randn(5_000, generator=generator).double() * s + 1

    def log_weight(z):
        return math.log(5) - (z - 1).square() / (2 * s * s) + z.square() / 2 + math.log(2 * math.pi) / 2

    known = math.log(5 * s) + math.log(2 * math.pi) / 2
    assert bennett(log_weight(x), log_weight(y)) == pytest.approx(known, abs=0.02)
    nowhere = torch.cat([log_weight(y[500:]), torch.full((500,), torch.inf, dtype=torch.float64)])
    assert bennett(log_weight(x), nowhere) == pytest.approx(known - math.log(0.9), abs=0.02)


@pytest.mark.unchecked
def test_strata_are_compared_one_by_one():
    """ln Z of plain R in each stratum, whatever shares and ln Z the sampler keeps."""
    network = Sampler.untrained(SPACE, policy=TINY).network
    kept = torch.tensor([0.0, 3.0, -2.0, 7.0], dtype=torch.float64)
    sampler = Sampler(SPACE, network, Soft(), omega=(0.2, 0.5, 0.3), log_z=kept)
    plain = Sampler(SPACE, network, Soft())
    rows = compare_log_z(sampler, space={"n_elements": (1, 2)}, **QUICK)
    assert [one.stratum for one in rows] == [1, 2]
    for one in rows:
        assert abs(one.difference) < 4 * one.error + 0.01
        known = plain.diagnostics(10_000, space={"n_elements": (one.stratum, one.stratum)}, seed=1)
        assert one.from_q == pytest.approx(known.log_z, abs=0.1)
    found = coverage(sampler, sampler.sample(300, seed=3))
    assert set(found.log_z) == {0, 1, 2, 3}
    assert found.log_z[2] == pytest.approx(rows[1].from_q + 2.0, abs=0.1)


def test_jitter_moves_the_free_parameters_alone(crystals):
    moved, found = jittered_inside(crystals, SPACE, 0.02, torch.Generator().manual_seed(0))
    assert found.double().mean() > 0.95
    assert SPACE.contains(moved[found]).all()
    cubic = (crystals.space_group >= 195) & found
    change = (moved.lattice / crystals.lattice).log()
    assert float(change[cubic, 0].std()) == pytest.approx(0.02, rel=0.15)
    assert torch.equal(moved.lattice[cubic, 0], moved.lattice[cubic, 2])
    assert torch.equal(moved.lattice[cubic, 3:], crystals.lattice[cubic, 3:])
    monoclinic = (crystals.space_group == 14) & found & (crystals.lattice[:, 4] > 100)
    assert float((moved.lattice - crystals.lattice)[monoclinic, 4].std()) == pytest.approx(1.2, rel=0.3)
    assert torch.equal(moved.lattice[monoclinic, 3], crystals.lattice[monoclinic, 3])
    triclinic = (crystals.space_group == 2) & found
    assert (moved.lattice != crystals.lattice)[triclinic].all()


def test_crystals_outside_the_space_are_counted_and_left_out(perfect, crystals):
    foreign = Sampler.untrained(cg.CrystalSpace(elements=["Mg", "S"], n_atoms=(1, 4)), policy=TINY).sample(40)
    found = coverage(perfect, cg.Crystals.cat([foreign, crystals[:60]]), jitter=0.0, n=500)
    assert (found.given, found.inside, found.left_out) == (100, 60, 0)
    assert found.excess[:40].isnan().all()
    assert all(one.index >= 40 for one in found.worst)
    none = coverage(perfect, foreign, n=500)
    assert none.inside == 0
    assert math.isnan(none.recall)
    with pytest.raises(DataError, match="0 crystals"):
        coverage(perfect, crystals[:0])
    with pytest.raises(RewardError):
        coverage(Sampler.untrained(SPACE, policy=TINY), crystals)


@pytest.mark.unchecked
def test_the_check_prints_both_and_goes_into_a_file(perfect, crystals):
    found = check_coverage(perfect, compare_log_z(perfect, n=200, n_q=1000), crystals[:300])
    result, text = coverage_figures(found), str(found)
    assert "| all | 2.500 ± 0.000 | 1.000 | 2.500 ± 0.000 | +0.000 ± 0.000 | 2.500 ± 0.000 | +0.000 | 100.00% |" in text
    assert "Real crystals: 100.00% of" in text
    assert result["passed"] is True
    assert result["real"]["recall"] == 1
    assert json.loads(json.dumps(result)) == result
    poor = without_sodium(perfect)
    dropped = check_coverage(poor, compare_log_z(poor, n=200, n_q=1000), crystals[:300])
    assert not dropped.passed
    assert dropped.annealed[0].recall < 0.85
    assert "Na" in str(dropped)
