"""What ``crystalgfn train`` does: a space, a reward and a trainer from the configuration, and a sampler in a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from crystalgfn.cli.console import note, tell
from crystalgfn.cli.options.compose import OptionError
from crystalgfn.cli.options.objects import (
    build_part,
    plain_config,
    read_crystals,
    space_arguments,
    strata_of,
)
from crystalgfn.gfn.loggers import NoLogger
from crystalgfn.gfn.training import CHECKPOINT
from crystalgfn.rewards import Configured
from crystalgfn.sampling import curves
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.sampling.sharded import run_fingerprint
from crystalgfn.sampling.train import train
from crystalgfn.sampling.training_folder import CURVES, METRICS, SAMPLER
from crystalgfn.space.space import CrystalSpace
from crystalgfn.utils import distributed
from crystalgfn.utils.distributed import usable_device
from crystalgfn.utils.run_folder import CONFIG, RunFolder


def run(config: DictConfig, command: str, folder: RunFolder) -> dict[str, Any]:
    """Train; of several processes one does all that is written and said, the others only train.

    Raises:
        OptionError: values that cannot be, or a run that is there already.
    """
    out = folder.path
    device = usable_device(distributed.own_device(config.trainer.device))
    space = CrystalSpace(**space_arguments(config.space))
    reward = build_part(config.reward, "reward")
    reward = reward if hasattr(reward, "config") else Configured(reward, plain_config(config.reward))
    objective, policy, trainer = (build_part(config[name], name) for name in ("objective", "policy", "trainer"))
    if trainer.real_fraction and config.real is None:
        raise OptionError(f"trainer.real_fraction={trainer.real_fraction} needs real crystals: give real=<file>.")
    real = read_crystals(config.real)
    init = None if config.init is None else Sampler.load(config.init, trust=config.trust)
    resume = config.resume and not _never_trained(out)
    logger = _start(config, folder) if distributed.first() else NoLogger()
    try:
        sampler = train(
            space,
            reward,
            objective=objective,
            policy=policy,
            trainer=replace(trainer, device=device),
            strata=strata_of(config),
            seed=config.seed,
            out=folder,
            resume=resume,
            logger=logger,
            real=real,
            init=init,
        )
    except KeyboardInterrupt:
        if (out / CHECKPOINT).exists():
            note(f"\nThe checkpoint is kept; go on with: crystalgfn train resume=true out={out}")
        raise
    finally:
        logger.close()
    return _finish(sampler, config, out) if distributed.first() else {}


def _never_trained(out: Path) -> bool:
    """Whether a run was killed before its first checkpoint, which comes before its first step."""
    return not any((out / name).exists() for name in (CHECKPOINT, METRICS, SAMPLER))


def _start(config: DictConfig, folder: RunFolder) -> Any:
    """The folder of a run with its configuration, and the logger."""
    if config.resume:
        return build_part(config.logger, "logger")
    if (folder.path / CONFIG).exists():
        raise OptionError(
            f"{folder.path} already holds a run; go on with it by resume=true out={folder.path}, or choose another "
            "out=<folder>."
        )
    logger = build_part(config.logger, "logger")
    folder.agree(plain_config(config))
    return logger


def _finish(sampler: Sampler, config: DictConfig, out: Path) -> dict[str, Any]:
    tell(f"The sampler is in {out / SAMPLER}")
    made: dict[str, Any] = {"files": [SAMPLER], "sampler": {"hash": run_fingerprint(sampler)}, "counts": {}}
    if config.diagnostics:
        found = sampler.diagnostics(config.diagnostics, seed=config.seed)
        tell(found)
        made["diagnostics"] = found.figures()
    metrics = out / METRICS
    if metrics.exists():
        curves.training_curves(metrics, out / CURVES)
        made["files"] += [METRICS, CURVES]
        tell(f"How training went: {out / CURVES}")
    tell(f"Sample crystals from it: crystalgfn sample sampler={out / SAMPLER} n=100")
    return made
