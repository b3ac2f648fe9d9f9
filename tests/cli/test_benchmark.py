"""The benchmark command from end to end, and the mistakes that can be made with it."""

import json
import os

import pytest

from crystalgfn.cli import app

SMALL = ["reward=density", "policy=small", "elements=[Li,O]", "space_groups=[221,225]", "n_atoms=[1,6]"]
FAST = ["batch_sizes=[10]", "threads=[1]", "devices=[cpu]", "seconds=0.05", "progress=false"]


def test_throughput_is_printed_and_written(tmp_path, capsys):
    out = tmp_path / "speed"
    arguments = [*SMALL, *FAST, "strata=[0.5,0.5,0,0,0]", f"out={out}"]
    assert app.benchmark(arguments) == 0
    said = capsys.readouterr().out
    assert sorted(os.listdir(out)) == ["run.json", "throughput.json", "throughput.md"]
    assert (out / "throughput.md").read_text().strip() in said
    figures = json.loads((out / "throughput.json").read_text())
    assert figures["command"].startswith("crystalgfn-benchmark reward=density policy=small 'elements=[Li,O]'")
    assert figures["settings"]["batch_sizes"] == [10]
    assert figures["measured"]["space"]["elements"] == ["Li", "O"]
    assert figures["measured"]["omega"][0] == 0.5
    assert figures["machine"]["torch"]
    (measurement,) = figures["measurements"]
    assert measurement["trained"]["crystals"]["per_cpu_second"] > 0
    capsys.readouterr()
    assert app.benchmark(arguments) == 2
    assert "already holds throughput.json" in capsys.readouterr().err


def test_a_saved_sampler_is_measured_in_its_own_space(tmp_path, capsys):
    from crystalgfn import CrystalSpace, PolicyConfig, Sampler, rewards

    space = CrystalSpace(elements=["Na", "Cl"], space_groups=[225], n_atoms=(1, 4))
    sampler = Sampler.untrained(space, policy=PolicyConfig(width=16, blocks=1, components=2))
    sampler.reward = rewards.boltzmann(rewards.Density(), 0.3, direction="maximise")
    sampler.save(tmp_path / "sampler")
    assert app.benchmark([f"sampler={tmp_path / 'sampler'}", *FAST, f"out={tmp_path}"]) == 0
    assert "with the network and the reward of" in capsys.readouterr().out
    figures = json.loads((tmp_path / "throughput.json").read_text())
    assert figures["measured"]["space"]["elements"] == ["Na", "Cl"]
    assert figures["measured"]["policy"]["width"] == 16


@pytest.mark.unchecked
def test_exactness_is_printed_and_written(tmp_path, capsys):
    quick = ["train_seconds=1", "samples=2000", "grid_steps=3", "policy=small"]
    assert app.benchmark(["task=exactness", *quick, f"out={tmp_path}"]) == 0
    assert "Hypergrid" in capsys.readouterr().out
    figures = json.loads((tmp_path / "exactness.json").read_text())
    assert 0 <= figures["small_space"]["variation"] <= 1
    assert [grid["trajectories"] for grid in figures["hypergrids"]] == [48, 150]
    assert all(abs(density["mass"] - 1) < 0.02 for density in figures["densities"])


