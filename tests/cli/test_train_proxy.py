"""The command that fits proxies, from end to end, and the mistakes that can be made with it."""

import functools
import json
import os
import signal

import pandas as pd
import pytest
import torch

from crystalgfn import Sampler, load_proxy
from crystalgfn.cli import app, train_proxy
from crystalgfn.crystallography.elements import ELECTRONEGATIVITY, NUMBER
from crystalgfn.fitting import ensemble_fit
from crystalgfn.fitting.labels import BOUND, FIT, VALUE, Labels, read_labels

ONES = ["Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba", "Ti", "V", "Cr", "Mn", "Fe", "Co"]
OTHERS = ["F", "Cl", "Br", "I", "O", "S", "Se", "Te", "N", "P", "As", "Sb"]
QUICK = ["settings.epochs=2", "settings.members=2", "settings.width=8", "settings.depth=1", "progress=false"]


def salts(path, pairs):
    """A CSV of tetragonal AB crystals, whose energy follows from the electronegativities."""
    table = pd.DataFrame(pairs, columns=["one", "other"])
    table["formula"] = table.one + table.other
    table = table.assign(spacegroup=123, n_atoms=2, a=3.5, b=3.5, c=4.5, alpha=90, beta=90, gamma=90)
    differences = [ELECTRONEGATIVITY[NUMBER[a] - 1] - ELECTRONEGATIVITY[NUMBER[b] - 1] for a, b in pairs]
    table["formation_energy_per_atom"] = [-abs(float(d)) for d in differences]
    table["band_gap"] = table.index % 3
    table.to_csv(path, index=False)
    return path


@pytest.fixture
def data(tmp_path):
    """Arguments for 150 crystals to fit on and 40 to report on, 10 of them in both."""
    pairs = [(one, other) for one in ONES for other in OTHERS]
    train, val = salts(tmp_path / "train.csv", pairs[:150]), salts(tmp_path / "val.csv", pairs[140:])
    return [f"train={train}", f"val={val}", *QUICK, f"out={tmp_path / 'out'}"]


def failure(arguments, capsys) -> str:
    capsys.readouterr()
    assert app.train_proxy(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and lines[0].endswith("."), lines
    return lines[0]


def test_a_fit_is_written_and_can_be_loaded(data, tmp_path, capsys):
    assert app.train_proxy(data) == 0
    said, out = capsys.readouterr().out, tmp_path / "out"
    assert sorted(os.listdir(out)) == ["config.yaml", "metrics.json", "run.json", "weights.safetensors"]
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["rows_train"], metrics["rows_val"], metrics["rows_left_out_as_in_val"]) == (140, 40, 10)
    assert metrics["settings"]["epochs"] == 2 and f"{metrics['val_mae']:.4f} eV/atom" in said
    assert load_proxy(out).name == "formation_energy"
    assert "already holds a proxy" in failure(data, capsys)


def test_each_file_may_have_a_setting_of_its_own(data, tmp_path, capsys):
    train = data[0].removeprefix("train=")
    assert app.train_proxy([*data[1:], f"train=[{train},{train}]", "setting=[unknown,standard]"]) == 0
    assert "setting=['unknown', 'standard']" in json.loads((tmp_path / "out" / "metrics.json").read_text())["command"]
    wrong = [*data[:-1], f"out={tmp_path / 'other'}", "setting=[unknown,standard]"]
    assert "2 settings for 1 files; give one for all, or one for each" in failure(wrong, capsys)
    assert not (tmp_path / "other").exists()


