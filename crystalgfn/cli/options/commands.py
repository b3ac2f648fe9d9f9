"""The commands: what each does, its options, and examples for its help."""

from __future__ import annotations

from crystalgfn.cli.options.declared import (
    ADAPT,
    BETA,
    CALCULATOR,
    ONE_THREAD,
    PROGRESS,
    REFERENCES,
    REST,
    SAMPLER,
    SCALE,
    SEEDED,
    TRUST,
    Command,
    Option,
    fields_of,
    maybe,
    off,
    on,
    out_folder,
)
from crystalgfn.cli.options.discovery_commands import HELD_BACK, SEARCHES
from crystalgfn.cli.options.kinds import AUTO, COUNT, FROM_ZERO, JOBS, POSITIVE, Choice, File, Number, Text, optional
from crystalgfn.cli.options.kinds import Mapping as Names
from crystalgfn.cli.options.list_kinds import FILES, STRATA, Several

TRAINING = {"space": "default", "reward": "stable", "objective": "vargrad", "policy": "default", "trainer": "default"}
"""Groups that a training is made of."""
CALCULATED = {"calculator": CALCULATOR, "energy_references": REFERENCES}
_DEVICE = Text("a device such as cpu or cuda")
_COUNTS = Several(item=COUNT, words="whole numbers of at least 1 such as [100,1000]", low=1)
_REAL = "a Parquet file of real crystals with atoms (as MP-20's): their positions are tried too"


def _some_of(*names: str) -> Several:
    return Several(item=Choice(names), words=f"some of {', '.join(names)}", low=1)


TRAIN = Command(
    summary="Train a sampler: it learns to sample crystals with probability proportional to a reward.",
    examples=(
        ("trainer=demo", "two minutes in the default space"),
        ("elements=[Li,Mn,O] n_atoms=[1,14] seconds=600", ""),
        ("reward=density space_groups=[225,227] policy=small steps=500", ""),
        ("experiment=published_formation_energy", "a published run again"),
        ("out=runs/mine resume=true seconds=3600", "go on with an interrupted run"),
    ),
    groups={**TRAINING, "logger": "csv", "experiment": None},
    space="the space of crystals (every argument of crystalgfn.CrystalSpace)",
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
        "resume": off("true: resume the run in <out> with its saved configuration"),
        "seed": SEEDED,
        "strata": Option(
            "default",
            STRATA,
            "how often 1, 2, ... elements: .02 .23 .40 .25 .10, a list of shares, or null: as the reward has it",
        ),
        "real": maybe(FILES, "real crystals to train on too; with trainer.real_fraction=0.1, for instance"),
        "init": maybe(File(), "a sampler (folder, or shipped one) to start from; policy is then its"),
        "trust": TRUST,
        "diagnostics": Option(2000, FROM_ZERO, "samples that measure the effective sample size; 0: none"),
    },
    headings={"options": "the run"},
    notes=REST.format("trainer.replay_fraction=0.2")
    + "\n--config-dir DIR adds files of your own: DIR/reward/mine.yaml is then reward=mine.",
    what="a training",
    together=True,
)

