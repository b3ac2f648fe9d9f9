"""What a sampler's draws are worth: chemical sense, novelty, and energies after relaxing: the figures of its card.

    python -m scripts.maintain.report_sampler stable --train mp20/train.parquet --val mp20/val.parquet \
        --known mp20/train.parquet mp20/val.parquet hull/mp_entries.parquet --relaxed 300 --second sevennet --out report

Run it when a sampler was trained anew. Relaxations are kept in the folder as they are done; the same call goes on.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from crystalgfn.benchmarks.mode_coverage import coverage
from crystalgfn.calculators.energy_references import references_of
from crystalgfn.calculators.registry import DEFAULT, load_calculator
from crystalgfn.crystallography.elements import SYMBOLS
from crystalgfn.data.labelled import read_labelled
from crystalgfn.discovery.phases import KnownPhases, formula_key_of
from crystalgfn.discovery.proposer import Proposer, ProposerConfig
from crystalgfn.discovery.screening import Screen
from crystalgfn.evaluation.metrics.compositions import amounts, composition_row
from crystalgfn.evaluation.relaxation_job import RelaxationJob, relax_job, relaxed_structure
from crystalgfn.properties.oxidation import charges
from crystalgfn.rewards import load_proxy
from crystalgfn.sampling.adaptation import CONFIG, adapt
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.structures.config import templates_of
from crystalgfn.utils.files import write_aside
from crystalgfn.utils.progress import Bar
from crystalgfn.utils.run_folder import Journal
from scripts.maintain.program import run

LANTHANIDES = frozenset("La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu".split())
HALOGENS = frozenset("F Cl Br I".split())
ANIONS = frozenset("N O F P S Cl As Se Br Sb Te I".split())
CHALCOGENS = frozenset("O S Se Te".split())
SEEN, MANY = 5, 8
PASSES = 0.9
"""Share of known crystals that pass the threshold of plausibility."""
SEEDS = (7, 8, 9)
LEVELS = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
NEAR = 0.1
"""eV/atom above the hull."""
NARROWED: dict[str, dict[str, Any]] = {
    "A: Fe and O, up to 10 atoms each": {"elements": ["Fe", "O"], "atoms_per_element": [1, 10]},
    "B: Li, Mn and O": {"chemsys": "Li-Mn-O"},
    "C: cubic": {"crystal_systems": ["cubic"]},
    "D: lengths 10-20, angles 75-135": {"lengths": [10, 20], "angles": [75, 135]},
    "E: LiFePO4": {"formula": "LiFePO4"},
    "F: group 14": {"space_groups": [14]},
}
"""Spaces that samplers are adapted to."""


def rejected(formulas: Sequence[str], known: Sequence[str]) -> dict[str, float]:
    """Share of formulas that each simple rule rejects, and that any does (``any``).

    Args:
        formulas: to judge.
        known: whose anonymous stoichiometries count; one seen fewer than five times is rejected.
    """
    from pymatgen.core import Composition

    seen = Counter(Composition(one).anonymized_formula for one in set(known))
    state, found = charges(list(formulas)), Counter()
    for i, formula in enumerate(formulas):
        counts = Composition(formula).get_reduced_composition_and_factor()[0].get_el_amt_dict()
        own = set(counts)
        pairs = zip(state.numbers[i].tolist(), state.mean[i].tolist(), strict=True)
        half = any(z and SYMBOLS[z - 1] in CHALCOGENS and -1.5 < mean < -0.25 for z, mean in pairs)
        reasons = {
            "rare stoichiometry": seen[Composition(formula).anonymized_formula] < SEEN,
            "eight or more of one element": max(counts.values()) >= MANY and not own & {"O", "F", "H"},
            "two lanthanides": len(own & LANTHANIDES) >= 2,
            "two halogens": len(own & HALOGENS) >= 2,
            "three anions": len(own & ANIONS) >= 3,
            "chalcogen near -1": len(own) > 1 and half,
        }
        found.update(name for name, holds in reasons.items() if holds)
        found["any"] += any(reasons.values())
    return {name: n / len(formulas) for name, n in found.most_common()}


def drawn_figures(
    sampler: Sampler, n: int, seed: int, train: str | Path, val: str | Path, known: Sequence[str | Path]
) -> dict[str, Any]:
    """Sense and novelty of ``n`` draws; ``plausible``: the share above what 90 % of the new formulas of val pass."""
    crystals = sampler.sample(n, seed=seed)
    formulas = crystals.formulas()
    names = pd.read_parquet(train, columns=["formula"]).formula.tolist()
    every = {_key(one) for path in known for one in pd.read_parquet(path, columns=["formula"]).formula.unique()}
    own, mine = [_key(one) for one in formulas], {_key(one) for one in set(names)}
    plausible = load_proxy("plausibility")
    held = read_labelled(val, "formation_energy", progress=False).crystals
    held = held[torch.tensor([_key(one) not in mine for one in held.formulas()])]
    threshold = float(plausible(held).double().quantile(1 - PASSES))
    values = plausible(crystals).double()
    above = load_proxy("energy_above_hull")
    present = (crystals.composition > 0).double().mean(0)
    return {
        "draws": n,
        "seed": seed,
        "plausible": float((values > threshold).double().mean()),
        "threshold": threshold,
        "median_plausibility": float(values.median()),
        "rejected": rejected(formulas, names),
        "rejected_of_val": rejected(held.formulas()[:n], names),
        "new_formulas_against_train": float(np.mean([one not in mine for one in own])),
        "new_formulas_against_known": float(np.mean([one not in every for one in own])),
        "claims": above(crystals).double().quantile(LEVELS).tolist(),
        "bounds": above.confidence_bound(crystals, 1.0).double().quantile(LEVELS).tolist(),
        "elements": {SYMBOLS[z]: round(float(present[z]), 3) for z in present.argsort(descending=True)[:25].tolist()},
    }


def proportion_figures(sampler: Sampler, val: str | Path, n: int = 10_000, tries: int = 16) -> dict[str, Any]:
    """How near the draws are to the target: effective sample sizes, and the share of real crystals that are missed."""
    own = [sampler.diagnostics(n, seed=seed) for seed in SEEDS]
    held = read_labelled(val, "formation_energy", progress=False).crystals
    found = coverage(sampler, held)
    drawn = sampler.sample(n, seed=SEEDS[0])
    systems = {tuple(row.nonzero().flatten().tolist()) for row in drawn.composition}
    pairs = set(zip(drawn.formulas(), drawn.space_group.tolist(), strict=True))
    return {
        "draws": n,
        "ess": [one.ess for one in own],
        "ess_by_elements": {str(k): one.ess for k, one in own[0].strata.items()},
        "log_z": [one.log_z for one in own],
        "correlation": [one.correlation for one in own],
        "std_log_w": [one.log_weight_std for one in own],
        "ess_with_tries": {"tries": tries, "draws": 2000, "ess": sampler.diagnostics(2000, seed=7, tries=tries).ess},
        "real_crystals_inside": found.inside,
        "missed": 1 - found.recall,
        "pairs_of_formula_and_group": len(pairs),
        "chemical_systems": len(systems),
        "space_groups": len(set(drawn.space_group.tolist())),
        "volume_per_atom": drawn.volume_per_atom.double().quantile(LEVELS).tolist(),
    }


def adapted_figures(sampler: Sampler, n: int = 5_000) -> dict[str, dict[str, list[float]]]:
    """Effective sample sizes in `NARROWED` before and after what ``adapt=auto`` does, for each seed."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, space in NARROWED.items():
        own = found[name] = {"before": [], "after": []}
        for seed in SEEDS:
            adapted = adapt(sampler, dict(space), seconds=None, steps=CONFIG.steps, seed=seed)
            own["before"].append(sampler.diagnostics(n, sampler.narrow(dict(space)), seed=seed).ess)
            own["after"].append(adapted.diagnostics(n, seed=seed).ess)
        print(name, own, flush=True)
    return found