def test_several_files_of_another_property(data, tmp_path, capsys):
    more = salts(tmp_path / "more.csv", [("Zn", other) for other in OTHERS])
    train = data[0].removeprefix("train=")
    assert app.train_proxy(["property=band_gap", f"train=[{train},{more}]", *data[1:]]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["property"] == "band_gap" and metrics["rows_train"] == 152


def test_labels_of_ones_own(data, tmp_path):
    read_labels()[:50].save(tmp_path / "some.npz")
    assert app.train_proxy([*data, f"labels={tmp_path / 'some.npz'}"]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics.get("off_equilibrium", {}).get("all", {"crystals": 0})["crystals"] < 50


def test_ctrl_c_keeps_the_checkpoint_and_the_same_command_goes_on(data, tmp_path, monkeypatch, capsys):
    keep = ensemble_fit._save_progress

    def interrupted(path, state, *rest):
        keep(path, state, *rest)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ensemble_fit, "_save_progress", interrupted)
    assert app.train_proxy(data) == 130
    assert f"go on with the same command and out={tmp_path / 'out'}" in capsys.readouterr().err
    assert (tmp_path / "out" / "fit.pt").exists()
    monkeypatch.setattr(ensemble_fit, "_save_progress", keep)
    assert "seed=0, not 1" in failure([*data, "seed=1"], capsys)
    assert "epochs" in failure([*data, "settings.epochs=3"], capsys)
    assert app.train_proxy(data) == 0
    assert not (tmp_path / "out" / "fit.pt").exists() and (tmp_path / "out" / "metrics.json").exists()


@pytest.mark.parametrize("option", ["column=energy", "setting=standard", "skip_bad=true"])
def test_how_rows_are_read_is_handed_on(option, data, monkeypatch):
    name = option.split("=")[0]
    metrics = {
        "property": "formation_energy", "unit": "eV/atom", "val_mae": 0.1, "val_median_error": 0.1,
        "val_within_std": 0.7, "rows_val": 1, "rows_train": 100, "seconds": 1.0,
    }  # fmt: skip
    given = {}

    def takes(train, val, out, cache, progress, labels, column, setting, skip_bad, **settings):
        given.update(column=column, setting=setting, skip_bad=skip_bad, settings=settings)
        return metrics

    monkeypatch.setattr(train_proxy, "fit", takes)
    assert app.train_proxy([*data, option]) == 0
    assert str(given[name]).lower() == option.split("=")[1] and name not in given["settings"]


def density_labels(crystals, number):
    n, values = len(crystals), -crystals.density.float() / 10
    kind = torch.where(crystals.n_atoms == 2, VALUE, BOUND)
    crystals = type(crystals)(crystals.space_group, crystals.composition, crystals.lattice.float())
    flags = torch.zeros(n, dtype=torch.bool)
    labels = Labels(
        crystals=crystals,
        value=values,
        kind=kind,
        source=torch.full((n,), 3),
        split=torch.full((n,), FIT),
        placed=flags,
        converged=~flags,
        candidates=kind + 1,
        refined=flags,
    )
    return labels, torch.arange(n)


LOOP = [
    "active=true", "rounds=1", "draws=6", "policy=small", "trainer.steps=2", "trainer.batch_size=10",
    "elements=[Na,Cl,K]", "space_groups=[221,225]", "n_atoms=[2,4]",
]  # fmt: skip


def test_the_loop_ends_with_a_proxy_its_labels_and_the_gaps(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_proxy, "run", functools.partial(train_proxy.run, label=density_labels))
    read_labels()[:40].save(tmp_path / "some.npz")
    arguments = [*data, *LOOP, f"labels={tmp_path / 'some.npz'}"]
    assert app.train_proxy(arguments) == 0
    out = tmp_path / "out"
    assert {"round_0", "round_1", "gaps.csv", "labels.npz", "metrics.json", "weights.safetensors"} < set(
        os.listdir(out)
    )
    assert "Predictions of each proxy and labels" in capsys.readouterr().out
    assert len(pd.read_csv(out / "gaps.csv")) == 2
    assert len(read_labels(out / "labels.npz")) == 40 + 12
    sampler = Sampler.load(out / "round_1" / "sampler")
    assert sampler.reward.prop(sampler.sample(3)).shape == (3,)
    assert load_proxy(out).name == "formation_energy"
    assert app.train_proxy([*arguments, "rounds=2"]) == 0  # goes on with a further one
    assert len(pd.read_csv(out / "gaps.csv")) == 3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["train=null"], ["train has no default"]),
        (["train=nowhere.csv"], ["nowhere.csv"]),
        (["val=nowhere.csv"], ["nowhere.csv"]),
        (["train=matbench:matbench_nothing"], ["matbench"]),
        (["property=colour"], ["colour", "formation_energy, band_gap"]),
        (["labels=nowhere.npz"], ["nowhere.npz", "labels"]),
        (["property=band_gap", "labels=some.npz"], ["band_gap", "labels"]),
        (["property=band_gap", "active=true"], ["band_gap", "active"]),
        (["settings.epoch=3"], ["settings.epoch", "settings.epochs"]),
        (["settings.epochs=many"], ["settings.epochs", "whole number"]),
        (["settings=5"], ["settings=5", "settings.epochs=50"]),
        (["settings.width=0"], ["settings.width", "above 0"]),
        (["settings.lr=true"], ["settings.lr", "a number"]),
        (["settings.wyckoff=1"], ["settings.wyckoff", "true or false"]),
        (["settings.labels_left_out=1"], ["labels_left_out=1", "below 1"]),
        (["settings.jitter=-1"], ["jitter=-1", "at least 0"]),
        (["settings.balance=2"], ["balance=2", "from 0 to 1"]),
        (["settings.begin=formation_energy"], ["begin=formation_energy has members=6", "set members"]),
        (["active=true", "rounds=0"], ["rounds=0"]),
        (["skip_bad=perhaps"], ["skip_bad", "true or false"]),
        (["epochs=3"], ["epochs"]),
        (["--fast"], ["--fast", "crystalgfn train-proxy --help"]),
    ],
)
def test_mistakes(wrong, words, data, tmp_path, capsys):
    names = {one.split("=")[0] for one in wrong}
    said = failure([a for a in data if a.split("=")[0] not in names] + wrong, capsys)
    assert all(word in said for word in words), said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"formula": "Xq2O"}, "Xq2O"),
        ({"spacegroup": 231}, "231"),
        ({"b": 9.0}, "contradicts"),
        ({"formation_energy_per_atom": None}, "formation_energy_per_atom"),
    ],
)
def test_a_bad_row_leaves_nothing_behind(change, words, data, tmp_path, capsys):
    path = data[0].removeprefix("train=")
    table = pd.read_csv(path).astype(object)
    for name, value in change.items():
        table.loc[7, name] = value
    table.to_csv(path, index=False)
    assert words in failure(data, capsys)
    assert not (tmp_path / "out").exists()


