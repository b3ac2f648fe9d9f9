"""Mode coverage: the recall of a sampler on crystals of high reward, and ln Z by two routes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from crystalgfn.benchmarks.log_z import LogZ
from crystalgfn.crystallography import lattice
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.envs.lattice import ANGLE_UNIT
from crystalgfn.errors import DataError
from crystalgfn.gfn.diagnostics import log_mean_exp, log_mean_exp_of
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.space.space import CrystalSpace
from crystalgfn.typing import Booleans, Floats
from crystalgfn.utils.provenance import markdown_table

LEAST_RECALL, MOST_DIFFERENCE = 0.98, 0.1  # what counts as passed


@dataclass(frozen=True)
class CoverageCheck:
    """Both checks: ln Z by two routes, of each the coverage of the annealed chains' ends, and that of real crystals."""

    log_z: tuple[LogZ, ...]
    annealed: tuple[Coverage, ...]
    real: Coverage | None

    @property
    def passed(self) -> bool:
        """All differences within 0.1, and a recall of at least 98 % on the real crystals."""
        near = all(abs(one.difference) <= MOST_DIFFERENCE for one in self.log_z)
        return near and (self.real is None or self.real.recall >= LEAST_RECALL)

    def __str__(self) -> str:
        head = "elements", "ln Z from q", "ESS", "ln Z by annealing", "difference", "bridge", "difference", "recall"
        rows = [
            (
                "all" if one.stratum is None else str(one.stratum),
                f"{one.from_q:.3f} ± {one.from_q_error:.3f}",
                f"{one.ess:.3f}",
                f"{one.from_annealing:.3f} ± {one.annealed.error:.3f}",
                f"{one.difference:+.3f} ± {one.error:.3f}",
                f"{one.from_bridge:.3f} ± {one.from_bridge_error:.3f}",
                f"{one.bridge_difference:+.3f}",
                f"{found.recall:.2%}",
            )
            for one, found in zip(self.log_z, self.annealed, strict=True)
        ]
        lines = [markdown_table(head, rows)]
        if self.real is not None:
            lines += ["", f"Real crystals: {self.real}"]
            lines += [f"  {m.formula} ({m.space_group}): {m.excess:.2f}" for m in self.real.worst]
        return "\n".join(lines)


def check_coverage(
    sampler: Sampler, log_z: Sequence[LogZ], reals: Crystals | None = None, seed: int = 0
) -> CoverageCheck:
    """Both checks from what `compare_log_z` found, and real crystals [B] if there are any; prints as a small table."""
    known = own_log_z(sampler, SAMPLES, seed)
    found = [coverage(sampler, one.annealed.crystals, jitter=0.0, seed=seed, log_z=known) for one in log_z]
    real = None if reals is None else coverage(sampler, reals, seed=seed, log_z=known)
    return CoverageCheck(tuple(log_z), tuple(found), real)


def coverage_figures(result: CoverageCheck) -> dict[str, Any]:
    """What `check_coverage` found, as plain numbers for a JSON file."""
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
            "recall": found.recall,
        }
        for one, found in zip(result.log_z, result.annealed, strict=True)
    ]
    real = None
    if result.real is not None:
        real = {
            **{name: getattr(result.real, name) for name in ("given", "inside", "left_out", "recall")},
            "quantiles": {str(level): value for level, value in result.real.quantiles.items()},
            "worst": [vars(one) for one in result.real.worst],
        }
    return {"log_z": rows, "real": real, "passed": result.passed}


SAMPLES = 10_000  # of the sampler itself, for its ln Z
THRESHOLD = 3.0  # of ln p - ln q, up to which a crystal counts as covered: a factor of 20
WORST = 10  # crystals that are listed
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
TRIES = 20  # jittered cells that a crystal may have outside the space before it is left out
EXACT = 1e-6  # tolerance of the fundamental domain for jittered cells


