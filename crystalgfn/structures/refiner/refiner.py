"""Refines structures, or makes their free coordinates from noise: the diffusion model as its users see it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from crystalgfn.crystallography.lattice_vectors import bounded, free_of
from crystalgfn.crystallography.orbit_batch import OrbitBatch, check
from crystalgfn.crystallography.orbits import OrbitStructure, wyckoff_position
from crystalgfn.errors import CheckpointError, PlacementError
from crystalgfn.structures.refiner.batching import bucket_by_size
from crystalgfn.structures.refiner.diffusion import Diffusion, heun
from crystalgfn.structures.refiner.network import ScoreNetwork
from crystalgfn.utils import files
from crystalgfn.utils.weight_files import WeightFiles

WEIGHTS = "weights.safetensors"
FILES = WeightFiles("refiner", "crystalgfn-refiner", 1, "train the refiner again")
SHIPPED = files.SHIPPED / "refiners"
LATTICES, STARTS = ("keep", "refine", "generate"), ("noise", "given")
STEPS = 5
"""More do not find more crystals (docs/guide/structures.md): 9 evaluations of the network."""
TYPICAL = 0.2
"""Standard deviation of the logarithmic strain between crystals of one lattice system."""


class Refiner:
    """Makes the free coordinates of orbits, and where asked for the lattice, likely ones.

    The space group, the letters, the composition and, where it is kept, the lattice of what comes out are exactly those
    of what goes in.

    Args:
        network: the trained network.
        diffusion: its noise levels.
        source: where it comes from, for messages.
    """

    def __init__(self, network: ScoreNetwork, diffusion: Diffusion | None = None, source: str | None = None) -> None:
        self.network = network.eval().requires_grad_(False)
        self.diffusion = diffusion or Diffusion()
        self.source = source

    @classmethod
    def load(cls, name: str | Path = "default", device: str = "cpu") -> Refiner:
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
        return FILES.write(Path(folder) / WEIGHTS, self.network.state_dict(), shape=shape, diffusion=levels)

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
        n: int = 1,
        seed: int = 0,
        *,
        noise: float = 0.4,
        max_strain: float = 0.05,
        churn: float = 0.0,
        streams: Sequence[tuple[int, ...]] | None = None,
        progress: bool = False,
    ) -> list[OrbitStructure]:
        """``n`` structures for each of those given, of any sizes in one call: first the ``n`` of the first, and so on.

        Args:
            structures: letters and species; coordinates where ``start="given"``; lattices, unless they are generated.
            lattice: ``"keep"``; ``"refine"``: may change by ``max_strain``; ``"generate"``: the one given is not used.
            start: of the coordinates: ``"noise"``, or ``"given"``: those of the structures under some noise.
            steps: of the sampler; 2 ``steps`` - 1 network evaluations.
            n: for each structure.
            seed: of the noise; what is made of a structure depends on its stream, not on the others.
            noise: for ``start="given"``, from 0 (none) to 1 (nothing is left of the start).
            max_strain: largest principal logarithmic strain.
            churn: noise added on the way (EDM's S_churn).
            streams: of random numbers, one for each structure; its place in the list where they are not given.
            progress: shows a bar.

        Raises:
            PlacementError: arguments that mean nothing, or a structure that cannot be.
        """
        _check_choices(lattice, start, steps, n, noise, max_strain, churn)
        for i, structure in enumerate(structures):
            check(structure, i)
        tasks = [(i, j) for i, structure in enumerate(structures) for j in range(n)]
        result = {task: structures[task[0]] for task in tasks}
        if lattice == "keep":  # where nothing is free there is nothing to do
            tasks = [task for task in tasks if _is_free(structures[task[0]])]
        for part in bucket_by_size(structures, tasks, self.device.type, "refining" if progress else None):
            batch = OrbitBatch.of([structures[i] for i, _ in part]).to(self.device)
            keys = [(seed, *(streams[i] if streams else (i,)), j) for i, j in part]
            made = self._sample(batch, keys, lattice, start, steps, noise, max_strain, churn).structures()
            for task, structure in zip(part, made, strict=True):
                if not np.isfinite([*structure.lattice, *(x for o in structure.orbits for x in o.parameters)]).all():
                    raise PlacementError(
                        f"structure {task[0]} came out with numbers that are not finite; try more steps"
                    )
                kept = structures[task[0]].lattice if lattice == "keep" else structure.lattice
                result[task] = replace(structure, lattice=kept)
        return list(result.values())

    def _sample(
        self,
        batch: OrbitBatch,
        keys: list[tuple[int, ...]],
        lattice: str,
        start: str,
        steps: int,
        noise: float,
        max_strain: float,
        churn: float,
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
        generator = torch.Generator().manual_seed(hash(keys[0]) % 2**31)
        time = 1.0 if start == "noise" else noise
        free, z = heun(
            self.network, levels, batch.at(free), steps, z, time, start_lattice, churn=churn, generator=generator
        )
        if z is None:
            return batch.at(free)
        metric = self.network.metric(batch, z)
        return batch.at(free, metric if lattice == "generate" else bounded(metric, batch.log_metric, max_strain))


def _is_free(structure: OrbitStructure) -> bool:
    return any(wyckoff_position(structure.space_group, orbit.letter).free for orbit in structure.orbits)


def _check_choices(
    lattice: str, start: str, steps: int, n: int, noise: float, max_strain: float, churn: float
) -> None:  # fmt: skip
    if lattice not in LATTICES:
        raise PlacementError(f"lattice={lattice!r} means nothing; it is one of {', '.join(LATTICES)}")
    if start not in STARTS:
        raise PlacementError(f"start={start!r} means nothing; it is one of {', '.join(STARTS)}")
    if start == "given" and lattice == "generate":
        raise PlacementError("start='given' needs the lattice of the start: use lattice='keep' or lattice='refine'")
    if steps < 1 or n < 1 or not 0 <= noise <= 1 or not max_strain > 0 or churn < 0:
        raise PlacementError(
            f"steps={steps}, n={n}, noise={noise}, max_strain={max_strain}, churn={churn}: give at least one step and "
            "one structure, a noise from 0 to 1, a positive strain and no negative churn"
        )
