"""The check command from end to end, and the mistakes that can be made with it."""

import functools
import inspect
import json
import os

import pandas as pd
import pytest

from crystalgfn import CrystalSpace, PolicyConfig, Sampler, load_proxy, rewards
from crystalgfn.cli import app, check
from crystalgfn.evaluation.proxy_check.check import ReferenceResult


def above_the_prediction(crystals, plan, number, given=None):
    """Every check 0.1 eV/atom above the prediction; the first crystal of a chunk cannot be placed."""
    predicted = load_proxy("formation_energy")(crystals).tolist()
    return [ReferenceResult(failure="not placed", error="no room")] + [
        ReferenceResult(
            e_star=e + 0.1,
            atoms_converged=True,
            is_converged=True,
            candidates=8,
            e_relaxed=e,
            cell_converged=True,
            volume_ratio=0.9,
            length_ratio=0.95,
            calculator="CHGNet",
        )
        for e in predicted[1:]
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A sampler of rock salts, and checks without CHGNet."""
    monkeypatch.setattr(check, "run", functools.partial(check.run, check=above_the_prediction))
    space = CrystalSpace(elements=["Na", "Cl"], space_groups=[221, 225], n_atoms=(1, 4))
    sampler = Sampler.untrained(space, policy=PolicyConfig(width=16, blocks=1, components=2))
    sampler.reward = rewards.boltzmann(load_proxy("formation_energy"), 8.0)
    sampler.save(tmp_path / "sampler")
    return tmp_path


def arguments(folder, *more):
    return [f"sampler={folder / 'sampler'}", "n=9", "chunk=3", "progress=false", f"out={folder / 'out'}", *more]


def test_figures_table_and_picture_are_written(folder, capsys):
    assert app.check(arguments(folder, "space_groups=[225]")) == 0
    said = capsys.readouterr().out
    out = folder / "out"
    assert {"check.json", "check.md", "check.csv", "check.parquet", "check.png"} < set(os.listdir(out))
    assert "| predicted - E* | 6 | 0.100 |" in said and (out / "check.md").read_text().strip() in said
    figures = json.loads((out / "check.json").read_text())
    assert figures["predicted_e_star"]["bias"] == pytest.approx(-0.1)
    assert figures["failures"] == {"not placed": 3}
    assert figures["settings"]["n_candidates"] == 8 and figures["command"].startswith("crystalgfn-check ")
    table = pd.read_parquet(out / "check.parquet")
    assert len(table) == 9 and set(table.space_group) == {225} and set(table.calculator.dropna()) == {"CHGNet"}
    assert table.error.dropna().tolist() == ["no room"] * 3
    assert app.check(arguments(folder, "space_groups=[225]")) == 2
    assert "already holds check.json" in capsys.readouterr().err


def test_an_interrupted_check_says_how_to_go_on_and_goes_on(folder, monkeypatch, capsys):
    def stopped(crystals, plan, number, *rest):
        if number == 2:
            raise KeyboardInterrupt
        return above_the_prediction(crystals, plan, number)

    whole = check.run
    monkeypatch.setattr(check, "run", functools.partial(whole.func, check=stopped))
    assert app.check(arguments(folder)) == 130
    said = capsys.readouterr().err
    assert "6 of 9 crystals are checked and kept" in said and f"out={folder / 'out'}" in said
    assert not (folder / "out" / "check.json").exists()
    monkeypatch.setattr(check, "run", whole)
    assert app.check(arguments(folder, "seed=1")) == 2
    assert "seed=0, not 1" in capsys.readouterr().err
    assert app.check(arguments(folder)) == 0
    assert "holds 6 of 9 crystals checked: going on" in capsys.readouterr().out
    assert json.loads((folder / "out" / "check.json").read_text())["crystals"] == 9


def test_energies_above_the_hull_of_ones_own_entries(folder, capsys):
    pd.DataFrame(
        {"formula": ["Na", "Cl2", "NaCl"], "formation_energy_per_atom": [0.0, 0.0, -2.1]}
    ).to_csv(folder / "entries.csv", index=False)  # fmt: skip
    assert app.check(arguments(folder, f"hull={folder / 'entries.csv'}")) == 0
    assert "above the hull, eV/atom" in capsys.readouterr().out
    figures = json.loads((folder / "out" / "check.json").read_text())["above_hull"]
    assert figures["e_star"]["median"] >= figures["e_relaxed"]["median"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["n=0"], ["n=0", "at least 1"]),
        (["chunk=0"], ["chunk=0"]),
        (["n_sigma=-1.0"], ["n_sigma=-1.0"]),
        (["n_jobs=0"], ["n_jobs=0"]),
        (["n=many"], ["n", "whole number"]),
        (["sampler=nothing"], ["nothing"]),
        (["beta=3.0"], ["beta=3.0", "trained at beta 8"]),
        (["elements=[Fe]"], ["Fe"]),
        (["hull=nowhere.csv"], ["nowhere.csv"]),
        (["templates=nowhere.parquet"], ["nowhere.parquet"]),
        (["candidates=3"], ["candidates", "n_candidates"]),
    ],
)
def test_mistakes(wrong, words, folder, capsys):
    base = [a for a in arguments(folder) if a.split("=")[0] != wrong[0].split("=")[0]]
    assert app.check([*base, *wrong]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert all(word in lines[0] for word in words), lines[0]
    assert not (folder / "out").exists()


def test_a_reward_without_a_formation_energy_is_refused(folder, capsys):
    sampler = Sampler.load(folder / "sampler")
    sampler.reward = rewards.boltzmann(rewards.Density(), 1.0)
    sampler.save(folder / "sampler")
    assert app.check(arguments(folder)) == 2
    assert "reward of density" in capsys.readouterr().err


def test_without_chgnet_it_says_what_to_install(folder, monkeypatch, capsys):
    from crystalgfn.calculators import chgnet

    monkeypatch.setattr(check, "run", check.run.func)
    monkeypatch.setattr(chgnet, "_load", inspect.unwrap(chgnet._load))  # the model may be there from another test
    monkeypatch.setitem(__import__("sys").modules, "chgnet.model.model", None)
    assert app.check(arguments(folder)) == 2
    assert 'pip install -e ".[relax]"' in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_help_names_every_option(capsys):
    from crystalgfn.cli.options.compose import compose_config
    from crystalgfn.cli.options.declared import SPACE

    assert app.run("check", ["--help"], "crystalgfn") == 0
    said = capsys.readouterr().out
    words = {word.split("=")[0] for word in said.split()}
    assert {*SPACE, *(key for key in compose_config("check", []) if key != "space")} <= words
    assert "$" not in said and max(map(len, said.splitlines())) <= 140


@pytest.mark.slow
def test_the_real_thing(tmp_path, capsys):
    pytest.importorskip("chgnet", reason="needs the extra [relax]")
    small = ["n=2", "n_atoms=[2,6]", "n_elements=[2,2]", "elements=[Na,Cl,Li,F]"]
    assert app.check([*small, f"out={tmp_path / 'out'}", "progress=false"]) == 0
    assert "with E* at the drawn lattice" in capsys.readouterr().out
