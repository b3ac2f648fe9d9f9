"""Draws in the proportions of the target: weights, several lattices a composition, resampling without repeats.

A draw x of q with weight w = R(x) / q(x) stands for the target: the mean of w f(x) is Z times that of f under it. With
K lattices L_1 .. L_K drawn for the composition c (group included) of x, w_k = R(c, L_k) / q(L_k | c), one of them kept
in proportion to w_k, and

    W = (w_1 + ... + w_K) / (K q(c)),

the kept crystal with W stands for the target as exactly (multiple-try importance sampling: importance sampling on the
space of a composition and K lattices), and W varies less than w.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.envs.base import Observation, Options
from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.errors import InvalidCrystal, InvalidSpace, check_kind
from crystalgfn.gfn.diagnostics import LOW_ESS, reading, relative_ess
from crystalgfn.gfn.rollout import policy_choice, rollout, teacher_forced, unroll
from crystalgfn.gfn.scoring import log_forward
from crystalgfn.policy.network import PolicyNetwork
from crystalgfn.typing import Doubles

BATCH = 4096
"""Crystals walked at a time."""
WORTH = 0.9
"""Of a kept sample: its effective size over its number, which "auto" draws for."""
FIRST, MOST = 2, 64
"""Candidates for each crystal that "auto" keeps: of the first round, and of all (every round doubles them)."""
OVERSAMPLING = 8
"""Candidates for each crystal that is kept with repeats."""


LEAST_ESS = 0.3
"""ESS / N in a space below which a sample is adapted, or not to be trusted."""


class LowESSWarning(UserWarning):
    """A sample is not in the proportions of its target."""


class ResamplingWarning(LowESSWarning):
    """Importance resampling kept few distinct crystals."""


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """What importance resampling did.

    Attributes:
        candidates: draws that the crystals were chosen from.
        ess: effective sample size of these over their number.
        distinct: share of distinct crystals among those kept.
        worth: effective sample size of the kept ones over their number: 1 where all stand for the same weight.
        pareto_k: of the candidates' weights, see `pareto_k`.
    """

    candidates: int
    ess: float
    distinct: float
    worth: float
    pareto_k: float

    def poor(self, auto: bool) -> bool:
        """Whether few crystals stand for all, or with ``auto`` the kept ones are not worth what was asked for."""
        return self.ess < LOW_ESS or self.distinct < 0.5 or (auto and self.worth < WORTH)

    def __str__(self) -> str:
        return (
            f"resampling kept {self.distinct:.0%} distinct crystals (ESS {reading(self.ess)}): the sampler is far "
            "from its target in this space; fine-tune it there first, sampler.adapt(space, seconds=30)"
        )


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """What `crystalgfn.sampling.adaptation.adapt_if_low` found and did.

    Attributes:
        before: ESS / N of the sampler in the space.
        after: of the adapted one; None where it was not adapted.
        budget: in words; empty where it was not adapted.
    """

    before: float
    after: float | None = None
    budget: str = ""

    def __str__(self) -> str:
        if self.after is None:
            return f"not adapted: ESS {self.before:.0%}, of at least {LEAST_ESS:.0%}"
        return f"adapted by {self.budget}: ESS {self.before:.1%} before, {self.after:.1%} after" + (
            "" if self.after >= LEAST_ESS else f"; {distrust(self.after)}"
        )


def distrust(ess: float) -> str:
    """What a low effective sample size means, in words."""
    return (
        f"with an ESS of {ess:.1%}, below {LEAST_ESS:.0%}, the sample is not to be trusted: kinds of crystals come far "
        "more or less often than their reward says"
    )


@dataclass(frozen=True, kw_only=True)
class Draws:
    """A policy that walks in a (narrowed) space, and its likelihoods.

    Attributes:
        env: of the space.
        network: walks.
        exact: the same in float64, for likelihoods.
        omega: ln of the shares of the numbers of elements, or None.
        level: inverse temperature of a conditioned policy, or None.
        log_reward: ln R of crystals, float64.
    """

    env: CrystalEnvironment
    network: PolicyNetwork
    exact: Callable[[], PolicyNetwork]
    omega: torch.Tensor | None
    level: float | None
    log_reward: Callable[[Crystals], Doubles]

    def condition(self, n: int) -> torch.Tensor | None:
        """What a conditioned policy is asked for, [n]."""
        if self.level is None:
            return None
        return torch.full((n,), self.level, dtype=torch.float64, device=self.env.device)

    def draw(self, n: int, generator: torch.Generator) -> Crystals:
        """``n`` crystals."""
        parts = []
        for start in range(0, max(n, 1), BATCH):
            size = min(BATCH, n - start)
            walked = rollout(self.env, self.network, size, 0.0, self.omega, generator, False, self.condition(size))
            parts.append(walked.objects)
        return Crystals.cat(parts)

    @torch.no_grad()
    def log_prob(self, crystals: Crystals) -> Doubles:
        """Exact ln q, -inf outside the space, float64 [B]."""
        check_kind("crystals", crystals, Crystals, "Crystals", InvalidCrystal)
        crystals = crystals.to(self.env.device)
        parts = [torch.zeros(0, dtype=torch.float64, device=self.env.device)]
        omega = None if self.omega is None else self.omega.to(self.env.device)
        for start in range(0, len(crystals), BATCH):
            batch = crystals[start : start + BATCH]
            walked = teacher_forced(self.env, batch, len(batch), self.condition(len(batch)))
            parts.append(log_forward(self.env, self.exact(), walked, omega) - walked.log_backward)
        return torch.cat(parts)

    def weighted(self, n: int, tries: int, generator: torch.Generator) -> tuple[Crystals, Doubles]:
        """``n`` crystals and the ln of their weights, each the best by weight of ``tries`` lattices."""
        if tries == 1:
            crystals = self.draw(n, generator)
            return crystals, self.log_reward(crystals) - self.log_prob(crystals)
        size = max(1, BATCH // tries)
        parts = [
            best_of_lattices(self, self.draw(min(size, n - start), generator), tries, generator)
            for start in range(0, max(n, 1), size)
        ]
        return Crystals.cat([some for some, _ in parts]), torch.cat([weight for _, weight in parts])


def best_of_lattices(draws: Draws, drawn: Crystals, tries: int, generator: torch.Generator) -> tuple[Crystals, Doubles]:
    """One of ``tries`` lattices for each drawn crystal's composition, and ln W, float64 [B].

    Args:
        draws: that drew them.
        drawn: crystals, [B]; their lattices are the first tries.
        tries: lattices a composition, at least 1.
        generator: of the random numbers.
    """
    n = len(drawn)
    # [tries, B], the drawn ones first
    every = Crystals.cat([drawn, *(_other_lattices(draws, drawn, generator) for _ in range(tries - 1))])
    walked = teacher_forced(draws.env, every, len(every), draws.condition(len(every)))
    lattice = [step for step in walked.steps if step.head in draws.env.lattice.names]
    before = [step for step in walked.steps if step.head not in draws.env.lattice.names]
    omega = None if draws.omega is None else draws.omega.to(draws.env.device)
    with torch.no_grad():
        given = log_forward(draws.env, draws.exact(), replace(walked, steps=lattice), None) - walked.log_backward
        composition = log_forward(draws.env, draws.exact(), replace(walked, steps=before), omega)
    log_weight = (draws.log_reward(every) - given).view(tries, n)
    noise = torch.rand(tries, n, generator=generator, device=log_weight.device, dtype=torch.float64)
    kept = (log_weight - (-noise.log()).log()).argmax(0)  # Gumbel: in proportion to the weights
    chosen = every[kept * n + torch.arange(n, device=kept.device)]
    return chosen, log_weight.logsumexp(0) - math.log(tries) - composition[:n]


def _other_lattices(draws: Draws, drawn: Crystals, generator: torch.Generator) -> Crystals:
    """The same groups and compositions with other lattices."""
    env = draws.env
    plan = env.replay(drawn)
    ask = policy_choice(env, draws.network, generator=generator)

    def choose(state: Any, head: str, rows: torch.Tensor, seen: Observation | None, options: Options) -> torch.Tensor:
        return (
            ask(state, head, rows, seen, options) if head in env.lattice.names else env.forced(plan, state, head, rows)
        )

    return unroll(env, len(drawn), choose, record=False, condition=draws.condition(len(drawn))).objects


def check_draws(n: int, tries: int, resample: bool | str) -> None:
    """Refuse numbers of draws that mean nothing.

    Raises:
        InvalidSpace: names them.
    """
    if n < 0 or tries < 1 or resample not in (False, True, "auto"):
        raise InvalidSpace(
            f"n={n}, tries={tries}, resample={resample!r}: n is at least 0, tries is at least 1, resample true, false "
            "or auto"
        )


def keep(
    weighted: Callable[[int], tuple[Crystals, Doubles]], n: int, auto: bool, generator: torch.Generator
) -> tuple[Crystals, Resampling]:
    """``n`` of the candidates by their weights.

    Args:
        weighted: draws so many candidates, with the ln of their weights.
        n: how many to keep.
        auto: without repeats, of as many candidates as it takes; otherwise of `OVERSAMPLING` n, with repeats.
        generator: of the random numbers.
    """
    if not auto:
        candidates, log_weight = weighted(OVERSAMPLING * n)
        weight = torch.softmax(log_weight, 0)
        # systematic resampling: one draw, n evenly spaced positions on the cumulative weights
        start = torch.rand(1, generator=generator, device=weight.device)
        positions = (torch.arange(n, device=weight.device) + start) / n
        kept = torch.searchsorted(weight.cumsum(0), positions.double()).clamp_max(len(weight) - 1)
        share = 1.0
    else:
        candidates, log_weight = weighted(FIRST * n)
        chance = inclusion(log_weight, n)
        while n and len(candidates) < MOST * n and worth(log_weight, chance) < WORTH:
            more, further = weighted(len(candidates))
            candidates, log_weight = Crystals.cat([candidates, more]), torch.cat([log_weight, further])
            chance = inclusion(log_weight, n)
        kept = systematic(chance, generator)
        share = worth(log_weight, chance) if n else 1.0
    done = Resampling(
        candidates=len(candidates),
        ess=float(relative_ess(log_weight)),
        distinct=len(kept.unique()) / max(n, 1),
        worth=share,
        pareto_k=pareto_k(log_weight),
    )
    order = torch.randperm(len(kept), generator=generator, device=kept.device)
    return candidates[kept[order]], done


def inclusion(log_weight: Doubles, n: int) -> Doubles:
    """Chance of each candidate to be among n that are kept, in proportion to its weight but at most 1, summing to n.

    Raises:
        ValueError: fewer candidates than n.
    """
    if len(log_weight) < n:
        raise ValueError(f"{len(log_weight)} candidates are fewer than the {n} to keep")
    weight = torch.softmax(log_weight.double(), 0)
    certain = torch.zeros(len(weight), dtype=torch.bool, device=weight.device)
    while True:
        rest = n - int(certain.sum())
        chance = torch.where(certain, 1.0, rest * weight / weight[~certain].sum().clamp_min(1e-300))
        more = (chance >= 1) & ~certain
        if rest == 0 or not bool(more.any()):
            return chance.clamp_max(1)
        certain |= more


def worth(log_weight: Doubles, chance: Doubles) -> float:
    """Expected effective size over the number of a sample that holds each candidate with its chance.

    A kept crystal stands for weight / chance; those kept for certain can stand for more than the others.
    """
    held = torch.softmax(log_weight.double(), 0) / chance.clamp_min(1e-300)
    first, second = (chance * held).sum(), (chance * held.square()).sum()
    return float(first.square() / second / chance.sum())


def systematic(chance: Doubles, generator: torch.Generator) -> torch.Tensor:
    """Places of a sample that holds each candidate with its chance; their number is the chances' sum, [n]."""
    n = round(float(chance.sum()))
    order = torch.randperm(len(chance), generator=generator, device=chance.device)
    positions = torch.arange(n, device=chance.device) + torch.rand(1, generator=generator, device=chance.device)
    ends = chance[order].cumsum(0) * (n / chance.sum())
    return order[torch.searchsorted(ends, positions.double()).clamp_max(len(chance) - 1)]


