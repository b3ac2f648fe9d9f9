"""The commands from end to end, and every mistake that a user can make: one sentence, and an exit code that says so."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from forks import COMMAND
from omegaconf import OmegaConf

from crystalgfn.cli import app
from crystalgfn.cli.options import compose
from crystalgfn.cli.options.compose import compose_config

SMALL = ["reward=density", "policy=small", "elements=[Li,O]", "space_groups=[221,225]", "n_atoms=[1,6]"]
QUICK = [*SMALL, "batch_size=20", "diagnostics=50", "progress=false"]
PLACE = ["n_jobs=1", "progress=false"]
ROOT = Path(__file__).resolve().parents[2]
REWARDS = """
import torch

def flat(crystals):
    return torch.zeros(len(crystals))

def nan(crystals):
    return torch.full((len(crystals),), float("nan"))

def two_columns(crystals):
    return torch.zeros(len(crystals), 2)

def elsewhere(crystals):
    return torch.zeros(len(crystals), device="meta")

class Scaled:
    def __init__(self, strength):
        if strength < 0:
            raise ValueError(f"strength={strength}: give a strength of at least 0")
        self.strength = strength

    def __call__(self, crystals):
        return self.strength * crystals.density
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of a run of five steps."""
    out = tmp_path_factory.mktemp("trained") / "run"
    assert app.train([*QUICK, "steps=5", "trainer.log_every=1", f"out={out}"]) == 0
    return out


def failure(command, arguments, capsys) -> str:
    """The one sentence of a command that fails."""
    capsys.readouterr()
    assert command([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr()
    lines = said.err.strip().splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].startswith("error: ")
    assert lines[0].endswith(".")
    return lines[0]


def script(name: str, arguments, **settings) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, **{"preexec_fn": listen_to_ctrl_c, **settings},
    )  # fmt: skip


def listen_to_ctrl_c() -> None:
    """A shell's background jobs ignore SIGINT and hand that on; a person's terminal does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


# ---- what works ---------------------------------------------------------------------------------------------------


