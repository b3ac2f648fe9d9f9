"""Fitting the shipped hull: exact energies of a completed hull at many compositions, learned by a small ensemble.

python -m crystalgfn.fitting.hull mp20/train.parquet mp20/val.parquet out
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.data.cells import reduced
from crystalgfn.data.labelled import COLUMNS, Rows, exclude, read_labelled, together
from crystalgfn.errors import DataError
from crystalgfn.fitting.completion import swapped
from crystalgfn.properties.base import Property
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.properties.ensemble import std_factor
from crystalgfn.properties.features import scales
from crystalgfn.properties.hull_entries import composition_of
from crystalgfn.properties.hull_surrogate import HullModel
from crystalgfn.rewards import load_proxy
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.space.space import CrystalSpace
from crystalgfn.typing import Floats, RowFractions, RowValues
from crystalgfn.utils.progress import Bar
from crystalgfn.utils.provenance import versions, write_metrics

STABLE = 0.03  # eV/atom above the hull of the entries, up to which crystals are worth swapping
FEWEST = 250  # compositions to fit on, of which 1 in 50 calibrates
HELD_OUT = 10_000  # compositions of each kind that measure, and fit nothing


@dataclass(frozen=True, kw_only=True)
class HullFitConfig:
    """How the hull is fitted.

    Attributes:
        seed: of the compositions, the initial weights and the order of the rows.
        untrained: compositions drawn from an untrained sampler of the default space.
        sampler: a shipped sampler whose compositions are drawn too.
        drawn: how many.
        perturbed: compositions made from those of entries by changing amounts and by mixing two.
        n_sigma: standard errors added to the energies of swapped crystals.
        steps: of AdamW, with a short warm-up and a cosine to 0.
        batch: compositions a step.
        lr: largest learning rate.
        members: networks in the ensemble.
        width: units a hidden layer.
    """

    seed: int = 0
    untrained: int = 150_000
    sampler: str = "formation-energy"
    drawn: int = 100_000
    perturbed: int = 300_000
    n_sigma: float = 1.0
    steps: int = 15_000
    batch: int = 1024
    lr: float = 3e-3
    members: int = 3
    width: int = 256


def fit_hull(
    train_path: str | Path | Sequence[str | Path],
    val_path: str | Path,
    out: str | Path,
    energy: Property | None = None,
    cache: str | Path | None = None,
    progress: bool = True,
    **hyperparameters: Any,
) -> dict[str, Any]:
    """Fit a hull and write ``weights.safetensors`` and ``metrics.json`` into ``out``.

    Entries are the rows of ``train_path`` that share no (reduced formula, space group) with ``val_path``, and swapped
    copies of the stable ones (see `crystalgfn.fitting.completion`). The validation file is looked at once, at the end.

    Args:
        train_path: Parquet file of crystals with formation energies; rows without positions count too. Or several:
            what an earlier one has is left out of the later ones.
        val_path: Parquet file of crystals to report on.
        out: folder of the fitted hull.
        energy: proxy of the formation energy, for the swapped crystals (default: the shipped one).
        cache: see `crystalgfn.data.labelled.read_labelled`.
        progress: whether to show progress bars.
        **hyperparameters: see `HullFitConfig`.

    Returns:
        What is written to ``metrics.json``.

    Raises:
        DataError: data that cannot be used.
    """
    config = HullFitConfig(**hyperparameters)
    energy = load_proxy("formation_energy") if energy is None else energy
    val = read_labelled(val_path, "formation_energy", cache, progress)
    paths = [train_path] if isinstance(train_path, str | Path) else list(train_path)
    composition, energies = entries(paths, val)
    known = ExactHull(composition, energies)
    rows = exclude(together([read_labelled(path, "formation_energy", cache, progress) for path in paths]), val)
    stable = rows.labels - known.energy(rows.crystals) < STABLE
    start = time.process_time()
    virtual, virtual_energies = swapped(rows.crystals[stable], energy, config.n_sigma, progress)
    completed = ExactHull(torch.cat([composition, virtual]), torch.cat([energies, virtual_energies]))
    drawn = _drawn(config, config.seed, config.untrained, config.drawn)
    made = _perturbed(torch.cat([composition, composition, virtual]), config.perturbed, config.seed)
    points = _distinct(torch.cat([*drawn.values(), composition, virtual, made]))
    if len(points) < FEWEST:
        raise DataError(
            f"{len(points)} different compositions are too few to fit a hull on and to calibrate it; raise untrained, "
            f"drawn or perturbed so that there are at least {FEWEST}"
        )
    targets = completed.energy(points)
    model = _learn(points, targets, config, progress)
    seconds = time.process_time() - start
    # Samplers with other seeds, and formulas of the validation file, without all that was fitted on.
    held = _drawn(config, config.seed + 1, HELD_OUT, HELD_OUT) | {"validation formulas": val.crystals.composition}
    held = {name: some[~torch.isin(_prints(some), _prints(points))] for name, some in held.items()}
    held = {name: some for name, some in held.items() if len(some)}
    everything = ExactHull(torch.cat([composition, val.crystals.composition]), torch.cat([energies, val.labels]))

    def off(hull: ExactHull) -> dict[str, dict[str, float]]:
        return {name: hull_errors(model, hull.energy(some), some) for name, some in held.items()}

    metrics = {
        "property": "energy of the convex hull",
        "unit": "eV/atom",
        "against_completed_hull": off(completed),
        "against_entries_alone": off(known),
        "against_entries_and_validation": off(everything),
        "completed_against_entries_and_validation": {
            name: _statistics(completed.energy(some) - everything.energy(some)) for name, some in held.items()
        },
        "entries_alone_against_entries_and_validation": {
            name: _statistics(known.energy(some) - everything.energy(some)) for name, some in held.items()
        },
        "entries": len(energies),
        "entries_on_their_hull": known.n_stable,
        "swapped": len(virtual_energies),
        "compounds_on_completed_hull": completed.n_stable,
        "compositions_fitted": len(points),
        "cpu_seconds": round(seconds, 1),
        "settings": asdict(config),
        "versions": versions(),
    }
    model.save(out)
    write_metrics(out, metrics)
    return metrics


def entries(path: str | Path | Sequence[str | Path], val: Rows) -> tuple[RowFractions, RowValues]:
    """Compositions and formation energies (eV/atom) of a file's rows, positions or not, that are not in ``val``.

    Of several files each (reduced formula, space group) counts in the first that has it.

    Raises:
        DataError: no such file or columns, or no row left.
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    kept = exclude(together([_entries(one) for one in paths]), val)
    if not len(kept):
        raise DataError(
            f"{', '.join(map(str, paths))} has no row with a formation energy that is not in the validation file"
        )
    return kept.crystals.composition, kept.labels


