"""The commands: what each does, its options, and examples for its help."""

from __future__ import annotations

from crystalgfn.cli.options.declared import (
    BETA,
    CALCULATOR,
    JSON,
    ONE_THREAD,
    PROGRESS,
    REFERENCES,
    REST,
    SAMPLER,
    SEEDED,
    TRUST,
    Command,
    Option,
    out_folder,
)
from crystalgfn.cli.options.discovery_commands import DISCOVER
from crystalgfn.cli.options.fit_commands import BENCHMARK, TRAIN_PROXY, TRAIN_REFINER
from crystalgfn.cli.options.kinds import COUNT, FROM_ZERO, JOBS, POSITIVE, Choice, File, Number, Switch, Text, optional
from crystalgfn.cli.options.list_kinds import FILES, STRATA, Several

TRAIN = Command(
    summary="Train a sampler: it learns to draw crystals with probability proportional to a reward.",
    examples=(
        ("trainer=demo", "two minutes in the default space"),
        ("elements=[Li,Mn,O] n_atoms=[1,14] seconds=600", ""),
        ("reward=density space_groups=[225,227] policy=small steps=500", ""),
        ("experiment=published_formation_energy", "a published run again"),
        ("out=runs/mine resume=true seconds=3600", "go on with an interrupted run"),
    ),
    groups={
        "space": "default",
        "reward": "stable",
        "objective": "vargrad",
        "policy": "default",
        "trainer": "default",
        "logger": "csv",
        "experiment": None,
    },
    space="what may be drawn (every argument of crystalgfn.CrystalSpace)",
    shorts={
        "steps": "trainer.steps",
        "seconds": "trainer.seconds",
        "batch_size": "trainer.batch_size",
        "learning_rate": "trainer.learning_rate",
        "device": "trainer.device",
        "progress": "trainer.progress",
        "beta": "reward.beta",
    },
    options={
        "out": out_folder("", "the sampler goes to <out>/sampler"),
        "resume": Option(False, Switch(), "true: go on with the run in <out>, under its own configuration"),
        "seed": SEEDED,
        "strata": Option(
            "default",
            STRATA,
            "how often 1, 2, ... elements: .02 .23 .40 .25 .10, a list of shares, or null: as the reward has it",
        ),
        "real": Option(
            None, optional(FILES), "real crystals to train on too; with trainer.real_fraction=0.1, for instance"
        ),
        "init": Option(
            None,
            optional(File()),
            "a sampler (folder, or name of a shipped one) to start from instead of random weights; policy is then its",
        ),
        "trust": TRUST,
        "diagnostics": Option(
            2000, FROM_ZERO, "crystals drawn at the end to measure the effective sample size; 0: none"
        ),
        "json": JSON,
    },
    headings={"options": "the run"},
    notes=REST.format("trainer.replay_fraction=0.2")
    + "\n--config-dir DIR adds files of your own: DIR/reward/mine.yaml is then reward=mine.",
    what="a training",
    together=True,
)

