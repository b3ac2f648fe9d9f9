"""Diffusion on the free coordinates of orbits (a torus) and on the free lattice coefficients, jointly.

Names follow Karras et al. 2022 (EDM). Coordinates u have period 1 and wrapped-normal noise (Jing et al. 2022, Jiao et
al. 2023): the network predicts the score over its root mean square at each noise level, since EDM's preconditioning has
no meaning on a circle. Lattices are coefficients z of unit variance, with EDM's full preconditioning. One grid of steps
serves both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch

from crystalgfn.crystallography.lattice_vectors import free_of
from crystalgfn.crystallography.orbit_batch import OrbitBatch
from crystalgfn.typing import Booleans, Cells, Floats, LogMetrics, OfOrbits

SIGMA_DATA = 1.0
"""Standard deviation of the lattice coefficients z."""
WIDEST = 8.0
"""Largest coefficient z of a denoised lattice; with none, a poor network could lead to cells beyond all numbers."""
EDGES, FLATTEST = (0.05, 2000.0), 1e-4
"""Å of a primitive cell, and its volume over the product of its edges; what is beyond has run away."""
IMAGES = 4
"""Periods on either side that the wrapped normal is summed over; at sigma = 0.7 the next is 1e-7."""


def wrapped_score(offset: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """d ln p / d offset of the wrapped normal of period 1, p = sum over n of N(offset + n; 0, sigma^2)."""
    images = offset[..., None] + torch.arange(-IMAGES, IMAGES + 1, device=offset.device, dtype=offset.dtype)
    images = images - offset[..., None].round()
    variance = sigma[..., None] ** 2
    weights = torch.softmax(-0.5 * images**2 / variance, dim=-1)
    return -(weights * images).sum(-1) / variance[..., 0]


def orbit_score(batch: OrbitBatch, noisy: OfOrbits, sigma: Floats) -> OfOrbits:
    """d ln p / du at ``noisy``: p is the wrapped normal, summed over every atom that can represent its orbit.

    An orbit is no other where another of its atoms represents it, so what a network can learn is the score of this sum
    (the heat kernel of the orbifold); that of the atom which happens to be first only adds variance.
    """
    away, among = batch.representatives()
    gap = (batch.of_atoms(noisy) - away)[..., None]
    variance = sigma[:, None, None, None] ** 2
    images = gap + torch.arange(-IMAGES, IMAGES + 1, device=gap.device, dtype=gap.dtype) - gap.round()
    exponents = -0.5 * images**2 / variance
    score = -(torch.softmax(exponents, -1) * images).sum(-1) / variance[..., 0]
    log_density = (exponents.logsumexp(-1) * batch.of_atoms(batch.free_mask)).sum(-1)
    weights = torch.softmax(log_density[:, None].masked_fill(~among, -math.inf), -1).nan_to_num()
    return (weights @ score) * batch.free_mask


@lru_cache(maxsize=8)
def _rms_table(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """ln sigma and ln of sigma times the root mean square of the score, by quadrature."""
    log_sigma = torch.linspace(math.log(0.01), math.log(2.0), 256, dtype=torch.float64)
    sigma = log_sigma.exp()[:, None]
    offset = (torch.arange(4000, dtype=torch.float64) + 0.5)[None] / 4000 - 0.5
    images = offset[..., None] + torch.arange(-10.0, 11.0, dtype=torch.float64)
    density = torch.exp(-0.5 * (images / sigma[..., None]) ** 2).sum(-1)
    score = wrapped_score(offset.expand(len(sigma), -1), sigma)
    mean_square = (density * score**2).sum(1) / density.sum(1)
    return log_sigma.float().to(device), (sigma[:, 0] * mean_square.sqrt()).log().float().to(device)


def score_rms(sigma: torch.Tensor) -> torch.Tensor:
    """Root mean square of the wrapped normal's score; 1 / sigma for a narrow one."""
    grid, values = _rms_table(sigma.device)
    place = ((sigma.log() - grid[0]) / (grid[1] - grid[0])).clamp(0, len(grid) - 1.001)
    left = place.long()
    return torch.lerp(values[left], values[left + 1], place - left).exp() / sigma


def c_skip(sigma: torch.Tensor) -> torch.Tensor:
    """EDM's weight of the noisy lattice in the denoised one."""
    return SIGMA_DATA**2 / (sigma**2 + SIGMA_DATA**2)


def c_out(sigma: torch.Tensor) -> torch.Tensor:
    """EDM's weight of the network in the denoised lattice."""
    return sigma * SIGMA_DATA / (sigma**2 + SIGMA_DATA**2).sqrt()


def c_in(sigma: torch.Tensor) -> torch.Tensor:
    """EDM's scale of the noisy lattice that the network sees."""
    return 1 / (sigma**2 + SIGMA_DATA**2).sqrt()