SAMPLE = Command(
    summary="Sample crystals from a trained sampler, place their atoms, write structure files, a table and a picture.",
    examples=(
        ("", "100 crystals of the shipped sampler"),
        ("n=200 elements=[Li,Mn,O] crystal_systems=[cubic]", ""),
        ("chemsys=Li-Mn-O space_groups=[Fm-3m,227]", "all three elements in every crystal"),
        ("formula=LiFePO4 resample=true", ""),
        ("sampler=runs/mine/sampler n=1000 n_atoms=[1,10] formats=[cif,poscar]", ""),
    ),
    groups={"space": None},
    space="further constraints, satisfied by every crystal without retraining (arguments of crystalgfn.CrystalSpace)",
    narrows=True,
    options={
        "sampler": SAMPLER,
        "trust": TRUST,
        "n": Option(100, COUNT, "crystals"),
        "beta": BETA,
        "out": out_folder("sample_", "a folder for table.parquet, cifs and the picture"),
        "seed": SEEDED,
        "shard_size": maybe(COUNT, "crystals a file shards/part-00000.parquet, ..., in constant memory"),
        "shard": maybe(
            Several(item=FROM_ZERO, words="[i,k] with 0 <= i < k, for process i of k", low=2, high=2),
            "with shard_size: shard index i of k, such as [0,4]; use the same out for all",
        ),
        "tries": Option(1, COUNT, "lattices sampled for each composition, of which one is kept by its weight"),
        "resample": Option(False, AUTO, "correct errors by importance weights: true (with repeats) or auto (without)"),
        "adapt": ADAPT,
        "structures": on("place the atoms"),
        "n_candidates": Option(1, COUNT, "structures of each crystal, the most probable first"),
        "refiner": Option("default", optional(File()), "of free coordinates: shipped, or a folder; null: at random"),
        "templates": maybe(FILES, "real crystals whose positions are tried too: a table, CIFs, aflow, or [several]"),
        "energies": off("true: rank each crystal's 20 most probable structures by the calculator's energy"),
        "relax": off("true: these are relaxed with the calculator in the sampled cell, the lowest energy first"),
        "calculator": CALCULATOR,
        "formats": Option(["cif"], _some_of("cif", "poscar", "extxyz"), "cif, poscar, extxyz"),
        "diagnostics": Option(1000, FROM_ZERO, "samples that measure the effective sample size; 0: none"),
        "picture": on("picture.png"),
        "progress": PROGRESS,
        "device": Option("cpu", _DEVICE, "cpu or cuda"),
        "n_jobs": Option(2, JOBS, "processes"),
    },
    headings={"options": "the run"},
    what="crystals of a sampler",
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
        "samples": maybe(FILES, "a run of crystalgfn sample, a folder, .parquet, .csv, .cif or .extxyz, or [several]"),
        "reference": maybe(FILES, "known crystals in any of these forms, or [several]: novelty, distances, the hull"),
        "out": out_folder("evaluate_"),
        "limit": maybe(COUNT, "samples that are judged, at most, chosen at random; null: all"),
        "symprecs": Option(
            [0.01, 0.1, 0.3],
            Several(item=POSITIVE, words="numbers above 0 such as [0.01,0.1]", low=1),
            "Å, at which space groups are looked for and compared with those of the source",
        ),
        "symprec": Option(0.1, POSITIVE, "Å, whose groups and prototypes are counted"),
        "ltol": Option(0.2, POSITIVE, "of StructureMatcher, by which structures are the same"),
        "stol": Option(0.3, POSITIVE),
        "angle_tol": Option(5.0, POSITIVE),
        "swap": off("also take structures that differ by an exchange of elements for the same; slow if there are many"),
        "best": maybe(Text("a column"), "a column such as e_above_hull: the diversity of the best by it too"),
        "best_n": Option(100, COUNT, "how many are the best"),
        "largest_first": off("whether large values of that column are good"),
        "reference_n": Option(5000, COUNT, "known crystals whose properties are compared, at most, chosen at random"),
        "report": on("write report.html, a page that opens offline; needs plotly and pymatviz (extra [evaluate])"),
        "relax": off("relax with the calculator, energies above the reference's hull"),
        "relax_n": maybe(COUNT, "samples that are relaxed, at most, chosen at random; null: all"),
        "steps": Option(100, COUNT, "of a relaxation, at most"),
        "max_force": Option(0.1, POSITIVE, "eV/Å at which a relaxation has converged"),
        **CALCULATED,
        "energy": Option(
            "formation_energy_per_atom", Text("a column"), "relax: the column of the reference, for the hull"
        ),
        "scale": SCALE,
        "dask": maybe(Text("an address"), "of a Dask scheduler (tcp://...:8786), or local; null: n_jobs processes"),
        "seed": SEEDED,
        "n_jobs": Option(1, JOBS, ONE_THREAD),
        "progress": PROGRESS,
    },
    notes="Into out=<folder> go report.html (to be read in a browser, offline too), structures.parquet (one row a "
    "crystal),\nsummary.json and summary.md. Crystals that cannot be read are named on stderr and in summary.json; the "
    "exit code is 0 as\nlong as one could be judged.",
    what="an evaluation",
    beside=True,
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
        "templates": maybe(FILES, _REAL),
        "steps": Option(40, COUNT, "of relaxing atoms in the sampled cell, at most"),
        "full_steps": Option(100, COUNT, "of relaxing atoms and cell from there, at most"),
        "hull": maybe(FILES, "a table of formulas and formation energies, or [several]: energies above their hull"),
        "scale": SCALE,
        **CALCULATED,
        "chunk": Option(8, COUNT, "crystals checked together, and lost when it is killed"),
        "n_jobs": Option(1, JOBS, ONE_THREAD),
        "picture": on("check.png"),
        "progress": PROGRESS,
    },
    headings={"options": "the check"},
    what="a check",
)