SAMPLE = Command(
    summary="Draw crystals from a trained sampler, place their atoms, write structure files, a table and a picture.",
    examples=(
        ("", "100 crystals of the shipped sampler"),
        ("n=200 elements=[Li,Mn,O] crystal_systems=[cubic]", ""),
        ("chemsys=Li-Mn-O space_groups=[Fm-3m,227]", "all three elements in every crystal"),
        ("formula=LiFePO4 resample=true", ""),
        ("sampler=runs/mine/sampler n=1000 n_atoms=[1,10] formats=[cif,poscar]", ""),
    ),
    groups={"space": None},
    space="further constraints, obeyed by every crystal without retraining (arguments of crystalgfn.CrystalSpace)",
    narrows=True,
    options={
        "sampler": SAMPLER,
        "trust": TRUST,
        "n": Option(100, COUNT, "crystals"),
        "beta": BETA,
        "out": out_folder("sample_", "a folder for table.parquet, cifs and the picture"),
        "seed": SEEDED,
        "shard_size": Option(
            None,
            optional(COUNT),
            "crystals a file: written as shards/part-00000.parquet, ... in constant memory; the same command goes on",
        ),
        "shard": Option(
            None,
            optional(Several(item=FROM_ZERO, words="[i,k] with 0 <= i < k, for process i of k", low=2, high=2)),
            "with shard_size, [i,k]: this process is number i of k that share out the files; name one out for all",
        ),
        "resample": Option(
            False,
            Switch(),
            "true: draw in proportion to importance weights, which corrects for what the policy has not learned",
        ),
        "structures": Option(True, Switch(), "place the atoms"),
        "n_candidates": Option(1, COUNT, "structures of each crystal, the likeliest first"),
        "refiner": Option(
            "default",
            optional(File()),
            "what makes the free coordinates: a shipped one, or a folder; null: random Wyckoff placement",
        ),
        "templates": Option(
            None,
            optional(FILES),
            "real crystals whose positions are tried too: Parquet, CSV, a folder of CIF files, aflow, or [several]",
        ),
        "energies": Option(
            False,
            Switch(),
            "true: of each crystal's 20 likeliest structures those come first that are low in energy by the calculator",
        ),
        "relax": Option(
            False,
            Switch(),
            "true: so chosen, relaxed with the calculator in the drawn cell, the lowest energy first",
        ),
        "calculator": CALCULATOR,
        "formats": Option(
            ["cif"],
            Several(item=Choice(("cif", "poscar", "extxyz")), words="some of cif, poscar, extxyz", low=1),
            "cif, poscar, extxyz",
        ),
        "diagnostics": Option(1000, FROM_ZERO, "crystals drawn to measure the effective sample size; 0: none"),
        "picture": Option(True, Switch(), "picture.png"),
        "progress": PROGRESS,
        "device": Option("cpu", Text("a device such as cpu or cuda"), "cpu or cuda"),
        "n_jobs": Option(2, JOBS, "processes"),
        "json": JSON,
    },
    headings={"options": "the run"},
)

EVALUATE = Command(
    summary="Judge a set of crystals, whoever made them: validity, symmetry against what its source says, uniqueness, "
    "novelty, diversity,\ndistributions, and with relax=true energies above the hull by a calculator (not DFT).",
    examples=(
        ("samples=runs/mine reference=train.parquet n_jobs=2", ""),
        ("samples=cifs/ reference=train.parquet relax=true relax_n=200 out=runs/judged", ""),
        ("samples=[theirs.extxyz,mine.cif] best=source_formation_energy", ""),
    ),
    options={
        "samples": Option(
            None,
            optional(FILES),
            "a run of crystalgfn sample, a folder of CIFs, a .parquet, .csv, .cif or .extxyz file, or [several]",
        ),
        "reference": Option(
            None, optional(FILES), "known crystals in any of these forms, or [several]: novelty, distances, the hull"
        ),
        "out": out_folder("evaluate_", "the same command with the out of an interrupted evaluation goes on"),
        "limit": Option(None, optional(COUNT), "samples that are judged, at most, drawn at random; null: all"),
        "symprecs": Option(
            [0.01, 0.1, 0.3],
            Several(item=POSITIVE, words="numbers above 0 such as [0.01,0.1]", low=1),
            "Å, at which space groups are looked for and compared with those of the source",
        ),
        "symprec": Option(0.1, POSITIVE, "Å, whose groups and prototypes are counted"),
        "ltol": Option(0.2, POSITIVE, "of StructureMatcher, by which structures are the same"),
        "stol": Option(0.3, POSITIVE),
        "angle_tol": Option(5.0, POSITIVE),
        "swap": Option(
            False,
            Switch(),
            "also count structures as the same that differ by an exchange of elements; slow for large references",
        ),
        "best": Option(
            None,
            optional(Text("a column")),
            "a column of structures.parquet, such as e_above_hull: the diversity of the best by it too",
        ),
        "best_n": Option(100, COUNT, "how many are the best"),
        "largest_first": Option(False, Switch(), "whether large values of that column are good"),
        "reference_n": Option(
            5000,
            COUNT,
            "known crystals whose properties are compared with the samples', at most, drawn at random",
        ),
        "report": Option(
            True,
            Switch(),
            "write report.html, one page to read that opens offline; needs plotly and pymatviz (extra [evaluate])",
        ),
        "relax": Option(False, Switch(), "relax with the calculator, energies above the reference's hull"),
        "relax_n": Option(None, optional(COUNT), "samples that are relaxed, at most, drawn at random; null: all"),
        "steps": Option(100, COUNT, "of a relaxation, at most"),
        "max_force": Option(0.1, POSITIVE, "eV/Å at which a relaxation has converged"),
        "calculator": CALCULATOR,
        "energy_references": REFERENCES,
        "energy": Option(
            "formation_energy_per_atom", Text("a column"), "the reference's column of formation energies, eV/atom"
        ),
        "dask": Option(
            None,
            optional(Text("an address")),
            "address of a Dask scheduler that relaxes (tcp://...:8786), or local; null: n_jobs processes",
        ),
        "seed": SEEDED,
        "n_jobs": Option(1, JOBS, ONE_THREAD),
        "progress": PROGRESS,
        "json": JSON,
    },
    notes="Into out=<folder> go report.html (to be read in a browser, offline too), structures.parquet (one row a "
    "crystal),\nsummary.json and summary.md. Crystals that cannot be read are named on stderr and in summary.json; the "
    "exit code is 0 as\nlong as one could be judged.",
    what="an evaluation",
)

