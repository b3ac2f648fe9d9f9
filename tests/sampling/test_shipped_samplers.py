"""What ships draws what it says: crystals of its space, with the likelihood it gives, under a reward that loads."""

import math

import pytest
import torch

import crystalgfn as cg
from crystalgfn.errors import CheckpointError
from crystalgfn.sampling.sampler_files import SHIPPED, find, full_name
from crystalgfn.utils.shipped_files import shipped_index
from scripts.maintain.index_weights import with_versions

NAMES = sorted(path.name for path in SHIPPED.glob("*") if path.is_dir())


def test_there_is_one() -> None:
    assert "formation-energy" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_sampler(name: str) -> None:
    sampler = cg.Sampler.load(name)
    crystals = sampler.sample(300, seed=3)
    assert sampler.space.contains(crystals).all()
    log_q, log_r = sampler.log_prob(crystals), sampler.log_reward(crystals)
    assert torch.isfinite(log_q).all() and torch.isfinite(log_r).all()
    # one crystal that carries all the weight would be 1/300
    ess = sampler.diagnostics(300, seed=4).ess
    assert math.isfinite(ess) and ess > 0.02


@pytest.mark.parametrize("name", NAMES)
def test_its_card_says_how_near_it_is(name: str) -> None:
    card = (SHIPPED / name / "README.md").read_text(encoding="utf-8")
    for words in ("space", "target", "training", "ESS / N", "modes that it misses", "10,000 draws"):
        assert words in card, (name, words)


def test_a_folder_that_holds_no_sampler_does_not_hide_a_shipped_one(tmp_path, monkeypatch) -> None:
    (tmp_path / "stable").mkdir()
    monkeypatch.chdir(tmp_path)
    assert cg.Sampler.load("stable").space == cg.Sampler.load(SHIPPED / "stable").space


def test_versions_of_shipped_samplers(tmp_path):
    name = full_name("stable")
    assert name == f"stable@{shipped_index()['weights/samplers/stable/weights.safetensors']['version']}"
    assert find(name) == find("stable") and full_name(name) == name and full_name("runs/mine") == "runs/mine"
    with pytest.raises(CheckpointError, match=f"stable@99 is not here: this installation has {name}"):
        find("stable@99")
    (tmp_path / "stable@99").mkdir()
    with pytest.raises(CheckpointError, match="there is no sampler"):
        find(tmp_path / "stable@99")


def test_a_version_rises_when_a_file_of_the_sampler_changes():
    before = shipped_index()
    config = "weights/samplers/stable/config.json"
    entries = [{**entry} for entry in before.values()]
    assert with_versions(entries, before) == list(before.values())
    changed = [{**entry, "sha256": "0"} if entry["file"] == config else {**entry} for entry in before.values()]
    after = {entry["file"]: entry["version"] for entry in with_versions(changed, before) if "version" in entry}
    old = {name: entry["version"] for name, entry in before.items() if "version" in entry}
    assert {name for name in old if after[name] != old[name]} == {
        config,
        config.replace("config.json", "weights.safetensors"),
    }
    assert after[config] == old[config] + 1
