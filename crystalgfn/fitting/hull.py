"""Fitting the shipped hull: exact hull energies of known compounds at many compositions, in a small ensemble."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crystalgfn.errors import DataError
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.properties.energy_scale import scale_shift
from crystalgfn.properties.ensemble import std_factor
from crystalgfn.properties.features import scales
from crystalgfn.properties.hull import HullModel
from crystalgfn.properties.hull_entries import read_entries
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.space.space import CrystalSpace
from crystalgfn.typing import Floats, RowFractions, RowValues
from crystalgfn.utils.progress import Bar
from crystalgfn.utils.provenance import versions, write_metrics

FEWEST = 250  # compositions to fit on, of which 1 in 50 calibrates

HELD_OUT = 10_000  # compositions of each kind that measure, and fit nothing


@dataclass(frozen=True, kw_only=True)
class HullFitConfig:
    """How the hull is fitted.

    Attributes:
        seed: of the compositions, the initial weights and the order of the rows.
        untrained: compositions drawn from an untrained sampler of the default space.
        samplers: shipped samplers whose compositions are drawn too.
        drawn: how many of each.
        perturbed: compositions made from those of entries by changing amounts and by mixing two.
        steps: of AdamW, with a short warm-up and a cosine to 0.
        batch: compositions a step.
        lr: largest learning rate.
        members: networks in the ensemble.
        width: units a hidden layer.
    """

    seed: int = 0
    untrained: int = 150_000
    samplers: tuple[str, ...] = ("formation-energy", "stable")
    drawn: int = 80_000
    perturbed: int = 400_000
    steps: int = 15_000
    batch: int = 1024
    lr: float = 3e-3
    members: int = 3
    width: int = 256


def fit_hull(
    references: str | Path | Sequence[str | Path],
    out: str | Path,
    scale: str = "charge",
    progress: bool = True,
    **hyperparameters: Any,
) -> dict[str, Any]:
    """Fit a hull and write ``weights.safetensors`` and ``metrics.json`` into ``out``.

    Args:
        references: Parquet or CSV files of known compounds (``formula``, ``formation_energy_per_atom`` on the scale of
            MP2020); rows without an energy are left out.
        out: folder of the fitted hull.
        scale: of the hull, see `crystalgfn.properties.energy_scale`.
        progress: whether to show progress bars.
        **hyperparameters: see `HullFitConfig`.

    Returns:
        What is written to ``metrics.json``.

    Raises:
        DataError: data that cannot be used.
        RewardError: there is no such scale.
    """
    config = HullFitConfig(**hyperparameters)
    composition, energies = entries(references, scale)
    known = ExactHull(composition, energies)
    start = time.process_time()
    drawn = _drawn(config, config.seed, config.untrained, config.drawn)
    made = _perturbed(composition.long(), config.perturbed, config.seed)
    points = _distinct(torch.cat([*drawn.values(), composition.long(), made]))
    if len(points) < FEWEST:
        raise DataError(
            f"{len(points)} different compositions are too few to fit a hull on and to calibrate it; raise untrained, "
            f"drawn or perturbed so that there are at least {FEWEST}"
        )
    model = _learn(points, known.energy(points), config, progress)
    seconds = time.process_time() - start
    # Samplers with other seeds and other neighbours of entries, without all that was fitted on.
    held = _drawn(config, config.seed + 1, HELD_OUT, HELD_OUT)
    held["near known compounds"] = _perturbed(composition.long(), HELD_OUT, config.seed + 1)
    held = {name: some[~torch.isin(_prints(some), _prints(points))] for name, some in held.items()}
    metrics = {
        "property": "energy of the convex hull",
        "unit": "eV/atom",
        "scale": scale,
        "against_the_exact_hull": {
            name: hull_errors(model, known.energy(some), some) for name, some in held.items() if len(some)
        },
        "known_compounds": hull_errors(model, known.energy(composition), composition),
        "entries": len(energies),
        "entries_on_their_hull": known.n_stable,
        "compositions_fitted": len(points),
        "cpu_seconds": round(seconds, 1),
        "settings": asdict(config) | {"samplers": list(config.samplers)},
        "versions": versions(),
    }
    model.save(out)
    write_metrics(out, metrics)
    return metrics


def entries(references: str | Path | Sequence[str | Path], scale: str = "mp2020") -> tuple[RowFractions, RowValues]:
    """Compositions and formation energies (eV/atom) on a scale, of files as `fit_hull` takes them.

    Raises:
        DataError: no such file or columns, or no row with an energy.
        RewardError: there is no such scale.
    """
    composition, energies, _ = read_entries(references, "formula", "formation_energy_per_atom", skip=True)
    return composition, energies + scale_shift(composition, scale)


def hull_errors(model: HullModel, truth: Floats, composition: RowFractions) -> dict[str, float]:
    """How far the model is off, eV/atom: mean absolute error, bias, quantiles; the share within one standard error."""
    mean, std = model.moments(composition)
    error = mean - truth
    quantile = {f"quantile_{q:g}": round(float(error.abs().quantile(q)), 5) for q in (0.5, 0.95, 0.99)}
    sizes = {"mae": round(float(error.abs().mean()), 5), "bias": round(float(error.mean()), 5)} | quantile
    return sizes | {"within_std": round(float((error.abs() <= std).double().mean()), 4)}


def _drawn(config: HullFitConfig, seed: int, untrained: int, shipped: int) -> dict[str, torch.Tensor]:
    """Compositions of an untrained sampler and of shipped ones."""
    samplers = {"untrained sampler": (Sampler.untrained(CrystalSpace(), seed=0), untrained)}
    samplers |= {f"{name} sampler": (Sampler.load(name), shipped) for name in config.samplers}
    return {name: sampler.sample(n, seed=seed).composition for name, (sampler, n) in samplers.items() if n}


def _perturbed(composition: torch.Tensor, n: int, seed: int) -> torch.Tensor:
    """Compositions near those given: a second one mixed into three of ten, amounts of six of ten changed by up to 2."""
    generator = torch.Generator().manual_seed(seed)

    def pick() -> torch.Tensor:
        return composition[torch.randint(len(composition), (n,), generator=generator)]

    def chance(share: float) -> torch.Tensor:
        return torch.rand(n, 1, generator=generator) < share

    found = pick() + chance(0.3) * pick() * torch.randint(1, 3, (n, 1), generator=generator)
    change = torch.randint(-2, 3, (n, 118), generator=generator) * (found > 0) * chance(0.6)
    found = (found + change).clamp_min(0)
    n_elements = (found > 0).sum(1)
    return found[(n_elements > 1) & (n_elements <= 6)]


def _prints(composition: torch.Tensor) -> torch.Tensor:
    """One number a composition, the same for multiples of it."""
    weights = torch.rand(118, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return ((composition.double() / composition.sum(1, keepdim=True)) @ weights * 1e9).round().long()


def _distinct(composition: torch.Tensor) -> torch.Tensor:
    """One row a composition, multiples left out."""
    _, first = np.unique(_prints(composition).numpy(), return_index=True)
    return composition[torch.from_numpy(first)]


def _learn(points: torch.Tensor, targets: torch.Tensor, config: HullFitConfig, progress: bool) -> HullModel:
    torch.manual_seed(config.seed)
    fractions = (points / points.sum(1, keepdim=True)).float()
    order = torch.randperm(len(points))
    held, order = order[: len(points) // 50], order[len(points) // 50 :]  # for the factor of the standard error
    model = HullModel(config.members, config.width)
    with torch.no_grad():
        shift, scale = scales(model.features(fractions[order[:100_000]]))
    model.shift.copy_(shift)
    model.scale.copy_(scale)
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, config.steps))
    bar = Bar(range(config.steps), shown=progress, description="hull", unit="step")
    for step in bar:
        chosen = order[torch.randint(len(order), (config.batch,))]
        said = model.network(model.features(fractions[chosen]))
        wanted = targets[chosen].float().expand_as(said)
        loss = config.members * torch.nn.functional.smooth_l1_loss(said, wanted, beta=0.02)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            bar.note(f"error {float((said.detach() - wanted).abs().mean()):.4f}")
    model.eval().requires_grad_(False)
    mean, std = model.moments(points[held])
    model.spread_factor.fill_(std_factor((mean - targets[held]).abs(), std))
    return model


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * step / steps))
