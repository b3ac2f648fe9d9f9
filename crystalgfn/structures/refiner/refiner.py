"""Refines structures, or makes their free coordinates from noise: the diffusion model as its users see it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from crystalgfn.crystallography.lattice_vectors import bounded, free_of
from crystalgfn.crystallography.orbit_batch import OrbitBatch, bucket_by_size, check_orbits, lattice_fault
from crystalgfn.crystallography.orbits import OrbitStructure, wyckoff_position
from crystalgfn.errors import CheckpointError, PlacementError
from crystalgfn.structures.refiner.base import LATTICES, MAX_STRAIN, NOISE, STARTS, STEPS, Seed, check_option
from crystalgfn.structures.refiner.diffusion import Diffusion, Heun, Integrator
from crystalgfn.structures.refiner.network import ScoreNetwork
from crystalgfn.utils import files
from crystalgfn.utils.files import path_of
from crystalgfn.utils.weight_files import WeightFiles

WEIGHTS = "weights.safetensors"
FILES = WeightFiles(what="refiner", format="crystalgfn-refiner", version=1, remedy="train the refiner again")
SHIPPED = files.SHIPPED / "refiners"
TYPICAL = 0.2
"""Standard deviation of the logarithmic strain between crystals of one lattice system."""


class DiffusionRefiner:
    """The `Refiner` that ships: a network trained by diffusion under noise levels, and an integrator that follows it.

    ``source`` says in messages where it comes from.
    """

    def __init__(
        self,
        network: ScoreNetwork,
        diffusion: Diffusion | None = None,
        source: str | None = None,
        integrator: Integrator | None = None,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.diffusion = diffusion or Diffusion()
        self.source = source
        self.integrator = integrator or Heun()

    @classmethod
    def load(cls, name: str | Path = "default", device: str = "cpu") -> DiffusionRefiner:
        """A shipped refiner by its name, or the one in a folder.

        Raises:
            CheckpointError: no such refiner, or a file that cannot be read.
        """
        folder = Path(name)
        if not (folder / WEIGHTS).is_file():
            folder = SHIPPED / str(name)
        if not (folder / WEIGHTS).is_file():
            shipped = ", ".join(sorted(p.parent.name for p in SHIPPED.glob(f"*/{WEIGHTS}"))) or "none"
            raise CheckpointError(
                f"there is no refiner {str(name)!r}: give a folder with {WEIGHTS}, or the name of a shipped one "
                f"({shipped})"
            )
        levels: dict[str, float] = {}

        def make(header: dict[str, str]) -> ScoreNetwork:
            levels.update(json.loads(header["diffusion"]))
            return ScoreNetwork(**json.loads(header["shape"]))

        network = FILES.load(folder / WEIGHTS, make)
        return cls(network.to(device), Diffusion(**levels), str(name))

    def save(self, folder: str | Path) -> Path:
        """Write ``weights.safetensors`` into a folder, aside and then renamed; returns the file."""
        shape, levels = json.dumps(self.network.shape), json.dumps(asdict(self.diffusion))
        return FILES.write(path_of(folder) / WEIGHTS, self.network.state_dict(), shape=shape, diffusion=levels)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.mean.device

    def refine(
        self,
        structures: Sequence[OrbitStructure],
        lattice: str = "keep",
        start: str = "noise",
        steps: int = STEPS,
        seeds: Sequence[Seed] | None = None,
        *,
        noise: float = NOISE,
        max_strain: float = MAX_STRAIN,
        progress: bool = False,
    ) -> list[OrbitStructure | None]:
        """A structure for each of those given; None where it came out with a cell that cannot be.

        Arguments are those of `Refiner.refine`; 2 ``steps`` - 1 evaluations of the network with `Heun`.

        Raises:
            PlacementError: an option that is invalid, or a structure that cannot be.
        """
        _check_choices(lattice, start, steps, noise, max_strain)
        keys = _keys_of(structures, seeds)
        result: list[OrbitStructure | None] = list(structures)
        # where nothing is free there is nothing to do
        places = [i for i, structure in enumerate(structures) if lattice != "keep" or _is_free(structure)]
        words = "refining" if progress else None
        for rows in bucket_by_size(structures, places, self.device.type, words):
            own = [structures[i] for i in rows]
            batch = OrbitBatch.of(own).to(self.device)
            made = self._sample(batch, [keys[i] for i in rows], lattice, start, steps, noise, max_strain)
            for i, structure in zip(rows, _possible(made, own, lattice == "keep"), strict=True):
                result[i] = structure
        return result

    def _sample(
        self, batch: OrbitBatch, keys: list[Seed], lattice: str, start: str, steps: int, noise: float, max_strain: float
    ) -> OrbitBatch:
        """The batch, refined; the keys are seeds."""
        draws = [np.random.default_rng(key) for key in keys]
        lattices = torch.from_numpy(np.stack([rng.standard_normal(6) for rng in draws])).to(batch.free)
        shape, levels = batch.free.shape[1:], self.diffusion
        if start == "noise":
            free = torch.from_numpy(np.stack([rng.random(shape) for rng in draws])).to(batch.free)
        else:
            normal = torch.from_numpy(np.stack([rng.standard_normal(shape) for rng in draws])).to(batch.free)
            free = batch.free + levels.sigma(torch.tensor(noise)) * normal
        z, start_lattice = None, 1.0
        if lattice != "keep":
            start_lattice = 1.0 if lattice == "generate" else levels.time(max_strain / TYPICAL)
            known = self.network.standard(batch, batch.log_metric) * (lattice == "refine")
            sigma = levels.sigma_lattice(torch.tensor(start_lattice)).item()
            z = torch.where(free_of(batch.space_group), known + sigma * lattices, 0.0)
        time = 1.0 if start == "noise" else noise
        free, z = self.integrator(self.network, levels, batch.at(free), steps, z, time, start_lattice)
        if z is None:
            return batch.at(free)
        metric = self.network.metric(batch, z)
        if lattice == "refine":
            there = metric.isfinite().all(1, keepdim=True)
            moved = bounded(torch.where(there, metric, batch.log_metric), batch.log_metric, max_strain)
            metric = torch.where(there, moved, torch.nan)
        return batch.at(free, metric)


def _is_free(structure: OrbitStructure) -> bool:
    return any(wyckoff_position(structure.space_group, orbit.letter).free for orbit in structure.orbits)


def _possible(made: OrbitBatch, given: Sequence[OrbitStructure], keep: bool) -> Iterator[OrbitStructure | None]:
    """The structures, in the lattices given where these are kept.

    None where few steps or a poor network led to no crystal: coordinates that are not finite, an impossible cell.
    """
    for structure, before in zip(made.structures(), given, strict=True):
        kept = replace(structure, lattice=before.lattice) if keep else structure
        finite = np.isfinite([x for orbit in kept.orbits for x in orbit.parameters]).all()
        yield kept if finite and lattice_fault(kept.space_group, kept.lattice) is None else None


def _keys_of(structures: Sequence[OrbitStructure], seeds: Sequence[Seed] | None) -> list[Seed]:
    """Seeds of structures that can be refined."""
    keys: list[Seed] = [(0, i) for i in range(len(structures))] if seeds is None else list(seeds)
    if len(keys) != len(structures):
        raise PlacementError(f"{len(keys)} seeds are given for {len(structures)} structures; give one for each")
    for i, structure in enumerate(structures):
        check_orbits(structure, i)
    return keys


def _check_choices(lattice: str, start: str, steps: int, noise: float, max_strain: float) -> None:
    check_option("lattice", lattice, LATTICES)
    check_option("start", start, STARTS)
    if start == "given" and lattice == "generate":
        raise PlacementError("start='given' needs the lattice of the start: use lattice='keep' or lattice='refine'")
    if not isinstance(steps, int) or steps < 1 or not 0 <= noise <= 1 or not 0 < max_strain < math.inf:
        raise PlacementError(
            f"steps={steps}, noise={noise}, max_strain={max_strain}: give at least one step, a noise from 0 to 1 and a "
            "positive strain"
        )
