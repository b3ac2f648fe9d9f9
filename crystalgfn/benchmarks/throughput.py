"""Crystals a second: trained and sampled, where the time goes, and how near that is to what the matrices alone take.

Training is `TrainingRun.take_step`, sampling is `Sampler.sample`; nothing is a stand-in. What they are measured with is
put aside while they are timed: the shares and the counts of operations come from calls of their own.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from crystalgfn.benchmarks.profiling import (
    ENVIRONMENT,
    MASKS,
    REWARD,
    SECTIONS,
    MatrixOperations,
    Rate,
    Stopwatch,
    busy_core,
    forget_peak,
    matrix_rate,
    peak_memory,
    rate,
    set_threads,
)
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.errors import RewardError
from crystalgfn.gfn.config import TrainerConfig
from crystalgfn.gfn.objectives import Objective
from crystalgfn.gfn.training import TrainingRun
from crystalgfn.policy.network import PolicyConfig
from crystalgfn.rewards.base import Reward, evaluate
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.sampling.strata import given_strata
from crystalgfn.space.space import CrystalSpace
from crystalgfn.utils.progress import Bar
from crystalgfn.utils.provenance import markdown_table

#: Of a policy that shall stay as it is while training steps are timed.
STANDSTILL = 1e-12
WARM_UP = 2
WORKS = ("trained", "sampled")


@dataclass(frozen=True, kw_only=True)
class ThroughputPlan:
    """What is measured: every combination.

    Attributes:
        batch_sizes: crystals a step, and a call of the sampler.
        threads: of torch.
        devices: such as cpu, cuda.
        seconds: of each measurement, at least (two calls are always made).
        competing_load: measure the speeds again beside a process that keeps one core busy.
    """

    batch_sizes: tuple[int, ...] = (100, 1000, 10_000)
    threads: tuple[int, ...] = (1, 2)
    devices: tuple[str, ...] = ("cpu",)
    seconds: float = 10.0
    competing_load: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_sizes", "threads"):
            values = getattr(self, name)
            if not values or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
                raise ValueError(f"{name}={list(values)}: give whole numbers of at least 1")
        if not self.devices:
            raise ValueError("devices=[]: give at least one, such as cpu")
        if not self.seconds > 0:
            raise ValueError(f"seconds={self.seconds}: give a time above 0 for each measurement")


@dataclass(frozen=True, kw_only=True)
class Activity:
    """Figures of training or of sampling.

    Attributes:
        crystals: how fast.
        calls: steps, or calls of the sampler, that were timed.
        peak_memory: MB; of the process on a CPU, of torch's allocator on a GPU.
        shares: of the time, by section.
        operations: floating-point operations of the network's matrix products a crystal, by dtype.
        shape: of most of these products, (rows, inner, columns).
        matrix: operations a second of plain products of that shape, by dtype.
        floor: crystals a second if nothing but these products took time (per CPU second on a CPU).
        reached: the share of the floor that is reached.
    """

    crystals: Rate
    calls: int
    peak_memory: float
    shares: dict[str, float]
    operations: dict[str, float]
    shape: tuple[int, int, int]
    matrix: dict[str, Rate]
    floor: float
    reached: float


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One combination.

    Attributes:
        device: where it was measured.
        threads: of torch.
        batch_size: crystals.
        trained: training.
        sampled: sampling.
        loaded: "trained" and "sampled" -> crystals per second of wall clock beside a process that keeps a core busy,
            over that without it just before; None where it was not asked for.
    """

    device: str
    threads: int
    batch_size: int
    trained: Activity
    sampled: Activity
    loaded: dict[str, float] | None = None