def _key(formula: str) -> str:
    from pymatgen.core import Composition

    return formula_key_of(tuple((one.Z, n) for one, n in Composition(formula).items()))


def relaxed_rows(
    sampler: Sampler,
    n: int,
    seed: int,
    train: str | Path,
    known: Sequence[str | Path],
    out: Path,
    calculator: str = DEFAULT,
    second: str | None = None,
    second_n: int = 100,
) -> pd.DataFrame:
    """Draws placed with templates of ``train``, screened and relaxed: one row a draw.

    Columns: ``claim`` and ``bound`` (of the energy above the hull, before), ``screened`` and ``relaxed`` (by the
    calculator), ``second`` (relaxed by the second calculator from there, on its own energies), eV/atom above the exact
    hull of the known phases on the scale of the charges; ``new``: whether the formula is not among them.
    """
    crystals = sampler.sample(n, seed=seed).to("cpu")
    above = load_proxy("energy_above_hull")
    potential = load_calculator(calculator)
    references = references_of(potential)
    phases = KnownPhases.read(list(known), sorted(sampler.space.element_numbers), scale="charge")
    formulas = {formula_key_of(one.amounts) for one in phases.phases}
    build = {"templates": templates_of(str(train)), "lattice": "generate", "n_candidates": 1}
    proposer = Proposer(sampler, sampler.space, seed, ProposerConfig(build=build))
    screen, journal = Screen(potential, references), Journal(out / "relaxations.jsonl", "draw")
    other = None if second is None else load_calculator(second)
    claims = above(crystals).tolist(), above.confidence_bound(crystals, 1.0).tolist()
    for i in Bar(range(n), description="relaxing"):
        if i in journal:
            continue
        row = {"draw": i, "formula": crystals.formulas()[i], "space_group": int(crystals.space_group[i])}
        row |= {"claim": claims[0][i], "bound": claims[1][i], "screened": None, "relaxed": None, "second": None}
        placed, energies = screen(proposer.place(crystals[i : i + 1], 2 * i)[:1])
        if placed and np.isfinite(energies[0]):
            pairs = tuple(amounts(placed[0].structure).items())
            level = float(phases.energy(composition_row(pairs)[None])[0])
            row |= {"screened": float(energies[0]) - level, "new": formula_key_of(pairs) not in formulas}
            done = relax_job(RelaxationJob(index=i, structure=placed[0].structure, calculator=potential))
            if done["error"] is None:
                row["relaxed"] = done["formation_energy"] - level
                if other is not None and i < second_n:
                    row["second"] = _by_second(done, other, level)
        journal.add(row)
    return pd.DataFrame([journal.records[i] for i in range(n)])