def _entries(path: str | Path) -> Rows:
    column = COLUMNS["formation_energy"][0]
    try:
        table = pd.read_parquet(path, columns=["formula", "spacegroup", column]).dropna()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet with formula, spacegroup, {column}: {error}") from error
    composition = torch.zeros(0, 118, dtype=torch.int64)
    if len(table):
        rows = [composition_of(formula, i) for i, formula in enumerate(table.formula)]
        composition = torch.stack(rows).round().long()
    # Only group and composition matter here; many rows have no lattice that could be trusted.
    group = torch.tensor(table.spacegroup.to_numpy()).long()
    crystals = Crystals(group, composition, torch.full((len(table), 6), torch.nan))
    keys = [frozenset({(reduced(f), g)}) for f, g in zip(table.formula, group.tolist(), strict=True)]
    return Rows(crystals, torch.tensor(table[column].to_numpy()), keys)


def hull_errors(model: HullModel, truth: Floats, composition: RowFractions) -> dict[str, float]:
    """How far the model is off, eV/atom: mean absolute error, bias, quantiles; the share within one standard error."""
    mean, std = model.moments(composition)
    return _statistics(mean - truth) | {"within_std": float(((mean - truth).abs() <= std).double().mean())}


def _statistics(error: torch.Tensor) -> dict[str, float]:
    quantile = {f"quantile_{q:g}": round(float(error.abs().quantile(q)), 5) for q in (0.5, 0.95, 0.99)}
    return {"mae": round(float(error.abs().mean()), 5), "bias": round(float(error.mean()), 5)} | quantile


def _drawn(config: HullFitConfig, seed: int, untrained: int, shipped: int) -> dict[str, torch.Tensor]:
    """Compositions of an untrained sampler and of a shipped one."""
    samplers = {
        "untrained sampler": (Sampler.untrained(CrystalSpace(), seed=0), untrained),
        f"{config.sampler} sampler": (Sampler.load(config.sampler), shipped),
    }
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
