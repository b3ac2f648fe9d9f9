"""Every program that made what ships can still be called, and recipes say how the shipped proxies were fitted."""

import importlib
import inspect
import json
import sys
from pathlib import Path

import pytest
import yaml

from crystalgfn.errors import DataError
from crystalgfn.fitting.ensemble_fit import FitConfig
from crystalgfn.fitting.hull import HullFitConfig
from crystalgfn.fitting.plausibility import PlausibilityConfig
from crystalgfn.fitting.relaxed_energy import RelaxedEnergyFitConfig
from crystalgfn.utils.files import data_folder
from crystalgfn.utils.instantiate import locate
from scripts.maintain import refit
from scripts.maintain.fit_conductivity import ConductivityFitConfig

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "scripts" / "maintain").rglob("*.py"))
]
CONFIGS = {
    "fit": FitConfig,
    "fit_hull": HullFitConfig,
    "fit_conductivity": ConductivityFitConfig,
    "fit_shipped": PlausibilityConfig,
    "fit_made": PlausibilityConfig,
    "fit_relaxed_energy": RelaxedEnergyFitConfig,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_can_be_called(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    module = importlib.import_module(name)
    if not hasattr(module, "main"):
        return  # a part of another program
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as left:
        module.main()
    assert left.value.code == 0 and "usage:" in capsys.readouterr().out
    parts = name.removeprefix("scripts.maintain.").split(".")
    readme = (ROOT / "scripts" / "maintain" / "README.md").read_text(encoding="utf-8")
    assert ".".join(parts) in readme, f"{name} is not in scripts/maintain/README.md"


@pytest.mark.parametrize(
    "path", sorted(data_folder("proxies").glob("*/recipe.yaml")), ids=lambda path: path.parent.name
)
def test_a_recipe_has_the_settings_that_the_proxy_was_fitted_with(path: Path) -> None:
    steps = refit.read_recipe(path)
    known = json.loads((path.parent / "metrics.json").read_text(encoding="utf-8"))["settings"]
    function = locate(steps[-1]["_target_"])
    own = inspect.signature(function).parameters
    given = {key: value for key, value in steps[-1].items() if key != "_target_" and key not in own}
    config = CONFIGS[function.__name__](**given)
    assert json.loads(json.dumps({key: getattr(config, key) for key in known})) == known
    for step in steps[:-1]:
        assert callable(locate(step["_target_"]))


def test_every_shipped_proxy_has_a_recipe() -> None:
    folders = {path.parent.name for path in data_folder("proxies").glob("*/metrics.json")}
    assert folders == {path.parent.name for path in data_folder("proxies").glob("*/recipe.yaml")}


def test_steps_run_in_order_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "recipe.yaml"
    steps = [{"_target_": "pathlib.Path.mkdir", "_args_": [f"{tmp_path}/{name}"], "out": name} for name in "ab"]
    recipe.write_text(yaml.safe_dump({"steps": steps}))
    made = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(refit, "instantiate", lambda step, trust: made.append(step["out"]))
    monkeypatch.setattr(sys, "argv", ["refit", str(recipe)])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "metrics.json").write_text("{}")
    refit.main()
    assert made == ["b"]
    recipe.write_text("steps: [{out: a}]")
    with pytest.raises(DataError, match="is no recipe"):
        refit.main()
