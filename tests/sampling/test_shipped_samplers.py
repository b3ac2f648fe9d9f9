"""What ships draws what it says: crystals of its space, with the likelihood it gives, under a reward that loads."""

import math

import pytest
import torch

import crystalgfn as cg
from crystalgfn.sampling.sampler_files import SHIPPED

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
