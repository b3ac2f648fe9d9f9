"""Fits how much room an atom of each element takes up: ``python -m scripts.maintain.fit_atomic_volumes TRAIN VAL``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.data.labelled import exclude, read_labelled
from crystalgfn.space.constraints.limits import relative_volume
from crystalgfn.utils.files import write_aside
from scripts.maintain.program import run

SHIPPED = elements.DATA / "atomic_volumes.json"
START = 15.0  # Å3
STEPS, RATES = 1500, (0.03, 0.003)  # the second rate for the last third
WHERE = (0.0005, 0.001, 0.01, 0.5, 0.99, 0.999, 0.9995)


def fit_volumes(crystals: Crystals) -> np.ndarray:
    """Volumes of the elements in Å3, [118], whose sums are closest to the cells': least mean absolute ln ratio.

    Elements that no crystal has get the value of the nearest element of their group that has one, the lighter where two
    are as near; actinides that of the heaviest actinide with one.
    """
    atoms = crystals.composition.double() / crystals.n_atoms[:, None]
    target = crystals.volume_per_atom.double().log()
    log_volumes = torch.full((118,), START, dtype=torch.float64).log().requires_grad_()
    optimiser = torch.optim.Adam([log_volumes], RATES[0])
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = RATES[step >= STEPS * 2 // 3]
        loss = (target - (atoms @ log_volumes.exp()).log()).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return _complete(log_volumes.detach().exp().numpy(), (crystals.composition > 0).any(0).numpy())


def _complete(volumes: np.ndarray, known: np.ndarray) -> np.ndarray:
    out = volumes.copy()
    z = np.arange(1, 119)
    actinide = (z >= 89) & (z <= 103)
    for i in np.flatnonzero(~known):
        same = known & (actinide if actinide[i] else (elements.GROUP == elements.GROUP[i]) & ~actinide)
        if same.any():  # else the value that the fit started from
            near = -z if actinide[i] else np.abs(elements.ROW - elements.ROW[i])
            out[i] = volumes[np.flatnonzero(same)[near[same].argmin()]]
    return out


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("--output", type=Path, default=SHIPPED)
    options = parser.parse_args()
    val = read_labelled(options.val)
    train = exclude(read_labelled(options.train), val)
    volumes = fit_volumes(train.crystals)
    table = {"volume": [round(float(v), 2) for v in volumes], "crystals": len(train)}
    write_aside(options.output, lambda aside: aside.write_text(json.dumps(table) + "\n"))
    print("quantiles    ", *(f"{q:8.4f}" for q in WHERE))
    for name, rows in (("train", train), ("val", val)):
        print(f"{name:13s}", *(f"{x:8.3f}" for x in np.quantile(relative_volume(rows.crystals, volumes), WHERE)))


if __name__ == "__main__":
    run(main)
