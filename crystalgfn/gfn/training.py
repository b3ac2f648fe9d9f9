"""Training: sample, reward, score, one step; checkpoints that continue the very run."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from crystalgfn.envs.base import Environment
from crystalgfn.errors import CheckpointError, TrainingError
from crystalgfn.gfn.batches import Batch, TrajectorySampler
from crystalgfn.gfn.checkpoint import load_tensors, restore, save_tensors, training_state
from crystalgfn.gfn.config import TrainerConfig
from crystalgfn.gfn.diagnostics import log_mean_exp_of, relative_ess
from crystalgfn.gfn.loggers import Keeper, Logger, NoLogger, ThroughputMeter
from crystalgfn.gfn.objectives import Objective
from crystalgfn.gfn.scoring import FlowHead, Optimizers, Scorer, joined, score
from crystalgfn.gfn.views import NoView, Status, View, live
from crystalgfn.policy.network import PolicyNetwork
from crystalgfn.utils import distributed
from crystalgfn.utils.interrupts import Interrupts

CHECKPOINT = "checkpoint.pt"
KIND = "training"


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
        best: keeps the best objects.
        view: shows how it goes; None: a live one where ``trainer.progress`` asks for it.

    Raises:
        TrainingError: settings that exclude each other.
    """

    def __init__(
        self,
        env: Environment,
        network: PolicyNetwork,
        log_reward: Callable[[Any], torch.Tensor],
        objective: Objective,
        trainer: TrainerConfig,
        *,
        stratum: Callable[[Any], torch.Tensor] | None = None,
        log_omega: torch.Tensor | None = None,
        seed: int = 0,
        folder: Path | None = None,
        logger: Logger | None = None,
        real: Any = None,
        best: Keeper | None = None,
        view: View | None = None,
    ) -> None:
        parts = trainer.accumulate * distributed.world_size()
        _check(network, objective, trainer, parts)
        self.env, self.network, self.objective, self.trainer = env, network, objective, trainer
        self.folder, self.logger, self.best = folder, logger or NoLogger(), best
        self.view = view or (live() if trainer.progress and not distributed.rank() else NoView())
        network.matrix_dtype = getattr(torch, trainer.precision)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            flow = FlowHead(network.config.width, tuple(env.heads)) if objective.needs_flows else None
        self.scorer = Scorer(env, network, log_omega, None if flow is None else flow.to(env.device))
        # an output of the forward pass that the loss does not use would keep DistributedDataParallel waiting
        self.log_z = self.scorer.log_z
        self.log_z.requires_grad_(objective.learns_log_z)
        self._parallel: Scorer | DistributedDataParallel = self.scorer
        if distributed.active():
            # which heads a batch asks for differs, so some parameters have no gradient in some steps
            self._parallel = DistributedDataParallel(self.scorer, find_unused_parameters=True)
        self.optimizers = Optimizers(trainer, network, self.log_z, self.scorer.flow)
        first = distributed.rank() * trainer.accumulate
        self.sources = [
            TrajectorySampler(
                env,
                log_reward,
                trainer,
                trainer.batch_size // parts,
                seed,
                n,
                stratum=stratum,
                log_omega=log_omega,
                real=real,
            )  # fmt: skip
            for n in range(first, first + trainer.accumulate)
        ]
        self.step, self.elapsed = 0, 0.0
        self._drawn: list[Batch] = []
        self._whole = True  # not in the middle of a step

    # ---- one step -----------------------------------------------------------------------------------------------

    @property
    def progress(self) -> float:
        """The share of the training that is done."""
        if self.trainer.steps is not None:
            return min(1.0, self.step / self.trainer.steps)
        return min(1.0, self.elapsed / self.trainer.seconds) if self.trainer.seconds else 1.0

    def take_step(self) -> dict[str, float]:
        """One optimiser step; its figures."""
        progress = self.progress
        self._whole = False
        self.optimizers.schedule(progress)
        self.optimizers.zero_grad()
        self._drawn, change = [], torch.zeros_like(self.log_z)
        figures = [
            self._part(source, self.trainer.epsilon * (1 - progress), change, last=source is self.sources[-1])
            for source in self.sources
        ]
        self.optimizers.step()
        with torch.no_grad():
            if self.trainer.betas is None and not self.objective.learns_log_z:
                self.log_z += distributed.mean(change) / len(self.sources)
            together = distributed.mean(torch.stack(figures).mean(0))
            numbers = torch.cat([together, self._log_z_of_all()[None]]).tolist()
        self.step += 1
        self._whole = True
        loss, log_reward, ess, log_z = numbers
        return {"loss": loss, "log_z": log_z, "log_reward": log_reward, "ess": ess}

    def _part(self, source: TrajectorySampler, epsilon: float, change: torch.Tensor, last: bool) -> torch.Tensor:
        """Sample one part of the batch and add its gradient, and to the change of ln Z; its loss, mean ln R and ESS."""
        batches = source.draw(self.network, epsilon)
        if self.step == 0 and source is self.sources[0] and self.trainer.betas is None:
            self._start_log_z(batches)
        parallel = self._parallel
        together = parallel.no_sync() if isinstance(parallel, DistributedDataParallel) and not last else nullcontext()
        with together:
            scored, log_z = self._parallel(batches)
            log_reward = torch.cat([b.log_reward for b in batches])
            index = torch.cat([b.index for b in batches])
            own = torch.cat([b.own for b in batches])
            loss, delta = self.objective(joined(scored), log_reward, log_z, index, own)
            self._check_finite(loss, delta)
            (loss / len(self.sources)).backward()
        drawn = batches[0]
        n = drawn.trajectories.n
        self._drawn.append(drawn)
        ratio = scored[0].log_ratio(drawn.log_reward).detach()
        if self.trainer.betas is None and not self.objective.learns_log_z:
            self._track_log_z((delta[:n].detach() - ratio)[drawn.own], drawn.index[drawn.own], change)
        if source.replay.size:
            source.replay.add(drawn.trajectories.objects, drawn.log_reward_unweighted, -delta[:n].detach())
        ess = relative_ess(-delta[:n].detach()[drawn.own])
        return torch.stack([loss.detach().double(), drawn.log_reward_unweighted[drawn.own].mean(), ess.double()])

    def _check_finite(self, loss: torch.Tensor, delta: torch.Tensor) -> None:
        if not bool(torch.isfinite(loss)):
            bad = int((~torch.isfinite(delta)).nonzero()[0])
            raise TrainingError(
                f"the loss is not finite at step {self.step} (trajectory {bad}: residual {float(delta[bad])}); "
                "lower the learning rate, or bound the reward with rewards.floor"
            )

    @torch.no_grad()
    def _log_z_of_all(self) -> torch.Tensor:
        """ln Z, averaged over the strata as they are given; NaN where there are many temperatures."""
        if self.trainer.betas is not None:
            return torch.full((), torch.nan, dtype=torch.float64, device=self.env.device)
        if self.scorer.log_omega is None:
            return self.log_z[0]
        return (self.scorer.log_omega.exp() * self.log_z).sum()

    @torch.no_grad()
    def _start_log_z(self, batches: list[Batch]) -> None:
        """ln Z from the first batch's importance weights."""
        scored = [score(self.env, self.network, b.trajectories, self.scorer.log_omega) for b in batches]
        ratio = torch.cat([s.log_ratio(b.log_reward) for s, b in zip(scored, batches, strict=True)])
        index = torch.cat([b.index for b in batches])
        for s, value in log_mean_exp_of(-ratio, index).items():
            self.log_z[s] = value
        self.log_z.copy_(distributed.from_first(self.log_z.clone()))

    @torch.no_grad()
    def _track_log_z(self, log_z: torch.Tensor, index: torch.Tensor, change: torch.Tensor) -> None:
        """A running mean of what the batches' strata have, for objectives that do not learn ln Z."""
        for s in range(len(self.log_z)):
            here = index == s
            if bool(here.any()):
                change[s] += 0.05 * (log_z[here].mean() - self.log_z[s])

    # ---- the whole ----------------------------------------------------------------------------------------------

    def fit(self) -> None:
        """Train to the end; Ctrl-C ends it after a whole step, with a checkpoint.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
        """
        clock, saved = time.monotonic(), self.elapsed
        meter, stopped = ThroughputMeter(self), False
        figures: dict[str, float] = {}
        try:
            with Interrupts(patient=distributed.active()) as interrupts:
                while self.progress < 1.0:
                    figures = self.take_step()
                    now = time.monotonic()
                    self.elapsed, interrupted = self._agreed(self.elapsed + now - clock, interrupts.seen)
                    clock = now
                    if self.step % self.trainer.log_every == 0:
                        self._keep_best()
                        self.logger.log(
                            self.step, {**figures, "seconds": self.elapsed, "crystals_per_second": meter.lap()}
                        )
                    if self.view.due():
                        self.view.show(self._status(figures, meter))
                    if interrupted:
                        stopped = True
                        interrupts.interrupt()
                        raise KeyboardInterrupt  # another process was interrupted
                    if self.elapsed - saved > self.trainer.checkpoint_seconds:
                        self.save()
                        saved = self.elapsed
        except KeyboardInterrupt:
            # several processes may be in different steps, unless they have agreed on it
            if stopped or (self._whole and not distributed.active()):
                self.save()
            raise
        finally:
            if figures:
                self.view.show(self._status(figures, meter))
            self.view.close()
        self._keep_best()
        self.save()

    def _agreed(self, seconds: float, interrupts: int) -> tuple[float, bool]:
        """The first process's time and whether any process was interrupted: all have to stop after the same step."""
        if not distributed.active():
            return seconds, interrupts > 0
        mine = [0.0 if distributed.rank() else seconds, float(interrupts)]
        both = torch.tensor(mine, dtype=torch.float64, device=self.env.device)
        seconds, interrupts = (distributed.mean(both) * distributed.world_size()).tolist()
        return seconds, interrupts > 0

    def _keep_best(self) -> None:
        """Offer what the last step sampled to the keeper of the best, and what it keeps in the other processes."""
        if self.best is None:
            return
        for batch in self._drawn:
            self.best.offer(batch.trajectories.objects, batch.log_reward_unweighted)
        if distributed.active():
            for state in distributed.gathered(self.best.state_dict()):
                self.best.load_state_dict(state)

    def _status(self, figures: dict[str, float], meter: ThroughputMeter) -> Status:
        return Status(
            step=self.step,
            share=self.progress,
            seconds=self.elapsed,
            left=meter.left(),
            rate=meter.rate(),
            figures=figures,
            best=[] if self.best is None else self.best.lines(),
        )

    def save(self) -> None:
        """Write the checkpoint aside and rename it; the first process writes for all."""
        if self.folder is None:
            return
        sources = [state for part in distributed.gathered([s.state_dict() for s in self.sources]) for state in part]
        if distributed.rank():
            return
        best = None if self.best is None else self.best.table()
        if best is not None and len(best):
            self.logger.table("best", best)
        save_tensors(self.folder / CHECKPOINT, KIND, training_state(self, sources))

    def load(self) -> None:
        """Continue from the checkpoint in the folder.

        Raises:
            CheckpointError: missing, truncated, foreign, of another network, or of another number of processes.
        """
        if self.folder is None:
            raise CheckpointError("resume needs the folder of a run (out)")
        path = self.folder / CHECKPOINT
        state = load_tensors(path, KIND)
        restore(self, state, path)
        self.logger.resume(self.step)


def _check(network: PolicyNetwork, objective: Objective, trainer: TrainerConfig, parts: int) -> None:
    """Refuse settings that exclude each other; ``parts`` are those of a batch."""
    if trainer.betas is not None and objective.learns_log_z:
        raise TrainingError(
            f"{type(objective).__name__} learns one ln Z, but betas={list(trainer.betas)} have many; use VarGrad"
        )
    if (trainer.betas is not None) != network.config.conditioned:
        raise TrainingError(
            f"betas={trainer.betas} with a policy of conditioned={network.config.conditioned}: set both or neither"
        )
    if trainer.batch_size % parts:
        raise TrainingError(
            f"batch_size={trainer.batch_size} cannot be shared out over {distributed.world_size()} processes in "
            f"accumulate={trainer.accumulate} parts each; give a multiple of {parts}"
        )