CHECK = Command(
    summary="Compare the energies that a sampler's proxy predicts with a calculator's: sample crystals, place "
    "their atoms, relax them\nat the sampled lattice (E*), then the cell as well.",
    examples=(
        ("", "200 crystals of the shipped sampler"),
        ("sampler=runs/mine/sampler n=50 templates=train.parquet", ""),
        ("n=100 elements=[Li,Mn,O] hull=train.parquet out=runs/check_oxides", ""),
    ),
    groups={"space": None},
    space="further constraints on what is sampled (arguments of crystalgfn.CrystalSpace)",
    narrows=True,
    options={
        "sampler": SAMPLER,
        "trust": TRUST,
        "n": Option(200, COUNT, "crystals sampled and checked"),
        "seed": SEEDED,
        "beta": BETA,
        "out": out_folder("check_"),
        "n_sigma": Option(1.0, Number(low=0), "standard errors that the confidence bound lies above the prediction"),
        "n_candidates": Option(8, COUNT, "placements of each crystal, at most"),
        "templates": Option(
            None,
            optional(File()),
            "a Parquet file of real crystals with atoms (as MP-20's): their positions are tried too",
        ),
        "steps": Option(40, COUNT, "of relaxing atoms in the sampled cell, at most"),
        "full_steps": Option(100, COUNT, "of relaxing atoms and cell from there, at most"),
        "hull": Option(
            None,
            optional(File()),
            "a Parquet or CSV file of formulas and formation energies: energies above their hull as well",
        ),
        "calculator": CALCULATOR,
        "energy_references": REFERENCES,
        "chunk": Option(8, COUNT, "crystals checked together, and lost when it is killed"),
        "n_jobs": Option(1, JOBS, ONE_THREAD),
        "picture": Option(True, Switch(), "check.png"),
        "progress": PROGRESS,
        "json": JSON,
    },
    headings={"options": "the check"},
    what="a check",
)

COMMANDS = {
    "train": TRAIN,
    "sample": SAMPLE,
    "evaluate": EVALUATE,
    "discover": DISCOVER,
    "check": CHECK,
    "benchmark": BENCHMARK,
    "train_proxy": TRAIN_PROXY,
    "train_refiner": TRAIN_REFINER,
}
"""By the names of their modules in `crystalgfn.cli`; a user writes ``train-proxy``."""