BENCHMARK = Command(
    summary="Measure how fast crystals are trained and sampled, how near a trained sampler comes to known "
    "distributions, which modes\na sampler misses, or the match rate of real crystals (csp).",
    examples=(
        ("sampler=formation-energy", "speed of the shipped sampler, where the time goes"),
        ("batch_sizes=[1000] threads=[1] seconds=5 out=runs/speed", ""),
        ("space=published policy.width=128", "an untrained policy of another size, in another space"),
        ("task=exactness out=runs/exactness", "about six minutes"),
        ("task=modes sampler=formation-energy chains=20000 samples=10000 real=val.parquet", ""),
        ("task=csp csp.data=val.parquet csp.templates=train.parquet csp.n=100 out=runs/csp", ""),
        ("task=csp csp.data=val.csv csp.methods=[random] 'csp.outside={diffcsp: folder}' out=runs/csp", ""),
        ("task=placement sampler=formation-energy placed=300 out=runs/placement", ""),
        ("task=discovery sampler=stable known=train.parquet targets=val.parquet out=runs/found", "hours"),
    ),
    groups={**TRAINING, "csp": "default", "experiment": None},
    space="the space of an untrained sampler (every argument of crystalgfn.CrystalSpace)",
    options={
        "task": Option(
            "throughput",
            Choice(("throughput", "exactness", "modes", "csp", "placement", "discovery")),
            "or exactness, modes (mode coverage), csp (match rates), placement (then relaxed), discovery",
        ),
        "out": maybe(File(), "a folder for <task>.json and <task>.md; null: the tables are only printed"),
        "seed": SEEDED,
        "sampler": maybe(File(), "shipped, or a folder: its space, network and reward; null: untrained"),
        "trust": TRUST,
        "calculator": CALCULATOR,
        "strata": Option("default", STRATA, "of an untrained sampler, how often 1, 2, ... elements"),
        "real": maybe(FILES, "a Parquet file of real crystals, for trainer.real_fraction, and for task=modes"),
        "batch_sizes": Option([100, 1000, 10000], _COUNTS),
        "threads": Option([1, 2], _COUNTS),
        "devices": maybe(
            Several(item=Text("a device"), words="devices such as [cpu,cuda]", low=1), "null: the CPU, and a GPU if any"
        ),
        "seconds": Option(10.0, POSITIVE, "of each of the five or six measurements of training and of sampling"),
        "competing_load": off("throughput: measured again beside a process that keeps a core busy; says what is left"),
        "train_seconds": Option(120.0, POSITIVE, "exactness: of training in the small space"),
        "samples": Option(400000, COUNT, "exactness: crystals for the marginals; modes: for the sampler's ln Z"),
        "chains": Option(4000, Number(above=0, whole=True), "modes: per stratum; error 0.1 needs 20,000 to 40,000"),
        "placed": Option(300, COUNT, "placement: crystals of the sampler"),
        "placed_by": Option(
            ["pyxtal", "refiner"], _some_of("pyxtal", "random", "refiner"), "placement: some of pyxtal, random, refiner"
        ),
        **HELD_BACK,
        "grid_steps": maybe(COUNT, "exactness: steps on each hypergrid; null: those of the published figures"),
        "progress": PROGRESS,
    },
    headings={
        "options": "the benchmark",
        "csp": "task=csp predicts real crystals; given T1: group, composition, cell, letters; T2: no letters; "
        "T3: no cell; T4: formula only",
    },
    notes=REST.format("trainer.replay_fraction=0.2"),
    beside=True,
)

