"""How a trained network is followed from noise to structures; one more integrator is one more class here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch

from crystalgfn.crystallography.orbit_batch import OrbitBatch
from crystalgfn.structures.refiner.diffusion import WIDEST, Diffusion, Network, denoise, score_rms
from crystalgfn.typing import LogMetrics, OfOrbits


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

        Args:
            network: what was trained.
            diffusion: its noise levels.
            batch: at the noisy coordinates; in its lattice, where that is kept.
            steps: in the grid of noise levels.
            z: noisy lattices; None keeps those of the batch.
            start: time of the coordinates' noise, 1 for uniform ones.
            start_lattice: time of the lattices' noise.
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
        grid_lattice = torch.cat([diffusion.sigma_lattice(start_lattice * times), zero]).tolist() if lattice else None
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
            s_z, after_z = (grid_lattice[i], grid_lattice[i + 1]) if lattice else (0.0, 0.0)
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
