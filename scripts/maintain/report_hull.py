"""How good the energy above the hull is: on real crystals with known values, and on what a sampler draws.

    python -m scripts.maintain.report_hull mp20/val.parquet --references mp20/train.parquet mp20/val.parquet \
        hull/mp_entries.parquet

Run it again whenever the proxy of the formation energy or the hull has been fitted anew.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.data.labelled import read_labelled
from crystalgfn.fitting.hull import entries
from crystalgfn.fitting.plausibility import area_under_roc
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.properties.energy_scale import scale_shift
from crystalgfn.rewards import EnergyAboveHull, energy_above_hull, load_proxy
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.typing import Floats
from scripts.maintain.program import run

STABLE = 0.02  # eV/atom; up to here a crystal counts as stable
QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)


def evaluate(
    val_path: str | Path,
    references: Sequence[str | Path] = (),
    prop: EnergyAboveHull | None = None,
    cache: str | Path | None = None,
) -> pd.DataFrame:
    """Claims beside the known energies above the hull of a file, one row for each pair of energy and hull.

    Args:
        val_path: Parquet file with formation energies and energies above the hull.
        references: files of entries of an exact hull, see `crystalgfn.fitting.hull.entries`; none: only the
            property's own hull.
        prop: the property (default: the shipped one).
        cache: see `crystalgfn.data.labelled.read_labelled`.

    Returns:
        ``mae``, ``bias`` (claim minus known value); ``mae_clipped``: with claims below 0 taken as 0, since no known
        value is below; ``auc``: area under the ROC for known values up to 0.02; ``below``: share of claims under -0.02;
        ``below_bound``: the same of mean + spread. All in eV/atom.

    Raises:
        DataError: files that cannot be used.
    """
    prop = load_proxy("energy_above_hull") if prop is None else prop
    val = read_labelled(val_path, "energy_above_hull", cache, progress=False)
    labels = read_labelled(val_path, "formation_energy", cache, progress=False).labels
    labels = labels + scale_shift(val.crystals, prop.scale).to(labels)
    predicted, spread = prop.energy(val.crystals), prop.energy.std(val.crystals)
    hull, hull_spread = prop.hull.moments(val.crystals)
    claim, claim_spread = prop.moments(val.crystals)
    rows = {
        "proxy - hull": _scores(claim, val.labels, claim_spread),
        "label - hull": _scores(labels - hull, val.labels, hull_spread),
    }
    if references:
        exact = ExactHull(*entries(references, prop.scale)).energy(val.crystals)
        rows |= {
            "proxy - exact hull": _scores(predicted - exact, val.labels, spread),
            "label - exact hull": _scores(labels - exact, val.labels, torch.zeros_like(spread)),
        }
    return pd.DataFrame(rows).T


def seconds_for(prop: EnergyAboveHull, crystals: Crystals, n: int = 10_000) -> float:
    """Seconds of CPU that the bound of ``n`` crystals takes, on as many threads as torch has; the best of three."""
    many = Crystals.cat([crystals] * -(-n // len(crystals)))[:n]
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        prop.confidence_bound(many, 1.0)
        best = min(best, time.process_time() - start)
    return best


def claims(
    crystals: Crystals, prop: EnergyAboveHull | None = None, exact: dict[str, ExactHull] | None = None
) -> pd.DataFrame:
    """Quantiles of the energies above the hull that are claimed for crystals, and of those with exact hulls."""
    prop = load_proxy("energy_above_hull") if prop is None else prop
    mean, spread = prop.moments(crystals)
    values = {"claim": mean, "claim + spread": mean + spread}
    for name, hull in (exact or {}).items():
        values[f"energy - {name}"] = EnergyAboveHull(energy=prop.energy, hull=hull)(crystals)
    rows = {}
    for name, value in values.items():
        quantiles = {f"{q:.0%}": float(value.quantile(q)) for q in QUANTILES}
        shares = {f"below {limit:g}": float((value < limit).double().mean()) for limit in (0, -0.05)}
        rows[name] = quantiles | shares
    return pd.DataFrame(rows).T


def _scores(claim: Floats, known: Floats, spread: Floats) -> dict[str, float]:
    error = claim - known
    return {
        "mae": float(error.abs().mean()),
        "bias": float(error.mean()),
        "mae_clipped": float((claim.clamp_min(0) - known).abs().mean()),
        "auc": area_under_roc(-claim, known <= STABLE),
        "below": float((claim < -STABLE).double().mean()),
        "below_bound": float((claim + spread < -STABLE).double().mean()),
    }


def main(arguments: list[str] | None = None) -> None:
    """The command: prints the tables and the time."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.maintain.report_hull", description="Measure the energy above the hull."
    )
    parser.add_argument("val", help="Parquet file with known energies above the hull, such as mp20/val.parquet")
    parser.add_argument("--references", nargs="*", default=[], help="files of entries of an exact hull")
    parser.add_argument("--scale", default="charge", help="of energies and hulls")
    parser.add_argument("--sampler", default="formation-energy", help="sampler whose crystals are looked at")
    parser.add_argument("--n", type=int, default=2000, help="how many of its crystals")
    given = parser.parse_args(arguments)
    options: dict[str, Any] = {"float_format": lambda x: f"{x:.3f}"}
    prop = energy_above_hull(scale=given.scale)
    print(evaluate(given.val, given.references, prop).to_string(**options))
    exact = {"exact hull": ExactHull(*entries(given.references, given.scale))} if given.references else {}
    crystals = Sampler.load(given.sampler).sample(given.n, seed=0)
    print(f"\n{given.n} crystals of the sampler {given.sampler}, eV/atom above the hull:")
    print(claims(crystals, prop, exact).to_string(**options))
    print(
        f"\nbound of 10,000 crystals: {seconds_for(prop, crystals):.2f} s of CPU on {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    run(main)