def test_training_writes_a_sampler_its_configuration_and_curves(trained):
    from crystalgfn import Sampler

    assert {"sampler", "config.yaml", "metrics.csv", "curves.png", "checkpoint.pt"} <= set(os.listdir(trained))
    sampler = Sampler.load(trained / "sampler")
    assert sampler.space.elements == ("Li", "O")
    assert sampler.reward is not None
    with (trained / "metrics.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [1, 2, 3, 4, 5]


def test_sampling_writes_structures_a_table_and_a_picture(trained, tmp_path, capsys):
    import spglib
    from PIL import Image
    from pymatgen.core import Composition, Structure

    out = tmp_path / "crystals"
    assert app.sample([f"sampler={trained / 'sampler'}", "n=12", *PLACE, "diagnostics=50", f"out={out}"]) == 0
    frame = pd.read_parquet(out / "table.parquet")
    assert len(frame) == len(pd.read_csv(out / "table.csv")) == 12
    assert set(frame["space_group"]) <= {221, 225}
    assert frame[["log_q", "log_r", "density"]].notna().all().all()
    assert (frame["file"].isna() == frame["error"].notna()).all()
    assert set(frame["origin"].dropna()) <= {"refiner", "fixed", "random"}
    assert (frame["origin"].isna() == frame["file"].isna()).all()
    assert (frame["closest"].isna() == frame["file"].isna()).all() and (frame["closest"].dropna() > 0).all()
    placed = frame[frame["file"].notna()]
    assert len(placed) >= 10
    for row in placed.itertuples():
        structure = Structure.from_file(out / row.file)
        assert row.file.startswith("cifs/")
        assert structure.composition.reduced_composition == Composition(row.formula)
        cell = (structure.lattice.matrix, structure.frac_coords, structure.atomic_numbers)
        assert spglib.get_symmetry_dataset(cell, symprec=0.01).number == row.space_group
        assert structure.lattice.a == pytest.approx(row.a, rel=1e-4)
    with Image.open(out / "picture.png") as picture:
        assert min(picture.size) > 800
    said, crowded = capsys.readouterr().out, int((frame["closest"] < 0.7).sum())
    assert (f"{crowded} have atoms closer than 0.7 of the sum of radii" in said) == (crowded > 0)
    assert "ESS" in said
    assert f"{len(placed)} of them with atoms" in said


@pytest.mark.parametrize("asked", ["energies", "relax"])
def test_energies_are_in_the_table(trained, tmp_path, asked):
    pytest.importorskip("chgnet", reason="needs the extra [relax]")
    from pymatgen.core import Structure

    from crystalgfn.calculators.base import calculate_energies
    from crystalgfn.calculators.registry import load_calculator

    common = [f"sampler={trained / 'sampler'}", "n=3", *PLACE, "diagnostics=0", "picture=false"]
    assert app.sample([*common, f"{asked}=true", f"out={tmp_path / 'run'}"]) == 0
    frame = pd.read_parquet(tmp_path / "run" / "table.parquet")
    found = frame["energy"].to_numpy()
    assert set(frame["calculator"]) == {"CHGNet"}
    read = [Structure.from_file(tmp_path / "run" / name) for name in frame["file"]]
    assert (
        found == pytest.approx(calculate_energies(load_calculator(), read), abs=1e-3, nan_ok=True)
        and not pd.isna(found).all()
    )


def test_constraints_are_obeyed(trained, tmp_path):
    out = tmp_path / "narrow"
    arguments = ["n=40", "elements=[O]", "n_atoms=[1,3]", "space_groups=[225]", "structures=false", "picture=false"]
    assert app.sample([f"sampler={trained / 'sampler'}", *arguments, f"out={out}"]) == 0
    frame = pd.read_parquet(out / "table.parquet")
    assert set(frame["formula"]) == {"O"}
    assert set(frame["space_group"]) == {225}
    assert frame["n_atoms"].between(1, 3).all()
    assert frame["file"].isna().all()
    assert sorted(os.listdir(out)) == ["config.yaml", "run.json", "table.csv", "table.parquet"]


def test_the_same_seed_draws_the_same(trained, tmp_path):
    common = [f"sampler={trained / 'sampler'}", "n=20", "structures=false", "picture=false", "diagnostics=0"]
    tables = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert app.sample([*common, f"seed={seed}", f"out={tmp_path / name}"]) == 0
        tables.append(pd.read_parquet(tmp_path / name / "table.parquet"))
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert not tables[0].equals(tables[2])


def test_a_reward_of_ones_own_is_saved_by_its_name(tmp_path, monkeypatch):
    from crystalgfn import Sampler

    (tmp_path / "own_rewards.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    mine = ["~reward", "+reward={_target_: own_rewards.Scaled, strength: 0.5}"]
    assert app.train([*QUICK[1:], *mine, "steps=2", f"out={tmp_path / 'run'}"]) == 0
    sampler = Sampler.load(tmp_path / "run" / "sampler", trust=["own_rewards"])
    crystals = sampler.sample(5)
    assert sampler.reward(crystals).tolist() == pytest.approx((0.5 * crystals.density).tolist(), rel=1e-5)


def test_scripts_and_help():
    for name in ("train", "sample"):
        said, err = script(name, ["--help"]).communicate()
        assert f"usage: crystalgfn-{name}" in said
        assert not err


@pytest.mark.unchecked
def test_a_sampler_for_a_range_of_temperatures(tmp_path, capsys):
    import torch

    from crystalgfn import Sampler
    from crystalgfn.data.shards import Manifest, read_shards, read_table

    arguments = [*QUICK, "objective=vargrad", "trainer.betas=[0,1]", "steps=6", "trainer.log_every=2"]
    assert app.train([*arguments, f"out={tmp_path / 'run'}"]) == 0
    assert pd.read_csv(tmp_path / "run" / "metrics.csv")["log_z"].isna().tolist() == [True] * 3
    sampler = Sampler.load(tmp_path / "run" / "sampler")
    assert (sampler.betas, sampler.reward.beta) == ((0.0, 1.0), 0.3)
    drawn = sampler.sample(15, beta=0.1, seed=0)
    common = [f"sampler={tmp_path / 'run' / 'sampler'}", "n=15", "structures=false", "picture=false", "diagnostics=9"]
    capsys.readouterr()
    assert app.sample([*common, "beta=0.1", f"out={tmp_path / 'cool'}"]) == 0
    assert "at beta 0.1: ESS" in capsys.readouterr().out
    frame = pd.read_parquet(tmp_path / "cool" / "table.parquet")
    assert frame["formula"].tolist() == drawn.formulas()
    assert torch.tensor(frame["log_r"].to_numpy()).allclose(sampler.log_reward(drawn, beta=0.1))
    assert torch.tensor(frame["log_q"].to_numpy()).allclose(sampler.log_prob(drawn, beta=0.1))
    assert not torch.tensor(frame["log_r"].to_numpy()).allclose(sampler.log_reward(drawn))

    shards = [*common, "shard_size=10", "progress=false", f"out={tmp_path / 'shards'}"]
    assert app.sample([*shards, "beta=0.1"]) == 0
    assert Manifest.read(tmp_path / "shards").settings["beta"] == 0.1
    first = next(read_shards(tmp_path / "shards"))
    log_r = read_table(tmp_path / "shards", ["log_r"])["log_r"].to_numpy()[:10]
    assert torch.tensor(log_r).allclose(sampler.log_reward(first, beta=0.1))
    assert "settings.beta=0.1, not null" in failure(app.sample, shards, capsys)
    said = failure(app.sample, [*common, "beta=0.4", f"out={tmp_path / 'hot'}"], capsys)
    assert "from 0 to 0.3" in said
    assert not (tmp_path / "hot").exists()


# ---- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["elements=[Li,Xx]"], ["Xx", "not an element"]),
        (["elements=[He]"], ["He", "oxidation state"]),
        (["elements=null", "space_groups=[230]", "n_atoms=[1,4]"], ["n_atoms=[1, 4]", "no crystal"]),
        (["elements=null", "formula=LiF2"], ["LiF2", "no crystal"]),
        (["n_atoms=[10,2]"], ["n_atoms", "below"]),
        (["lengths=[20.0,10.0]"], ["lengths", "below"]),
        (["n_atoms=many"], ["n_atoms", "whole numbers"]),
        (["space_groups=[231]"], ["231", "230"]),
        (["crystal_systems=[cubish]"], ["cubish", "cubic"]),
        (["oxidation_states=iscd"], ["iscd", "icsd"]),
        (["mixed_valence=maybe"], ["maybe", "adjacent"]),
        (["n_atom=3"], ["n_atom", "n_atoms"]),
        (["trainer.stepz=3"], ["trainer.stepz", "--help"]),
        (["rewards=density"], ["rewards", "reward"]),
        (["reward=densty"], ["densty", "formation_energy"]),
        (["experiment=unpublished"], ["unpublished", "published_density"]),
        (["elements=[Li"], ["elements=[Li:", "[Li,Mn,O]"]),
        (["--stepz", "3"], ["--stepz", "did you mean steps"]),
        (["--config-dir", "/no/such/folder"], ["/no/such/folder"]),
        (["steps=ten"], ["steps", "whole number"]),
        (["steps=-1"], ["steps", "above 0"]),
        (["batch_size=0"], ["batch_size", "above 0"]),
        (["trainer.steps=5", "trainer.seconds=5"], ["steps=5", "seconds=5", "one of them"]),
        (["trainer.epsilon=2"], ["epsilon", "share"]),
        (["beta=-1"], ["beta", "greater than 0"]),
        (["policy.width=0"], ["width", "at least 1"]),
        (["objective.huber=-1"], ["huber", "above 0"]),
        (["trainer.betas=[0,1]", "objective=trajectory_balance"], ["TrajectoryBalance", "VarGrad"]),
        (["trainer.betas=[1,0]"], ["betas=[1, 0]", "rising"]),
        (["strata=[0.5]"], ["strata", "share"]),
        (["strata=most"], ["strata", "default"]),
        (["strata=[a,b]"], ["strata", "default"]),
        (["strata=[1,1]", "n_elements=[1,3]"], ["strata", "1 to 3 elements"]),
        (["elements=[[Li]]"], ["['Li']", "not an element"]),
        (["seed=99999999999999999999"], ["seed", "2^63"]),
        (["diagnostics=-3"], ["diagnostics=-3"]),
        (["trainer.real_fraction=0.1"], ["real_fraction", "real=<file>"]),
        (["seed=1,2"], ["seed=1,2", "[a,b]"]),
        (["init=5"], ["no sampler 5"]),
        (["real=5"], ["5"]),
        (["device=null"], ["device=null", "give"]),
        (["out=null"], ["out=null", "a path"]),
        (["reward.prop=${nothing}"], ["nothing"]),
        (["~reward"], ["reward"]),
        (["device=cuda:99"], ["cuda:99"]),
        (["device=abacus"], ["abacus"]),
        (["real=/nowhere.parquet"], ["/nowhere.parquet"]),
        (["resume=true"], ["out=<folder>"]),
        (["reward._target_=no_such_module.Reward"], ["no_such_module"]),
    ],
)
def test_mistakes_in_training(arguments, words, tmp_path, capsys):
    base = [a for a in QUICK if a.split("=")[0] not in {one.lstrip("~").split("=")[0] for one in arguments}]
    out = [] if arguments[0].startswith(("resume", "out")) else [f"out={tmp_path / 'run'}"]
    said = failure(
        app.train, [*base, "steps=1" if "steps" not in str(arguments) else "seed=1", *arguments, *out], capsys
    )
    assert all(word in said for word in words), said
    assert not (tmp_path / "run" / "sampler").exists()
    assert not (tmp_path / "run" / "config.yaml").exists()  # the command put right does not find a run in its way