def pareto_k(log_weight: Doubles) -> float:
    """Shape of the generalised Pareto distribution of the largest weights; NaN with fewer than 25 weights.

    Below 0.5 the weights have a variance, above 0.7 their means cannot be trusted (Vehtari et al., J. Mach. Learn. Res.
    25, 1 (2024); fitted as Zhang and Stephens, Technometrics 51, 316 (2009)).

    Example:
        >>> pareto_k(torch.zeros(1000))
        -inf
    """
    size = int(min(0.2 * len(log_weight), 3 * math.sqrt(len(log_weight))))
    if size < 5:
        return math.nan
    top = np.sort(log_weight.double().cpu().numpy())[-size - 1 :]
    x = np.exp(top[1:] - top[-1]) - np.exp(top[0] - top[-1])
    if not x[-1] > 0:
        return -math.inf
    x = x[x > 0]
    return _shape(x) if len(x) >= 5 else -math.inf


def _shape(x: np.ndarray) -> float:
    """Zhang and Stephens' estimate for excesses in ascending order, with Vehtari's weak prior."""
    n = len(x)
    m = 30 + int(math.sqrt(n))
    b = 1 / x[-1] + (1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3 * x[int(n / 4 + 0.5) - 1])
    k = np.log1p(-b[:, None] * x).mean(1)
    length = n * (np.log(-b / k) - k - 1)
    weight = np.exp(length - length.max())
    found = float(np.log1p(-(b * weight).sum() / weight.sum() * x).mean())
    return (n * found + 5) / (n + 10)
