"""Soft spheres: atoms of many structures pushed apart at once, along what symmetry leaves free.

The potential of a structure is half the sum, over all pairs of atoms and images closer than a share of the sum of their
radii, of the squares of what is missing (Å2).
"""

from __future__ import annotations

import itertools

import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.orbit_batch import OrbitBatch
from crystalgfn.structures.refiner.geometry import reduction
from crystalgfn.typing import OfOrbits

REACH = 1.05
"""Times the sum of two radii, the distance below which atoms push each other."""
STEP = 0.4
"""Of the force, in each step."""
LONGEST, SHORTEST = 0.65, 0.05
"""Å, of the first step and of the last."""
_RADIUS = torch.tensor([0.0, *elements.RADIUS.tolist()], dtype=torch.float64)
_IMAGES = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=3)), dtype=torch.float64)
_OWN = len(_IMAGES) // 2


class SoftSpheres:
    """The atoms of a batch of structures, in their cells."""

    def __init__(self, batch: OrbitBatch) -> None:
        """The batch in float64."""
        self.batch = batch
        cells = batch.cells()
        change = reduction(cells)
        self._to_reduced = torch.linalg.inv(change)
        self._basis = change @ cells  # Minkowski-reduced, so the nearest image is among the 27
        self._shifts = _IMAGES.to(cells) @ self._basis
        self._first = batch.first[..., None]
        radius = _RADIUS.to(cells)[batch.species][..., None]
        pairs = batch.orbit_mask[:, :, None] & batch.atom_mask[:, None]
        self._reach = REACH * (radius + batch.of_atoms(radius).mT) * pairs
        linear = batch.linear.gather(1, self._first[..., None].expand(-1, -1, 3, 3))
        self._to_free = torch.linalg.pinv(cells.mT[:, None] @ linear, rtol=1e-9)

    @torch.no_grad()
    def forces(self, free: OfOrbits) -> OfOrbits:
        """On the representative atom of each orbit at these free coordinates, Cartesian in Å, [B, O, 3]."""
        points = self.batch.at(free).points() @ self._to_reduced
        gaps = points[:, None] - points.gather(1, self._first.expand(-1, -1, 3))[:, :, None]
        vectors = (gaps - gaps.round()) @ self._basis[:, None]
        squares = (
            vectors.square().sum(-1, keepdim=True)
            + 2 * vectors @ self._shifts.mT[:, None]
            + self._shifts.square().sum(-1)[:, None, None]
        )
        distances = squares.clamp_min(0.0).sqrt()
        missing = (self._reach[..., None] - distances).clamp_min(0.0)  # [B, O, N, 27]
        missing[..., _OWN].scatter_(2, self._first, 0.0)  # an atom and itself
        weights = missing / distances.clamp_min(1e-3)
        return -(weights.sum(-1, keepdim=True) * vectors + weights @ self._shifts[:, None]).sum(2)

    @torch.no_grad()
    def spread(self, steps: int) -> OfOrbits:
        """Free coordinates after some steps of pushing close atoms apart, long ones first; not wrapped, [B, O, 3].

        Args:
            steps: at most; none is made once no two atoms are too close.
        """
        free = self.batch.free
        for step in range(steps):
            push = self.forces(free)
            length = torch.linalg.vector_norm(push, dim=-1, keepdim=True)
            if not length.any():
                break
            longest = SHORTEST + (LONGEST - SHORTEST) * (1 - step / steps)
            push = push * torch.clamp(longest / length.clamp_min(1e-12), max=STEP)
            free = free + torch.einsum("boij,boj->boi", self._to_free, push)
        return free