def test_names_may_look_like_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert app.train([*QUICK, "steps=1", "out=007"]) == 0
    assert app.sample(["sampler=007/sampler", "n=2", "structures=false", "picture=false", "out=1e3"]) == 0
    assert {"007", "1e3"} <= set(os.listdir(tmp_path))
    assert "no sampler 1.5:" in failure(app.sample, ["sampler=1.5", "n=1"], capsys)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nan", ["nan", "log R", "LiO"]),
        ("two_columns", ["two_columns", "[20, 2]"]),
        ("elsewhere", ["elsewhere", "meta", "cpu"]),
        ("missing", ["missing"]),
    ],
)
def test_mistakes_in_a_reward(name, words, tmp_path, monkeypatch, capsys):
    (tmp_path / "bad_rewards.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    mine = ["~reward", f"+reward={{_target_: hydra.utils.get_method, path: bad_rewards.{name}}}"]
    only_oxide = ["n_atoms=[2,2]", "required_elements=[Li,O]", "steps=1", "mixed_valence=true", "oxidation_states=null"]
    said = failure(app.train, [*QUICK[1:], *mine, *only_oxide, f"out={tmp_path / 'run'}"], capsys)
    assert all(word in said for word in words), said


def test_a_reward_that_refuses_its_arguments(tmp_path, monkeypatch, capsys):
    (tmp_path / "picky_rewards.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    mine = ["~reward", "+reward={_target_: picky_rewards.Scaled, strength: -1.0}"]
    assert "at least 0" in failure(app.train, [*QUICK[1:], *mine, "steps=1", f"out={tmp_path / 'run'}"], capsys)


@pytest.mark.parametrize(("command", "other"), [("sample", "train"), ("train-proxy", "train"), ("train", "sample")])
def test_the_folder_of_another_command_is_refused_in_words_that_help(command, other, tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.yaml").write_text(OmegaConf.to_yaml(compose_config(other, [f"out={out}"]), resolve=True))
    said = failure(app.main, [command, f"out={out}"], capsys)
    assert f"{out} holds" in said and f"(crystalgfn {other})" in said
    assert f"give another out=<folder>, such as out={out / command.replace('-', '_')}" in said
    assert {path.name for path in out.iterdir()} == {"config.yaml"}


def test_a_run_is_not_overwritten(trained, capsys):
    before = (trained / "config.yaml").read_text()
    assert "resume=true" in failure(app.train, [*QUICK, "steps=1", f"out={trained}"], capsys)
    assert (trained / "config.yaml").read_text() == before


def test_a_resumed_run_keeps_its_settings(trained, tmp_path, capsys):
    for change in ("elements=[Na]", "reward=formation_energy", "seed=x", "steps=x", "foo=3"):
        failure(app.train, ["resume=true", f"out={trained}", change], capsys)
    assert str(tmp_path) in failure(app.train, ["resume=true", f"out={tmp_path}"], capsys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sampler=no-such-sampler"], ["no-such-sampler"]),
        (["n=0"], ["n=0", "at least 1"]),
        (["n=some"], ["n", "whole number"]),
        (["beta=2"], ["beta=2", "at beta 0.3 alone"]),
        (["beta=cold"], ["beta", "a number"]),
        (["elements=[Na]"], ["elements"]),
        (["space_groups=[1]"], ["space_groups"]),
        (["oxidation_states=all"], ["oxidation_states"]),
        (["n_atoms=[7,9]"], ["n_atoms"]),
        (["formats=[pdf]"], ["pdf", "cif"]),
        (["elements=[Yy]"], ["Yy"]),
        (["nn=3"], ["nn"]),
        (["sampler=5"], ["no sampler 5"]),
        (["sampler=null"], ["sampler=null", "a path"]),
        (["mixed_valence=foo"], ["foo", "adjacent"]),
        (["n_jobs=0"], ["n_jobs=0", "-1"]),
        (["seed=-1"], ["seed=-1"]),
    ],
)
def test_mistakes_in_sampling(arguments, words, trained, tmp_path, capsys):
    base = [f"sampler={trained / 'sampler'}"] if not arguments[0].startswith("sampler") else []
    said = failure(app.sample, [*base, *PLACE, "picture=false", *arguments, f"out={tmp_path / 'out'}"], capsys)
    assert all(word in said for word in words), said
    assert not (tmp_path / "out" / "table.parquet").exists()


def test_broken_samplers(trained, tmp_path, capsys):
    import shutil

    for name, break_it in {
        "truncated": lambda folder: os.truncate(folder / "weights.safetensors", 1000),
        "foreign": lambda folder: (folder / "config.json").write_text('{"kind": "something else", "version": 1}'),
        "garbled": lambda folder: (folder / "config.json").write_text("{"),
        "empty": lambda folder: (folder / "weights.safetensors").unlink(),
    }.items():
        folder = tmp_path / name
        shutil.copytree(trained / "sampler", folder)
        break_it(folder)
        assert name in failure(app.sample, [f"sampler={folder}", "n=1", f"out={tmp_path / 'out'}"], capsys)


def test_broken_checkpoints(trained, tmp_path, capsys):
    import shutil

    for name, break_it in {
        "truncated": lambda folder: os.truncate(folder / "checkpoint.pt", 1000),
        "foreign": lambda folder: shutil.copy(folder / "metrics.csv", folder / "checkpoint.pt"),
        "missing": lambda folder: (folder / "checkpoint.pt").unlink(),
    }.items():
        folder = tmp_path / name
        shutil.copytree(trained, folder)
        break_it(folder)
        assert "checkpoint" in failure(app.train, ["resume=true", f"out={folder}"], capsys)


def test_results_are_not_overwritten(trained, tmp_path, capsys):
    arguments = [f"sampler={trained / 'sampler'}", "n=3", "structures=false", "picture=false", f"out={tmp_path}"]
    assert app.sample(arguments) == 0
    assert "already" in failure(app.sample, arguments, capsys)


def test_a_folder_that_cannot_be_written(trained, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for command, arguments in (
        (app.train, [*QUICK, "steps=1"]),
        (app.sample, [f"sampler={trained / 'sampler'}", "n=2"]),
    ):
        said = failure(command, [*arguments, f"out={tmp_path / 'file' / 'run'}"], capsys)
        assert str(tmp_path / "file") in said


def test_a_disk_that_is_full(trained, forks, tmp_path):
    """No file may grow beyond 4 kB, which fails as a full disk does: while writing."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    for name, arguments, rest in (
        ("train", [*QUICK, "steps=1"], "checkpoint.pt"),
        ("sample", [f"sampler={trained / 'sampler'}", "n=200", "structures=false", "picture=false"], "table.parquet"),
    ):
        out = tmp_path / name
        process = forks.start(f"{limit}; {COMMAND}", name, *arguments, f"out={out}")
        _, err = process.communicate(timeout=120)
        assert process.returncode == 2, err
        assert err.startswith("error: ")
        assert len(err.strip().splitlines()) == 1
        assert rest in err
        assert not out.exists()  # a run that never began takes its folder with it


def test_ctrl_c_keeps_the_checkpoint_and_the_run_goes_on(tmp_path):
    out = tmp_path / "run"
    arguments = [*QUICK, "steps=1000000", "trainer.log_every=1", f"out={out}"]
    process = script("train", arguments)
    start = time.monotonic()
    while not (out / "metrics.csv").exists() or len((out / "metrics.csv").read_text().splitlines()) < 5:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - start < 120
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert f"resume=true out={out}" in err
    with (out / "metrics.csv").open() as file:
        done = [int(row["step"]) for row in csv.DictReader(file)][-1]
    assert app.train(["resume=true", f"out={out}", f"steps={done + 5}"]) == 0
    with (out / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == list(range(1, done + 6))
    assert (out / "sampler" / "weights.safetensors").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_comes_while_the_configuration_is_read_is_an_interrupt_still(number, code, tmp_path, monkeypatch, capsys):
    """The libraries that read it make other errors of a KeyboardInterrupt."""
    whole = compose.compose_config

    def pressed(*arguments):
        try:
            os.kill(os.getpid(), number)
            time.sleep(0.01)
        except KeyboardInterrupt as error:
            raise AttributeError("'NoneType' object has no attribute '_invalidate_flags_cache'") from error
        return whole(*arguments)

    monkeypatch.setattr(compose, "compose_config", pressed)
    assert app.main(["train", "reward=density", f"out={tmp_path / 'run'}"]) == code
    assert capsys.readouterr().err.strip() in ("interrupted", "terminated")
    assert not (tmp_path / "run").exists()
