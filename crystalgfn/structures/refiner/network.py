"""The refiner's network: messages from all atoms of the cell to one representative of each orbit.

All it sees are the invariant and covariant features of `surroundings`, so what it says does not depend on the choice of
cell, origin, orientation, order of atoms or representatives. Atoms of one orbit have the same features, so messages are
needed for representatives only; vectors at these are exactly what averaging over the orbit would give.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.lattice import KIND
from crystalgfn.crystallography.lattice_vectors import BASIS, free_of, restricted
from crystalgfn.crystallography.orbit_batch import OrbitBatch
from crystalgfn.structures.refiner.geometry import Surroundings, surroundings
from crystalgfn.typing import Floats, LogMetrics, OfOrbits

SHARP = 0.03
"""Noise of the coordinates below which the output grows as 1 / sigma: a displacement over its noise."""
LARGEST = 20.0
"""Bound of F of the lattice, whose targets have unit variance: no crowded cell can make it explode."""


class Layer(nn.Module):
    """One round of messages."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.target, self.source = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(channels, width, bias=False)
        self.message = nn.Linear(width, width)
        self.gate = nn.Linear(width, channels)
        self.mix = nn.Linear(channels, 2 * channels, bias=False)
        self.update = nn.Sequential(
            nn.Linear(2 * width + 2 * channels, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )

    def forward(
        self, h: torch.Tensor, batch: OrbitBatch, scalars: torch.Tensor, vectors: torch.Tensor, scale: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """New features [B, O, W], vectors [B, O, 3, C] and hidden messages [B, O, N, W]."""
        x = self.norm(h)
        hidden = self.target(x)[:, :, None] + batch.of_atoms(self.source(x))[:, None] + self.edge(scalars)
        hidden = nn.functional.silu(hidden) * batch.atom_mask[:, None, :, None]
        message = self.message(hidden.sum(2) * scale)
        turned = torch.einsum("bonc,bonxc->boxc", self.gate(hidden), vectors)
        one, two = self.mix(turned).chunk(2, -1)
        lengths = (one.square().sum(2) + 1e-4).sqrt()
        return h + self.update(torch.cat([x, message, lengths, (one * two).sum(2)], -1)), turned, hidden


class ScoreNetwork(nn.Module):
    """Score of the free coordinates and, where asked for, the change of the lattice.

    ``width`` is that of the features, ``layers`` are rounds of messages, ``radial`` and ``waves`` radial functions of
    distances up to the ``cutoff`` (Å) and of reciprocal vectors.
    """

    elements: torch.Tensor
    sphere: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, width: int = 128, layers: int = 4, radial: int = 24, waves: int = 8, cutoff: float = 6.0
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape = {"width": width, "layers": layers, "radial": radial, "waves": waves, "cutoff": cutoff}
        channels = radial + waves
        table = np.zeros((119, 5))
        columns = (elements.ELECTRONEGATIVITY, elements.RADIUS, elements.GROUP / 9, elements.ROW / 3.5, elements.METAL)
        table[1:] = np.stack(columns, axis=1)
        self.register_buffer("elements", torch.tensor(table, dtype=torch.float32), persistent=False)
        sphere = torch.tensor([0.0, *elements.SPHERE_VOLUME], dtype=torch.float32)
        self.register_buffer("sphere", sphere, persistent=False)
        self.register_buffer("mean", torch.zeros(6, 6))  # of k, with the volume against that of spheres
        self.register_buffer("std", torch.ones(6, 6))
        self.element, self.tabulated = nn.Embedding(119, width), nn.Linear(5, width)
        self.group = nn.Embedding(231, width)
        self.site, self.cell = nn.Linear(6, width), nn.Linear(5, width)
        self.noise = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(Layer(width, channels) for _ in range(layers))
        self.collect = nn.ModuleList(nn.Linear(channels, channels, bias=False) for _ in range(layers))
        hidden = nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU()
        last_out = nn.Linear(width, 2 * channels)
        self.out = nn.Sequential(*hidden, last_out)
        self.stress = nn.Linear(width, radial)
        first, last_pooled = nn.Linear(width + 12, width), nn.Linear(width, 6 + radial)
        self.pooled = nn.Sequential(first, nn.SiLU(), last_pooled)
        nn.init.normal_(self.group.weight, std=0.1)
        for last in (last_out, last_pooled):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(
        self, batch: OrbitBatch, noisy: LogMetrics, sigma: Floats, sigma_lattice: Floats, lattice: bool
    ) -> tuple[OfOrbits, LogMetrics]:
        """See `diffusion.Network`."""
        around, h, collected, hidden = self.encode(batch, sigma, sigma_lattice, lattice)
        with _short(sigma):
            gates = self.out(h)
        exact = sigma.dtype
        vectors = (collected.to(exact)[..., None, :] * gates.to(exact).unflatten(-1, (2, -1))[:, :, None]).sum(-1)
        field = self._to_free(batch, vectors, sigma)
        if not lattice:
            return field, torch.zeros_like(noisy)
        with _short(sigma):
            stress = self.stress(hidden)
        return field, self._lattice(batch, noisy, h.to(exact), stress.to(exact), around.tensors)

    def encode(
        self, batch: OrbitBatch, sigma: Floats, sigma_lattice: Floats, tensors: bool
    ) -> tuple[Surroundings, torch.Tensor, torch.Tensor, torch.Tensor]:
        """All but the outputs: surroundings, features [B, O, W], vectors [B, O, 3, C], hidden messages [B, O, N, W]."""
        shape = self.shape
        around = surroundings(batch, shape["radial"], shape["waves"], shape["cutoff"], tensors=tensors)
        with _short(sigma):
            h = self._start(batch, around.lattice, sigma, sigma_lattice)
            scale = batch.n_atoms.clamp_min(1).rsqrt()[:, None, None]
            collected, hidden = torch.zeros((), device=sigma.device), h
            for layer, collect in zip(self.layers, self.collect, strict=True):
                h, turned, hidden = layer(h, batch, around.scalars, around.vectors, scale)
                collected = collected + collect(turned)
        return around, h, collected, hidden

    def _start(
        self, batch: OrbitBatch, lattice: torch.Tensor, sigma: torch.Tensor, sigma_lattice: torch.Tensor
    ) -> torch.Tensor:
        """Features of the orbits before the first message, [B, O, W]."""
        order = torch.tensor(space_groups.POINT_GROUP_ORDER, device=sigma.device)[batch.space_group - 1]
        multiplicity = batch.multiplicity.clamp_min(1)
        site = torch.stack([multiplicity.log(), (order[:, None] / multiplicity).log()], -1)
        n_free = nn.functional.one_hot(batch.free_mask.sum(2), 4)
        n_atoms = batch.n_atoms.clamp_min(1).log()[:, None]
        volume, lengths = lattice[:, :1], lattice[:, 1:]
        cell = torch.cat([volume - n_atoms, lengths - volume / 3, n_atoms], 1)
        whole = self.group(batch.space_group) + self.cell(cell) + self.noise(_levels(sigma, sigma_lattice))
        own = self.element(batch.species) + self.tabulated(self.elements[batch.species])
        return own + self.site(torch.cat([site, n_free], -1).to(cell.dtype)) + whole[:, None]

    def _to_free(self, batch: OrbitBatch, vectors: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Two Cartesian vectors an orbit [B, O, 3, 2], a displacement and a force, as a field on u."""
        cells = batch.cells()
        length = torch.linalg.det(cells).abs()[:, None, None] ** (1 / 3)
        linear = batch.linear.gather(1, batch.first[..., None, None].expand(-1, -1, 3, 3))
        moved = torch.einsum("boij,boj->boi", batch.inverse, vectors[..., 0] @ torch.linalg.inv(cells)) * length
        pulled = torch.einsum("boij,boi->boj", linear, vectors[..., 1] @ cells.mT) / length
        field = (moved + pulled) * batch.free_mask * (1 + SHARP / sigma)[:, None, None]
        return batch.without_drift(field)

    def _lattice(
        self, batch: OrbitBatch, noisy: torch.Tensor, h: torch.Tensor, stress: torch.Tensor, tensors: torch.Tensor
    ) -> torch.Tensor:
        """F of the lattice: a strain in the frame of the cell, and what the coefficients themselves say."""
        share = (batch.multiplicity / batch.n_atoms.clamp_min(1)[:, None]).to(h.dtype)
        # Two operands at a time: with three, an installed opt_einsum would choose the order, and the last digits.
        shared = torch.einsum("bo,bonk->bonk", share, stress)
        total = torch.einsum("bonk,bonxk->bxk", shared, tensors)
        pooled = torch.einsum("bo,bow->bw", share, h)
        open_ = free_of(batch.space_group)
        direct, gates = self.pooled(torch.cat([pooled, noisy, open_.to(noisy)], 1)).split([6, stress.shape[-1]], 1)
        xx, yy, zz, xy, xz, yz = (total * gates[:, None]).sum(2).unbind(1)
        strain = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], 1).reshape(-1, 3, 3)
        along = torch.einsum("bij,kij->bk", strain, BASIS.to(strain))
        raw = direct + along * 0.1 / self.std[self._kind(batch)]
        return LARGEST * torch.tanh(raw / LARGEST) * open_

    def _kind(self, batch: OrbitBatch) -> torch.Tensor:
        return torch.as_tensor(KIND, device=batch.space_group.device)[batch.space_group - 1]

    def _centre(self, batch: OrbitBatch) -> torch.Tensor:
        """Mean coefficients of the lattice system at the volume of the atoms' spheres, [B, 6]."""
        spheres = (self.sphere[batch.species] * batch.multiplicity).sum(1) / torch.linalg.det(batch.primitive).abs()
        volume = torch.zeros_like(batch.log_metric)
        volume[:, 5] = spheres.log() / math.sqrt(3)
        return self.mean[self._kind(batch)] + volume

    def standard(self, batch: OrbitBatch, log_metric: LogMetrics) -> LogMetrics:
        """Lattice coefficients k as z, zero where the lattice system fixes them."""
        z = (log_metric - self._centre(batch)) / self.std[self._kind(batch)]
        return torch.where(free_of(batch.space_group), z, 0.0)

    def metric(self, batch: OrbitBatch, z: LogMetrics) -> LogMetrics:
        """Coefficients z as k."""
        return restricted(batch.space_group, self._centre(batch) + z * self.std[self._kind(batch)])

    @torch.no_grad()
    def fit_lattices(self, batch: OrbitBatch) -> None:
        """Set mean and standard deviation of the coefficients of each lattice system; of one crystal, the least."""
        self.mean.zero_()
        self.std.fill_(1.0)
        offset = batch.log_metric - self._centre(batch)
        everywhere = free_of(batch.space_group)
        for kind in range(6):
            own = self._kind(batch) == kind
            rows = offset[own if own.sum() > 1 else slice(None)]
            open_ = everywhere[own].any(0) if own.sum() > 1 else torch.ones(6, dtype=torch.bool, device=own.device)
            self.mean[kind] = torch.where(open_, rows.mean(0), 0.0)
            spread = rows.std(0, correction=min(1, len(rows) - 1))
            self.std[kind] = torch.where(open_, spread.clamp_min(0.02), 1.0)


def _short(like: torch.Tensor) -> torch.autocast:
    """bfloat16 on a GPU."""
    return torch.autocast(like.device.type, torch.bfloat16, enabled=like.is_cuda)


def _levels(sigma: torch.Tensor, sigma_lattice: torch.Tensor) -> torch.Tensor:
    """Both noise levels as waves of their logarithms, [B, 32]; no noise is the least."""
    levels = torch.stack([sigma.clamp_min(1e-3), sigma_lattice.clamp_min(1e-3)], 1).log() / 4
    phases = levels[:, :, None] * math.pi * 2.0 ** torch.arange(-2.0, 2.0, 0.5, device=sigma.device)
    return torch.cat([phases.sin(), phases.cos()], -1).flatten(1)
