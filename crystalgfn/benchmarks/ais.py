"""ln Z by annealed importance sampling (Neal 2001), with resampling (annealed SMC, Del Moral et al. 2006).

Weights of a sampler's own crystals cannot see modes that it dropped. Here ln Z of R comes from elsewhere: chains start
in a policy q0 that drops nothing (the untrained one), and are led through pi_t ~ q0^(1 - t) R^t, t from 0 to 1, by the
kernels of `crystalgfn.benchmarks.mcmc`. A pilot chooses temperatures and step sizes; the chains that count keep to
them, so that the estimate of Z of each island of chains is unbiased, whether or not its chains have mixed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from crystalgfn.benchmarks.mcmc import KERNELS, Base, MoveProposals
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.gfn.diagnostics import relative_ess
from crystalgfn.typing import Floats, Integers

LogReward = Callable[[Crystals], torch.Tensor]
#: Shares of the kernels in each sweep.
MIX = {"regenerate": 0.35, "lattice": 0.25, "elements": 0.25, "counts": 0.075, "group": 0.075}
ACCEPTANCE = 0.3  # of lattice steps, that the pilot aims at
FIRST_STEP, STEP_LIMITS = 0.2, (1e-4, 2.0)
MOST_TEMPERATURES = 2000


@dataclass(frozen=True)
class Schedule:
    """Temperatures t from 0 to 1 [T + 1], the lattice step [T] at each but the first, and sweeps at each."""

    temperatures: tuple[float, ...]
    steps: tuple[float, ...]
    sweeps: int


@dataclass(frozen=True, kw_only=True)
class Annealed:
    """What annealing found.

    Attributes:
        log_z: ln of the mean of the islands' estimates of Z = integral of R under the reference measure.
        error: its standard error, from the spread of the islands.
        islands: ln Z of each island, float64 [I].
        ess: ESS / N of the weights gathered since the last resampling, mean over the islands.
        resampled: times that an island was resampled, mean over the islands.
        ancestors: chains' starting crystals that have descendants at the end, share of all.
        acceptance: accepted moves at t < 1 and at t = 1, by kernel: {name: (before, at the end)}.
        schedule: temperatures and steps.
        crystals: of the target, not drawn from a trained sampler: the chains' ends, resampled to equal weights [N].
        log_reward: their ln R, float64 [N].
        log_base: their ln q0, float64 [N].
        island: where each of them comes from, int64 [N].
        seconds: time taken, pilot included.
    """

    log_z: float
    error: float
    islands: Floats
    ess: float
    resampled: float
    ancestors: float
    acceptance: dict[str, tuple[float, float]]
    schedule: Schedule
    crystals: Crystals
    log_reward: Floats
    log_base: Floats
    island: Integers
    seconds: float

    def __str__(self) -> str:
        rates = ", ".join(f"{name} {a:.2f} / {b:.2f}" for name, (a, b) in self.acceptance.items())
        return (
            f"ln Z {self.log_z:.3f} ± {self.error:.3f} ({len(self.islands)} islands of "
            f"{len(self.crystals) // len(self.islands)} chains, {len(self.schedule.steps)} temperatures, "
            f"ESS {self.ess:.2f}, resampled {self.resampled:.1f} times, ancestors {self.ancestors:.3f}, "
            f"{self.seconds:.0f} s)\n  accepted before / at the end: {rates}"
        )


class Chains:
    """``n`` crystals on their way from q0 to R, all at once; ``mix``: shares of the kernels."""

    def __init__(self, base: Base, log_reward: LogReward, n: int, seed: int, mix: Mapping[str, float] = MIX) -> None:
        if unknown := set(mix) - set(KERNELS):
            raise ValueError(f"mix names the kernel {sorted(unknown)[0]!r}; choose from {', '.join(KERNELS)}")
        device = base.env.device
        self.base, self.log_reward = base, log_reward
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self.proposals = MoveProposals(base.env.space, base.n_moves, device)
        self.mix = torch.tensor([float(mix.get(name, 0.0)) for name in KERNELS], device=device)
        self.crystals, self.log_q = base.draw(n, self.generator)
        self.log_r = log_reward(self.crystals).double()
        self.tried = torch.zeros(2, len(KERNELS), dtype=torch.float64, device=device)
        self.accepted = torch.zeros_like(self.tried)

    @property
    def gain(self) -> Floats:
        """f = ln R - ln q0 of each chain, float64 [N]."""
        return self.log_r - self.log_q

    def sweep(self, t: float, step: float) -> float:
        """One move of every chain, which leaves pi_t as it is; the share of lattice steps that were accepted."""
        n = len(self.log_q)
        kernel = torch.multinomial(self.mix, n, replacement=True, generator=self.generator)
        plan, cut, possible = self.proposals(self.crystals, kernel, step, self.generator)
        new, log_q = self.base.complete(plan, cut, self.generator)
        possible = possible & (log_q > -torch.inf)
        inside = possible.nonzero().flatten()
        log_r = torch.full_like(log_q, -torch.inf)
        log_r[inside] = self.log_reward(new[inside]).double()
        gain = log_r - self.log_r
        drift = torch.where(possible, log_q - self.log_q, 0.0)
        regenerated = kernel == KERNELS.index("regenerate")  # q0's part is in the proposal
        ratio = torch.where(regenerated, t * (gain - drift), (1 - t) * drift + t * gain)
        draw = torch.rand(n, dtype=torch.float64, device=log_q.device, generator=self.generator)
        accept = possible & (draw.log() < ratio)
        self.crystals = _where(accept, new, self.crystals)
        self.log_q = torch.where(accept, log_q, self.log_q)
        self.log_r = torch.where(accept, log_r, self.log_r)
        tried = torch.bincount(kernel, minlength=len(KERNELS)).double()
        accepted = torch.bincount(kernel[accept], minlength=len(KERNELS)).double()
        self.tried[int(t == 1)] += tried
        self.accepted[int(t == 1)] += accepted
        lattice = KERNELS.index("lattice")
        return float(accepted[lattice] / tried[lattice].clamp_min(1))

    def keep(self, index: Integers) -> None:
        """Continue with the chains at ``index`` [N], with repeats."""
        self.crystals = self.crystals[index]
        self.log_q, self.log_r = self.log_q[index], self.log_r[index]

    def acceptance(self) -> dict[str, tuple[float, float]]:
        """Accepted shares at t < 1 and at t = 1 of the kernels in use."""
        rate = (self.accepted / self.tried.clamp_min(1)).cpu()
        return {name: (float(rate[0, i]), float(rate[1, i])) for i, name in enumerate(KERNELS) if self.mix[i] > 0}


def pilot(
    base: Base,
    log_reward: LogReward,
    n: int = 500,
    keep: float = 0.95,
    sweeps: int = 2,
    seed: int = 0,
) -> Schedule:
    """Choose temperatures and lattice steps with ``n`` chains of their own.

    ``keep`` is the ESS / N that the weights of one change of temperature keep (nearer to 1: more temperatures),
    ``sweeps`` the moves at each temperature.

    Raises:
        ValueError: a reward so far from q0 that 2,000 temperatures do not suffice.
    """
    if not 0 < keep < 1 or sweeps < 1 or n < 2:
        raise ValueError(f"keep={keep}, sweeps={sweeps}, n={n}: give keep in (0, 1), a sweep and two chains at least")
    chains = Chains(base, log_reward, n, seed)
    temperatures, steps, step = [0.0], [], FIRST_STEP
    while temperatures[-1] < 1:
        if len(steps) >= MOST_TEMPERATURES:
            raise ValueError(f"t={temperatures[-1]:.4f} after {MOST_TEMPERATURES} temperatures: lower keep={keep}")
        t = _next(chains.gain, temperatures[-1], keep)
        weight = torch.softmax((t - temperatures[-1]) * chains.gain, 0)
        chains.keep(_systematic(weight[None], chains.generator).flatten())
        temperatures.append(t)
        steps.append(step)
        for _ in range(sweeps):
            step = min(max(step * math.exp(chains.sweep(t, step) - ACCEPTANCE), STEP_LIMITS[0]), STEP_LIMITS[1])
    return Schedule(tuple(temperatures), tuple(steps), sweeps)


def anneal(
    base: Base,
    log_reward: LogReward,
    n: int = 2000,
    islands: int = 8,
    schedule: Schedule | None = None,
    keep: float = 0.95,
    sweeps: int = 2,
    resample: bool = True,
    final_sweeps: int = 10,
    seed: int = 0,
) -> Annealed:
    """ln Z of a reward, and crystals of its distribution, from a policy that knows nothing of it.

    Args:
        base: q0, where the chains start; its space is the one that is integrated over.
        log_reward: crystals -> ln R, float [B].
        n: chains, all islands together.
        islands: independent populations, which give the standard error; at least 2.
        schedule: None: `pilot` makes one with n / 4 chains.
        keep: as in `pilot`.
        sweeps: as in `pilot`.
        resample: resample an island when its ESS falls under half; False: plain annealed importance sampling.
        final_sweeps: moves at t = 1 after the last resampling.
        seed: of the draws.

    Raises:
        ValueError: fewer than two islands, or than two chains on each.
    """
    began = time.monotonic()
    size = n // islands if islands > 0 else 0
    if islands < 2 or size < 2:
        raise ValueError(f"n={n}, islands={islands}: give at least two islands of two chains for a standard error")
    schedule = schedule or pilot(base, log_reward, max(n // 4, 2), keep, sweeps, seed + 1)
    chains = Chains(base, log_reward, islands * size, seed)
    device = chains.log_q.device
    log_z = torch.zeros(islands, dtype=torch.float64, device=device)
    log_weight = torch.zeros(islands, size, dtype=torch.float64, device=device)
    origin = torch.arange(islands * size, device=device)
    resampled = 0
    start = torch.arange(islands, device=device)[:, None] * size

    def select(which: torch.Tensor) -> None:
        """Resample some islands; their mean weight goes into ln Z."""
        nonlocal origin
        index = start + torch.arange(size, device=device)
        index[which] = start[which] + _systematic(torch.softmax(log_weight[which], 1), chains.generator)
        chains.keep(index.flatten())
        origin = origin[index.flatten()]
        log_z[which] += log_weight[which].logsumexp(1) - math.log(size)
        log_weight[which] = 0.0

    moves = list(zip(schedule.temperatures, schedule.temperatures[1:], schedule.steps, strict=False))
    for before, t, step in moves:
        log_weight += (t - before) * chains.gain.view(islands, size)
        if resample and t < 1:
            low = (_ess(log_weight) < 0.5).nonzero().flatten()
            if len(low):
                select(low)
                resampled += len(low)
        if t < 1:
            for _ in range(schedule.sweeps):
                chains.sweep(t, step)
    ess = float(_ess(log_weight).mean())
    select(torch.arange(islands, device=device))
    # islands that found more of Z count for more: only then are all ends together a sample of the target
    weight = torch.softmax(log_z, 0).repeat_interleave(size)[None] / size
    index = _systematic(weight, chains.generator).flatten()
    chains.keep(index)
    origin = origin[index]
    for _ in range(final_sweeps):
        chains.sweep(1.0, schedule.steps[-1])
    relative = (log_z - log_z.max()).exp()
    return Annealed(
        log_z=float(log_z.logsumexp(0) - math.log(islands)),
        error=float(relative.std() / relative.mean() / math.sqrt(islands)),
        islands=log_z.cpu(),
        ess=ess,
        resampled=resampled / islands,
        ancestors=len(origin.unique()) / (islands * size),
        acceptance=chains.acceptance(),
        schedule=schedule,
        crystals=chains.crystals,
        log_reward=chains.log_r,
        log_base=chains.log_q,
        island=index // size,
        seconds=time.monotonic() - began,
    )


def _next(gain: torch.Tensor, t: float, keep: float) -> float:
    """The largest next temperature at which equal weights keep an ESS / N of ``keep``."""
    if float(relative_ess((1 - t) * gain)) >= keep:
        return 1.0
    low, high = 0.0, 1 - t
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if float(relative_ess(middle * gain)) >= keep else (low, middle)
    return min(t + max(low, 1e-9), 1.0)


def _ess(log_weight: torch.Tensor) -> torch.Tensor:
    """ESS / N of each row, [I, N] -> [I]."""
    return torch.exp(2 * log_weight.logsumexp(1) - (2 * log_weight).logsumexp(1)) / log_weight.shape[1]


def _systematic(weight: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """As many indices as weights, for each row of normalised weights, each expected N w times, [I, N] -> [I, N]."""
    n = weight.shape[1]
    start = torch.rand(len(weight), 1, dtype=torch.float64, device=weight.device, generator=generator)
    positions = (torch.arange(n, device=weight.device) + start) / n
    cumulative = weight.cumsum(1)
    return torch.searchsorted(cumulative / cumulative[:, -1:], positions, right=True).clamp_max(n - 1)


def _where(condition: torch.Tensor, one: Crystals, other: Crystals) -> Crystals:
    """Row by row the one or the other."""
    return Crystals(
        torch.where(condition, one.space_group, other.space_group),
        torch.where(condition[:, None], one.composition, other.composition),
        torch.where(condition[:, None], one.lattice, other.lattice),
    )
