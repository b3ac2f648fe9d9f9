"""The command that trains refiners, from end to end, and the mistakes that can be made with it."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import COMMAND

from crystalgfn.cli import app
from crystalgfn.cli.options.compose import compose_config
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.structures.refiner import training
from crystalgfn.structures.refiner.dataset import save
from crystalgfn.structures.refiner.refiner import DiffusionRefiner

QUICK = [
    "epochs=2", "batch=4", "warmup=2", "width=8", "layers=1", "radial=4", "waves=2", "cutoff=3.0", "progress=false",
]  # fmt: skip


def rutiles(n, metal):
    cells = [(a, a, 0.64 * a, 90.0, 90.0, 90.0) for a in np.linspace(4.4, 4.8, n).tolist()]
    return [OrbitStructure(136, cell, (Orbit("a", metal), Orbit("f", 8, (0.3, 0.0, 0.0)))) for cell in cells]


@pytest.fixture
def data(tmp_path):
    """A folder of CIFs to train on, a tenth of them rutile itself, which is also in the prepared val."""
    (tmp_path / "cifs").mkdir()
    for i, structure in enumerate([*rutiles(10, 50), *rutiles(1, 22)]):
        structure.to_structure().to_file(str(tmp_path / "cifs" / f"{i}.cif"))
    save(tmp_path / "val.npz", rutiles(3, 22), {"held_out": 0, "too_large": 0, "bad": 0, "sources": ["val"]})
    return [f"train={tmp_path / 'cifs'}", f"val={tmp_path / 'val.npz'}", f"out={tmp_path / 'out'}", *QUICK]


def failure(arguments, capsys) -> str:
    capsys.readouterr()
    assert app.train_refiner(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and lines[0].endswith("."), lines
    return lines[0]


def test_a_training_is_written_and_can_be_loaded(data, tmp_path, capsys):
    assert app.train_refiner(data) == 0
    out, said = tmp_path / "out", capsys.readouterr().out
    files = {"README.md", "checkpoint.pt", "config.yaml", "metrics.json", "run.json", "train.npz"}
    assert set(os.listdir(out)) == files | {"weights.safetensors"}
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["crystals"], metrics["data"]["held_out"], metrics["epoch"]) == (10, 1, 2.0)
    assert metrics["settings"]["width"] == 8 and "all epochs are done" in said
    card = (out / "README.md").read_text()
    assert "10 crystals of cifs" in card and "1 that share" in card and "CPU" in card
    made = DiffusionRefiner.load(out).refine(rutiles(2, 50), steps=2)
    assert [structure.space_group for structure in made] == [136, 136]
    assert app.train_refiner(data) == 0  # nothing is left to do


def test_a_training_in_parts(data, tmp_path, capsys):
    assert app.train_refiner([*data, "minutes=1e-9"]) == 0
    assert "go on with the same command" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["steps"] == 1
    assert "epochs=2, not 3" in failure([*data, "epochs=3"], capsys)
    assert app.train_refiner(data) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["steps"] == 4


def test_ctrl_c_says_how_to_go_on(data, tmp_path, monkeypatch, capsys):
    keep = training.State.save

    def interrupted(self, *rest):
        keep(self, *rest)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(training.State, "save", interrupted)
    assert app.train_refiner(data) == 130
    assert f"go on with the same command and out={tmp_path / 'out'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["train=null"], ["train has no default"]),
        (["val=[a,b]"], ["no file or folder a"]),
        (["train=nowhere.parquet"], ["nowhere.parquet"]),
        (["val=nowhere.npz"], ["nowhere.npz"]),
        (["train=table.csv"], ["table.csv", "no file or folder"]),
        (["epochs=0"], ["epochs", "above 0"]),
        (["epochs=many"], ["epochs", "whole number"]),
        (["kept=2.0"], ["kept", "from 0 to 1"]),
        (["minutes=soon"], ["minutes=soon", "above 0"]),
        (["epoch=3"], ["'epoch'", "epochs"]),
        (["device=abacus"], ["device=abacus"]),
    ],
)
def test_mistakes(wrong, words, data, capsys):
    given = {argument.split("=")[0]: argument for argument in [*data, *wrong]}
    said = failure(list(given.values()), capsys)
    assert all(word in said for word in words), said


def test_a_cif_that_cannot_be_read(data, tmp_path, capsys):
    (tmp_path / "cifs" / "bad.cif").write_text("nothing")
    said = failure(data, capsys)
    assert "bad.cif" in said and "skip_bad=true" in said
    out = next(Path(a.removeprefix("out=")) for a in data if a.startswith("out="))
    assert not out.exists()  # so that the corrected command may use it
    assert app.train_refiner([*data, "skip_bad=true"]) == 0
    assert json.loads((out / "metrics.json").read_text())["data"]["bad"] == 1


def test_a_refiner_to_begin_with_that_is_not_there(data, capsys):
    assert "nowhere" in failure([*data, "begin=nowhere"], capsys)
    assert not next(Path(a.removeprefix("out=")) for a in data if a.startswith("out=")).exists()


def test_help_and_defaults(capsys):
    assert app.run("train_refiner", ["--help"], "crystalgfn") == 0
    said = capsys.readouterr().out
    config = compose_config("train_refiner", [])
    assert all(f"  {name}=" in said for name in config)
    assert {name: config[name] for name in vars(training.RefinerSettings())} == vars(training.RefinerSettings())
    assert "$" not in said and max(map(len, said.splitlines())) <= 140


def test_two_processes_train_as_one(forks, tmp_path):
    """torchrun's variables are set by hand; each process takes its share of every epoch."""
    save(tmp_path / "x.npz", rutiles(16, 50), {"held_out": 0, "too_large": 0, "bad": 0, "sources": ["x"]})
    arguments = [f"train={tmp_path / 'x.npz'}", f"val={tmp_path / 'x.npz'}", f"out={tmp_path / 'out'}", *QUICK]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29581"}
    calls = [
        forks.start(COMMAND, "train_refiner", *arguments, env=shared | {"RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    for call in calls:
        _, err = call.communicate(timeout=300)
        assert call.returncode == 0, err
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["steps"] == 4  # 16 crystals, 4 a process and step, two epochs
    assert all(torch.isfinite(p).all() for p in DiffusionRefiner.load(tmp_path / "out").network.parameters())
