"""Objectives: zero exactly where they should be, and right about what they add."""

import pytest
import torch

from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.gfn.objectives import (
    SHAPES,
    SubTrajectoryBalance,
    TrajectoryBalance,
    VarGrad,
    least_loss,
    regression_loss,
)
from crystalgfn.gfn.rollout import rollout
from crystalgfn.gfn.scoring import FlowHead, Scored, log_forward, score
from crystalgfn.policy.network import PolicyConfig, PolicyNetwork
from crystalgfn.space.space import CrystalSpace

ZERO = torch.zeros(4, dtype=torch.int64)


def scored(**parts):
    return Scored(**{k: torch.tensor(v, dtype=torch.bool if k == "asked" else torch.float64) for k, v in parts.items()})


def test_a_balanced_flow_has_no_loss():
    """ln F = ln Z + moves so far, along two paths of different lengths."""
    steps = [[-1.0, -0.5, -0.25], [-2.0, 0.0, -0.75]]
    flows = [[9.0, -1.0, -1.5], [9.0, 9.0, -2.0]]  # less ln Z; the first state's is not asked (it is Z)
    found = scored(
        log_forward=[-1.75, -2.75], log_backward=[-1.0, -1.0], steps=steps, flows=flows,
        asked=[[True, True, True], [True, False, True]],
    )  # fmt: skip
    log_z = torch.tensor([3.0], dtype=torch.float64)
    log_reward = torch.tensor([3.0 - 1.75 + 1.0, 3.0 - 2.75 + 1.0], dtype=torch.float64)
    for objective in (SubTrajectoryBalance(lam=0.7), TrajectoryBalance(), TrajectoryBalance(huber=0.1)):
        loss, delta = objective(found, log_reward, log_z, ZERO[:2])
        assert float(loss) == 0
        assert torch.equal(delta, torch.zeros(2, dtype=torch.float64))
    loss, _ = SubTrajectoryBalance()(found, log_reward + 1, log_z, ZERO[:2])
    assert float(loss) > 0


def test_subtb_is_the_weighted_sum_over_pieces():
    """Against a loop over all pairs of states."""
    generator = torch.Generator().manual_seed(0)
    steps, flows = (torch.randn(5, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    asked = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 1], [1, 0, 0, 1]]).bool()
    steps = torch.where(asked, steps, 0.0)
    log_reward, log_backward = (torch.randn(5, dtype=torch.float64, generator=generator) for _ in range(2))
    log_z = torch.tensor([0.7, -0.3], dtype=torch.float64)
    stratum = torch.tensor([0, 1, 0, 1, 1])
    found = Scored(log_forward=steps.sum(1), log_backward=log_backward, steps=steps, flows=flows, asked=asked)
    loss, _ = SubTrajectoryBalance(lam=0.8)(found, log_reward, log_z, stratum)
    total = 0.0
    for b in range(5):
        z = log_z[stratum[b]]
        moves = [i for i in range(4) if asked[b, i]]
        potentials = [z, *(z + flows[b, i] for i in moves[1:]), log_reward[b] + log_backward[b]]
        above = below = 0.0
        for i in range(len(potentials)):
            for j in range(i + 1, len(potentials)):
                delta = potentials[i] + sum(steps[b, moves[t]] for t in range(i, j)) - potentials[j]
                above, below = above + 0.8 ** (j - i) * delta**2, below + 0.8 ** (j - i)
        total += above / below
    assert float(loss) == pytest.approx(float(total / 5), rel=1e-12)


def test_flows_do_not_change_log_probabilities():
    env = CrystalEnvironment(CrystalSpace(elements=["Na", "Cl"], n_atoms=(1, 6), space_groups=[2, 225]))
    torch.manual_seed(0)
    network = PolicyNetwork.for_environment(PolicyConfig(width=16, blocks=1), env).double()
    walked = rollout(env, network, 50, generator=torch.Generator().manual_seed(0))
    plain = log_forward(env, network, walked)
    found = score(env, network, walked, flow=FlowHead(16, tuple(env.heads)).double())
    assert torch.allclose(plain, found.log_forward, atol=1e-12)
    assert torch.allclose(found.steps.sum(1), plain, atol=1e-12)
    assert not found.steps[~found.asked].any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("huber", [None, 1.0])