@dataclass(frozen=True)
class PoorlyCovered:
    """A crystal and by how much its ln p exceeds ln q; ``index`` is its place among those given."""

    index: int
    formula: str
    space_group: int
    excess: float


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How much probability a sampler gives to crystals that it did not sample.

    Attributes:
        given: crystals.
        inside: those inside the space.
        left_out: those of them that lie in a corner where no jittered cell was inside.
        recall: covered crystals among those scored, ``inside - left_out``; NaN where there are none.
        quantiles: of the excess, {level: value}.
        worst: the crystals with the largest excess, largest first.
        excess: ln R - ln Z - ln q of each given crystal, float64 [B]; NaN where not scored, inf where q is 0.
        log_z: ln Z that was taken off, {number of elements, or 0 for all: value}.
    """

    given: int
    inside: int
    left_out: int
    recall: float
    quantiles: dict[float, float]
    worst: tuple[PoorlyCovered, ...]
    excess: Floats
    log_z: dict[int, float]

    def __str__(self) -> str:
        levels = ", ".join(f"{level:.0%} {value:.2f}" for level, value in self.quantiles.items())
        return (
            f"{self.recall:.2%} of {self.inside - self.left_out} crystals have ln p - ln q <= {THRESHOLD:g} "
            f"({self.given} given, {self.inside} inside the space, {self.left_out} left out); quantiles: {levels}"
        )


def coverage(
    sampler: Sampler,
    crystals: Crystals,
    jitter: float = 0.02,
    seed: int = 0,
    log_z: Mapping[int, float] | None = None,
    n: int = SAMPLES,
) -> Coverage:
    """Recall: the share of given crystals for which ln R - ln Z - ln q is at most `THRESHOLD`.

    Args:
        sampler: with a reward.
        crystals: [B], not drawn from the sampler; those outside the space are left out.
        jitter: standard deviation of what is added to the free lattice parameters, in the coordinates of the reference
            measure: 0.02 is 2 % on lengths and 1.2 degrees on angles (a shear of 2 %), so that a density is asked for
            near real cells, not only at them. Cells outside the space are drawn again, up to 20 times.
        seed: of the jitter, and of the samples for ln Z.
        log_z: ln Z of the target where it is known, by the number of elements (0: any); as `Sampler.log_reward` has it,
            so 0 for a perfect sampler with strata. None: `own_log_z`.
        n: samples for that.

    Raises:
        DataError: no crystals are given, or a negative jitter.
        RewardError: a sampler without a reward.
    """
    if not len(crystals) or not jitter >= 0:
        raise DataError(f"coverage of {len(crystals)} crystals with jitter={jitter}: give crystals, and a jitter >= 0")
    generator = torch.Generator().manual_seed(seed)
    crystals = crystals.to("cpu")
    inside = sampler.space.contains(crystals).nonzero().flatten()
    moved, found = jittered_inside(crystals[inside], sampler.space, jitter, generator)
    kept, moved = inside[found], moved[found]
    known = own_log_z(sampler, n, seed) if log_z is None else dict(log_z)
    log_q = sampler.log_prob(moved).cpu()
    log_p = sampler.log_reward(moved).cpu() - _of_stratum(known, moved.n_elements)
    excess = torch.full((len(crystals),), torch.nan, dtype=torch.float64)
    excess[kept] = log_p - log_q
    scored = excess[kept]
    worst = kept[scored.argsort(descending=True)[:WORST]]
    formulas = crystals[worst].formulas()
    levels = torch.tensor(QUANTILES, dtype=torch.float64)
    quantiles = scored.quantile(levels, interpolation="lower").tolist() if len(kept) else [math.nan] * len(QUANTILES)
    return Coverage(
        given=len(crystals),
        inside=len(inside),
        left_out=len(inside) - len(kept),
        recall=float((scored <= THRESHOLD).double().mean()) if len(kept) else math.nan,
        quantiles=dict(zip(QUANTILES, quantiles, strict=True)),
        worst=tuple(
            PoorlyCovered(int(i), formula, int(crystals.space_group[i]), float(excess[i]))
            for i, formula in zip(worst, formulas, strict=True)
        ),
        excess=excess,
        log_z=known,
    )


def jittered_inside(
    crystals: Crystals, space: CrystalSpace, scale: float, generator: torch.Generator
) -> tuple[Crystals, Booleans]:
    """Crystals [B] on the CPU, their free lattice parameters with noise, and which of them are in the space, bool [B].

    The noise is Gaussian, of deviation ``scale`` on ln-lengths and on angles in units of 60 degrees. Cells outside the
    space are drawn again, up to 20 times.
    """
    found = torch.full((len(crystals),), scale == 0)
    cells = crystals.lattice.double().clone()
    if scale == 0:
        return crystals, found
    for _ in range(TRIES):
        left = (~found).nonzero().flatten()
        if not len(left):
            break
        noise = scale * torch.randn(len(left), 6, dtype=torch.float64, generator=generator)
        group, before = crystals.space_group[left], crystals.lattice[left].double()
        moved = lattice.deform(group, before, noise[:, :3], ANGLE_UNIT * noise[:, 3:])
        tried = Crystals(group, crystals.composition[left], moved)
        # within what `contains` tolerates outside the domain a policy may have no density
        good = space.contains(tried) & lattice.in_domain(tried.space_group, tried.lattice, EXACT, EXACT)
        cells[left[good]] = tried.lattice[good]
        found[left[good]] = True
    return Crystals(crystals.space_group, crystals.composition, cells), found


def own_log_z(sampler: Sampler, n: int, seed: int) -> dict[int, float]:
    """The importance estimate of ln Z, for each number of elements where the sampler has strata, under 0 for all."""
    drawn = sampler.sample(n, seed=seed)
    weight = (sampler.log_reward(drawn) - sampler.log_prob(drawn)).cpu()
    out = {0: float(log_mean_exp(weight))}
    if sampler.log_omega is not None:
        out |= log_mean_exp_of(weight, drawn.n_elements.cpu())
    return out


def _of_stratum(log_z: dict[int, float], n_elements: torch.Tensor) -> torch.Tensor:
    most = max([0, *n_elements.tolist()])
    values = [log_z.get(k, log_z.get(0, math.nan)) for k in range(most + 1)]
    return torch.tensor(values, dtype=torch.float64)[n_elements]