class Network(Protocol):
    """What is trained; `score_network.ScoreNetwork` is one."""

    def __call__(
        self, batch: OrbitBatch, noisy: LogMetrics, sigma: Floats, sigma_lattice: Floats, lattice: bool
    ) -> tuple[OfOrbits, LogMetrics]:
        """Normalised score of ``batch.free``, and EDM's F of the lattice; zeros unless ``lattice`` asks for it.

        Args:
            batch: at noisy coordinates, in the lattice c_skip z.
            noisy: c_in z.
            sigma: noise of the coordinates.
            sigma_lattice: noise of z; 0 for a lattice that is kept.
            lattice: whether the lattice moves.
        """
        ...

    def standard(self, batch: OrbitBatch, log_metric: LogMetrics) -> LogMetrics:
        """Lattice coefficients k as z."""
        ...

    def metric(self, batch: OrbitBatch, z: LogMetrics) -> LogMetrics:
        """Coefficients z as k."""
        ...


def denoise(
    network: Network, batch: OrbitBatch, z: LogMetrics, sigma: Floats, sigma_lattice: Floats, lattice: bool
) -> tuple[OfOrbits, LogMetrics]:
    """The score of the coordinates over its root mean square, and the denoised z.

    Both are NaN for a crystal whose cell ran away from all crystals, as it may with few steps.
    """
    if not lattice:
        return network(batch, z, sigma, sigma_lattice, False)[0], z
    noise = sigma_lattice[:, None]
    # the cell that the network sees is the mean of those that the noisy one may stand for
    seen = batch.at(log_metric=network.metric(batch, c_skip(noise) * z))
    sound = _sound(seen.cells())
    mean = network.metric(batch, torch.zeros_like(z))
    seen = seen.at(log_metric=torch.where(sound[:, None], seen.log_metric, mean))
    field, raw = network(seen, c_in(noise) * z, sigma, sigma_lattice, True)
    denoised = c_skip(noise) * z + c_out(noise) * raw
    return torch.where(sound[:, None, None], field, torch.nan), torch.where(sound[:, None], denoised, torch.nan)


def _sound(cells: Cells) -> Booleans:
    """Which cells have edges and a volume as crystals may have, [B]."""
    edges = torch.linalg.vector_norm(cells, dim=2)
    flatness = torch.linalg.det(cells).abs() / edges.prod(1)
    return (edges.amin(1) > EDGES[0]) & (edges.amax(1) < EDGES[1]) & (flatness > FLATTEST)


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """Noise levels.

    Attributes:
        sigma_min, sigma_max: of the coordinates; at 0.5 their distribution is uniform within 1.5 %.
        lattice_min, lattice_max: of z.
        rho: of the grid of steps.
        kept: share of the crystals with free coordinates that are trained with their lattice kept.
        jitter: how far, in time from 0 to 1, the noise of coordinates and lattice may be apart in training.
    """

    sigma_min: float = 0.003
    sigma_max: float = 0.5
    lattice_min: float = 0.01
    lattice_max: float = 10.0
    rho: float = 7.0
    kept: float = 0.5
    jitter: float = 0.2

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """Noise of the coordinates at time 0 (least) to 1 (most)."""
        return _power(t, self.sigma_min, self.sigma_max, self.rho)

    def sigma_lattice(self, t: torch.Tensor) -> torch.Tensor:
        """Noise of z at time 0 to 1."""
        return _power(t, self.lattice_min, self.lattice_max, self.rho)

    def time(self, sigma_lattice: float) -> float:
        """The time at which z has this noise, 0 to 1."""
        low, high, value = (x ** (1 / self.rho) for x in (self.lattice_min, self.lattice_max, sigma_lattice))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def loss(
        self, network: Network, batch: OrbitBatch, generator: torch.Generator | None = None
    ) -> tuple[Floats, Floats]:
        """Mean squares of the errors in score and lattice of each crystal at noise drawn for it, [B] each.

        A zero stands for what a crystal does not have: free coordinates, or a lattice that is not kept.
        """
        time, share = torch.rand(2, len(batch), generator=generator).to(batch.free)
        apart = self.jitter * torch.randn(len(batch), generator=generator).to(batch.free)
        moving = (share >= self.kept) | ~batch.free_mask.flatten(1).any(1)
        sigma_lattice = torch.where(moving, self.sigma_lattice((time + apart).clamp(0, 1)), 0.0)
        return denoising_errors(network, batch, self.sigma(time), sigma_lattice, True, generator)