def _by_second(done: dict[str, Any], other: Any, level: float) -> float | None:
    """Energy above the hull after a relaxation by another calculator; None where it fails."""
    job = RelaxationJob(index=0, structure=relaxed_structure(done), calculator=other, steps=30)
    again = relax_job(job)
    return None if again["error"] is not None else again["formation_energy"] - level


def relaxed_figures(rows: pd.DataFrame) -> dict[str, Any]:
    """Shares within 0.1 eV/atom of the hull and of a new formula, of all draws and of quarters of the ranks."""
    found: dict[str, Any] = {"draws": len(rows), "relaxed": int(rows["relaxed"].notna().sum())}
    for name in ("relaxed", "second"):
        own = rows[rows[name].notna()] if name == "second" else rows
        if not len(own) or own[name].isna().all():
            continue
        good = (own[name] <= NEAR) & own["new"].eq(True)
        one = {
            "rows": len(own),
            "median": float(own[name].median()),
            "within": float((own[name] <= NEAR).mean()),
            "within_and_new": float(good.mean()),
            "stable": float((own[name] <= 0).mean()),
        }
        for by in ("bound", "screened"):
            order = own[by].astype(float).rank(method="first", na_option="bottom").to_numpy()
            quarters = np.ceil(4 * order / len(own)).astype(int)
            one[f"within_and_new_by_quarters_of_{by}"] = [float(good[quarters == k].mean()) for k in (1, 2, 3, 4)]
            both = own[[by, name]].astype(float).dropna().rank()
            one[f"rank_correlation_of_{by}"] = float(np.corrcoef(both[by], both[name])[0, 1])
        found[name] = one
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sampler", help="name or folder")
    parser.add_argument("--train", type=Path, required=True, help="crystals that templates and stoichiometries are of")
    parser.add_argument("--val", type=Path, required=True, help="crystals that the threshold of plausibility is of")
    parser.add_argument("--known", type=Path, nargs="+", required=True, help="files of the hull's entries")
    parser.add_argument("--n", type=int, default=2000, help="draws for what needs no relaxation")
    parser.add_argument("--relaxed", type=int, default=0, help="draws to relax")
    parser.add_argument("--calculator", default=DEFAULT)
    parser.add_argument("--second", help="a calculator that relaxes the first of them further")
    parser.add_argument("--second-n", type=int, default=100)
    parser.add_argument("--adapted", action="store_true", help="fine-tune it in six narrowed spaces too, three times")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--out", type=Path, required=True, help="folder")
    options = parser.parse_args()
    sampler = Sampler.load(options.sampler)
    figures = drawn_figures(sampler, options.n, options.seed, options.train, options.val, options.known)
    figures["proportions"] = proportion_figures(sampler, options.val)
    if options.adapted:
        figures["adapted"] = adapted_figures(sampler)
    if options.relaxed:
        known = [str(one) for one in options.known]
        rows = relaxed_rows(
            sampler, options.relaxed, options.seed, options.train, known, options.out, options.calculator,
            options.second, options.second_n,
        )  # fmt: skip
        figures["after_relaxing"] = relaxed_figures(rows)
    text = json.dumps(figures, indent=1) + "\n"
    write_aside(options.out / "report.json", lambda path: path.write_text(text, encoding="utf-8"))
    print(text)


if __name__ == "__main__":
    run(main)
