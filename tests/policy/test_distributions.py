"""Densities integrate to one on their set, samples follow them, extremes stay finite."""

import pytest
import torch

from crystalgfn.policy.distributions import MaskedCategorical, TruncatedMixture


def mixture(pieces, dtype=torch.float64):
    return TruncatedMixture(
        torch.log_softmax(torch.tensor([[0.3, -0.5, 1.0, -1.0]], dtype=dtype), 1),
        torch.tensor([[-1.0, 0.5, 3.0]], dtype=dtype),
        torch.tensor([[-1.0, -2.0, 0.5]], dtype=dtype),
        torch.tensor([pieces], dtype=torch.float64),
    )


PIECES = [[[-1.0, 2.0]], [[-2.0, -1.5], [0.0, 1.0], [1.0, 0.0]], [[40.0, 41.0]], [[0.5, 0.5 + 1e-9]]]


@pytest.mark.parametrize("pieces", PIECES)
def test_the_density_integrates_to_one(pieces):
    total = 0.0
    for low, high in pieces:
        if high <= low:
            continue
        x = torch.linspace(low, high, 20_001, dtype=torch.float64)
        x = (x[1:] + x[:-1]) / 2
        d = mixture(pieces)
        many = TruncatedMixture(
            *(
                getattr(d, n).expand(len(x), *getattr(d, n).shape[1:])
                for n in ("log_weight", "location", "log_scale", "pieces")
            )
        )
        total += float(many.log_prob(x).exp().mean() * (high - low))
    assert abs(total - 1) < 1e-5


@pytest.mark.parametrize("pieces", PIECES[:3])
def test_samples_follow_the_density(pieces):
    d = mixture(pieces)
    n = 100_000
    many = TruncatedMixture(
        *(
            getattr(d, name).expand(n, *getattr(d, name).shape[1:])
            for name in ("log_weight", "location", "log_scale", "pieces")
        )
    )
    x = many.sample(generator=torch.Generator().manual_seed(0))
    low, high = x.min(), x.max()
    edges = torch.linspace(float(low), float(high) + 1e-9, 21, dtype=torch.float64)
    counts = torch.histogram(x, edges).hist / n
    fine = torch.linspace(float(edges[0]), float(edges[-1]), 200_001, dtype=torch.float64)
    fine = (fine[1:] + fine[:-1]) / 2
    inside = torch.zeros_like(fine, dtype=torch.bool)
    for a, b in pieces:
        inside |= (fine >= a) & (fine <= b)
    grid = TruncatedMixture(
        *(
            getattr(d, name).expand(int(inside.sum()), *getattr(d, name).shape[1:])
            for name in ("log_weight", "location", "log_scale", "pieces")
        )
    )
    density = torch.zeros_like(fine)
    density[inside] = grid.log_prob(fine[inside]).exp()
    expected = density.view(20, -1).mean(1) * (edges[1] - edges[0])
    assert float((counts - expected).abs().sum()) < 0.02
    assert all(any(a <= v <= b for a, b in pieces) for v in x[:1000].tolist())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_tails_stay_finite(dtype):
    d = mixture([[500.0, 501.0]], dtype)
    assert torch.isfinite(d.log_prob(torch.tensor([500.5], dtype=torch.float64))).all()
    assert 500 <= float(d.sample()) <= 501


def test_values_outside_have_no_density():
    assert float(mixture([[0.0, 1.0]]).log_prob(torch.tensor([1.5], dtype=torch.float64))) == -torch.inf


def test_masked_actions_are_never_taken():
    logits = torch.randn(5000, 6)
    mask = torch.rand(5000, 6) < 0.4
    mask[:, 0] |= ~mask.any(1)
    d = MaskedCategorical.of(logits, mask)
    for epsilon in (0.0, 0.5):
        action = d.sample(epsilon)
        assert mask.gather(1, action[:, None]).all()
    assert torch.isfinite(d.log_prob(d.sample())).all()
    torch.testing.assert_close(d.logits.softmax(1).sum(1), torch.ones(5000))


def test_an_interval_of_a_rounding_error_has_finite_gradients():
    location = torch.zeros(1, 2, requires_grad=True)
    log_scale = torch.zeros(1, 2, requires_grad=True)
    pieces = torch.tensor([[[1.5, 1.7], [1.7, 1.7 + 4e-16]]], dtype=torch.float64)
    mixture = TruncatedMixture(torch.log_softmax(torch.zeros(1, 3), 1), location, log_scale, pieces)
    log_prob = mixture.log_prob(torch.tensor([1.6], dtype=torch.float64))
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(location.grad).all() and torch.isfinite(log_scale.grad).all()


def test_flattening_is_a_power():
    from crystalgfn.policy.distributions import MaskedCategorical

    logits = torch.tensor([[0.3, -1.2, 2.0, 0.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True]])
    flat = MaskedCategorical.of(logits, mask).tempered(torch.tensor([0.25], dtype=torch.float64))
    expected = torch.where(mask, logits.softmax(1) ** 0.25, 0.0)
    found = torch.stack([flat.log_prob(torch.tensor([i])).exp() for i in range(4)], 1)
    assert torch.allclose(found, expected / expected.sum())


def test_exploring_is_a_mixture_with_the_uniform_distribution() -> None:
    """(1 - epsilon) p + epsilon / allowed: of three allowed actions, measured and exact."""
    logits = torch.tensor([[3.0, 0.0, -1.0, 9.0]]).expand(60_000, -1)
    choices = MaskedCategorical.of(logits, torch.tensor([True, True, True, False]))
    drawn = choices.sample(0.5, torch.Generator().manual_seed(0))
    p = torch.softmax(torch.tensor([3.0, 0.0, -1.0]), 0)
    wanted = 0.5 * p + 0.5 / 3
    assert torch.allclose(torch.bincount(drawn, minlength=3)[:3] / len(drawn), wanted, atol=0.01)


def test_a_flattened_component_is_wider() -> None:
    """A logistic of scale s to the power of 1/4 is one of scale 4 s: the spread of what is drawn says so."""
    n = 40_000
    pieces = torch.tensor([[[-500.0, 500.0]]]).expand(n, -1, -1)
    alone = torch.tensor([[0.0, -400.0]]).expand(n, -1)  # no uniform part
    sharp = TruncatedMixture(alone, torch.zeros(n, 1), torch.zeros(n, 1), pieces)
    flat = sharp.tempered(torch.full((n,), 0.25))
    spread = [one.sample(0.0, torch.Generator().manual_seed(0)).std() for one in (sharp, flat)]
    assert float(spread[1] / spread[0]) == pytest.approx(4, rel=0.05)