def denoising_errors(
    network: Network,
    batch: OrbitBatch,
    sigma: Floats,
    sigma_lattice: Floats,
    lattice: bool,
    generator: torch.Generator | None = None,
) -> tuple[Floats, Floats]:
    """Mean squares of the errors in score and lattice of each crystal under noise of given levels, [B] each.

    The score is over its root mean square, the lattice has EDM's weight lambda.
    """
    noise = torch.randn(batch.free.shape, generator=generator).to(batch.free) * sigma[:, None, None]
    z = network.standard(batch, batch.log_metric)
    noisy = z
    if lattice:
        noisy = z + torch.randn(z.shape, generator=generator).to(z) * sigma_lattice[:, None]
    target = batch.without_drift(orbit_score(batch, batch.free + noise, sigma))
    target = target / score_rms(sigma)[:, None, None]
    field, denoised = denoise(network, batch.at(batch.free + noise), noisy, sigma, sigma_lattice, lattice)
    coordinates = (field - target).square().sum((1, 2)) / batch.free_mask.sum((1, 2)).clamp_min(1)
    moves = free_of(batch.space_group) & (sigma_lattice > 0)[:, None]
    weight = 1 / c_out(torch.where(sigma_lattice > 0, sigma_lattice, 1.0)).square()
    wrong = (denoised - z).square() * moves * weight[:, None]
    return coordinates, wrong.sum(1) / moves.sum(1).clamp_min(1)


def _power(t: torch.Tensor, low: float, high: float, rho: float) -> torch.Tensor:
    return (low ** (1 / rho) + t * (high ** (1 / rho) - low ** (1 / rho))) ** rho


class Integrator(Protocol):
    """Takes noisy coordinates and lattices to clean ones."""

    def __call__(
        self,
        network: Network,
        diffusion: Diffusion,
        batch: OrbitBatch,
        steps: int,
        z: LogMetrics | None = None,
        start: float = 1.0,
        start_lattice: float = 1.0,
    ) -> tuple[OfOrbits, LogMetrics | None]:
        """Free coordinates and, where the lattice moves, z.

        The batch is at the noisy coordinates, in its lattice where that is kept (``z`` None); the times of the noise of
        coordinates and lattices are from 0 to 1 (uniform coordinates); there are ``steps`` in the grid of noise levels.
        """
        ...


@dataclass(frozen=True)
class Heun:
    """The second-order steps of Karras et al. 2022 (EDM): 2 ``steps`` - 1 evaluations of the network.

    Attributes:
        churn: EDM's S_churn; noise that is added on the way, the same for a batch of the same shape.
        seed: of that noise.
    """

    churn: float = 0.0
    seed: int = 0

    @torch.no_grad()
    def __call__(
        self,
        network: Network,
        diffusion: Diffusion,
        batch: OrbitBatch,
        steps: int,
        z: LogMetrics | None = None,
        start: float = 1.0,
        start_lattice: float = 1.0,
    ) -> tuple[OfOrbits, LogMetrics | None]:
        """See `Integrator`."""
        lattice = z is not None
        times = torch.linspace(1, 0, steps, device=batch.free.device, dtype=batch.free.dtype)
        zero = times.new_zeros(1)
        grid = torch.cat([diffusion.sigma(start * times), zero]).tolist()
        grid_lattice = [0.0] * (steps + 1)
        if lattice:
            grid_lattice = torch.cat([diffusion.sigma_lattice(start_lattice * times), zero]).tolist()
        free, z = batch.free, z if lattice else network.standard(batch, batch.log_metric)
        gamma = min(self.churn / steps, math.sqrt(2) - 1)
        generator = torch.Generator().manual_seed(self.seed)

        def slope(u: OfOrbits, z: LogMetrics, s: float, s_z: float) -> tuple[OfOrbits, LogMetrics]:
            """du / dsigma = -sigma score, dz / dsigma = (z - D) / sigma."""
            sigma, sigma_lattice = z.new_full((len(z),), s), z.new_full((len(z),), s_z)
            field, clean = denoise(network, batch.at(u), z, sigma, sigma_lattice, lattice)
            pull = (z - clean.clamp(-WIDEST, WIDEST)) / s_z if lattice else torch.zeros_like(z)
            return -field * s * score_rms(sigma)[:, None, None], pull

        for i in range(steps):
            s, after = grid[i], grid[i + 1]
            s_z, after_z = grid_lattice[i], grid_lattice[i + 1]
            if gamma > 0 and after > 0:
                extra = math.sqrt((1 + gamma) ** 2 - 1)
                free = free + s * extra * torch.randn(free.shape, generator=generator).to(free)
                z = z + s_z * extra * torch.randn(z.shape, generator=generator).to(z)
                s, s_z = s * (1 + gamma), s_z * (1 + gamma)
            d, d_z = slope(free, z, s, s_z)
            free_next, z_next = free + (after - s) * d, z + (after_z - s_z) * d_z
            if after > 0:
                e, e_z = slope(free_next, z_next, after, after_z)
                free_next, z_next = free + (after - s) * (d + e) / 2, z + (after_z - s_z) * (d_z + e_z) / 2
            free, z = free_next, z_next
        return batch.at(free).free, z if lattice else None
