import importlib
import sys
from pathlib import Path

import pytest
import torch

import crystalgfn as cg
from crystalgfn.cli.options.compose import OptionError, compose_config
from crystalgfn.cli.options.objects import build_part
from crystalgfn.errors import RewardError
from crystalgfn.properties.base import describe
from crystalgfn.rewards.base import example_crystals

CRYSTALS = example_crystals()
SOURCE = """
class Light:
    def __init__(self, strength=1.0, elements=("Li",), power=1):
        if strength < 0:
            raise ValueError("strength must not be negative")
        self.strength = strength

    def __call__(self, crystals):
        return -self.strength * crystals.density


class Needy:
    def __init__(self, path):
        self.path = path

    def __call__(self, crystals):
        return crystals.density


def property():
    import crystalgfn as cg

    return cg.rewards.Density()


number = 3
"""
POINTS = """
[crystalgfn.rewards]
light = made_rewards:Light
needy = made_rewards:Needy
a_property = made_rewards:property
a_number = made_rewards:number
gone = made_rewards:Gone
density = made_rewards:Light
"""


def distribution(folder: Path, name: str, points: str) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with rewards, as pip leaves it in site-packages."""
    from hydra.core.config_store import ConfigStore

    (tmp_path / "made_rewards.py").write_text(SOURCE)
    distribution(tmp_path, "made-rewards", POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ConfigStore.instance(), "repo", dict(ConfigStore.instance().repo))
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("made_rewards", None)


def test_by_name_in_python(package: Path) -> None:
    reward = cg.rewards.load("light", strength=2)
    cg.check_reward(reward)
    torch.testing.assert_close(reward(CRYSTALS), -2 * CRYSTALS.density)
    assert set(cg.rewards.installed()) == {"a_number", "a_property", "gone", "light", "needy"}


def test_by_name_on_the_command_line(package: Path) -> None:
    config = compose_config("train", ["reward=light"]).reward
    assert config == {"_target_": "crystalgfn.rewards.load", "name": "light", "strength": 1.0, "power": 1}
    config = compose_config("train", ["reward=light", "reward.strength=3"]).reward
    torch.testing.assert_close(build_part(config, "reward")(CRYSTALS), -3 * CRYSTALS.density)
    with pytest.raises(OptionError, match="a number"):
        compose_config("train", ["reward=light", "reward.strength=much"])
    with pytest.raises(OptionError, match="There is no reward 'heavy'; there are .*light"):
        compose_config("train", ["reward=heavy"])


def test_an_argument_that_must_be_given(package: Path) -> None:
    with pytest.raises(OptionError, match="reward.path has no default; give reward.path=<value>"):
        build_part(compose_config("train", ["reward=needy"]).reward, "reward")
    config = compose_config("train", ["reward=needy", "reward.path=here"]).reward
    assert build_part(config, "reward").reward.path == "here"


def test_only_what_is_chosen_is_imported(package: Path) -> None:
    compose_config("train", ["reward=density"])
    assert "made_rewards" not in sys.modules


def test_the_sampler_remembers_it(package: Path, tmp_path: Path) -> None:
    space = cg.CrystalSpace(elements=["Li", "O"], space_groups=[221], n_atoms=(1, 4))
    policy = cg.PolicyConfig(width=16, blocks=1, components=2, rank=8)
    trainer = cg.Trainer(steps=1, batch_size=4, seconds=None, progress=False)
    cg.train(space, cg.rewards.load("light", strength=2), policy=policy, trainer=trainer, out=tmp_path / "run")
    sampler = cg.Sampler.load(tmp_path / "run" / "sampler")
    crystals = sampler.sample(3)
    torch.testing.assert_close(sampler.log_reward(crystals), -2 * crystals.density)


def test_shipped_rewards_by_name(package: Path) -> None:
    reward = cg.rewards.load("density", beta=2.0)  # the shipped one, not the package's
    torch.testing.assert_close(reward(CRYSTALS), 2 * CRYSTALS.density)
    assert {"density", "formation_energy", "several_goals"} <= set(cg.rewards.shipped())
    assert describe(cg.rewards.load("formation_energy"))["beta"] == 8.0


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("heavy", {}, "There is no reward 'heavy'.*density.*light"),
        ("gone", {}, "'gone' of made-rewards cannot be imported: AttributeError"),
        ("a_number", {}, "is not a class or function"),
        ("a_property", {}, "returns a property, not a reward"),
        ("light", {"colour": 1}, "'light' of made-rewards refuses its arguments: .*colour"),
        ("needy", {}, "refuses its arguments: .*path"),
        ("density", {"colour": 1}, "'density' has no colour; it has prop, beta, n_sigma, direction"),
        ("density", {"beta": -1}, "beta must be"),
    ],
)
def test_what_cannot_be_loaded(package: Path, name: str, arguments: dict, said: str) -> None:
    with pytest.raises(RewardError, match=said):
        cg.rewards.load(name, **arguments)


def test_two_packages_with_one_name(package: Path) -> None:
    distribution(package, "other-rewards", "[crystalgfn.rewards]\nlight = made_rewards:Needy\n")
    importlib.invalidate_caches()
    with pytest.raises(RewardError, match="two packages offer a reward 'light'"):
        cg.rewards.load("light")
