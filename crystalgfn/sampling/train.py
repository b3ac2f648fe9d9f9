"""Train a sampler: the space, the reward and the settings in, the sampler out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.errors import DataError, InvalidSpace, check_kind
from crystalgfn.gfn.config import TrainerConfig
from crystalgfn.gfn.diagnostics import log_mean_exp_of
from crystalgfn.gfn.loggers import Logger
from crystalgfn.gfn.objectives import DEFAULT, Objective
from crystalgfn.gfn.training import TrainingRun
from crystalgfn.policy.network import PolicyConfig, PolicyNetwork
from crystalgfn.properties.base import moved
from crystalgfn.rewards.base import Reward, check_callable, check_space, evaluate, properties
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.sampling.strata import given_strata, strata_weights
from crystalgfn.sampling.table import BestCrystals
from crystalgfn.sampling.training_folder import SAMPLER, described, training_folder
from crystalgfn.space.space import CrystalSpace
from crystalgfn.utils import distributed
from crystalgfn.utils.run_folder import RunFolder

LOG_Z_POINTS = 33  # inverse temperatures at which a conditioned sampler knows its ln Z
LOG_Z_SAMPLES = 4000  # crystals from which ln Z is estimated at the end of a training


def _check_kinds(space: Any, reward: Any, trainer: Any, policy: Any, seed: Any, real: Any, init: Any) -> None:
    """Refuse arguments of another type, before the work.

    Raises:
        ConfigurationError, RewardError: names the argument.
    """
    check_kind("space", space, CrystalSpace, "a CrystalSpace")
    check_callable(reward)
    check_kind("trainer", trainer, TrainerConfig, "a TrainerConfig")
    check_kind("policy", policy, (PolicyConfig, type(None)), "a PolicyConfig")
    check_kind("real", real, (Crystals, type(None)), "Crystals")
    check_kind("init", init, (Sampler, type(None)), "a Sampler")
    check_kind("seed", seed, int, "a whole number")


def train(
    space: CrystalSpace,
    reward: Reward,
    *,
    objective: Objective | None = None,
    policy: PolicyConfig | None = None,
    trainer: TrainerConfig | None = None,
    strata: tuple[float, ...] | str | None = None,
    seed: int = 0,
    out: str | Path | RunFolder | None = None,
    resume: bool = False,
    logger: Logger | None = None,
    real: Crystals | None = None,
    init: Sampler | None = None,
) -> Sampler:
    """Train a policy until crystals come with probability proportional to their reward.

    Several processes in one group of torch.distributed train one sampler together; the first of them writes the files.

    Args:
        space: what may be drawn.
        reward: crystals -> ln R, float [B].
        objective: the loss; `crystalgfn.gfn.objectives.DEFAULT` unless given.
        policy: size of the network; conditioned on the inverse temperature where ``trainer.betas`` is a range.
        trainer: how long and how fast.
        strata: marginal of the number of elements (one share for each from 1), "default" for that of the shipped
            samplers, or None for plain R / Z.
        seed: of the network's start and of all draws.
        out: a folder without a run, for checkpoints, ``config.yaml``, ``metrics.csv``, ``curves.png``, ``best.csv``,
            the finished sampler (``sampler/``) and ``run.json``; None: nothing is written.
        resume: continue the run in ``out``; the settings must be those of that run.
        logger: takes the figures of the steps, and at every checkpoint a table of the best crystals; None: CSV files in
            ``out``.
        real: real crystals that are trained on too (``trainer.real_fraction``); those outside the space are left out.
        init: a sampler whose policy the training starts from, such as one for a related reward; ``policy`` is then its.

    Returns:
        The sampler; ``sampler.history`` is a table of the figures of the steps.

    Raises:
        InvalidSpace: a device that is not there, or shares without a meaning.
        CheckpointError: ``out`` holds a run already, ``resume`` without a usable checkpoint, or a folder that cannot be
            written.
        RewardError: a reward that returns the wrong shape, dtype or device, or NaN; names the crystal. Or a space that
            a proxy of the reward knows nothing of.
        DataError: none of the ``real`` crystals is in the space.
        TrainingError: a loss that is not finite, an objective that learns ln Z with ``trainer.betas``, or a batch that
            cannot be shared out over the processes.
    """
    trainer = trainer or TrainerConfig()
    _check_kinds(space, reward, trainer, policy, seed, real, init)
    device = _device(trainer)
    strata = given_strata(strata)
    omega = None if strata is None else strata_weights(space, strata).to(device)
    check_space(reward, space)
    reward = moved(reward, device)
    if real is not None:
        real = real[space.contains(real)].to(device)
        if not len(real):
            raise DataError("none of the real crystals is in the space; see space.explain(crystals)")
    env = CrystalEnvironment(space, device)
    network = _network(policy, trainer, env, seed, init).to(device)
    objective = objective or DEFAULT

    def settings() -> dict[str, Any]:
        parts = {"space": space, "reward": reward, "objective": objective, "policy": network.config, "trainer": trainer}
        plain = strata if strata is None else list(strata)
        return {**{name: described(one) for name, one in parts.items()}, "strata": plain, "seed": seed}

    with training_folder(out, resume, logger, settings) as files:
        run = TrainingRun(
            env,
            network,
            lambda crystals: evaluate(reward, crystals),
            objective,
            trainer,
            stratum=lambda crystals: crystals.n_elements,
            log_omega=omega,
            seed=seed,
            folder=files.path,
            logger=files.recorder,
            real=real,
            best=BestCrystals(properties(reward), device=device),
        )
        if resume:
            run.load()
        elif files.path is not None:
            run.save()  # an unwritable folder fails now, not after the training
        run.fit()
        sampler = files.sampler = finished(space, run, reward, strata)
        sampler.history = files.history()
        if files.path is not None and not distributed.rank():
            sampler.save(files.path / SAMPLER)
    return sampler


def _device(trainer: TrainerConfig) -> torch.device:
    device = torch.device(trainer.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidSpace(
            "device=cuda: torch sees no GPU here; use device=cpu or install torch with CUDA (see README)"
        )
    return device


def finished(space: CrystalSpace, run: TrainingRun, reward: Reward, omega: tuple[float, ...] | None) -> Sampler:
    """The sampler of a finished training; ln Z of its inverse temperatures are estimated from its own samples."""
    betas = run.trainer.betas
    sampler = Sampler(space, run.network, reward, omega=omega, log_z=run.log_z.detach().cpu(), betas=betas)
    if sampler.log_omega is None:
        return sampler
    if betas is None:
        sampler.log_z = _estimated_log_z(sampler, reward, sampler.log_omega, 1.0, sampler.log_z)
        return sampler
    start = torch.zeros(len(sampler.log_omega), dtype=torch.float64)
    grid = torch.linspace(*betas, LOG_Z_POINTS, dtype=torch.float64)
    sampler.log_z = torch.stack(
        [_estimated_log_z(sampler, reward, sampler.log_omega, float(level), start) for level in grid]
    )
    return sampler


def _estimated_log_z(
    sampler: Sampler, reward: Reward, log_omega: torch.Tensor, level: float, start: torch.Tensor
) -> torch.Tensor:
    """ln Z of each number of elements, from importance weights of ``LOG_Z_SAMPLES`` samples, [K + 1].

    ``start`` stays where a number of elements was not sampled. What training knows of ln Z lags behind, and is a mean
    of ln w, not the ln of the mean.
    """
    beta = None if sampler.betas is None else level * sampler.own_beta
    crystals = sampler.sample(LOG_Z_SAMPLES, beta=beta)
    log_weight = evaluate(reward, crystals).double() * level + log_omega.to(sampler.device)[crystals.n_elements]
    log_weight = log_weight - sampler.log_prob(crystals, beta=beta)
    out = start.clone()
    for k, value in log_mean_exp_of(log_weight, crystals.n_elements).items():
        out[k] = value
    return out


def _network(
    policy: PolicyConfig | None, trainer: TrainerConfig, env: CrystalEnvironment, seed: int, init: Sampler | None
) -> PolicyNetwork:
    """A network with random weights, or with those of ``init``."""
    conditioned = trainer.betas is not None
    if init is None:
        policy = replace(policy or PolicyConfig(), conditioned=conditioned)
    else:
        policy = init.network.config
        if policy.conditioned != conditioned:
            raise InvalidSpace(
                f"trainer.betas={trainer.betas} with an init of betas={init.betas}: one is conditioned on the inverse "
                "temperature and the other is not; start from another sampler, or from none"
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PolicyNetwork.for_environment(policy, env)
    if init is not None:
        known = init.network.state_dict()
        for name, weights in network.state_dict().items():  # these are the network's own, not copies
            # of a choice with other limits the options that both have; the rest stays new
            n = min(len(known[name]), len(weights))
            weights[:n].copy_(known[name][:n])
    return network