def test_missing_columns_and_empty_files(data, tmp_path, capsys):
    path = data[0].removeprefix("train=")
    table = pd.read_csv(path)
    table.drop(columns="spacegroup").to_csv(path, index=False)
    assert "spacegroup" in failure(data, capsys)
    table.iloc[:0].to_csv(path, index=False)
    assert "train.csv" in failure(data, capsys)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_there_already_is_kept_when_a_fit_cannot_begin(data, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    failure(["train=nowhere.csv", *data[1:]], capsys)
    assert os.listdir(tmp_path / "out") == ["notes.txt"]


def test_help_names_every_option(capsys):
    from dataclasses import fields

    from crystalgfn.cli.options.compose import compose_config
    from crystalgfn.cli.options.declared import GROUPS, SPACE

    assert app.run("train_proxy", ["--help"], "crystalgfn") == 0
    said = capsys.readouterr().out
    words = {word.split("=")[0] for word in said.split()}
    settings = {f"settings.{one.name}" for one in fields(ensemble_fit.FitConfig)} - {
        "settings.property",
        "settings.seed",
    }
    own = {key for key in compose_config("train_proxy", []) if key not in GROUPS}
    assert {*SPACE, *settings, *own} <= words
    assert "usage: crystalgfn [--help]" in said and "$" not in said
    assert max(map(len, said.splitlines())) <= 140
