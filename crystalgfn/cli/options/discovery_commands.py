"""The commands that look for crystals: discover, predict, and the page in the browser."""

from __future__ import annotations

from crystalgfn.cli.options.declared import (
    CALCULATOR,
    ONE_THREAD,
    PROGRESS,
    REFERENCES,
    SAMPLER,
    SCALE,
    SEEDED,
    TRUST,
    Command,
    Option,
    maybe,
    on,
    out_folder,
)
from crystalgfn.cli.options.kinds import COUNT, FROM_ZERO, JOBS, POSITIVE, Choice, File, Number, Text, optional
from crystalgfn.cli.options.kinds import Mapping as Names
from crystalgfn.cli.options.list_kinds import FILES, Several

_METHODS = "some of discover, uncorrected, substitution, random"

DISCOVER = Command(
    summary="Look for stable crystals: sample, place the atoms, relax the most promising with a calculator, correct "
    "the predicted\nenergies by what came, and again, until the budget is spent; then a ranked list.",
    examples=(
        ("chemsys=Li-Mn-O reference=train.parquet", "60 relaxations"),
        ("chemsys=Li-Mn-O reference=[train.parquet,mp_entries.parquet] budget=200 n_jobs=2 out=runs/limno", ""),
        ("anonymous_formulas=[ABX3] any_of=[Cl,Br,I] reference=train.parquet templates=train.parquet", ""),
        ("prototypes=[perovskite] any_of=[Br,I] 'goals={band_gap:[1.2,1.8]}' reference=train.parquet", ""),
        ("chemsys=Na-Cl reference=mine.csv calculator=my_calculator:Pairs energy_references=mine.json", ""),
    ),
    groups={"space": None},
    space="what is looked for (arguments of crystalgfn.CrystalSpace)",
    narrows=True,
    options={
        "sampler": SAMPLER,
        "trust": TRUST,
        "reference": maybe(
            FILES,
            "known phases with formation energies, with atoms or formulas alone, or [several]: the hull, what is known",
        ),
        "energy": Option(
            "formation_energy_per_atom", Text("a column"), "the reference's column of formation energies, eV/atom"
        ),
        "goals": maybe(
            Names("proxies with limits such as {band_gap:[1.2,1.8]}"),
            "limits of predicted properties; what is not predicted to lie within is not placed",
        ),
        "budget": Option(60, COUNT, "relaxations; a larger one goes on from a smaller one in the same out"),
        "seconds": maybe(POSITIVE, "no relaxation is begun later than so long after the start; null: no limit"),
        "out": out_folder("discover_"),
        "calculator": CALCULATOR,
        "energy_references": REFERENCES,
        "scale": SCALE,
        "check_hull": on(
            "where the shipped hull lies far below the reference's choose by it, and say that it lacks phases"
        ),
        "batch": Option(10, COUNT, "relaxations a round"),
        "shortlist": Option(30, COUNT, "crystals a round whose atoms are placed and screened"),
        "draws": Option(2000, COUNT, "crystals sampled a round"),
        "pool": Option(600, COUNT, "of them kept by the weights of the correction"),
        "substituted": Option(4000, FROM_ZERO, "proposals a round by exchange of elements in real crystals; 0: none"),
        "screen_steps": Option(8, optional(FROM_ZERO), "of the calculator for each placed crystal; null: no screening"),
        "correction": Option(
            "gaussian_process",
            Choice(("gaussian_process", "last_layer", "none")),
            "of the predicted energies in this space: gaussian_process, last_layer (Bayesian) or none",
        ),
        "beta": maybe(
            Number(low=0), "inverse temperature of the correction's weights, 1/(eV/atom); null: the reward's"
        ),
        "kappa": Option(0.2, Number(low=0), "standard errors below the prediction by which candidates are chosen"),
        "plausibility": Option(
            0.05,
            Number(low=0),
            "eV/atom by which crystals come later for each factor of e in their plausibility",
        ),
        "adapt": maybe(POSITIVE, "seconds of fine-tuning the sampler in the space first; null: none"),
        "refiner": Option(
            "default",
            optional(File()),
            "what makes the free coordinates: a shipped one, or a folder; null: random Wyckoff placement",
        ),
        "templates": maybe(
            FILES,
            "real crystals whose positions are tried too: Parquet, CSV, a folder of CIF files, aflow, or [several]; "
            "null: those of the reference, or aflow",
        ),
        "n_candidates": Option(2, COUNT, "structures of each placed crystal that may be relaxed"),
        "steps": Option(100, COUNT, "of a relaxation, at most"),
        "max_force": Option(0.1, POSITIVE, "eV/Å at which a relaxation has converged"),
        "second": maybe(
            Text("a calculator such as sevennet"),
            "another calculator, which relaxes the first ranks further at the end",
        ),
        "second_n": Option(5, COUNT, "of them"),
        "report": on("write report.html; needs plotly and pymatviz (extra [evaluate])"),
        "seed": SEEDED,
        "n_jobs": Option(1, JOBS, ONE_THREAD),
        "progress": PROGRESS,
    },
    headings={"options": "the discovery"},
    notes="Into out=<folder> go report.html, table.csv and table.parquet (one row a relaxed candidate), cifs/ named by "
    "rank, patterns/\n(powder patterns of the first 20) and summary.json.",
    what="a discovery",
    beside=True,
)

