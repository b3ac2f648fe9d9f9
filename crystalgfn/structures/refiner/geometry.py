"""What the atoms around each orbit's representative look like: features of pairs that no choice of cell changes.

Two families, for a representative i and an atom j of the cell, dr their difference and T the lattice translations:

* in space: sums over all T of radial functions of |dr + T| up to a cutoff, and the same times unit vectors;
* in Fourier space: sums over short reciprocal vectors k of functions of |k| times cos(2 pi k dr) and, with the
  direction of k, sin(2 pi k dr): periodic Fourier features of coordinate differences, weighted by the lattice's metric,
  which reach as far as the cell does.

Both turn with the crystal: scalars do not change, vectors turn with it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch

from crystalgfn.crystallography.orbit_batch import OrbitBatch
from crystalgfn.typing import Cells

WAVES = 2
"""Reciprocal vectors have coefficients up to this in the basis that is dual to the reduced cell."""
LONGEST_WAVE_VECTOR = 0.5
"""1/Å; radial functions of |k| end here."""
MOST = 5
"""Images on either side of a cell that are looked at, along each axis; only cells flatter than real ones need more."""
_HALF = torch.tensor([k for k in itertools.product(range(-WAVES, WAVES + 1), repeat=3) if k > (0, 0, 0)])


@dataclass(frozen=True)
class Surroundings:
    """Features of pairs (representative of an orbit, atom); the first axis of every tensor is the batch."""

    scalars: torch.Tensor  # [B, O, N, C]
    vectors: torch.Tensor  # Cartesian [B, O, N, 3, C]
    tensors: torch.Tensor  # products of unit vectors (xx, yy, zz, xy, xz, yz) in space [B, O, N, 6, K], or none
    lattice: torch.Tensor  # ln of the volume and of the lengths of the reduced cell [B, 4]


@torch.no_grad()
def surroundings(batch: OrbitBatch, radial: int, waves: int, cutoff: float, tensors: bool = False) -> Surroundings:
    """Features of a batch at its coordinates and in its lattices; ``tensors``: the products of unit vectors too.

    There are K = ``radial`` functions of distances up to the cutoff (Å) and ``waves`` of reciprocal vectors; C is both.
    """
    cells = batch.cells()
    change = reduction(cells)
    basis = change @ cells
    points = batch.points() @ torch.linalg.inv(change)  # coordinates in the reduced cell
    gaps = points[:, None] - points.gather(1, batch.first[..., None].expand(-1, -1, 3))[:, :, None]
    gaps = gaps - gaps.round()
    pairs = batch.orbit_mask[:, :, None] & batch.atom_mask[:, None]
    near = _in_space(gaps, basis, pairs, radial, cutoff, tensors)
    scalars, vectors = _in_fourier_space(gaps, basis, waves)
    lengths = torch.linalg.vector_norm(basis, dim=2)
    lattice = torch.cat([torch.linalg.det(basis).abs()[:, None], lengths], 1).log()
    mask = pairs[..., None]
    return Surroundings(
        torch.cat([near[..., 0, :], scalars], -1) * mask,
        torch.cat([near[..., 1:4, :], vectors], -1) * mask[..., None],
        near[..., 4:, :],
        lattice,
    )


def _in_space(
    gaps: torch.Tensor, basis: torch.Tensor, pairs: torch.Tensor, radial: int, cutoff: float, tensors: bool
) -> torch.Tensor:
    """Sums over lattice translations [B, O, N, 1 + 3 (+ 6), radial]."""
    volume = torch.linalg.det(basis).abs()
    faces = torch.linalg.cross(basis[:, [1, 2, 0]], basis[:, [2, 0, 1]]).norm(dim=2)
    heights = volume[:, None] / faces
    reach = (cutoff / heights + 0.5).floor().clamp_max(MOST).amax(0).int().tolist() if len(basis) else [0, 0, 0]
    images = torch.cartesian_prod(*(torch.arange(-n, n + 1.0, device=gaps.device) for n in reach)).to(gaps)
    shifts = images.reshape(-1, 3) @ basis  # [B, I, 3]
    vectors = gaps @ basis[:, None]
    squares = (
        vectors.square().sum(-1)[..., None]
        + shifts.square().sum(-1)[:, None, None]
        + 2 * (vectors.flatten(1, 2) @ shifts.mT).unflatten(1, vectors.shape[1:3])
    )
    # an atom and itself are at distance zero
    b, o, n, image = ((squares < cutoff**2) & (squares > 1e-4) & pairs[..., None]).nonzero(as_tuple=True)
    apart = vectors[b, o, n] + shifts[b, image]
    distance = torch.linalg.vector_norm(apart, dim=1, keepdim=True)
    unit = apart / distance
    weights = _bumps(distance, cutoff, radial)
    parts = [torch.ones_like(distance), unit]
    if tensors:
        parts.append(unit[:, [0, 1, 2, 0, 0, 1]] * unit[:, [0, 1, 2, 1, 2, 2]])
    values = (torch.cat(parts, 1)[:, :, None] * weights[:, None]).flatten(1)
    index = (b * pairs.shape[1] + o) * pairs.shape[2] + n
    total = values.new_zeros(pairs.numel(), values.shape[1]).index_add_(0, index, values)
    return total.reshape(*pairs.shape, -1, radial)


def _in_fourier_space(gaps: torch.Tensor, basis: torch.Tensor, waves: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums over reciprocal vectors, [B, O, N, waves] and [B, O, N, 3, waves]."""
    half = _HALF.to(gaps)
    wave_vectors = half @ torch.linalg.inv(basis).mT  # [B, k, 3], 1/Å
    length = torch.linalg.vector_norm(wave_vectors, dim=2, keepdim=True)
    # a k shorter than this has small coefficients in every reduced basis, so it does not matter which one was found
    whole = (WAVES + 1) / torch.linalg.vector_norm(basis, dim=2).amax(1)[:, None, None]
    weights = _bumps(length, LONGEST_WAVE_VECTOR, waves) * _fade(length / whole)  # [B, k, waves]
    weights = weights / (1 + weights.sum(1, keepdim=True)).sqrt()
    phases = 2 * math.pi * (gaps.flatten(1, 2) @ half.T)  # [B, ON, k]
    directed = ((wave_vectors / length)[..., None] * weights[:, :, None]).flatten(2)
    shape = gaps.shape[1:3]
    return (phases.cos() @ weights).unflatten(1, shape), (phases.sin() @ directed).reshape(len(gaps), *shape, 3, waves)


