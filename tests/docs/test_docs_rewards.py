"""The examples of docs/guide/rewards.md and docs/how-to/use-your-own-data.md are run as they stand."""

import re
from pathlib import Path

import pytest
import torch

import crystalgfn as cg
from crystalgfn.cli.options.compose import compose_config
from crystalgfn.cli.options.objects import build_part
from crystalgfn.errors import NotAvailable
from crystalgfn.properties.base import describe
from crystalgfn.rewards.base import example_crystals

DOCS = Path(__file__).resolve().parents[2] / "docs"
CRYSTALS = example_crystals()


def blocks(name: str, heading: str, language: str = "python") -> list[str]:
    """The code of one section of a page."""
    text = next(DOCS.rglob(name)).read_text(encoding="utf-8")
    section = re.split(r"^#+ ", text.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The density for a proxy that is not shipped."""
    load = cg.load_proxy

    def load_or_density(name: str) -> cg.Property:
        try:
            return load(name)
        except NotAvailable:
            return cg.rewards.Density()

    monkeypatch.setattr(cg, "load_proxy", load_or_density)
    monkeypatch.setattr("crystalgfn.rewards.load_proxy", load_or_density)


def run(code: str, **names: object) -> dict:
    exec(compile(code, "docs", "exec"), names)
    return names


def test_a_reward_of_ones_own_in_ten_lines() -> None:
    code = blocks("rewards.md", "A reward of your own, in ten lines")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    reward = run(code)["reward"]
    values = reward(CRYSTALS)
    assert values.shape == (7,) and values[0] < values.max()
    space = cg.CrystalSpace(elements=["Fe", "O"], space_groups=[221, 225], n_atoms=(1, 4))
    trainer = cg.Trainer(steps=2, batch_size=8, seconds=None, progress=False)
    policy = cg.PolicyConfig(width=16, blocks=1, components=2, rank=8)
    crystals = cg.train(space, reward, trainer=trainer, policy=policy).sample(5)
    assert torch.isfinite(reward(crystals)).all()


def test_several_goals_in_python_and_in_hydra(proxies: None) -> None:
    reward = run(blocks("rewards.md", "Several goals at once")[0])["reward"]
    cg.check_reward(reward)
    (command,) = blocks("rewards.md", "Several goals at once", "sh")
    words = command.split()[2:]
    assert words[0] == "reward=several_goals" and len(words) == 3
    same = build_part(compose_config("train", words[:1]).reward, "reward")
    torch.testing.assert_close(same(CRYSTALS), reward(CRYSTALS))
    other = build_part(compose_config("train", words).reward, "reward")
    assert other.weights == (1, 1, 2) and other.rewards[1].value == 1.1
    parts = [part(CRYSTALS).double() for part in reward.rewards]
    torch.testing.assert_close(reward(CRYSTALS).double(), sum(parts))


def test_scarce_elements_come_less_often_where_they_count_more(proxies: None) -> None:
    reward = build_part(compose_config("train", ["reward=several_goals"]).reward, "reward")
    more = build_part(compose_config("train", ["reward=several_goals", "reward.weights.scarce=3"]).reward, "reward")
    torch.testing.assert_close((more(CRYSTALS) - reward(CRYSTALS)).double(), -2 * cg.rewards.Scarcity()(CRYSTALS))


def test_synthesizability_and_other_properties(proxies: None) -> None:
    names = {"cg": cg, "my_model": lambda crystals: 1 / crystals.n_elements.double()}
    reward = run(blocks("rewards.md", "Synthesizability, and other probabilities")[0], **names)["reward"]
    cg.check_reward(reward)
    hardness = run(
        blocks("rewards.md", "A reward of your own, in ten lines")[1],
        cg=cg,
        my_function=lambda crystals: crystals.density,
    )["hardness"]
    assert isinstance(hardness, cg.Property) and hardness.unit == "GPa"


def test_slow_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(blocks("rewards.md", "Slow rewards")[0], cg=cg, my_function=lambda crystals: crystals.density)
    (text,) = blocks("rewards.md", "Slow rewards", "yaml")
    from omegaconf import OmegaConf

    from crystalgfn.utils.instantiate import instantiate

    reward = instantiate(OmegaConf.to_container(OmegaConf.create(text)), trust=None)
    found, given = describe(reward), describe(names["reward"])
    assert found["prop"]["fn"].pop("cache") == "energies.sqlite" and given["prop"]["fn"].pop("cache") is None
    assert found == given


def test_the_distance_to_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    crystals = cg.Crystals.cat([CRYSTALS] * 20)
    by_composition, with_volume = blocks("rewards.md", "Near to the data")
    for code in (by_composition, with_volume):
        cg.check_reward(run(code, cg=cg, crystals=crystals)["near"])


def test_the_shipped_rewards_are_all_listed() -> None:
    text = (DOCS / "guide" / "rewards.md").read_text(encoding="utf-8").split("## Shipped", 1)[1]
    assert set(re.findall(r"^- `(\w+)`:", text, re.MULTILINE)) == set(cg.rewards.shipped())


def test_the_error_of_the_page_on_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page shows is what is said."""
    from crystalgfn.data.labelled import read_labelled

    monkeypatch.chdir(tmp_path)
    (shown,) = blocks("use-your-own-data.md", "Rows that cannot be used", "text")
    good = "ZnO,186,4,3.25,3.25,5.2,90,90,120,0.7"
    lines = [good] * 120
    lines[2], lines[15] = good.replace("ZnO", "Xq2O"), good.replace("186", "231")
    lines[78] = good.replace("120,", "90,")
    header = "formula,spacegroup,n_atoms,a,b,c,alpha,beta,gamma,band_gap"
    Path("my_crystals.csv").write_text("\n".join([header, *lines]) + "\n")
    with pytest.raises(cg.CrystalGFNError) as caught:
        read_labelled("my_crystals.csv", "band_gap", progress=False)
    assert str(caught.value).split() == shown.split()
