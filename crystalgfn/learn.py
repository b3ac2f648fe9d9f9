"""Train a sampler: the space, the reward and the settings in, the sampler out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from crystalgfn.domain.crystals import Crystals
from crystalgfn.domain.space import CrystalSpace
from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.errors import DataError, InvalidSpace
from crystalgfn.gfn import distributed
from crystalgfn.gfn.best import BestCrystals
from crystalgfn.gfn.logging import Logger
from crystalgfn.gfn.objectives import Objective, VarGrad
from crystalgfn.gfn.trainer import Trainer
from crystalgfn.gfn.training import TrainingRun
from crystalgfn.policy.network import PolicyConfig, PolicyNetwork
from crystalgfn.rewards.base import Reward, evaluate, properties
from crystalgfn.sampler import Sampler, given_strata, strata_weights


def train(
    space: CrystalSpace,
    reward: Reward,
    *,
    objective: Objective | None = None,
    policy: PolicyConfig | None = None,
    trainer: Trainer | None = None,
    strata: tuple[float, ...] | str | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    logger: Logger | None = None,
    real: Crystals | None = None,
) -> Sampler:
    """Train a policy until crystals come with probability proportional to their reward.

    Several processes in one group of torch.distributed train one sampler together; the first of them writes the files.

    Args:
        space: what may be drawn.
        reward: crystals -> ln R, float [B].
        objective: the loss; default `VarGrad(huber=5)`.
        policy: size of the network; conditioned on the inverse temperature where ``trainer.betas`` is a range.
        trainer: how long and how fast.
        strata: marginal of the number of elements (one share for each from 1), "default" for that of the shipped
            samplers, or None for plain R / Z.
        seed: of the network's start and of all draws.
        out: folder for checkpoints and the finished sampler (``sampler/``); None: nothing is written.
        resume: continue the run in ``out``; the settings must be those of that run.
        logger: takes the figures of the steps, and at every checkpoint a table of the best crystals.
        real: real crystals that are trained on too (``trainer.real_fraction``); those outside the space are left out.

    Raises:
        CheckpointError: ``resume`` without a usable checkpoint, or a folder that cannot be written.
        RewardError: a reward that returns the wrong shape, dtype or device, or NaN; names the crystal.
    """
    trainer = trainer or Trainer()
    device = torch.device(trainer.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidSpace(
            "device=cuda: torch sees no GPU here; use device=cpu or install torch with CUDA (see README)"
        )
    strata = given_strata(strata)
    omega = None if strata is None else strata_weights(space, strata).to(device)
    if hasattr(reward, "to"):
        reward = reward.to(device)
    if real is not None:
        real = real[space.contains(real)].to(device)
        if not len(real):
            raise DataError("none of the real crystals is in the space; see space.explain(crystals)")
    env = CrystalEnvironment(space, device)
    policy = replace(policy or PolicyConfig(), conditioned=trainer.betas is not None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PolicyNetwork.for_environment(policy, env).to(device)
    folder = None if out is None else Path(out)
    run = TrainingRun(
        env, network, lambda crystals: evaluate(reward, crystals), objective or VarGrad(huber=5.0), trainer,
        lambda crystals: crystals.n_elements, omega, seed, folder, logger, real,
        BestCrystals(properties(reward), device=device),
    )  # fmt: skip
    if resume:
        run.load()
    elif folder is not None:
        run.save()  # an unwritable folder fails now, not after the training
    run.fit()
    sampler = Sampler.trained(space, run, reward, strata)
    if folder is not None and not distributed.rank():
        sampler.save(folder / "sampler")
    return sampler