def measure_throughput(
    sampler: Sampler,
    objective: Objective,
    trainer: TrainerConfig,
    plan: ThroughputPlan,
    real: Crystals | None = None,
    keep_policy: bool = True,
    progress: bool = False,
) -> list[Measurement]:
    """Measure every combination of a plan: a sampler's space, network and reward, trained by an objective and trainer.

    Batch size, device and length of the training are the plan's. ``real``: real crystals for ``trainer.real_fraction``.
    ``keep_policy``: train with a learning rate of about zero, so that the states that are visited stay the sampler's.

    Raises:
        RewardError: the sampler has no reward.
    """
    if sampler.reward is None:
        raise RewardError("the sampler has no reward to train with; choose one that was saved with its reward")
    if keep_policy:
        trainer = standing_still(trainer)
    found = []
    combinations = list(itertools.product(plan.devices, plan.threads, sorted(plan.batch_sizes)))
    for device, threads, size in Bar(combinations, shown=progress, description="measuring"):
        here = sampler.to(device)
        bench = _Bench(here, objective, trainer, plan.seconds, None if real is None else real.to(device))
        with set_threads(threads):
            one = Measurement(
                device=device,
                threads=threads,
                batch_size=size,
                trained=bench.trained(size),
                sampled=bench.sampled(size),
            )
            found.append(replace(one, loaded=bench.loaded(size)) if plan.competing_load else one)
    return found


def untrained(
    space: CrystalSpace,
    reward: Reward,
    policy: PolicyConfig | None = None,
    strata: tuple[float, ...] | list[float] | str | None = None,
    seed: int = 0,
) -> Sampler:
    """An untrained sampler with a reward; ``strata`` as in `crystalgfn.train`."""
    sampler = Sampler.untrained(space, seed=seed, omega=given_strata(strata), policy=policy)
    sampler.reward = reward
    return sampler


def standing_still(trainer: TrainerConfig) -> TrainerConfig:
    """The trainer with learning rates of about zero: the same arithmetic, and a policy that stays as it is."""
    return replace(trainer, **{f.name: STANDSTILL for f in fields(trainer) if f.name.endswith("learning_rate")})


