"""Annealing: kernels that leave their distribution alone, and ln Z as it is known by other means."""

import math

import pytest
import torch

import crystalgfn as cg
from crystalgfn.benchmarks.ais import MIX, Chains, Schedule, anneal, pilot
from crystalgfn.benchmarks.mcmc import KERNELS, Base, MoveProposals
from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.envs.lattice import LatticeMoves
from crystalgfn.gfn.diagnostics import relative_ess
from crystalgfn.policy.network import PolicyConfig
from crystalgfn.sampling.sampler import Sampler

SPACE = cg.CrystalSpace(elements=["Na", "Cl", "O"], space_groups=[2, 14, 62, 166, 221, 225], n_atoms=(1, 6))
TINY = PolicyConfig(width=8, blocks=0)


def soft(crystals):
    """ln R: a Gaussian in ln(volume per atom), fewer atoms are better, and so are long c axes."""
    volume = -0.5 * ((crystals.volume_per_atom.log() - 2.9) / 0.3) ** 2
    return volume - 0.2 * crystals.n_atoms + 0.5 * crystals.lattice[:, 2].log() + 0.02 * crystals.lattice[:, 4]


@pytest.fixture(scope="module")
def base():
    return Base(CrystalEnvironment(SPACE), Sampler.untrained(SPACE, policy=TINY).network)


@pytest.fixture(scope="module")
def uneven():
    """A policy with preferences of its own (a uniform one would hide what is forgotten of ln q0), and its crystals."""
    network = Sampler.untrained(SPACE, policy=TINY).network
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in network.heads.named_parameters():
            scale = 0.7 if name.split(".")[0] in LatticeMoves.names else 0.1
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    base = Base(CrystalEnvironment(SPACE), network)
    crystals, log_q = base.draw(100_000, generator)
    return base, crystals, log_q, soft(crystals)


@pytest.fixture(scope="module")
def exact(base):
    """100,000 crystals of q0 with ln q0 and ln R: all that there is to know of the small space."""
    crystals, log_q = base.draw(100_000, torch.Generator().manual_seed(7))
    return crystals, log_q, soft(crystals)


@pytest.fixture(scope="module")
def log_z(exact):
    weight = exact[2] - exact[1]
    assert float(relative_ess(weight)) > 0.02
    return float(weight.logsumexp(0) - math.log(len(weight)))


def features(crystals):
    """What may not drift: each pair of group and composition, and the lattice."""
    pair = crystals.space_group * 1000 + crystals.composition[:, [7, 10, 16]] @ torch.tensor([100, 10, 1])
    lattice = torch.cat([crystals.lattice[:, :3].log(), crystals.lattice[:, 3:] / 60], 1)
    return pair, torch.cat([lattice, lattice.square(), crystals.volume_per_atom.log()[:, None]], 1)


@pytest.mark.parametrize("t", [0.1, 0.4])
@pytest.mark.parametrize("name", [*KERNELS, "all"])
def test_a_kernel_leaves_its_distribution_as_it_is(uneven, name, t):
    """From exact samples of pi_t, after 12 moves: the same shares of (group, composition), the same cells."""
    n = 4000
    base, crystals, log_q, log_r = uneven
    weight = torch.softmax(t * (log_r - log_q), 0)
    start = torch.multinomial(weight, n, replacement=True, generator=torch.Generator().manual_seed(1))
    mix = MIX if name == "all" else {name: 1.0}
    chains = Chains(base, soft, n, 2, mix)
    chains.crystals, chains.log_q, chains.log_r = crystals[start], log_q[start], log_r[start].double()
    for _ in range(12):
        chains.sweep(t, 0.3)
    assert all(0.02 < before < 1 for before, _ in chains.acceptance().values())
    assert SPACE.contains(chains.crystals).all()
    torch.testing.assert_close(chains.log_r, soft(chains.crystals).double())
    pair, cells = features(crystals)
    pair_after, cells_after = features(chains.crystals)
    values, inverse = pair.unique(return_inverse=True)
    expected = torch.zeros(len(values), dtype=torch.float64).index_add(0, inverse, weight)
    found = torch.bincount(torch.searchsorted(values, pair_after), minlength=len(values)) / n
    common = expected > 20 / n
    assert common.sum() > 15
    noise = 1 / n + 1 / (len(weight) * float(relative_ess(weight.log())))  # of the chains and of what is expected
    score = ((found - expected) / (expected * noise).sqrt())[common]
    assert float(score.abs().max()) < 5
    assert float(score.square().mean()) < 2
    mean = weight @ cells
    spread = (weight @ (cells - mean).square()).sqrt().clamp_min(1e-9) * math.sqrt(noise)
    assert float(((cells_after.mean(0) - mean) / spread).abs().max()) < 5


def test_islands_are_unbiased(base, log_z):
    """The mean of Z over 500 islands of four chains, on three temperatures only, is Z."""
    schedule = Schedule((0.0, 0.2, 0.5, 1.0), (0.5, 0.4, 0.3), 1)
    for resample in (False, True):
        result = anneal(base, soft, 2000, 500, schedule, resample=resample, seed=3, final_sweeps=0)
        ratio = (result.islands - log_z).exp()
        error = float(ratio.std()) / math.sqrt(len(ratio))
        assert error < 0.12
        assert abs(float(ratio.mean()) - 1) < 4 * error + 0.02