PREDICT = Command(
    summary="Predict the structures of a formula, the most probable first.",
    examples=(("formula=Sr2TiO4", ""), ("formula=[NaCl,LiF] n=5", ""), ("formula=LiFePO4 space_group=Pnma", "")),
    options={
        "formula": maybe(Several(item=Text("a formula"), words="formulas such as [NaCl,LiF]", low=1), "or several"),
        "space_group": maybe(Text("a number or a symbol"), "only structures with this one, such as 62 or Pnma"),
        "n": Option(20, COUNT, "structures of a formula, at most"),
        "out": out_folder("predict_"),
        "refiner": Option("default", optional(File()), "of free coordinates; null: templates alone"),
        "templates": Option("aflow", optional(FILES), "real crystals whose positions are tried too; null: none"),
        "max_atoms": Option(20, COUNT, "in the primitive cell"),
        "steps": Option(5, COUNT, "of the refiner"),
        "seed": SEEDED,
        "progress": PROGRESS,
    },
    headings={"options": "the prediction"},
    notes="Into out=<folder> go table.csv and table.parquet (one row a structure) and cifs/.",
    what="a prediction",
)

APP = Command(
    summary="Serve a page for the browser: choose elements, symmetry and a goal, see runs work and what they found.",
    examples=(
        ("", "http://127.0.0.1:8000/"),
        ("reference=train.parquet runs=runs", "with phase diagrams, and discoveries"),
        ("host=0.0.0.0 port=8080", "for others, with a token"),
    ),
    options={
        "runs": Option("runs", File(), "the folder of all runs; those that commands have made there are shown too"),
        "reference": maybe(
            FILES,
            "known phases with formation energies (Parquet or CSV), or [several]: hulls, what is new, discoveries",
        ),
        "host": Option("127.0.0.1", Text("an address"), "where it listens; elsewhere than here it wants a token"),
        "port": Option(8000, COUNT),
        "token": maybe(Text("a secret"), "what visitors have to show; null: none on 127.0.0.1, else a new one"),
    },
    headings={"options": "the page"},
    notes="Runs are made one after the other, by the same commands as in a terminal; those that wait or work when the "
    "server ends go\non when it starts again. Needs fastapi and uvicorn (extra [app]).",
    what="a page in the browser",
    module="serve",
)

HELD_BACK: dict[str, Option] = {
    "known": maybe(FILES, "discovery: known phases: what was fitted on, templates, entries of the hull"),
    "targets": maybe(FILES, "discovery: crystals with formation energies that are to be found"),
    "templates": maybe(FILES, "discovery: real crystals whose positions placement tries too; null: none"),
    "systems": Option(12, COUNT, "discovery: chemical systems"),
    "phases": Option(15, COUNT, "discovery: stable phases in them together, at least"),
    "budget": Option(50, COUNT, "discovery: relaxations in each system by each method"),
    "discovered_by": Option(
        ["discover", "uncorrected", "substitution", "random"],
        Several(item=Choice(("discover", "uncorrected", "substitution", "random")), words=_METHODS, low=1),
        f"discovery: {_METHODS}",
    ),
    "energy_references": REFERENCES,
}
"""Options of the benchmark of discovery."""

SEARCHES = {"discover": DISCOVER, "predict": PREDICT, "app": APP}
