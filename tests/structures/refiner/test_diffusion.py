"""Noise and sampling against what is known in closed form."""

import math

import numpy as np
import pytest
import torch

from crystalgfn.crystallography.orbit_batch import OrbitBatch
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.structures.refiner import diffusion
from crystalgfn.structures.refiner.diffusion import Diffusion, Heun

SIGMAS = torch.tensor([0.003, 0.02, 0.1, 0.3, 0.5, 0.7], dtype=torch.float64)


def log_density(offset, sigma):
    images = offset[..., None] + torch.arange(-12, 13, dtype=torch.float64)
    return torch.logsumexp(-0.5 * (images / sigma) ** 2, -1) - torch.log(sigma * math.sqrt(2 * math.pi))


@pytest.mark.parametrize("sigma", SIGMAS)
def test_wrapped_score_is_the_gradient_of_the_explicit_sum(sigma):
    offset = torch.linspace(-1.7, 1.7, 203, dtype=torch.float64, requires_grad=True)
    wanted = torch.autograd.grad(log_density(offset, sigma).sum(), offset)[0]
    assert diffusion.wrapped_score(offset.detach(), sigma.expand(203)) == pytest.approx(
        wanted.numpy(), rel=1e-6, abs=1e-6
    )


def test_wrapped_score_has_period_one():
    offset, sigma = torch.rand(100, dtype=torch.float64), torch.full((100,), 0.2, dtype=torch.float64)
    score = diffusion.wrapped_score(offset, sigma)
    for shift in (-3.0, 1.0, 7.0):
        assert diffusion.wrapped_score(offset + shift, sigma) == pytest.approx(score.numpy(), abs=1e-9)
    assert diffusion.wrapped_score(-offset, sigma) == pytest.approx(-score.numpy(), abs=1e-9)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_score_rms_is_that_of_draws(sigma):
    noise = sigma * torch.randn(200_000, dtype=torch.float64)
    drawn = diffusion.wrapped_score(noise, sigma.expand(len(noise))).square().mean().sqrt()
    assert diffusion.score_rms(sigma.float()[None]).item() == pytest.approx(drawn.item(), rel=0.01)


@pytest.mark.parametrize("level", [0.02, 0.1, 0.3])
def test_orbit_score_is_the_gradient_of_the_explicit_sum(random_orbits, level):
    """Over all atoms that the representative can be, and all their images."""
    batch = OrbitBatch.of(random_orbits, torch.float64)
    sigma = torch.tensor(level, dtype=torch.float64)
    noisy = (batch.free + level * torch.randn(batch.free.shape, dtype=torch.float64)).requires_grad_()
    away, among = batch.representatives()
    total = 0.0
    for o in range(noisy.shape[1]):
        each = log_density(noisy[:, o, None] - away, sigma)  # [B, N, 3]
        each = torch.where(batch.free_mask[:, o, None], each, 0.0).sum(2)
        some = among[:, o].any(1)
        total = total + torch.logsumexp(each.masked_fill(~among[:, o], -math.inf)[some], 1).sum()
    wanted = torch.autograd.grad(total, noisy)[0]
    found = diffusion.orbit_score(batch, noisy.detach(), sigma.expand(len(batch)))
    assert found == pytest.approx((wanted * batch.free_mask).numpy(), rel=1e-6, abs=1e-6)


def test_orbit_score_is_what_can_be_known_of_the_score_of_the_noise(random_orbits):
    """The mean of one times the other is the mean square of the former: it is a conditional expectation."""
    batch = OrbitBatch.of(random_orbits, torch.float64)
    for level in (0.05, 0.15, 0.3):
        sigma, torques, squares, raw = torch.full((len(batch),), level, dtype=torch.float64), 0.0, 0.0, 0.0
        for _ in range(40):
            noise = level * torch.randn(batch.free.shape, dtype=torch.float64)
            whole = diffusion.wrapped_score(noise, sigma[:, None, None]) * batch.free_mask
            known = diffusion.orbit_score(batch, batch.free + noise, sigma)
            torques, squares, raw = (
                torques + (whole * known).sum(), squares + known.square().sum(), raw + whole.square().sum()
            )  # fmt: skip
        assert torques / squares == pytest.approx(1.0, abs=0.05)
        assert squares < raw and (level < 0.1 or squares < 0.8 * raw)


def test_uniform_at_the_highest_noise():
    sigma = torch.tensor(Diffusion().sigma_max, dtype=torch.float64)
    density = log_density(torch.linspace(-0.5, 0.5, 101, dtype=torch.float64), sigma).exp()
    assert density == pytest.approx(np.ones(101), abs=0.015)


def test_edm_preconditioning():
    sigma = torch.logspace(-3, 2, 50, dtype=torch.float64)
    skip, out, into = diffusion.c_skip(sigma), diffusion.c_out(sigma), diffusion.c_in(sigma)
    # unit variance of the network's input and of what it must say; least amplification of its errors
    assert into**2 * (diffusion.SIGMA_DATA**2 + sigma**2) == pytest.approx(np.ones(50))
    assert ((1 - skip) ** 2 * diffusion.SIGMA_DATA**2 + skip**2 * sigma**2) / out**2 == pytest.approx(np.ones(50))
    nearby = [(1 - s) ** 2 * diffusion.SIGMA_DATA**2 + s**2 * sigma**2 for s in (skip - 1e-3, skip + 1e-3)]
    assert (out**2 <= nearby[0]).all() and (out**2 <= nearby[1]).all()