def test_no_other_centre_has_less_loss(shape, huber):
    """Against a fine grid, for each group apart; members without weight do not count."""
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(60, dtype=torch.float64, generator=generator) - 40
    group = torch.arange(60) % 3
    weight = torch.rand(60, dtype=torch.float64, generator=generator).masked_fill(torch.arange(60) < 9, 0.0)
    found = least_loss(x, weight, group, huber, shape)
    for g in range(3):
        here = group == g
        grid = torch.linspace(-46, -34, 6001, dtype=torch.float64)
        loss = (weight[here] * regression_loss(x[here] - grid[:, None], huber, shape)).sum(1)
        assert found[here].unique().numel() == 1
        assert float(found[here][0]) == pytest.approx(float(grid[loss.argmin()]), abs=2.1e-3)


def test_the_centre_of_linex_is_ln_z_by_importance_weights():
    x = 3 * torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) - 700
    found = least_loss(x, torch.ones(50, dtype=torch.float64), torch.zeros(50, dtype=torch.int64), None, "linex")
    by_weights = (-x).logsumexp(0) - torch.tensor(50.0, dtype=torch.float64).log()
    torch.testing.assert_close(-found, by_weights.expand(50), rtol=0, atol=1e-9)


def test_vargrad_measures_from_the_mean_of_own_draws():
    ratio = torch.tensor([1.0, 3.0, 10.0, 7.0], dtype=torch.float64)
    found = Scored(log_forward=ratio, log_backward=torch.zeros(4, dtype=torch.float64))
    stratum = torch.tensor([5, 5, 5, 2])  # a stratum with no own draw: all of it counts
    own = torch.tensor([True, True, False, False])
    _, delta = VarGrad()(found, torch.zeros(4), torch.zeros(6), stratum, own)
    assert delta.tolist() == [-1, 1, 8, 0]
    _, delta = VarGrad()(found, torch.zeros(4), torch.zeros(6), ZERO)
    assert delta.tolist() == pytest.approx([-4.25, -2.25, 4.75, 1.75])


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="huber=-1"):
        VarGrad(huber=-1)
    with pytest.raises(ValueError, match="lam=0"):
        SubTrajectoryBalance(lam=0)
    found = Scored(log_forward=torch.zeros(4), log_backward=torch.zeros(4))
    with pytest.raises(ValueError, match="flow head"):
        SubTrajectoryBalance()(found, torch.zeros(4), torch.zeros(1), ZERO)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_loss_is_least_at_balance_and_goes_on_linearly(shape: str) -> None:
    """Near 0 all are delta²; beyond the width the slope stays, without a jump."""
    delta = torch.tensor([-7.0, -3.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 3.0, 7.0], dtype=torch.float64, requires_grad=True)
    loss = regression_loss(delta, 2.0, shape)
    (slope,) = torch.autograd.grad(loss.sum(), delta)
    loss = loss.detach()
    assert float(loss[4]) == 0 and (loss >= 0).all()
    assert loss[3:6].tolist() == pytest.approx([1e-6, 0, 1e-6], rel=1e-3)
    assert slope[0] == slope[1] < slope[2] and slope[-1] == slope[-2] > slope[-3]
    assert float(loss[0] - loss[1]) == pytest.approx(-4 * float(slope[0]), rel=1e-12)
    numeric = (regression_loss(delta + 1e-6, 2.0, shape) - regression_loss(delta - 1e-6, 2.0, shape)) / 2e-6
    assert torch.allclose(numeric.detach(), slope, atol=1e-5)


def test_linex_has_the_gradient_of_the_forward_divergence() -> None:
    """Of KL(p | q) for a categorical q with its exact ln Z, the mean over the policy's own draws taken exactly."""
    target = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    logits = torch.tensor([0.1, -0.4, 0.7, 0.2], dtype=torch.float64, requires_grad=True)
    log_q = logits.log_softmax(0)
    delta = log_q - target.log()
    loss = (log_q.exp().detach() * regression_loss(delta, None, "linex")).sum()
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (forward,) = torch.autograd.grad(2 * (target * (target.log() - log_q)).sum(), logits)
    assert torch.allclose(gradient, forward, atol=1e-12)


@pytest.mark.parametrize("objective", [TrajectoryBalance, VarGrad])
def test_an_unknown_shape_is_refused(objective: type) -> None:
    with pytest.raises(ValueError, match="shape='cubic': choose one of square, linex, cosh"):
        objective(shape="cubic")
