import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pymatgen.core import Composition

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.elements import ELECTRONEGATIVITY, NOBLE_GAS, SYMBOLS
from crystalgfn.data.labelled import Rows, read_labelled
from crystalgfn.errors import CheckpointError, DataError, TrainingError
from crystalgfn.fitting import ensemble_fit
from crystalgfn.fitting import proxy as module
from crystalgfn.fitting.ensemble_fit import CHECKPOINT, FitConfig, fit_proxy, unmeasured
from crystalgfn.fitting.labels import FIT, HELD, HIGH, VALUE, read_labels
from crystalgfn.fitting.proxy import fit, off_equilibrium, volume_scan
from crystalgfn.properties.ensemble import WEIGHTS, EnsembleProxy
from crystalgfn.rewards import load_proxy
from crystalgfn.utils.files import data_folder

SMALL = {"epochs": 4, "batch": 32, "members": 2, "width": 16, "holdout": 0.1}


CHOSEN = [z for z in range(60) if not NOBLE_GAS[z]]


def salts(n: int) -> pd.DataFrame:
    """Tetragonal AB crystals whose label follows from the electronegativities: something to learn."""
    torch.manual_seed(0)
    rows = []
    for i in range(n):
        one, other = (CHOSEN[z] for z in torch.randperm(len(CHOSEN))[:2])
        rows.append(
            {
                "formula": f"{SYMBOLS[one]}{SYMBOLS[other]}",
                "n_atoms": 2,
                "spacegroup": 123,
                "a": 3.5 + (i % 7) / 10,
                "b": 3.5 + (i % 7) / 10,
                "c": 4.5,
                "alpha": 90.0,
                "beta": 90.0,
                "gamma": 90.0,
                "formation_energy_per_atom": -float(abs(ELECTRONEGATIVITY[one] - ELECTRONEGATIVITY[other])),
                "band_gap": float(i % 3),
            }
        )
    return pd.DataFrame(rows)


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    table = salts(500)
    # of the validation file ten crystals also stand in the training file
    table.iloc[:410].to_parquet(tmp_path / "train.parquet")
    table.iloc[400:].to_parquet(tmp_path / "val.parquet")
    return {
        "train_path": tmp_path / "train.parquet",
        "val_path": tmp_path / "val.parquet",
        "cache": tmp_path / "cache",
    }


