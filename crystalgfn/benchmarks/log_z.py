"""ln Z of a sampler's reward from the sampler's own weights, and by routes that see what it dropped."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from crystalgfn.benchmarks.ais import Annealed, anneal
from crystalgfn.benchmarks.mcmc import Base
from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.errors import InvalidSpace
from crystalgfn.gfn.diagnostics import log_mean_exp, relative_ess
from crystalgfn.policy.network import PolicyConfig
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.space.space import CrystalSpace
from crystalgfn.typing import Floats, Members

#: An untrained policy chooses alike at any width; a narrow one is fast.
UNTRAINED = PolicyConfig(width=8, blocks=0)


@dataclass(frozen=True, kw_only=True)
class LogZ:
    """ln Z of R from a sampler's weights and from annealing, with standard errors.

    Attributes:
        stratum: number of elements to which the space was narrowed; None: all of it.
        from_q: ln of the mean weight R / q.
        from_q_error: its standard error, as far as q has no dropped modes.
        ess: ESS / N of these weights.
        from_annealing: ln Z by annealing.
        from_bridge: ln Z by Bennett's acceptance ratio between the sampler's crystals and the ends of the chains, which
            asks of annealing only a fair share of each mode, not the value of Z: of smaller variance.
        from_bridge_error: its standard error, leaving out one island at a time.
        annealed: how it came about; its own figures have the stratum's share folded in where the sampler has strata.
    """

    stratum: int | None
    from_q: float
    from_q_error: float
    ess: float
    from_annealing: float
    from_bridge: float
    from_bridge_error: float
    annealed: Annealed

    @property
    def difference(self) -> float:
        """Annealing minus sampler: above 0 where the sampler dropped probability."""
        return self.from_annealing - self.from_q

    @property
    def error(self) -> float:
        """Standard error of the difference."""
        return math.hypot(self.from_q_error, self.annealed.error)

    @property
    def bridge_difference(self) -> float:
        """Bridge minus sampler."""
        return self.from_bridge - self.from_q


def compare_log_z(
    sampler: Sampler,
    space: Constraint = None,
    base: Sampler | None = None,
    n_q: int = 4000,
    seed: int = 0,
    **options: Any,
) -> list[LogZ]:
    """ln Z of the sampler's reward by two routes; for each number of elements where the sampler has strata.

    Annealing starts from ``base``: by default an untrained policy in the same space. A sampler at another temperature
    saves time, but must not have dropped modes itself. ``n_q`` are samples for the sampler's own estimate, ``options``
    those of `anneal`.

    Raises:
        RewardError: a sampler without a reward.
    """
    narrowed = sampler.narrow(space)
    if sampler.log_omega is None:
        return [_compare(sampler, narrowed, None, base, n_q, seed, options)]
    out = []
    for k in sampler.log_omega.isfinite().nonzero().flatten().tolist():
        if not narrowed.n_elements[0] <= k <= narrowed.n_elements[1]:
            continue
        try:
            stratum = narrowed.narrowed(n_elements=(k, k))
        except InvalidSpace:  # the constraint leaves no crystal of so many elements
            continue
        out.append(_compare(sampler, stratum, k, base, n_q, seed, options))
    return out


def _compare(
    sampler: Sampler,
    space: CrystalSpace,
    stratum: int | None,
    base: Sampler | None,
    n: int,
    seed: int,
    options: dict[str, Any],
) -> LogZ:
    drawn = sampler.sample(n, space=space, seed=seed)
    weight = sampler.log_reward(drawn) - sampler.log_prob(drawn, space=space)
    ess = float(relative_ess(weight))
    env = CrystalEnvironment(space, sampler.device)
    if base is None:
        network = Sampler.untrained(space, policy=UNTRAINED).network.to(sampler.device)
        start = Base(env, network)
    else:
        start = Base(env, base.network, base.log_omega)
    result = anneal(start, sampler.log_reward, seed=seed + 1, **options)
    weight = weight.cpu()
    ends = (result.log_reward - sampler.log_prob(result.crystals, space=space)).cpu()
    island = result.island.cpu()
    bridge = bennett(weight, ends)
    without = [bennett(weight, ends[island != i]) for i in island.unique() if bool((island != i).any())]
    spread = torch.tensor(without, dtype=torch.float64)
    error = math.sqrt((len(spread) - 1) * float(spread.var(correction=0))) if len(spread) > 1 else math.nan
    # ln(omega_k / Z_k) is folded into the rewards of samplers with strata
    shift = 0.0
    if stratum is not None and sampler.log_omega is not None:
        shift = float(sampler.log_z[stratum] - sampler.log_omega[stratum])
    return LogZ(
        stratum=stratum,
        from_q=float(log_mean_exp(weight)) + shift,
        from_q_error=math.sqrt(max(1 / ess - 1, 0.0) / n),
        ess=ess,
        from_annealing=result.log_z + shift,
        from_bridge=bridge + shift,
        from_bridge_error=error,
        annealed=result,
    )


def bennett(from_q: Floats, from_p: Members) -> float:
    """ln Z by Bennett's acceptance ratio (1976), from ln R - ln q of samples of q and of samples of p = R / Z.

    Where a sample of p has no density in q (inf), it counts as fully missed.
    """
    ratio = math.log(len(from_q) / len(from_p))
    both = torch.cat([from_q, from_p[from_p.isfinite()]])
    low, high = float(both.min()) - abs(ratio) - 50, float(both.max()) + abs(ratio) + 50
    for _ in range(200):
        log_z = (low + high) / 2
        # with the right Z as many of q's samples look like p's as the other way round
        surplus = torch.sigmoid(from_q - log_z - ratio).sum() - torch.sigmoid(log_z + ratio - from_p).sum()
        low, high = (log_z, high) if float(surplus) > 0 else (low, log_z)
    return (low + high) / 2


Constraint = CrystalSpace | dict[str, Any] | None