@pytest.mark.parametrize("resample", [False, True])
def test_log_z_is_that_of_importance_sampling(base, exact, log_z, resample):
    result = anneal(base, soft, 1200, keep=0.9, resample=resample, seed=5)
    assert result.error < 0.12
    assert abs(result.log_z - log_z) < 4 * result.error + 0.02
    assert abs(result.log_z - log_z) < 0.2
    # the chains' ends are crystals of the target
    weight = torch.softmax(exact[2] - exact[1], 0)
    for prop in (
        lambda c: c.n_atoms.double(),
        lambda c: (c.space_group == 2).double(),
        lambda c: c.lattice[:, 2].log(),
    ):
        expected = weight @ prop(exact[0])
        spread = (weight @ (prop(exact[0]) - expected).square()).sqrt()
        assert abs(float((prop(result.crystals).mean() - expected) / spread)) < 0.2
    assert SPACE.contains(result.crystals).all()
    torch.testing.assert_close(result.log_reward, soft(result.crystals).double())
    assert result.schedule.temperatures[0] == 0
    assert result.schedule.temperatures[-1] == 1
    assert "ln Z" in str(result)


@pytest.mark.unchecked
def test_a_reward_far_from_the_base_needs_more_temperatures(base, exact):
    def sharp(crystals):
        return 4 * soft(crystals)

    near, far = pilot(base, soft, 200, 0.9, 1), pilot(base, sharp, 200, 0.9, 1)
    assert len(far.steps) > len(near.steps) + 2
    assert far.steps[-1] < near.steps[-1]  # and smaller steps of the lattice
    crystals, log_q, _ = exact
    weight = sharp(crystals) - log_q
    result = anneal(base, sharp, 1200, schedule=far, seed=2)
    known = float(weight.logsumexp(0) - math.log(len(weight)))
    noise = math.sqrt((1 / float(relative_ess(weight)) - 1) / len(weight))
    assert abs(result.log_z - known) < 4 * math.hypot(result.error, noise)


def test_the_prefix_stays_and_the_rest_is_drawn(base):
    crystals, log_q = base.draw(500, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    cut = torch.full((500,), base.n_moves)
    same, value = base.complete(crystals, cut, generator)
    assert torch.equal(same.composition, crystals.composition)
    torch.testing.assert_close(same.lattice, crystals.lattice)
    torch.testing.assert_close(value, log_q)
    after = torch.full((500,), base.order["count0"])
    other, value = base.complete(crystals, after, generator)
    assert torch.equal(other.space_group, crystals.space_group)
    assert not torch.equal(other.composition, crystals.composition)
    assert torch.isfinite(value).all()
    last, _ = base.complete(crystals, torch.full((500,), base.order["volume"]), generator)
    assert torch.equal(last.composition, crystals.composition)
    shape = crystals.lattice[:, :3] / crystals.lattice[:, :1]
    torch.testing.assert_close(last.lattice[:, :3] / last.lattice[:, :1], shape)
    assert float((last.lattice / crystals.lattice - 1).abs().amax(1).median()) > 0.01


def test_moves_are_cut_in_the_order_in_which_they_are_made(base):
    env = base.env
    state = env.initial(1)
    assert [name for name, _ in env.turns(state)] == list(base.order)


def test_cells_outside_the_space_are_refused_even_by_a_hair(base):
    """A forced walk forgives small deviations; a chain may not rest in that seam."""
    crystals, _ = base.draw(400, torch.Generator().manual_seed(0))
    volume = crystals.volume_per_atom
    limit = SPACE.volume_per_atom[1]
    scale = (limit * 1.0005 / volume) ** (1 / 3)
    lattice = torch.cat([crystals.lattice[:, :3] * scale[:, None], crystals.lattice[:, 3:]], 1)
    beyond = cg.Crystals(crystals.space_group, crystals.composition, lattice)
    _, log_q = base.complete(beyond, torch.full((400,), base.n_moves), torch.Generator())
    assert torch.isinf(log_q).all()


def test_proposals_change_only_what_they_name(base):
    crystals, _ = base.draw(2000, torch.Generator().manual_seed(0))
    propose = MoveProposals(SPACE, base.n_moves, torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)

    def proposed(name):
        kernel = torch.full((2000,), KERNELS.index(name))
        plan, cut, possible = propose(crystals, kernel, 0.2, generator)
        assert ((cut < base.n_moves) == (name == "regenerate")).all()
        return plan[possible], crystals[possible]

    plan, old = proposed("lattice")
    assert torch.equal(plan.space_group, old.space_group)
    assert torch.equal(plan.composition, old.composition)
    hexagonal = old.space_group == 166
    assert torch.equal(plan.lattice[hexagonal, 0], plan.lattice[hexagonal, 1])
    assert (plan.lattice[hexagonal, 5] == 120).all()
    assert not torch.equal(plan.lattice[:, 3:], old.lattice[:, 3:])
    plan, old = proposed("elements")
    assert torch.equal(plan.composition.sort(1).values, old.composition.sort(1).values)
    assert not torch.equal(plan.composition, old.composition)
    plan, old = proposed("counts")
    assert torch.equal(plan.composition > 0, old.composition > 0)
    torch.testing.assert_close(plan.volume_per_atom, old.volume_per_atom)
    plan, old = proposed("group")
    assert torch.equal(plan.composition, old.composition)
    torch.testing.assert_close(plan.volume_per_atom, old.volume_per_atom)
    cubic = old.space_group >= 195
    assert set(plan.space_group[cubic].tolist()) == {221, 225}


def test_settings_that_mean_nothing_are_named(base):
    with pytest.raises(ValueError, match="two islands"):
        anneal(base, soft, 100, islands=1)
    with pytest.raises(ValueError, match="keep=1.5"):
        pilot(base, soft, 100, keep=1.5)
    with pytest.raises(ValueError, match="shake"):
        Chains(base, soft, 10, 0, {"shake": 1.0})
