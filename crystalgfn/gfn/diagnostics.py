"""What says that a sampler works: effective sample size, log Z, correlation; from exact log q."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from crystalgfn.typing import Floats, Integers

LOW_ESS = 0.1
"""ESS / N below which a sample is worth too little: importance weights rest on a few crystals."""

HIGH_ESS = 0.5
"""ESS / N above which a sample may be taken as it is."""


def relative_ess(log_weight: Floats) -> torch.Tensor:
    """ESS / N = (sum w)² / (N sum w²) of ln weights [B]."""
    return torch.exp(2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)) / len(log_weight)


def log_mean_exp(log_weight: Floats) -> torch.Tensor:
    """ln of the mean of weights given as ln, [B] -> scalar."""
    return log_weight.logsumexp(0) - math.log(len(log_weight))


def log_mean_exp_of(log_weight: Floats, group: Integers) -> dict[int, float]:
    """`log_mean_exp` of each group that occurs; weights and groups [B] -> {group: ln of the mean weight}."""
    return {int(g): float(log_mean_exp(log_weight[group == g])) for g in group.unique()}


def reading(ess: float) -> str:
    """An effective sample size with what it means for a user, such as "4 %: not usable here without adapt".

    Example:
        >>> reading(0.043)
        '4 %: not usable here without adapt'
        >>> reading(0.62)
        '62 %: close to the target'
    """
    share = f"{100 * ess:.0f} %" if ess >= 0.01 else f"{100 * ess:.2g} %"
    if not ess >= LOW_ESS:
        return f"{share}: not usable here without adapt"
    return f"{share}: " + ("close to the target" if ess >= HIGH_ESS else "usable with resample=true")


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """How near a sampler's distribution is to its target, from its own samples.

    Attributes:
        n: samples.
        ess: effective sample size over n, of w = target / q, 0 to 1.
        log_z: ln of the mean weight; with strata and a perfect sampler 0.
        correlation: Pearson's, of ln q and ln target.
        log_weight_std: standard deviation of ln w.
        strata: the same for each number of elements that occurs, {k: Diagnostics}.
    """

    n: int
    ess: float
    log_z: float
    correlation: float
    log_weight_std: float
    strata: dict[int, Diagnostics]

    def figures(self) -> dict[str, float | None]:
        """The numbers by name, for JSON: None for those that are not known."""
        values = {"ess": self.ess, "log_z": self.log_z, "correlation": self.correlation}
        values["log_weight_std"] = self.log_weight_std
        return {"n": self.n, **{name: value if math.isfinite(value) else None for name, value in values.items()}}

    def __str__(self) -> str:
        line = (
            f"ESS {reading(self.ess)} (effective sample size over {self.n} samples), ln Z {self.log_z:.3f}, "
            f"corr(ln q, ln R) {self.correlation:.4f}, std(ln w) {self.log_weight_std:.3f}"
        )
        return line + "".join(f"\n  {k} elements: ESS {reading(d.ess)} ({d.n})" for k, d in sorted(self.strata.items()))


def diagnose(log_q: Floats, log_target: Floats, stratum: torch.Tensor | None = None) -> Diagnostics:
    """Diagnostics of samples with their ln q and ln target (up to a constant), [B] each."""
    log_weight = log_target - log_q
    strata = {}
    if stratum is not None:
        for k in stratum.unique().tolist():
            here = stratum == k
            strata[k] = diagnose(log_q[here], log_target[here])
    spread = len(log_q) > 1 and float(log_q.std()) > 0 and float(log_target.std()) > 0
    correlation = float(torch.corrcoef(torch.stack([log_q, log_target]))[0, 1]) if spread else float("nan")
    return Diagnostics(
        n=len(log_q),
        ess=float(relative_ess(log_weight)),
        log_z=float(log_mean_exp(log_weight)),
        correlation=correlation,
        log_weight_std=float(log_weight.std()) if len(log_q) > 1 else 0.0,
        strata=strata,
    )