TRAIN_PROXY = Command(
    summary="Fit a proxy: an ensemble of networks that predicts a property from space group, composition and lattice.",
    examples=(
        ("train=mp20/train.parquet val=mp20/val.parquet out=runs/energy", ""),
        ("property=band_gap train=[mp20/train.parquet,matbench:matbench_mp_gap] val=mp20/val.parquet", ""),
        ("train=my_crystals.csv val=mp20/val.parquet settings.epochs=30 settings.members=3", ""),
        ("active=true rounds=3 train=mp20/train.parquet templates=mp20/train.parquet val=mp20/val.parquet", ""),
    ),
    groups={"space": "default", "policy": "default", "trainer": "default"},
    space="active: the space of its samplers (every argument of crystalgfn.CrystalSpace)",
    settings="fitting.ensemble_fit:FitConfig",
    options={
        "property": Option("formation_energy", Text(), "or band_gap, energy_above_hull"),
        "train": maybe(FILES, "file, folder, matbench:<task> or materials_project:<system> to fit on, or [several]"),
        "val": maybe(FILES, "the same, to report on; what shares (reduced formula, group) with it is not fitted on"),
        "out": out_folder("proxy_"),
        "seed": SEEDED,
        "column": maybe(Text("a column"), "where the label stands; null: where the property usually does"),
        "setting": Option(
            "unknown",
            Several(item=Text("unknown or standard"), alone=True),
            "or standard: of cells without positions (docs/how-to/use-your-own-data.md); or a list, one for each file",
        ),
        "skip_bad": off("true: leave out rows that cannot be used, instead of stopping"),
        "labels": maybe(FILES, "off equilibrium (docs/how-to/label-off-equilibrium.md); null: those of the package"),
        "settings": Option({}, Names("settings.<name>=<value>, such as settings.epochs=50"), "how to fit, see above"),
        "active": off("true: a loop of fitting, training a sampler on the fit, labelling its crystals"),
        "rounds": Option(3, COUNT, "active: fits after the first"),
        "draws": Option(200, COUNT, "active: crystals labelled after each fit"),
        "beta": Option(8.0, POSITIVE, "active: R = exp(-beta * bound) of the samplers, 1 / (eV/atom)"),
        "strata": Option("default", STRATA, "active: how often 1, 2, ... elements; default, a list of shares, or null"),
        "templates": maybe(FILES, f"active: {_REAL}"),
        **CALCULATED,
        "progress": PROGRESS,
    },
    headings={"settings": "how to fit", "options": "the fit"},
    notes=REST.format("trainer.seconds=300"),
    what="a fit",
)

TRAIN_REFINER = Command(
    summary="Train a refiner: a diffusion model of the free coordinates, and of the lattice, of crystals with known "
    "Wyckoff letters.",
    examples=(
        ("train=mp20/train.parquet val=mp20/val.parquet out=runs/refiner", ""),
        ("train=mp20/train.parquet val=mp20/val.parquet out=runs/refiner minutes=10", ""),
        ("train=[my_cifs,more.parquet] val=mp20/val.parquet epochs=50 width=64", ""),
        ("train=my_cifs val=my_other_cifs begin=default lr=3e-4 epochs=20", ""),
    ),
    options={
        "train": maybe(
            FILES, "Parquet file (layout of MP-20), folder of CIF files or prepared .npz to train on, or a list of them"
        ),
        "val": maybe(FILES, "the same, to report on; what shares (reduced formula, group) with it is not trained on"),
        "out": out_folder("refiner_"),
        "minutes": maybe(POSITIVE, "stop after so many in this call, with a checkpoint; null: train all epochs"),
        "device": Option("cpu", _DEVICE, "or cuda; with torchrun each process has its own GPU"),
        "progress": PROGRESS,
        "symprec": Option(0.1, POSITIVE, "of spglib, in Å, when structures are standardised"),
        "max_atoms": Option(80, COUNT, "in the primitive cell; larger crystals are left out"),
        "skip_bad": off("true: leave out structures that cannot be used, instead of stopping"),
        **fields_of("structures.refiner.training:RefinerSettings"),
    },
    notes="Structures are standardised once; the prepared crystals stay in the folder of the training, and may be "
    "given as train and val\nof another one. Training itself then needs neither spglib nor pymatgen. On several GPUs: "
    "torchrun --nproc-per-node=4\n--no-python crystalgfn train-refiner device=cuda ...",
    what="a training",
    parts=("train.npz", "val.npz"),
    together=True,
)

COMMANDS = {
    "train": TRAIN,
    "sample": SAMPLE,
    "evaluate": EVALUATE,
    **SEARCHES,
    "check": CHECK,
    "benchmark": BENCHMARK,
    "train_proxy": TRAIN_PROXY,
    "train_refiner": TRAIN_REFINER,
}
"""By the names of their modules in `crystalgfn.cli`; a user writes ``train-proxy``."""
