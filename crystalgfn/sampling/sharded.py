"""A run that samples many crystals in constant memory, shard by shard; it may be killed, resumed and shared out."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from crystalgfn.data.shards import FOLDER, MANIFEST, Damaged, Manifest, open_shard, shard_path, write_shard
from crystalgfn.errors import ShardError
from crystalgfn.rewards.base import properties
from crystalgfn.sampling.sampler import ResamplingWarning, Sampler
from crystalgfn.sampling.sampler_files import add_tensors
from crystalgfn.sampling.table import results_table
from crystalgfn.space.space import CrystalSpace
from crystalgfn.utils.progress import Bar
from crystalgfn.utils.random import derived_seed
from crystalgfn.utils.run_folder import RunFolder, shared_lock

ROWS = 4096  # rows of the table worked out at a time


class ShardWarning(UserWarning):
    """A damaged shard that is sampled again."""


class ShardRun:
    """Crystals written as ``out/shards/part-00000.parquet``, ...: started anew, or gone on with.

    Shard i holds the same rows whoever draws it and whenever, so a run that was killed, or shared out to several
    processes, comes out as one that was not. ``out/manifest.json``, written first, says what run it is; complete
    shards are kept, leftovers of killed processes are removed.

    Args:
        sampler: what draws.
        out: the folder; a path, or that of the command at work.
        n: crystals in all.
        shard_size: crystals a file; the memory that is needed depends on this and not on ``n``.
        space: a further constraint, intersected with the sampler's own.
        resample: keep crystals by importance weights, within each shard; see `Sampler.sample`.
        seed: the run's; that of a shard follows from it and the shard's number.
        shard: (i, k): this process writes the shards whose number leaves i when divided by k.
        name: what the manifest calls the sampler; what counts is its content.
        beta: the inverse temperature, for a sampler that was trained for a range of them; None: the reward's own.
        tries: lattices a composition, see `Sampler.sample`.

    Attributes:
        manifest: what run this is.
        own: numbers of the shards that are this process's.
        done: those of them that are there.

    Raises:
        ShardError: sizes that mean nothing, or shards of another run.
        EmptySpace: the constraint leaves nothing.
        RewardError: an inverse temperature that the sampler was not trained for.
        CheckpointError: the folder holds a run with other settings, or the manifest cannot be written.
    """

    def __init__(
        self,
        sampler: Sampler,
        out: str | Path | RunFolder,
        n: int,
        shard_size: int,
        space: CrystalSpace | dict[str, Any] | None = None,
        resample: bool | str = False,
        seed: int = 0,
        shard: Sequence[int] = (0, 1),
        name: str | None = None,
        beta: float | None = None,
        tries: int = 1,
    ) -> None:
        for key, value in {"n": n, "shard_size": shard_size}.items():
            if value < 1:
                raise ShardError(f"{key}={value}: give a number of crystals of at least 1")
        if len(shard) != 2 or not all(type(x) is int for x in shard) or not 0 <= shard[0] < shard[1]:
            raise ShardError(f"shard={list(shard)}: give [i,k] with 0 <= i < k, for process i of k")
        sampler.level(beta)
        narrowed = sampler.narrow(space)
        self._given = isinstance(out, RunFolder)  # and at work there already
        self.folder = out if isinstance(out, RunFolder) else RunFolder(out, "a run", lock=shared_lock(shard))
        self.sampler, self.out, self.seed, self.beta = sampler, self.folder.path, seed, beta
        self.how: dict[str, Any] = {"resample": resample, "tries": tries}
        self.space = None if space is None else narrowed
        settings = {
            "sampler": run_fingerprint(sampler),
            "space": narrowed.to_dict(),
            "n": n,
            "shard_size": shard_size,
            "seed": seed,
            "resample": resample,
            "device": sampler.device.type,
            "versions": {one: version(one) for one in ("crystalgfn", "torch")},
        }
        if beta is not None:
            settings["beta"] = float(beta)
        if tries != 1:
            settings["tries"] = tries
        self.manifest = Manifest(name, json.loads(json.dumps(settings)))
        self.own = range(shard[0], self.manifest.n_shards, shard[1])
        self.done: set[int] = set()
        self._start()

    def write(self, progress: bool = True) -> None:
        """Write the shards that are missing; can be interrupted at any moment.

        Raises:
            RewardError: a reward that breaks its contract on these crystals, or resampling without a reward.
            CheckpointError: a file cannot be written, or another process is at work on these shards.
        """
        with nullcontext() if self._given else self.folder:
            self._write_all(progress)

    def _write_all(self, progress: bool) -> None:
        total, there = (sum(map(self.manifest.rows, those)) for those in (self.own, self.done))
        bar = Bar(total=total, initial=there, unit=" crystals", smoothing=0, shown=progress)
        with bar, warnings.catch_warnings():
            for i in (i for i in self.own if i not in self.done):
                self._write(i)
                self.done.add(i)
                bar.update(self.manifest.rows(i))
                warnings.simplefilter("ignore", ResamplingWarning)  # said once, for the first shard
        for leftover in self.out.glob(f".{MANIFEST}.part*"):  # of a process killed as it began
            leftover.unlink(missing_ok=True)

    def _start(self) -> None:
        """Compare the manifest with the one that is there, or write it; find what is done."""
        self.folder.agree(self.manifest.content, free=("name",), file=MANIFEST)
        own = {shard_path(self.out, i): i for i in self.own}  # other processes may be at work on the others
        for leftover in (self.out / FOLDER).glob(".part-*.part*"):
            if leftover.with_name(leftover.stem[1:]) in own:
                leftover.unlink(missing_ok=True)
        for path, i in own.items():
            if not path.exists():
                continue
            try:
                open_shard(self.out, self.manifest, i).close()
            except Damaged as damage:
                warnings.warn(f"{damage}; it is sampled again", ShardWarning, stacklevel=3)
            else:
                self.done.add(i)

    def _write(self, i: int) -> None:
        rows, seed = self.manifest.rows(i), derived_seed(self.seed, i)
        crystals = self.sampler.sample(rows, space=self.space, beta=self.beta, seed=seed, **self.how)
        parts = [
            results_table(self.sampler, crystals[start : start + ROWS], self.space, beta=self.beta)
            for start in range(0, rows, ROWS)
        ]
        write_shard(self.out, self.manifest, i, crystals, pd.concat(parts, ignore_index=True))


def run_fingerprint(sampler: Sampler) -> str:
    """SHA-256 of what a sampler gives and says of crystals: space, weights, log Z, reward and its proxies' weights."""
    reward: Any = sampler.reward
    config = reward.config() if hasattr(reward, "config") else getattr(reward, "__qualname__", None)
    plain = {"space": sampler.space.to_dict(), "omega": sampler.omega, "reward": config}
    if sampler.betas is not None:
        plain["betas"] = sampler.betas
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    modules = [sampler.network, *(prop for prop in properties(reward) if isinstance(prop, torch.nn.Module))]
    states = [{"log_z": sampler.log_z}, *(module.state_dict() for module in modules)]
    for state in states:
        add_tensors(digest, state)
    return digest.hexdigest()
