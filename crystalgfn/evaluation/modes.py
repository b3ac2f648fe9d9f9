"""Whether a sampler dropped modes: what its own samples cannot show (design, section 5).

Two checks from outside: `coverage`, the share of given crystals (real ones, or the ends of annealed chains) to which
the sampler gives far too little probability; and `compare_log_z`, ln Z from the sampler's weights beside ln Z by
annealing from an untrained policy. Probability that was dropped is missing in the first and present in the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from crystalgfn.domain.crystals import Crystals
from crystalgfn.evaluation.coverage import Constraint, Coverage, coverage, own_log_z
from crystalgfn.evaluation.log_z import LogZ, compare_log_z
from crystalgfn.sampler import Sampler

MOST_MISSED, MOST_DIFFERENCE = 0.02, 0.1  # what counts as passed


@dataclass(frozen=True)
class Check:
    """Both checks of a sampler.

    Attributes:
        log_z: ln Z by two routes.
        annealed: coverage of the ends of the annealed chains, for each entry of ``log_z``.
        real: coverage of real crystals, or None where none were given.
    """

    log_z: tuple[LogZ, ...]
    annealed: tuple[Coverage, ...]
    real: Coverage | None

    @property
    def passed(self) -> bool:
        """All differences within 0.1, and at most 2 % of the real crystals missed."""
        near = all(abs(one.difference) <= MOST_DIFFERENCE for one in self.log_z)
        return near and (self.real is None or self.real.share <= MOST_MISSED)

    def __str__(self) -> str:
        lines = [
            "| elements | ln Z from q | ESS | ln Z by annealing | difference | bridge | difference | missed |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for one, found in zip(self.log_z, self.annealed, strict=True):
            cells = (
                "all" if one.stratum is None else str(one.stratum),
                f"{one.from_q:.3f} ± {one.from_q_error:.3f}",
                f"{one.ess:.3f}",
                f"{one.from_annealing:.3f} ± {one.annealed.error:.3f}",
                f"{one.difference:+.3f} ± {one.error:.3f}",
                f"{one.from_bridge:.3f} ± {one.from_bridge_error:.3f}",
                f"{one.bridge_difference:+.3f}",
                f"{found.share:.2%}",
            )
            lines.append(f"| {' | '.join(cells)} |")
        if self.real is not None:
            lines += ["", f"Real crystals: {self.real}"]
            lines += [f"  {m.formula} ({m.space_group}): {m.excess:.2f}" for m in self.real.worst]
        return "\n".join(lines)


def check(
    sampler: Sampler,
    reals: Crystals | None = None,
    log_z: list[LogZ] | None = None,
    space: Constraint = None,
    beta: float | None = None,
    seed: int = 0,
    **options: Any,
) -> Check:
    """Both checks; the result prints as a small table.

    Args:
        sampler: with a reward.
        reals: real crystals, [B]; None: that part is left out.
        log_z: what `compare_log_z` gave; None: it is called.
        space: a further constraint.
        beta: for samplers conditioned on it.
        seed: of all draws.
        options: of `compare_log_z`.
    """
    rows = compare_log_z(sampler, space, beta=beta, seed=seed, **options) if log_z is None else log_z
    known = own_log_z(sampler, sampler.narrow(space), beta, 10_000, seed)
    found = [
        coverage(sampler, one.annealed.crystals, space, jitter=0.0, seed=seed, beta=beta, log_z=known) for one in rows
    ]
    real = None if reals is None else coverage(sampler, reals, space, seed=seed, beta=beta, log_z=known)
    return Check(tuple(rows), tuple(found), real)


def figures(result: Check) -> dict[str, Any]:
    """What `check` found, as plain numbers for a JSON file."""
    rows = [
        {
            "n_elements": one.stratum,
            "log_z_q": one.from_q,
            "log_z_q_error": one.from_q_error,
            "ess": one.ess,
            "log_z_annealing": one.from_annealing,
            "log_z_annealing_error": one.annealed.error,
            "difference": one.difference,
            "log_z_bridge": one.from_bridge,
            "log_z_bridge_error": one.from_bridge_error,
            "chains": len(one.annealed.crystals),
            "temperatures": len(one.annealed.schedule.steps),
            "sweeps": one.annealed.schedule.sweeps,
            "acceptance": {name: list(rates) for name, rates in one.annealed.acceptance.items()},
            "ancestors": one.annealed.ancestors,
            "seconds": one.annealed.seconds,
            "missed": found.share,
        }
        for one, found in zip(result.log_z, result.annealed, strict=True)
    ]
    real = None
    if result.real is not None:
        real = {
            "given": result.real.given,
            "inside": result.real.inside,
            "left_out": result.real.left_out,
            "missed": result.real.share,
            "quantiles": {str(level): value for level, value in result.real.quantiles.items()},
            "worst": [vars(one) for one in result.real.worst],
        }
    return {"log_z": rows, "real": real, "passed": result.passed}
