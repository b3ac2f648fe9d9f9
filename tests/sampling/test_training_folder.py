"""A training that Python starts leaves the files of the command, and no other run's place is taken."""

import json

import pandas as pd
import pytest
import yaml

import crystalgfn as cg
from crystalgfn.cli import app
from crystalgfn.errors import CheckpointError, ConfigurationError, RewardError

SPACE = cg.CrystalSpace(elements=["Li", "O"])
REWARD = cg.rewards.boltzmann(cg.load_proxy("formation_energy"), 4.0)


def trained(steps=6, reward=REWARD, **options):
    trainer = cg.TrainerConfig(steps=steps, batch_size=16, log_every=2, progress=False)
    return cg.train(SPACE, reward, trainer=trainer, policy=cg.PolicyConfig(width=8), **options)


def test_the_files_are_those_of_the_command(tmp_path):
    sampler = trained(out=tmp_path / "python")
    assert app.main([
        "train", "elements=[Li,O]", "reward=formation_energy", "steps=6", "batch_size=16", "trainer.log_every=2",
        "policy.width=8", "diagnostics=0", "progress=false", f"out={tmp_path / 'command'}",
    ]) == 0  # fmt: skip
    names = [{path.name for path in (tmp_path / one).iterdir()} for one in ("python", "command")]
    assert names[0] == names[1]
    record = json.loads((tmp_path / "python" / "run.json").read_text())
    assert record["counts"] == {"steps": 6} and record["seed"] == 0 and len(record["sampler"]["hash"]) == 64
    assert all((tmp_path / "python" / name).exists() for name in record["files"])
    assert record["settings"]["trainer"]["batch_size"] == 16
    pd.testing.assert_frame_equal(sampler.history, pd.read_csv(tmp_path / "python" / "metrics.csv"))
    assert sampler.history["step"].tolist() == [2, 4, 6] and {"loss", "log_z", "ess"} <= set(sampler.history)
    assert cg.Sampler.load(tmp_path / "python" / "sampler").history is None


def test_nothing_is_overwritten_and_both_can_go_on(tmp_path):
    trained(out=tmp_path)
    weights = (tmp_path / "sampler" / "weights.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=r"already holds a run \(config.yaml\); go on with it by resume=True"):
        trained(out=tmp_path)
    assert (tmp_path / "sampler" / "weights.safetensors").read_bytes() == weights
    longer = trained(steps=8, out=tmp_path, resume=True)
    assert longer.history["step"].tolist() == [2, 4, 6, 8]
    assert app.main(["train", "resume=true", f"out={tmp_path}", "steps=10", "diagnostics=0"]) == 0
    assert pd.read_csv(tmp_path / "metrics.csv")["step"].tolist() == [2, 4, 6, 8, 10]
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["trainer"]["batch_size"] == 16


def test_a_refused_reward_leaves_no_run_behind(tmp_path):
    with pytest.raises(RewardError):
        trained(reward=lambda crystals: "much", out=tmp_path / "run")
    with pytest.raises(
        (ConfigurationError, TypeError), match="out"
    ):  # a TypeError is of the checked annotations of tests
        trained(out=3)
    assert not (tmp_path / "run").exists()
    trained(steps=2, out=tmp_path / "run")


def test_without_a_folder_there_is_a_history_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sampler = trained(reward=lambda crystals: (-crystals.density).tolist())
    assert sampler.history["step"].tolist() == [2, 4, 6] and not any(tmp_path.iterdir())
    assert "6 steps" in sampler._repr_html_() and "elements=(&#x27;Li&#x27;, &#x27;O&#x27;)" in sampler._repr_html_()
    assert len(repr(sampler)) < 160 and "lambda" in repr(sampler)