def test_grid_of_noise():
    levels = Diffusion()
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert levels.sigma(times) == pytest.approx([levels.sigma_min, levels.sigma_max])
    assert levels.sigma_lattice(times) == pytest.approx([levels.lattice_min, levels.lattice_max])
    assert levels.sigma_lattice(torch.tensor(levels.time(0.7))).item() == pytest.approx(0.7, rel=1e-5)
    assert levels.time(1e9) == 1.0 and levels.time(0.0) == 0.0


CENTRE, WIDTH, Z_MEAN, Z_STD = 0.3, 0.04, 0.8, 0.5


class Analytic:
    """The exact score where u is wrapped normal around CENTRE and z is normal, both independent."""

    def __call__(self, batch, noisy, sigma, sigma_lattice, lattice):
        variance = (sigma**2 + WIDTH**2).sqrt()[:, None, None]
        score = diffusion.wrapped_score(batch.free - CENTRE, variance.expand_as(batch.free)) * batch.free_mask
        noise = sigma_lattice[:, None]
        z = noisy / diffusion.c_in(noise)
        clean = (Z_STD**2 * z + noise**2 * Z_MEAN) / (Z_STD**2 + noise**2)
        raw = (clean - diffusion.c_skip(noise) * z) / diffusion.c_out(noise).clamp_min(1e-9) if lattice else None
        return score / diffusion.score_rms(sigma)[:, None, None], raw

    def standard(self, batch, log_metric):
        return log_metric

    def metric(self, batch, z):
        return z


def general(n):
    """``n`` crystals of group 2 with one general orbit."""
    return OrbitBatch.of([OrbitStructure(2, (4.0, 5.0, 6.0, 80.0, 85.0, 75.0), (Orbit("i", 8, (0.1, 0.2, 0.3)),))] * n)


def test_sampler_draws_from_a_known_distribution():
    batch = general(2000)
    batch = batch.at(torch.rand(batch.free.shape))
    z = Diffusion().lattice_max * torch.randn(2000, 6)
    free, z = Heun()(Analytic(), Diffusion(), batch, 24, z)
    off = (free - CENTRE + 0.5) % 1 - 0.5
    assert off.mean().item() == pytest.approx(0, abs=0.003)
    assert off.std().item() == pytest.approx(WIDTH, rel=0.05)
    assert off.square().mean().item() ** 2 * 3 == pytest.approx(off.pow(4).mean().item(), rel=0.15)  # normal tails
    # noise was drawn around 0 and not around the mean, so a share Z_STD / lattice_max of the mean is missing
    assert z.mean().item() == pytest.approx(Z_MEAN * 0.95, abs=0.02)
    assert z.std().item() == pytest.approx(Z_STD, rel=0.05)


def test_sampler_with_noise_on_the_way():
    batch = general(1500)
    batch = batch.at(torch.rand(batch.free.shape))
    free, z = Heun(churn=8.0)(Analytic(), Diffusion(), batch, 24)
    off = (free - CENTRE + 0.5) % 1 - 0.5
    assert z is None
    assert off.std().item() == pytest.approx(WIDTH, rel=0.08)


def test_a_start_with_little_noise_stays_near():
    batch = general(500).at(torch.full((500, 1, 3), CENTRE + 0.05))
    levels = Diffusion()
    noisy = batch.at(batch.free + levels.sigma(torch.tensor(0.2)) * torch.randn(batch.free.shape))
    free, _ = Heun()(Analytic(), levels, noisy, 10, start=0.2)
    assert (free - CENTRE).mean().item() == pytest.approx(0.05, abs=0.02)


def test_kept_lattices_are_not_trained_on():
    batch = general(64)
    network = Analytic()
    coordinates, lattices = Diffusion(kept=1.0).loss(network, batch, torch.Generator().manual_seed(0))
    assert (coordinates > 0).all() and (lattices == 0).all()
    _, lattices = Diffusion(kept=0.0).loss(network, batch, torch.Generator().manual_seed(0))
    assert (lattices > 0).all()


def test_loss_is_least_for_the_true_score():
    """What is learned is the conditional mean: of all shifts of the exact score, none has a smaller error."""
    batch = general(4000)
    batch = batch.at(CENTRE + WIDTH * torch.randn(batch.free.shape))
    sigma, none = torch.full((4000,), 0.1), torch.zeros(4000)

    def wrong(scale):
        class Scaled(Analytic):
            def __call__(self, *arguments):
                return super().__call__(*arguments)[0] * scale, None

        generator = torch.Generator().manual_seed(1)
        return diffusion.denoising_errors(Scaled(), batch, sigma, none, False, generator)[0].mean().item()

    assert wrong(1.0) < min(wrong(0.9), wrong(1.1))