class _Bench:
    """One device; each activity is timed plain, then with a watch, then counted."""

    def __init__(
        self, sampler: Sampler, objective: Objective, trainer: TrainerConfig, seconds: float, real: Crystals | None
    ) -> None:
        self.sampler, self.objective, self.trainer = sampler, objective, trainer
        self.seconds, self.real, self.device = seconds, real, torch.device(sampler.device)

    def trained(self, size: int) -> Activity:
        run = self._run(size, self.objective, lambda crystals: evaluate(self.sampler.reward, crystals))
        plain = self._plain(run.take_step)
        watch = Stopwatch(self.device)
        run = self._run(
            size,
            watch.objective(self.objective),
            watch.timed(REWARD, lambda crystals: evaluate(self.sampler.reward, crystals)),
        )
        return self._activity(size, plain, watch, run, run.take_step)

    def sampled(self, size: int) -> Activity:
        seeds = itertools.count()

        def draw() -> None:
            self.sampler.sample(size, seed=next(seeds))

        plain = self._plain(draw)
        return self._activity(size, plain, Stopwatch(self.device), self.sampler, draw)

    def loaded(self, size: int) -> dict[str, float]:
        """What share of the wall throughput is left beside a process that keeps one core busy."""
        run = self._run(size, self.objective, lambda crystals: evaluate(self.sampler.reward, crystals))
        works = {"trained": run.take_step, "sampled": lambda: self.sampler.sample(size, seed=0)}
        found = {}
        for name, work in works.items():
            free = self._plain(work)[0].per_second
            with busy_core():
                found[name] = self._plain(work)[0].per_second / free
        return found

    def _run(self, size: int, objective: Objective, log_reward: Callable[[Crystals], torch.Tensor]) -> TrainingRun:
        sampler = self.sampler
        trainer = replace(self.trainer, batch_size=size, device=str(self.device), progress=False)
        omega = None if sampler.log_omega is None else sampler.log_omega.to(self.device)
        return TrainingRun(
            CrystalEnvironment(sampler.space, self.device), copy.deepcopy(sampler.network), log_reward, objective,
            trainer, stratum=lambda crystals: crystals.n_elements, log_omega=omega, seed=0, real=self.real,
        )  # fmt: skip

    def _plain(self, work: Callable[[], Any]) -> tuple[Rate, int, float]:
        for _ in range(WARM_UP):
            work()
        forget_peak(self.device)
        speed, calls = rate(work, self.seconds, self.device)
        return speed, calls, peak_memory(self.device)

    def _activity(
        self, size: int, plain: tuple[Rate, int, float], watch: Stopwatch, owner: Any, work: Callable[[], Any]
    ) -> Activity:
        speed, calls, memory = plain
        work()  # what is made at the first call belongs to no share
        counter = MatrixOperations(lambda: watch.current not in (REWARD, MASKS, ENVIRONMENT))
        with watch.watching(owner):
            watch.reset()
            rate(work, self.seconds, self.device)
            shares = watch.shares()
            with counter:
                work()
        shape = counter.main_shape()
        matrix = {
            dtype: matrix_rate(shape, dtype, self.device, min(1.0, self.seconds / 2))
            for dtype in sorted({torch.float32, torch.bfloat16, *counter.operations}, key=str)
        }
        needed = sum(number / size / matrix[dtype].on(self.device) for dtype, number in counter.operations.items())
        crystals = Rate(speed.per_cpu_second * size, speed.per_second * size)
        return Activity(
            crystals=crystals,
            calls=calls,
            peak_memory=memory,
            shares=shares,
            operations={_short(dtype): number / size for dtype, number in counter.operations.items()},
            shape=shape,
            matrix={_short(dtype): speed for dtype, speed in matrix.items()},
            floor=1 / needed,
            reached=crystals.on(self.device) * needed,
        )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def throughput_tables(found: list[Measurement]) -> str:
    """Speeds, shares and floors as Markdown."""
    first = ("device", "threads", "batch", "")
    both = [
        ((m.device, m.threads, m.batch_size, what), activity)
        for m in found
        for what, activity in (("trained", m.trained), ("sampled", m.sampled))
    ]
    speeds = markdown_table(
        (*first, "crystals / CPU s", "crystals / s", "peak memory, MB"),
        [(*k, a.crystals.per_cpu_second, a.crystals.per_second, a.peak_memory) for k, a in both],
    )
    shares = markdown_table(
        (*first, *(f"{name}, %" for name in SECTIONS)),
        [(*k, *(round(100 * a.shares[name], 1) for name in SECTIONS)) for k, a in both],
    )
    parts = [
        f"Speed\n\n{speeds}",
        f"Where the time goes\n\n{shares}",
        "The floor: the network's matrix products alone, per CPU second on a CPU and per second on a GPU\n\n"
        f"{_floors(first, both)}",
    ]
    if loaded := _loaded(found):
        table = markdown_table((*first, "crystals / s that are left, %", "of one free core's crystals / s, %"), loaded)
        parts.append(f"Beside a process that keeps one core busy\n\n{table}")
    return "\n\n".join(parts)


def _loaded(found: list[Measurement]) -> list[tuple[Any, ...]]:
    """What a competing load leaves, in per cent: of the same threads, and of one thread without a load."""
    free = {
        (m.device, m.batch_size, m.threads, name): getattr(m, name).crystals.per_second for m in found for name in WORKS
    }
    rows = []
    for m in found:
        for name, share in (m.loaded or {}).items():
            own, one = (free.get((m.device, m.batch_size, threads, name)) for threads in (m.threads, 1))
            of_one = round(100 * share * own / one, 1) if own and one else None
            rows.append((m.device, m.threads, m.batch_size, name, round(100 * share, 1), of_one))
    return rows


def _floors(first: tuple[str, ...], both: list[tuple[tuple[str, int, int, str], Activity]]) -> str:
    dtypes = sorted({dtype for _, a in both for dtype in a.matrix})
    head = (*first, "product", *(f"{d}, MFLOP / crystal" for d in dtypes), *(f"{d}, GFLOP/s" for d in dtypes))
    rows = [
        (*k, "{} x {} x {}".format(*a.shape), *(a.operations.get(d, 0.0) / 1e6 for d in dtypes),
         *(a.matrix[d].on(torch.device(k[0])) / 1e9 if d in a.matrix else None for d in dtypes),
         a.floor, round(100 * a.reached, 1))
        for k, a in both
    ]  # fmt: skip
    return markdown_table((*head, "floor, crystals / s", "reached, %"), rows)