def test_dropped_modes_are_looked_for(tmp_path, capsys):
    from crystalgfn import CrystalSpace, PolicyConfig, Sampler, rewards

    space = CrystalSpace(elements=["Na", "Cl"], space_groups=[225], n_atoms=(1, 4))
    sampler = Sampler.untrained(space, policy=PolicyConfig(width=16, blocks=1, components=2))
    sampler.reward = rewards.boltzmann(rewards.Density(), 0.01)
    sampler.save(tmp_path / "sampler")
    quick = ["samples=500", "chains=64", f"out={tmp_path}"]
    assert app.benchmark(["task=modes", f"sampler={tmp_path / 'sampler'}", *quick]) == 0
    assert "| elements | ln Z from q |" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "modes.json").read_text())["log_z"]
    assert abs(row["log_z_q"] - row["log_z_annealing"]) < 0.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["task=speed"], ["task=speed", "throughput, exactness, modes"]),
        (["task=modes"], ["sampler=<name or folder>"]),
        (["task=modes", "sampler=formation-energy", "chains=0"], ["chains=0", "above 0"]),
        (["batch_sizes=[0]"], ["batch_sizes=[0]", "at least 1"]),
        (["batch_sizes=many"], ["batch_sizes", "whole numbers"]),
        (["threads=[]"], ["threads", "at least 1"]),
        (["seconds=0"], ["seconds=0", "above 0"]),
        (["seconds=long"], ["seconds", "a number"]),
        (["devices=[abacus]"], ["abacus"]),
        (["sampler=no-such-sampler"], ["no-such-sampler"]),
        (["strata=most"], ["strata", "default"]),
        (["trainer.real_fraction=0.5"], ["real_fraction=0.5", "real=<file>"]),
        (["task=exactness", "train_seconds=0"], ["train_seconds=0"]),
        (["batch_size=10"], ["batch_size", "batch_sizes"]),
        (["n_atom=3"], ["n_atom", "n_atoms"]),
        (["resume=true"], ["resume"]),
    ],
)
def test_mistakes(arguments, words, tmp_path, capsys):
    base = [a for a in [*SMALL, *FAST] if a.split("=")[0] not in {one.split("=")[0] for one in arguments}]
    assert app.benchmark([*base, *arguments, f"out={tmp_path}"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert all(word in lines[0] for word in words), lines[0]
    assert not list(tmp_path.iterdir())


def test_help_names_every_option(capsys):
    from crystalgfn.cli.options.compose import compose_config
    from crystalgfn.cli.options.declared import GROUPS, SPACE

    assert app.run("benchmark", ["--help"], "crystalgfn") == 0
    said = capsys.readouterr().out
    words = {word.split("=")[0] for word in said.split()}
    assert set(SPACE) <= words
    assert {key for key in compose_config("benchmark", []) if key not in GROUPS} <= words
    assert "$" not in said
    assert "logger" not in said
    assert max(map(len, said.splitlines())) <= 140


def test_crystals_are_found_again(tmp_path, capsys):
    from pymatgen.core import Lattice, Structure

    folders = {name: tmp_path / name for name in ("asked", "known")}
    for folder in folders.values():
        folder.mkdir()
    for name, metal, a, c, x in (("asked", "Ti", 4.59, 2.96, 0.305), ("known", "Sn", 4.74, 3.19, 0.307)):
        rutile = Structure.from_spacegroup(136, Lattice.tetragonal(a, c), [metal, "O"], [[0] * 3, [x, x, 0]])
        rutile.to_file(str(folders[name] / "rutile.cif"))
    asked = [
        "task=csp",
        f"csp.data={folders['asked']}",
        f"csp.templates={folders['known']}",
        "csp.k=2",
        "csp.tasks=[T1,T2]",
    ]
    assert app.benchmark([*asked, f"out={tmp_path / 'out'}", "progress=false"]) == 0
    said = capsys.readouterr().out
    assert "| T2 | templates+refiner |" in said
    figures = json.loads((tmp_path / "out" / "csp.json").read_text())
    rows = [row for row in figures["rows"] if row["slice"] == "all crystals"]
    rates = {(row["task"], row["method"]): row["rate"]["value"][0] for row in rows}
    assert len(rates) == 12 and rates["T1", "templates"] == rates["T1", "templates+refiner"] == 1.0
    assert len((tmp_path / "out" / "csp.jsonl").read_text().splitlines()) == 12
    assert figures["machine"]["spglib"] and figures["machine"]["pyxtal"] and figures["command"] in said
    page = (tmp_path / "out" / "csp.html").read_text()
    assert "templates+refiner" in page and str(folders["asked"]) in page


def test_structures_of_another_program_are_judged(tmp_path, capsys):
    from pymatgen.core import Lattice, Structure

    salt = Structure.from_spacegroup(225, Lattice.cubic(5.64), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
    for name in ("asked", "theirs"):
        (tmp_path / name).mkdir()
        salt.to_file(str(tmp_path / name / "salt.cif"))
    (tmp_path / "theirs" / "salt_1.cif").write_text("hello")
    outside = f"csp.outside={{theirs: {tmp_path / 'theirs'}, again: {{folder: {tmp_path / 'theirs'}, task: T4}}}}"
    asked = ["task=csp", f"csp.data={tmp_path / 'asked'}", "csp.methods=[]", outside, "csp.k=2"]
    assert app.benchmark([*asked, f"out={tmp_path / 'out'}", "progress=false"]) == 0
    said = capsys.readouterr()
    assert "5 predictions are missing; the first: theirs, T1, salt.cif: theirs/salt_1.cif: not a CIF" in said.err
    rows = json.loads((tmp_path / "out" / "csp.json").read_text())["rows"]
    assert [(row["task"], row["method"], row["rate"]["value"][0], row["faulty"]) for row in rows] == [
        ("T1", "theirs", 1.0, 0.5), ("T2", "theirs", 1.0, 0.5), ("T3", "theirs", 1.0, 0.5),
        ("T4", "theirs", 1.0, 0.5), ("T4", "again", 1.0, 0.5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["csp.data=<file"]),
        (["csp.data=a", "csp.methods=[luck]"], ["'luck'", "templates+refiner"]),
        (["csp.data=a", "csp.tasks=[T9]"], ["'T9'", "T1, T2, T3"]),
        (["csp.data=a", "csp.methods=[templates]"], ["csp.templates=<real"]),
        (["csp.data=a", "csp.outside=folder"], ["csp.outside=folder", "{name: folder}"]),
        (["csp.data=a", "csp.outside={a: {task: T4}}"], ["csp.outside: a", "give a folder"]),
        (["csp.data=a", "csp.outside={a: {folder: b, task: T7}}"], ["the task T7", "T1, T2"]),
        (["csp.data=a", "csp.outside={random: b}"], ["random is a method"]),
        (["csp.data=a", "csp.methods=[]"], ["csp.methods=[]", "csp.outside"]),
        (["csp.data=a", "csp.k=0"], ["csp.k=0", "at least 1"]),
        (["csp.data=nowhere.parquet"], ["nowhere.parquet"]),
        (["csp.data=a", "csp.refiner=nowhere"], ["no refiner 'nowhere'"]),
        (["task=placement"], ["sampler=<name or folder>"]),
        (["task=placement", "sampler=stable", "devices=[cpu,cpu]"], ["one device"]),
        (["task=placement", "sampler=stable", "placed_by=[hand]"], ["hand", "pyxtal, random, refiner"]),
        (["csp.data=a", "csp.n_jobs=0"], ["csp.n_jobs=0"]),
    ],
)
def test_mistakes_with_structures(arguments, words, capsys):
    assert app.benchmark(["task=csp", *arguments]) != 0
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.unchecked
def test_placements_are_compared(tmp_path, capsys):
    pytest.importorskip("chgnet")
    assert app.benchmark(["task=placement", "sampler=formation-energy", "placed=2", f"out={tmp_path}"]) == 0
    assert "| by the refiner |" in capsys.readouterr().out
    outcomes = json.loads((tmp_path / "placement.json").read_text())["outcomes"]
    assert {name: len(own) for name, own in outcomes.items()} == {"by pyxtal": 2, "by the refiner": 2}


def test_the_settings_of_training_are_those_of_training():
    from crystalgfn.cli.options.compose import compose_config

    train, own = compose_config("train", []), compose_config("benchmark", ["trainer.seconds=5"])
    for group in ("space", "reward", "objective", "policy"):
        assert own[group] == train[group]
    assert own.strata == train.strata
    assert (own.trainer.steps, own.trainer.seconds, own.seconds) == (None, 5, 10.0)
    assert len(compose_config("benchmark", ["experiment=published_density"]).space.elements) == 22
