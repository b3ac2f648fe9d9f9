"""Every configuration composes, every object in it can be built, and its defaults are the classes' own."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from crystalgfn.cli import app

FOLDER = Path(__file__).resolve().parents[2] / "config"


def choices(group: str) -> list[str]:
    from crystalgfn.cli.options.declared import choices_of

    return choices_of(group)


def compose(name: str, *overrides: str):
    from crystalgfn.cli.options.compose import compose_config

    return compose_config(name, overrides)


def test_groups_are_those_that_the_command_line_knows():
    from crystalgfn.cli.options.declared import GROUPS

    folders = {p.name for p in FOLDER.iterdir() if p.is_dir() and not p.name.startswith("__")}
    assert folders | {"csp"} == set(GROUPS)  # csp is declared alone


@pytest.mark.parametrize("group", ["objective", "policy", "trainer"])
def test_settings_can_be_built(group):
    for choice in choices(group):
        config = compose("train", f"{group}={choice}")[group]
        thing = instantiate(config, _convert_="all")
        given = {name: value for name, value in config.items() if name != "_target_"}
        assert set(given) == {field.name for field in dataclasses.fields(thing)}, (
            f"{group}/{choice} names every setting"
        )
        assert {name: getattr(thing, name) for name in given} == given


def test_defaults_are_those_of_the_classes():
    from crystalgfn import PolicyConfig, TrainerConfig
    from crystalgfn.cli.options.objects import space_arguments
    from crystalgfn.gfn.objectives import DEFAULT
    from crystalgfn.space.space import CrystalSpace

    config = compose("train")
    assert instantiate(config.objective) == DEFAULT
    assert instantiate(config.trainer) == TrainerConfig()
    assert instantiate(config.policy) == PolicyConfig()
    given = space_arguments(config.space)
    assert set(given) == {field.name for field in dataclasses.fields(CrystalSpace)} - {"constraints"}
    assert CrystalSpace(**given) == CrystalSpace(relative_volume=(0.65, 3.0))  # in Python only where asked for


def without_proxies_to_come(config):
    """The configuration with a density for each proxy that is not shipped yet, and the names of those."""
    from crystalgfn import load_proxy
    from crystalgfn.errors import NotAvailable

    missing = set()
    for key, node in config.items():
        if not OmegaConf.is_dict(node):
            continue
        if node.get("_target_") == "crystalgfn.rewards.load_proxy":
            try:
                load_proxy(node.name)
            except NotAvailable:
                missing.add(node.name)
                config[key] = {"_target_": "crystalgfn.rewards.Density"}
        else:
            missing |= without_proxies_to_come(node)
    return missing


@pytest.mark.parametrize("choice", choices("reward"))
def test_rewards_can_be_built(choice):
    from crystalgfn import check_reward
    from crystalgfn.cli.options.objects import build_part
    from crystalgfn.errors import NotAvailable

    config = compose("train", f"reward={choice}").reward
    whole = config.copy()
    missing = without_proxies_to_come(config)
    if missing:  # wired before its proxies are there
        with pytest.raises(NotAvailable, match="|".join(missing)):
            build_part(whole, "reward")
    check_reward(build_part(config, "reward"))


def test_loggers_can_be_built(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    for choice in choices("logger"):
        overrides = [f"logger={choice}", f"out={tmp_path / choice}"] + ["logger.mode=disabled"] * (choice == "wandb")
        logger = instantiate(compose("train", *overrides).logger)
        logger.resume(0)
        logger.log(1, {"loss": 2.0})
        logger.table("best", pd.DataFrame({"formula": ["LiF"]}))
        logger.close()
        if choice != "none":
            assert (tmp_path / choice / "metrics.csv").read_text().split() == ["step,loss", "1,2.0"]
            assert (tmp_path / choice / "best.csv").read_text().split() == ["formula", "LiF"]


def test_the_published_space():
    from crystalgfn import CrystalSpace
    from crystalgfn.cli.options.objects import space_arguments

    given = space_arguments(compose("train", "space=published").space)
    assert len(set(given["elements"])) == 22
    assert len(set(given["space_groups"])) == 113
    assert (given["atoms_per_element"], given["n_atoms"]) == ([1, 16], [1, 80])
    # The whole space takes long to build; its elements and groups are what the file adds.
    space = CrystalSpace(**given | {"n_atoms": [1, 4], "atoms_per_element": [1, 4]})
    assert "N" in space.elements
    assert len(space.space_groups) == 113


@pytest.mark.parametrize("choice", choices("experiment"))
def test_experiments_lay_over_the_defaults(choice):
    config = compose("train", f"experiment={choice}", "n_atoms=[1,12]", "steps=7")
    reward = compose("train", f"reward={choice.removeprefix('published_')}").reward
    assert config.reward == reward
    assert len(config.space.elements) == 22
    assert config.space.n_atoms == [1, 12]
    assert config.trainer.steps == 7


def test_symbols_that_yaml_takes_for_booleans():
    from crystalgfn.cli.options.objects import space_arguments

    for name in ("train", "sample"):
        given = space_arguments(compose(name, "elements=[N,Y,No,In,Na]").get("space"))
        assert given["elements"] == ["N", "Y", "No", "In", "Na"]
    given = space_arguments(compose("train", "oxidation_states={No: [2], O: [-2]}", "elements=[No,O]").space)
    assert given["oxidation_states"] == {"No": [2], "O": [-2]}


def test_symbols_of_a_file_that_yaml_takes_for_booleans(tmp_path):
    from crystalgfn.cli.options.compose import compose_config
    from crystalgfn.cli.options.objects import space_arguments

    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "mine.yaml").write_text(
        "defaults: [default]\nelements: [N, Y, No, O]\noxidation_states: {No: [2], O: [-2]}\n"
    )
    given = space_arguments(compose_config("train", ["space=mine"], tmp_path).space)
    assert given["elements"] == ["N", "Y", "No", "O"] and given["oxidation_states"] == {"No": [2], "O": [-2]}


def test_short_names():
    config = compose("train", "elements=[Li]", "seconds=5", "beta=2.5", "batch_size=10")
    assert config.space.elements == ["Li"]
    assert (config.trainer.steps, config.trainer.seconds, config.trainer.batch_size) == (None, 5, 10)
    assert config.reward.beta == 2.5
    assert compose("train", "trainer=demo", "steps=5").trainer.seconds is None
    assert compose("train", "trainer=demo").trainer.seconds == 120


def test_sampling_narrows_by_what_is_given_only():
    from crystalgfn.cli.options.objects import space_arguments

    assert space_arguments(compose("sample").get("space")) == {}
    config = compose("sample", "crystal_systems=[cubic]", "n_atoms=[1,20]", "n=7")
    assert space_arguments(config.space) == {"crystal_systems": ["cubic"], "n_atoms": [1, 20]}
    assert config.n == 7
    assert len(space_arguments(compose("sample", "space=published", "n_atoms=4").space)["elements"]) == 22


def test_a_folder_of_ones_own(tmp_path):
    from crystalgfn.cli.options.compose import compose_config

    (tmp_path / "reward").mkdir()
    (tmp_path / "reward" / "mine.yaml").write_text("_target_: mine.Reward\nstrength: 2.0\n")
    config = compose_config("train", ["reward=mine", "reward.strength=3"], config_dir=tmp_path)
    assert config.reward == {"_target_": "mine.Reward", "strength": 3}


@pytest.mark.parametrize("name", ["train", "sample"])
def test_help_names_every_option(name, capsys):
    from crystalgfn.cli.options.declared import GROUPS, SPACE

    assert app.run(name, ["--help"], "crystalgfn") == 0
    said = capsys.readouterr().out
    words = {word.split("=")[0] for word in said.split()}
    assert set(SPACE) <= words
    assert {key for key in compose(name) if key not in GROUPS} <= words
    if name == "train":
        assert all(choice in said for group in GROUPS for choice in choices(group))
    assert "$" not in said
    assert max(map(len, said.splitlines())) <= 140


def test_cfg_prints_what_would_run(capsys):

    assert app.train(["--cfg", "elements=[Li,O]"]) == 0
    assert OmegaConf.create(capsys.readouterr().out).space.elements == ["Li", "O"]
