"""How plausible a structure is beside others of the same crystal: a network that tells right structures from wrong.

The refiner's network with another end. It looks at the structure as it is, so it also says something where no
coordinate is free and where cells differ.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import nn

from crystalgfn.crystallography.orbit_batch import OrbitBatch, check_orbits
from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.structures.refiner.batching import bucket_by_size
from crystalgfn.structures.refiner.network import ScoreNetwork
from crystalgfn.typing import Floats
from crystalgfn.utils import files
from crystalgfn.utils.weight_files import WeightFiles

WEIGHTS = files.SHIPPED / "rankers" / "plausibility.safetensors"
FILES = WeightFiles("plausibility of structures", "crystalgfn-plausibility", 1, "fit it again")
SIGMA = 0.003
"""Noise that the network is told of: next to none."""


class Plausibility(nn.Module):
    """Logarithms of how plausible structures are, up to a constant of the crystal.

    Args:
        body: a refiner's network; its outputs are not used.
    """

    def __init__(self, body: ScoreNetwork) -> None:
        super().__init__()
        self.body = body
        width = body.shape["width"]
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, batch: OrbitBatch) -> Floats:
        """The mean over the atoms of a function of each one's surroundings, [B]."""
        sigma = batch.free.new_full((len(batch),), SIGMA)
        _, h, *_ = self.body.encode(batch, sigma, torch.zeros_like(sigma), tensors=False)
        share = (batch.multiplicity * batch.orbit_mask) / batch.n_atoms.clamp_min(1)[:, None]
        return (self.head(h.to(sigma)).squeeze(-1) * share).sum(1)

    @torch.no_grad()
    def of(self, structures: Sequence[OrbitStructure]) -> Floats:
        """The same of structures of any sizes, [n].

        Raises:
            PlacementError: a structure that cannot be.
        """
        for i, structure in enumerate(structures):
            check_orbits(structure, i)
        result = torch.zeros(len(structures))
        device = self.body.mean.device
        for part in bucket_by_size(structures, [(i, 0) for i in range(len(structures))], device.type):
            rows = [i for i, _ in part]
            result[rows] = self(OrbitBatch.of([structures[i] for i in rows]).to(device)).float().cpu()
        return result

    def save(self, path: str | Path) -> Path:
        """Write the weights in half precision, aside and then renamed; returns the file."""
        shape = json.dumps(self.body.shape)
        tensors = {name: value.half() for name, value in self.state_dict().items()}
        return FILES.write(Path(path), tensors, shape=shape)

    @staticmethod
    def load(path: str | Path) -> Plausibility:
        """The weights in a file of `save`.

        Raises:
            CheckpointError: the file is missing, damaged, or of another kind.
        """

        def make(header: dict[str, str]) -> Plausibility:
            return Plausibility(ScoreNetwork(**json.loads(header["shape"])))

        return FILES.load(Path(path), make).eval().requires_grad_(False)

    @staticmethod
    @cache
    def shipped(device: str = "cpu") -> Plausibility:
        """The weights that come with the package."""
        return Plausibility.load(WEIGHTS).to(device)
