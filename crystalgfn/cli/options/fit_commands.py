"""The commands that measure and that fit what ships."""

from __future__ import annotations

from crystalgfn.cli.options.declared import (
    CALCULATOR,
    JSON,
    PROGRESS,
    REFERENCES,
    REST,
    SEEDED,
    TRUST,
    Command,
    Option,
    fields_of,
    out_folder,
)
from crystalgfn.cli.options.kinds import COUNT, POSITIVE, Choice, File, Number, Switch, Text, optional
from crystalgfn.cli.options.kinds import Mapping as Names
from crystalgfn.cli.options.list_kinds import FILES, STRATA, Several

_COUNTS = Several(item=COUNT, words="whole numbers of at least 1 such as [100,1000]", low=1)

BENCHMARK = Command(
    summary="Measure how fast crystals are trained and sampled, how near a trained sampler comes to known "
    "distributions, what a\nsampler has dropped, or the match rate of real crystals (csp).",
    examples=(
        ("sampler=formation-energy", "speed of the shipped sampler, where the time goes"),
        ("batch_sizes=[1000] threads=[1] seconds=5 out=runs/speed", ""),
        ("space=published policy.width=128", "an untrained policy of another size, in another space"),
        ("task=exactness out=runs/exactness", "about six minutes"),
        ("task=modes sampler=formation-energy chains=20000 samples=10000 real=val.parquet", ""),
        ("task=csp csp.data=val.parquet csp.templates=train.parquet csp.n=100 out=runs/csp", ""),
        ("task=csp csp.data=val.csv csp.methods=[random] 'csp.outside={diffcsp: folder}' out=runs/csp", ""),
        ("task=placement sampler=formation-energy placed=300 out=runs/placement", ""),
    ),
    groups={
        "space": "default",
        "reward": "stable",
        "objective": "vargrad",
        "policy": "default",
        "trainer": "default",
        "csp": "default",
        "experiment": None,
    },
    space="the space of an untrained sampler (every argument of crystalgfn.CrystalSpace)",
    options={
        "task": Option(
            "throughput",
            Choice(("throughput", "exactness", "modes", "csp", "placement")),
            "or exactness, modes (mode coverage), csp (match rates of real crystals), placement (then relaxed)",
        ),
        "out": Option(
            None, optional(File()), "a folder for <task>.json and <task>.md; null: the tables are only printed"
        ),
        "seed": SEEDED,
        "sampler": Option(
            None,
            optional(File()),
            "a shipped sampler or a folder of one, with its own space, network, reward; null: untrained",
        ),
        "trust": TRUST,
        "calculator": CALCULATOR,
        "strata": Option(
            "default",
            STRATA,
            "how often 1, 2, ... elements of an untrained sampler: default, a list of shares, or null",
        ),
        "real": Option(
            None, optional(FILES), "a Parquet file of real crystals, for trainer.real_fraction, and for task=modes"
        ),
        "batch_sizes": Option([100, 1000, 10000], _COUNTS),
        "threads": Option([1, 2], _COUNTS),
        "devices": Option(
            None,
            optional(Several(item=Text("a device"), words="devices such as [cpu,cuda]", low=1)),
            "such as [cpu,cuda]; null: the CPU, and a GPU where there is one",
        ),
        "seconds": Option(
            10.0,
            POSITIVE,
            "of each measurement of throughput; there are five or six for training and for sampling each",
        ),
        "competing_load": Option(
            False, Switch(), "throughput: measured again beside a process that keeps a core busy; says what is left"
        ),
        "train_seconds": Option(120.0, POSITIVE, "exactness: of training in the small space"),
        "samples": Option(
            400000,
            COUNT,
            "exactness: crystals sampled to compare the marginals there; modes: for ln Z from the sampler",
        ),
        "chains": Option(
            4000,
            Number(above=0, whole=True),
            "modes: annealed chains a stratum; errors of ln Z of 0.1 take 20,000 to 40,000",
        ),
        "placed": Option(300, COUNT, "placement: crystals of the sampler"),
        "placed_by": Option(
            ["pyxtal", "refiner"],
            Several(item=Choice(("pyxtal", "random", "refiner")), words="some of pyxtal, random, refiner", low=1),
            "placement: some of pyxtal, random, refiner",
        ),
        "grid_steps": Option(
            None, optional(COUNT), "exactness: steps on each hypergrid; null: those of the published figures"
        ),
        "progress": PROGRESS,
        "json": JSON,
    },
    headings={
        "options": "the benchmark",
        "csp": "task=csp predicts real crystals; given T1: group, composition, cell, letters; T2: no letters; "
        "T3: no cell; T4: formula only",
    },
    notes=REST.format("trainer.replay_fraction=0.2"),
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
    space="active: what samplers may draw (every argument of crystalgfn.CrystalSpace)",
    settings="fitting.proxy_config:FitConfig",
    options={
        "property": Option("formation_energy", Text(), "or band_gap, energy_above_hull"),
        "train": Option(
            None,
            optional(FILES),
            "file, folder, matbench:<task> or materials_project:<system> to fit on, or a list of them "
            "(docs/how-to/use-your-own-data.md)",
        ),
        "val": Option(
            None,
            optional(File()),
            "the same, to report on; what shares (reduced formula, space group) with it is fitted on nowhere",
        ),
        "out": out_folder("proxy_", "the same command with the out of an interrupted fit goes on"),
        "seed": SEEDED,
        "column": Option(
            None, optional(Text("a column")), "where the label stands; null: where the property usually does"
        ),
        "setting": Option(
            "unknown",
            Several(item=Text("unknown or standard"), alone=True),
            "or standard: of cells without positions (docs/how-to/use-your-own-data.md); or a list, one for each file "
            "of train",
        ),
        "skip_bad": Option(False, Switch(), "true: leave out rows that cannot be used, instead of stopping"),
        "labels": Option(
            None,
            optional(File()),
            "a file of labels off equilibrium (docs/how-to/label-off-equilibrium.md); null: those that come with the "
            "package",
        ),
        "settings": Option(
            {},
            Names("settings.<name>=<value>, such as settings.epochs=50"),
            "how to fit, such as settings.epochs=50; all of them above",
        ),
        "active": Option(
            False,
            Switch(),
            "true: a loop of fitting, training a sampler on the fit, labelling what it draws",
        ),
        "rounds": Option(3, COUNT, "active: fits after the first"),
        "draws": Option(200, COUNT, "active: crystals labelled after each fit"),
        "beta": Option(8.0, POSITIVE, "active: R = exp(-beta * bound) of the samplers, 1 / (eV/atom)"),
        "strata": Option("default", STRATA, "active: how often 1, 2, ... elements; default, a list of shares, or null"),
        "templates": Option(
            None,
            optional(File()),
            "active: a Parquet file of real crystals with atoms (as MP-20's): their positions are tried too",
        ),
        "calculator": CALCULATOR,
        "energy_references": REFERENCES,
        "progress": PROGRESS,
        "json": JSON,
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
        "train": Option(
            None,
            optional(FILES),
            "Parquet file (layout of MP-20), folder of CIF files or prepared .npz to train on, or a list of them",
        ),
        "val": Option(
            None,
            optional(FILES),
            "the same, one of them, to report on; what shares (reduced formula, space group) with it is not trained on",
        ),
        "out": out_folder("refiner_", "the same command with the out of an interrupted training goes on"),
        "minutes": Option(
            None, optional(POSITIVE), "stop after so many in this call, with a checkpoint; null: train all epochs"
        ),
        "device": Option(
            "cpu", Text("a device such as cpu or cuda"), "or cuda; with torchrun each process has its own GPU"
        ),
        "progress": PROGRESS,
        "symprec": Option(0.1, POSITIVE, "of spglib, in Å, when structures are standardised"),
        "max_atoms": Option(80, COUNT, "in the primitive cell; larger crystals are left out"),
        "skip_bad": Option(False, Switch(), "true: leave out structures that cannot be used, instead of stopping"),
        **fields_of("structures.refiner.training:RefinerSettings"),
        "json": JSON,
    },
    notes="Structures are standardised once; the prepared crystals stay in the folder of the training, and may be "
    "given as train and val\nof another one. Training itself then needs neither spglib nor pymatgen. On several GPUs: "
    "torchrun --nproc-per-node=4\n--no-python crystalgfn train-refiner device=cuda ...",
    what="a training",
    parts=("train.npz", "val.npz"),
    together=True,
)
