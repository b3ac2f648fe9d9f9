"""Training: walk, reward, score in one pass, one step; checkpoints that continue the very run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from crystalgfn.domain.crystals import Crystals
from crystalgfn.envs.base import Environment
from crystalgfn.errors import CheckpointError, TrainingError
from crystalgfn.gfn.diagnostics import log_mean_exp, relative_ess
from crystalgfn.gfn.files import load_tensors, save_tensors
from crystalgfn.gfn.logging import Logger, NoLogger
from crystalgfn.gfn.objectives import Objective
from crystalgfn.gfn.replay import Replay
from crystalgfn.gfn.rollout import replay_walk, sample_walk
from crystalgfn.gfn.scoring import log_forward
from crystalgfn.policy.network import PolicyNetwork

CHECKPOINT = "checkpoint.pt"
KIND = "training"


@dataclass(frozen=True)
class Trainer:
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps; None with ``seconds``.
        seconds: wall-clock time instead of steps (the schedules follow the clock, so such a run is not repeatable).
        batch_size: trajectories a step, of all sources together.
        learning_rate: of the network, with cosine decay to 0.
        log_z_learning_rate: of ln Z, likewise.
        epsilon: share of uniform moves while exploring, decaying linearly to 0.
        replay_fraction: share of a batch that is replayed.
        replay_size: crystals kept for replay.
        real_fraction: share of a batch drawn from given real crystals.
        gradient_clip: largest norm of the gradient.
        checkpoint_seconds: time between checkpoints.
        log_every: steps between records.
        device: where to train.
        progress: show a progress bar.
    """

    steps: int | None = None
    seconds: float | None = None
    batch_size: int = 1000
    learning_rate: float = 2e-3
    log_z_learning_rate: float = 0.1
    epsilon: float = 0.05
    replay_fraction: float = 0.0
    replay_size: int = 20_000
    real_fraction: float = 0.0
    gradient_clip: float = 1.0
    checkpoint_seconds: float = 60.0
    log_every: int = 10
    device: str = "cpu"
    progress: bool = True

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            object.__setattr__(self, "steps", 2000)
        if self.steps is not None and self.seconds is not None:
            raise ValueError(f"steps={self.steps} and seconds={self.seconds}: give one of them")
        for name in ("steps", "seconds", "batch_size", "learning_rate", "log_every", "gradient_clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"trainer {name}={value}: give a number above 0")
        for name in ("epsilon", "replay_fraction", "real_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"trainer {name}={getattr(self, name)}: give a share from 0 to below 1")
        if self.replay_fraction + self.real_fraction >= 1:
            raise ValueError(
                f"replay_fraction={self.replay_fraction} and real_fraction={self.real_fraction} leave nothing to draw"
            )


class TrainingRun:
    """A training in progress.

    Args:
        env: the environment.
        network: its policy.
        log_reward: objects -> ln R [B].
        objective: the loss.
        trainer: how.
        stratum: objects -> int64 [B], and the number of strata; None: one stratum.
        log_omega: given ln marginals of the strata [S] (the first move is then fixed); None: learned.
        seed: of all random numbers.
        folder: where checkpoints go; None: nowhere.
        logger: takes the figures.
        real: real objects that are trained on.
    """

    def __init__(
        self,
        env: Environment,
        network: PolicyNetwork,
        log_reward: Callable[[Any], torch.Tensor],
        objective: Objective,
        trainer: Trainer,
        stratum: Callable[[Any], torch.Tensor] | None = None,
        log_omega: torch.Tensor | None = None,
        seed: int = 0,
        folder: Path | None = None,
        logger: Logger | None = None,
        real: Crystals | None = None,
    ) -> None:
        self.env, self.network, self.log_reward = env, network, log_reward
        self.objective, self.trainer = objective, trainer
        self.stratum, self.log_omega = stratum, log_omega
        self.folder, self.logger, self.real = folder, logger or NoLogger(), real
        n_strata = 1 if log_omega is None else len(log_omega)
        self.log_z = torch.nn.Parameter(torch.zeros(n_strata, dtype=torch.float64, device=env.device))
        self.optimizer = torch.optim.Adam(
            [
                {"params": list(network.parameters()), "lr": trainer.learning_rate},
                {"params": [self.log_z], "lr": trainer.log_z_learning_rate},
            ],
            betas=(0.9, 0.99),
            foreach=True,
        )
        self.generator = torch.Generator(device=env.device).manual_seed(seed)
        self.replay = Replay(trainer.replay_size if trainer.replay_fraction > 0 else 0)
        self.step, self.elapsed = 0, 0.0

    # ---- one step -----------------------------------------------------------------------------------------------

    @property
    def progress(self) -> float:
        """The share of the training that is done."""
        if self.trainer.steps is not None:
            return min(1.0, self.step / self.trainer.steps)
        return min(1.0, self.elapsed / self.trainer.seconds)

    def take_step(self) -> dict[str, float]:
        """One optimiser step; its figures."""
        progress = self.progress
        decay = 0.5 * (1 + math.cos(math.pi * progress))
        rates = (self.trainer.learning_rate, self.trainer.log_z_learning_rate)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * max(decay, 1e-6)
        batches = self._walks(self.trainer.epsilon * (1 - progress))
        ratios, strata, log_rewards = [], [], []
        for walked in batches:
            log_reward = self.log_reward(walked.objects).detach()
            index = self._strata(walked)
            omega = 0.0 if self.log_omega is None else self.log_omega[index]
            log_pf = log_forward(self.env, self.network, walked, self.log_omega)
            ratios.append(log_pf.double() - walked.log_backward - log_reward.double() - omega)
            strata.append(index)
            log_rewards.append(log_reward)
        ratio, index = torch.cat(ratios), torch.cat(strata)
        if self.step == 0:
            self._start_log_z(ratio.detach(), index)
        loss, delta = self.objective(ratio, self.log_z, index)
        if not bool(torch.isfinite(loss)):
            bad = int((~torch.isfinite(delta)).nonzero()[0])
            raise TrainingError(
                f"the loss is not finite at step {self.step} (trajectory {bad}: residual {float(delta[bad])}); lower "
                "the learning rate, or bound the reward with rewards.floor"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.trainer.gradient_clip)
        self.optimizer.step()
        drawn = -ratios[0].detach()
        if not self.objective.learns_log_z:
            self._track_log_z(-ratio.detach(), index)
        self.step += 1
        return {
            "loss": float(loss.detach()),
            "log_z": float(self.log_z.detach()[index.mode().values]),
            "log_reward": float(log_rewards[0].double().mean()),
            "ess": float(relative_ess(drawn)),
        }

    def _walks(self, epsilon: float) -> list:
        n = self.trainer.batch_size
        n_real = round(n * self.trainer.real_fraction) if self.real is not None else 0
        n_replay = round(n * self.trainer.replay_fraction) if len(self.replay) else 0
        walked = [sample_walk(self.env, self.network, n - n_real - n_replay, epsilon, self.log_omega, self.generator)]
        if n_replay:
            walked.append(replay_walk(self.env, self.replay.sample(n_replay, self.generator), n_replay))
        if n_real:
            index = torch.randint(len(self.real), (n_real,), generator=self.generator, device=self.generator.device)
            walked.append(replay_walk(self.env, self.real[index.to(self.real.device)], n_real))
        if self.replay.size:
            self.replay.add(walked[0].objects)
        return walked

    def _strata(self, walked: Any) -> torch.Tensor:
        if self.log_omega is None or self.stratum is None:
            return torch.zeros(walked.n, dtype=torch.int64, device=self.env.device)
        return self.stratum(walked.objects)

    @torch.no_grad()
    def _start_log_z(self, ratio: torch.Tensor, index: torch.Tensor) -> None:
        """ln Z from the first batch's importance weights."""
        for s in range(len(self.log_z)):
            here = index == s
            if bool(here.any()):
                self.log_z[s] = log_mean_exp(-ratio[here])

    @torch.no_grad()
    def _track_log_z(self, log_weight: torch.Tensor, index: torch.Tensor) -> None:
        """A running mean for objectives that do not learn ln Z."""
        for s in range(len(self.log_z)):
            here = index == s
            if bool(here.any()):
                self.log_z[s] += 0.05 * (log_weight[here].mean() - self.log_z[s])

    # ---- the whole ----------------------------------------------------------------------------------------------

    def fit(self) -> None:
        """Train to the end; Ctrl-C saves a checkpoint and goes on as KeyboardInterrupt."""
        saved = clock = time.monotonic()
        bar = tqdm(
            total=100.0, initial=100 * self.progress, disable=not self.trainer.progress, desc="training",
            bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed}<{remaining}{postfix}",
        )  # fmt: skip
        try:
            while self.progress < 1.0:
                figures = self.take_step()
                now = time.monotonic()
                self.elapsed, clock = self.elapsed + now - clock, now
                if self.step % self.trainer.log_every == 0:
                    rate = self.step * self.trainer.batch_size / max(self.elapsed, 1e-9)
                    self.logger.log(self.step, {**figures, "seconds": self.elapsed, "crystals_per_second": rate})
                    bar.n = 100 * self.progress
                    bar.set_postfix_str(
                        f"loss {figures['loss']:.3g}, ln R {figures['log_reward']:.2f}, ESS {figures['ess']:.2f}, "
                        f"{rate:.0f}/s"
                    )
                if now - saved > self.trainer.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
        except KeyboardInterrupt:
            self.save()
            raise
        finally:
            bar.close()
        self.save()

    def save(self) -> None:
        """Write the checkpoint aside and rename it."""
        if self.folder is None:
            return
        save_tensors(
            self.folder / CHECKPOINT,
            {
                "kind": KIND,
                "trainer": {k: v for k, v in asdict(self.trainer).items() if k not in ("progress", "device")},
                "network": self.network.state_dict(),
                "log_z": self.log_z.detach(),
                "optimizer": self.optimizer.state_dict(),
                "generator": self.generator.get_state(),
                "replay": self.replay.state_dict(),
                "step": self.step,
                "elapsed": self.elapsed,
            },
        )

    def load(self) -> None:
        """Continue from the checkpoint in the folder.

        Raises:
            CheckpointError: missing, truncated, foreign, or of another network.
        """
        if self.folder is None:
            raise CheckpointError("resume needs the folder of a run (out)")
        state = load_tensors(self.folder / CHECKPOINT, KIND)
        try:
            self.network.load_state_dict(state["network"])
            with torch.no_grad():
                self.log_z.copy_(state["log_z"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"checkpoint {self.folder / CHECKPOINT} is of another space, policy or version; resume with the "
                "settings of that run, or start in another folder"
            ) from error
        self.replay.load_state_dict(state["replay"])
        self.step, self.elapsed = state["step"], state["elapsed"]