def _bumps(x: torch.Tensor, end: float, n: int) -> torch.Tensor:
    """``n`` Gaussians with centres from 0 to ``end``, going smoothly to zero there, [..., 1] -> [..., n]."""
    centres = torch.linspace(0, end, n + 1, device=x.device, dtype=x.dtype)[1:]
    return torch.exp(-0.5 * ((x - centres) * n / end) ** 2) * _fade(x / end)


def _fade(x: torch.Tensor) -> torch.Tensor:
    """From 1 at 0 to 0 at 1 and beyond."""
    return 0.5 * (torch.cos(math.pi * x.clamp_max(1.0)) + 1)


@torch.no_grad()
def reduction(cells: Cells) -> Cells:
    """Unimodular matrices that make the rows of cells Minkowski-reduced: ``reduction(cells) @ cells``, [B, 3, 3].

    The steps are those of `contacts.reduced_basis`, for all cells at once.
    """
    basis = cells.double()
    change = torch.eye(3, device=cells.device, dtype=torch.float64).expand_as(basis).clone()
    nearby = torch.cartesian_prod(*(torch.arange(-1.0, 2.0, device=cells.device, dtype=torch.float64),) * 2)
    for _ in range(30):
        order = basis.square().sum(2).argsort(dim=1, stable=True)[..., None].expand_as(basis)
        basis, change = basis.gather(1, order), change.gather(1, order)
        step = torch.eye(3, device=cells.device, dtype=torch.float64).repeat(len(basis), 1, 1)
        step[:, 1, 0] = -((basis[:, 1] * basis[:, 0]).sum(1) / basis[:, 0].square().sum(1)).round()
        basis, change = step @ basis, step @ change
        plane = basis[:, :2]
        near = torch.linalg.solve(plane @ plane.mT, plane @ basis[:, 2, :, None])[..., 0].round()
        tries = near[:, None] + nearby  # [B, 9, 2]
        lengths = (basis[:, None, 2] - tries @ plane).square().sum(2)
        # the first of equal ones, so that rounding does not choose
        best = (lengths <= lengths.amin(1, keepdim=True) * (1 + 1e-9)).int().argmax(1)
        step = torch.eye(3, device=cells.device, dtype=torch.float64).repeat(len(basis), 1, 1)
        step[:, 2, :2] = -tries[torch.arange(len(basis), device=cells.device), best]
        after = step @ basis
        if not (after.square().sum((1, 2)) < basis.square().sum((1, 2)) * (1 - 1e-9)).any() and _ordered(after):
            return (step @ change).to(cells.dtype)
        basis, change = after, step @ change
    return change.to(cells.dtype)


def _ordered(basis: torch.Tensor) -> bool:
    """Whether the rows go from short to long and the second is reduced by the first, in every cell."""
    lengths = basis.square().sum(2)
    ratio = ((basis[:, 1] * basis[:, 0]).sum(1) / lengths[:, 0]).abs()
    return bool((lengths.diff(dim=1) >= -1e-9 * lengths[:, :2]).all() and (ratio <= 0.5 + 1e-9).all())