def test_a_fit_learns_and_writes_what_it_measured(paths: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "proxy"
    metrics = fit(**paths, out=out, progress=False, **{**SMALL, "epochs": 30, "width": 64, "lr": 5e-3})
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", WEIGHTS]
    assert 10 <= metrics["rows_left_out_as_in_val"] < 60
    assert metrics["rows_train"] + metrics["rows_left_out_as_in_val"] == 410
    labels = pd.read_parquet(paths["val_path"]).formation_energy_per_atom
    guess = float((labels - labels.median()).abs().mean())
    assert metrics["val_mae"] < 0.5 * guess
    proxy = load_proxy(out)
    assert proxy.name == "formation_energy" and proxy.unit == "eV/atom"
    assert float(proxy.high) == pytest.approx(ensemble_fit.CEILING, abs=0.2)  # labels end near 0
    assert 0.4 < metrics["val_within_std"] < 0.99


def test_no_row_of_the_validation_file_is_fitted_on(
    paths: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def spy(rows: Rows, *rest):
        given.append(rows)
        return fit_proxy(rows, *rest)

    monkeypatch.setattr(module, "fit_proxy", spy)
    fit(**paths, out=tmp_path / "proxy", progress=False, **SMALL)
    val = {reduced(formula) for formula in pd.read_parquet(paths["val_path"]).formula}
    fitted = {reduced(formula) for formula in given[0].crystals.formulas()}
    train = {reduced(formula) for formula in pd.read_parquet(paths["train_path"]).formula}
    assert train & val and not fitted & val
    assert fitted == train - val  # all of them are in one group


def reduced(formula: str) -> frozenset:
    return frozenset(Composition(formula).reduced_composition.as_dict().items())


@pytest.fixture
def rows(paths: dict[str, Path]) -> Rows:
    return module.read_labelled(paths["train_path"], cache=paths["cache"])


def test_an_interrupted_fit_goes_on_as_if_it_had_not_been(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = FitConfig(**SMALL)
    whole, _ = fit_proxy(rows, settings, tmp_path / "whole", progress=False)
    keep = ensemble_fit._save_progress

    def interrupted(path: Path, state: dict, *rest) -> None:
        keep(path, state, *rest)
        if state["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ensemble_fit, "_save_progress", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_proxy(rows, settings, tmp_path / "parts", progress=False)
    monkeypatch.setattr(ensemble_fit, "_save_progress", keep)
    torch.manual_seed(123)  # what has been drawn in between must not matter
    parts, _ = fit_proxy(rows, settings, tmp_path / "parts", progress=False)
    for name, value in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], value), name


def test_progress_of_other_settings_or_damaged_is_refused(rows: Rows, tmp_path: Path) -> None:
    fit_proxy(rows, FitConfig(**{**SMALL, "epochs": 1}), tmp_path, progress=False)
    with pytest.raises(CheckpointError, match="other settings"):
        fit_proxy(rows, FitConfig(**{**SMALL, "epochs": 1, "seed": 1}), tmp_path, progress=False)
    (tmp_path / CHECKPOINT).write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match="damaged"):
        fit_proxy(rows, FitConfig(**{**SMALL, "epochs": 1}), tmp_path, progress=False)


def test_a_property_that_is_no_energy_is_fitted_without_strain(paths: dict[str, Path], tmp_path: Path) -> None:
    metrics = fit(**paths, out=tmp_path / "gap", property="band_gap", progress=False, **{**SMALL, "epochs": 1})
    assert metrics["settings"]["strained"] == 0.0 and "volume_scan" not in metrics
    assert float(load_proxy(tmp_path / "gap").high) == 2.0


def test_too_few_rows_are_refused(paths: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a proxy needs at least 100"):
        fit(paths["val_path"], paths["val_path"], tmp_path / "proxy", paths["cache"], progress=False, **SMALL)


def test_the_volume_scan_finds_the_minimum(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rows.crystals[:20]

    def bound(self: EnsembleProxy, crystals: Crystals, n_sigma: float) -> torch.Tensor:
        return (crystals.volume_per_atom / real.volume_per_atom - 1.04).square()

    monkeypatch.setattr(EnsembleProxy, "confidence_bound", bound)
    scan = volume_scan(EnsembleProxy("x", "y", members=2, width=4), real)
    assert scan["within_6_percent"] == 1.0 and scan["median"] == pytest.approx(1.04) and scan["at_an_end"] == 0.0


def test_a_member_that_sees_none_of_a_batch_learns_nothing_from_it(paths: dict[str, Path]) -> None:
    rows = read_labelled(paths["train_path"], "formation_energy", paths["cache"], progress=False)
    settings = FitConfig(members=2, strained=0.1)
    proxy = EnsembleProxy("formation_energy", "eV/atom", members=2, width=4, depth=1)
    seen = torch.ones(2, len(rows), dtype=torch.bool)
    seen[1, 0] = False
    chosen, features = torch.tensor([0]), proxy.features(rows.crystals)
    one, none = (
        ensemble_fit._loss(proxy, rows, features, chosen, s, settings, torch.Generator()).item()
        for s in (seen, seen & False)
    )
    assert np.isfinite(one) and one > 0 and none == 0.0


def test_a_fit_that_goes_astray_says_so(paths: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="went astray in epoch 1 .*lower lr than 1e"):
        fit(**paths, out=tmp_path, progress=False, **{**SMALL, "labelled": 0.0, "lr": 1e30, "epochs": 1})


@pytest.mark.unchecked
def test_labels_off_equilibrium_are_learned(paths: dict[str, Path], tmp_path: Path) -> None:
    labels = read_labels()
    settings = {**SMALL, "epochs": 30}
    with_labels = fit(**paths, out=tmp_path / "with", progress=False, labels=labels, **settings)
    without = fit(**paths, out=tmp_path / "without", progress=False, labelled=0.0, **settings)
    assert "off_equilibrium" not in without and with_labels["off_equilibrium"]["all"]["crystals"] > 50
    known = labels[(labels.kind == VALUE) & (labels.split == HELD)]
    errors = [
        float((EnsembleProxy.load(tmp_path / name)(known.crystals) - known.value).abs().mean())
        for name in ("with", "without")
    ]
    assert errors[0] < 0.7 * errors[1]


def test_what_samplers_drew_is_reported_apart() -> None:
    """Claims of drawn crystals of compositions that were held out, upper bounds counted; what is only known as high."""
    labels = read_labels(high=True)
    proxy = load_proxy("formation_energy")
    found = off_equilibrium(proxy, labels)
    held = labels[(labels.split == HELD) & labels.refined & (labels.source == 3)]
    sure, high = held[held.kind != HIGH], labels[(labels.split == HELD) & (labels.kind == HIGH)]
    errors = (proxy(sure.crystals) - sure.value).numpy()
    assert found["drawn"]["crystals"] == len(sure) > 100 and found["high"]["crystals"] == len(high) > 20
    assert found["drawn"]["median_size"] == pytest.approx(np.median(abs(errors)))
    assert found["drawn"]["bias"] == pytest.approx(errors.mean()) and "spearman" not in found["high"]
    shipped = json.loads((data_folder("proxies") / "formation_energy" / "metrics.json").read_text())
    for part, figures in found.items():
        assert shipped["off_equilibrium"][part] == pytest.approx(figures, rel=1e-3, abs=1e-4)


def test_formulas_that_measure_a_fit_are_not_fitted_on(rows: Rows) -> None:
    labels = read_labels()
    some = labels[labels.kind == VALUE]
    formula = min(rows.keys[0])[0]
    as_held = torch.where(torch.arange(len(some)) == 0, HELD, FIT)
    composition = some.crystals.composition.clone()
    composition[0] = 2 * rows.crystals.composition[0]  # another cell of the same formula
    crystals = replace(some.crystals, composition=composition)
    kept = unmeasured(rows, replace(some, crystals=crystals, split=as_held))
    assert [min(key)[0] for key in kept.keys] == [min(key)[0] for key in rows.keys if min(key)[0] != formula]
    assert 0 < len(kept) < len(rows)


def test_metals_are_a_censored_gap(rows: Rows) -> None:
    proxy, settings = EnsembleProxy("band_gap", "eV", members=2, width=1, depth=1), FitConfig(property="band_gap")
    proxy.network = lambda features, group: torch.tensor([[-1.0, -1.0, 1.0]] * 2)
    three = rows[np.arange(3)]
    features = proxy.features(three.crystals)
    errors = ensemble_fit._errors(proxy, features, three.crystals, torch.tensor([0.0, 0.5, 0.0]), settings)
    assert errors[0].tolist() == pytest.approx([0.0, 1.49, 0.99])


@pytest.mark.unchecked
def test_several_files_are_fitted_together_and_each_crystal_once(paths: dict[str, Path], tmp_path: Path) -> None:
    both = [paths["train_path"], paths["val_path"]]
    few = {**SMALL, "epochs": 1, "labelled": 0.0}
    one = fit(**paths, out=tmp_path / "one", progress=False, **few)
    two = fit([paths["train_path"]] * 2, paths["val_path"], tmp_path / "two", paths["cache"], progress=False, **few)
    assert two["rows_train"] == one["rows_train"]
    three = fit(both, paths["val_path"], tmp_path / "three", paths["cache"], progress=False, **few)
    assert three["rows_train"] == one["rows_train"]
    ways = ["unknown", "standard"]
    with pytest.warns(UserWarning, match="cannot be used"):  # what no conventional cell with so few atoms can be
        four = fit(both, paths["val_path"], tmp_path / "four", paths["cache"], False, None, None, ways, True, **few)
    assert four["rows_train"] == one["rows_train"]
    assert four["command"].endswith("setting=['unknown', 'standard'], skip_bad=True)")
    with pytest.raises(DataError, match="2 settings for 1 files; give one for all, or one for each"):
        fit(**paths, out=tmp_path / "five", progress=False, setting=ways, **few)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"holdout": 0.0}, "0 of 410 rows are held out .*at least 3 are needed: give more data, or a larger holdout"),
        ({"members": 1}, "members=1: give at least 2"),
    ],
)
def test_what_could_not_be_calibrated_is_refused_before_the_fit(
    given: dict, message: str, rows: Rows, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        fit_proxy(rows, FitConfig(**{**SMALL, **given}), tmp_path, progress=False)
    assert not list(tmp_path.glob("fit*"))


def test_intervals_are_calibrated_on_the_first_of_several_files(rows: Rows, tmp_path: Path, monkeypatch) -> None:
    """On what was held out of it, where that is enough."""
    given = []
    monkeypatch.setattr(EnsembleProxy, "calibrate", lambda self, error, spread: given.append(len(error)))
    settings = FitConfig(**{**SMALL, "epochs": 1, "holdout": 0.3, "labelled": 0.0})
    for enough, first in ((10, None), (10, 200), (1000, 200)):
        monkeypatch.setattr(ensemble_fit, "ENOUGH", enough)
        fit_proxy(rows, settings, tmp_path / f"{enough}-{first}", progress=False, first=first)
    every = len(ensemble_fit.split_by_formula(rows, 0.3, 0)[1])
    assert (
        given == [every, len(ensemble_fit.split_by_formula(rows[np.arange(200)], 0.3, 0)[1]), every]
        and given[1] < every
    )


@pytest.mark.parametrize("wyckoff", [False, True])
@pytest.mark.unchecked
def test_a_fit_may_begin_with_the_networks_of_another(wyckoff: bool, paths: dict[str, Path], tmp_path: Path) -> None:
    first = tmp_path / "first"
    fit(**paths, out=first, progress=False, **SMALL)
    again = {**SMALL, "epochs": 1, "lr": 1e-9, "begin": str(first), "wyckoff": wyckoff}  # what it sees more of is new
    fit(**paths, out=tmp_path / "second", progress=False, **again)
    one, two = load_proxy(first), load_proxy(tmp_path / "second")
    crystals = read_labelled(paths["val_path"], cache=paths["cache"], progress=False).crystals
    torch.testing.assert_close(one(crystals), two(crystals), rtol=0, atol=1e-5)  # nothing was learned at such a rate
    assert json.loads((tmp_path / "second" / "metrics.json").read_text())["settings"]["begin"] == str(first)


def test_a_fit_cannot_begin_with_a_proxy_of_another_shape(paths: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="begin=formation_energy has members=6, this fit 2; set members"):
        fit(**paths, out=tmp_path / "out", progress=False, **SMALL, begin="formation_energy")
    assert not (tmp_path / "out" / "weights.safetensors").exists()
