"""Which elements and families a sampler draws more or less often than the known hull holds them.

    python -m scripts.maintain.report_families stable --known mp20/train.parquet mp20/val.parquet \
        --hull mp20/train.parquet mp20/val.parquet hull/mp_entries.parquet --out families.json

A share that differs threefold is an artefact of the energy scale, of the proxy or of the reward until it is explained.
Known are the crystals of ``--known`` that lie within ``--near`` of the hull of ``--hull`` and inside the sampler's
space, each (formula, group) once, weighed so that numbers of elements are as frequent as among the draws.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.elements import SYMBOLS
from crystalgfn.data.labelled import read_labelled
from crystalgfn.discovery.phases import KnownPhases
from crystalgfn.properties.oxidation import charges
from crystalgfn.properties.plausibility import FAMILIES, formula_units
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.typing import Booleans, Values
from crystalgfn.utils.files import write_aside
from scripts.maintain.program import run

ANIONS = torch.tensor([symbol in FAMILIES["anions"].split() for symbol in SYMBOLS])
THREEFOLD, FEWEST = 3.0, 0.005
"""A ratio from which on a share differs, and the share that one side must have at least."""


def families(crystals: Crystals) -> dict[str, Booleans]:
    """Whether each crystal belongs to each element and family, bool [B]."""
    counts = formula_units(crystals.composition)
    present = counts > 0
    found = {symbol: present[:, i] for i, symbol in enumerate(SYMBOLS)}
    own = {name: torch.tensor([s in text.split() for s in SYMBOLS]) for name, text in FAMILIES.items()}
    number = {name: (present & columns).sum(1) for name, columns in own.items()}
    state = charges(counts)
    lacking = (state.missing * state.anionic * (state.numbers > 0)).amax(1)
    anions = (present & ANIONS).sum(1)
    return found | {
        "hydrides (H, no N, O, F, C)": present[:, 0] & ~present[:, [5, 6, 7, 8]].any(1),
        "oxides": present[:, 7],
        "chalcogenides (no O)": present[:, [15, 33, 51]].any(1) & ~present[:, 7],
        "halides": number["halogens"] > 0,
        "no anion": anions == 0,
        "mixed anions": anions >= 2,
        "three anions": anions >= 3,
        "two halogens": number["halogens"] >= 2,
        "two lanthanides": number["lanthanides"] >= 2,
        "lanthanides": number["lanthanides"] > 0,
        "actinides": number["actinides"] > 0,
        "alkali metals": number["alkali metals"] > 0,
        "alkaline earths": number["alkaline earths"] > 0,
        "transition metals": number["transition metals"] > 0,
        "anions short of charge": lacking > 0.2,
        "no neutral assignment": ~torch.isfinite(state.evidence),
    }


def on_hull(crystals: Crystals, energies: Values, phases: KnownPhases, near: float) -> Booleans:
    """Which known crystals lie within ``near`` of the hull, on its scale; energies as in the files, eV/atom."""
    return energies - phases.energy(crystals.composition.double()) <= near


def compare(drawn: Crystals, known: Crystals) -> list[dict[str, Any]]:
    """Share of each element and family among draws and among known crystals, the largest ratios first."""
    numbers = [(one.composition > 0).sum(1) for one in (drawn, known)]
    share = [torch.bincount(n, minlength=12).double() / len(n) for n in numbers]
    weight = torch.nan_to_num(share[0] / share[1], posinf=0.0)[numbers[1]]
    weight = weight / weight.sum()
    own, theirs = families(drawn), families(known)
    rows = []
    for name, member in own.items():
        mine, other = float(member.double().mean()), float(weight @ theirs[name].double())
        least = 0.5 / len(known)
        rows.append(
            {
                "family": name,
                "drawn": round(mine, 4),
                "known": round(other, 4),
                "ratio": round(max(mine, 0.5 / len(drawn)) / max(other, least), 2),
            }
        )
    return sorted(rows, key=lambda row: -row["ratio"])


def differing(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that differ threefold, either way, and are not rare on both sides."""
    frequent = [row for row in rows if max(row["drawn"], row["known"]) >= FEWEST]
    return [row for row in frequent if not 1 / THREEFOLD < row["ratio"] < THREEFOLD]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sampler", help="name or folder")
    parser.add_argument("--known", type=Path, nargs="+", required=True, help="crystals with formation energies")
    parser.add_argument("--hull", type=Path, nargs="+", required=True, help="files of the hull's entries")
    parser.add_argument("--near", type=float, default=0.0, help="eV/atom above the hull that known crystals may lie")
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    options = parser.parse_args()
    sampler = Sampler.load(options.sampler)
    drawn = sampler.sample(options.n, seed=options.seed).to("cpu")
    phases = KnownPhases.read([str(one) for one in options.hull], sorted(sampler.space.element_numbers), scale="charge")
    parts = []
    for path in options.known:
        read = read_labelled(path, "formation_energy", progress=False)
        kept = on_hull(read.crystals, read.labels.double(), phases, options.near) & sampler.space.contains(
            read.crystals
        )
        parts.append(read.crystals[kept])
    known = Crystals.cat(parts)
    keys = torch.cat([formula_units(known.composition), known.space_group[:, None]], 1)
    _, which = torch.unique(keys, dim=0, return_inverse=True)
    first = torch.full((int(which.max()) + 1,), len(which)).scatter_reduce(0, which, torch.arange(len(which)), "amin")
    known = known[first.sort().values]
    rows = compare(drawn, known)
    found = {"sampler": options.sampler, "drawn": len(drawn), "known": len(known), "near": options.near,
             "differ": differing(rows), "all": rows}  # fmt: skip
    text = json.dumps(found, indent=1) + "\n"
    write_aside(options.out, lambda path: path.write_text(text, encoding="utf-8"))
    for row in found["differ"]:
        print(f"{row['family']:32s} drawn {row['drawn']:.3f}  known {row['known']:.3f}  ratio {row['ratio']}")
    print(f"{len(drawn)} draws, {len(known)} known crystals; all shares in {options.out}")


if __name__ == "__main__":
    run(main)
