"""Entries, and a hull fitted on a few of them; the report's figures."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from crystalgfn.crystallography.elements import NUMBER
from crystalgfn.errors import DataError
from crystalgfn.fitting import hull as hull_fit
from crystalgfn.fitting.hull import HullFitConfig, entries, fit_hull
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.properties.energy_scale import SCALES, scale_shift
from crystalgfn.properties.hull import HullModel
from crystalgfn.properties.hull_entries import composition_of
from crystalgfn.rewards import EnergyAboveHull, energy_above_hull
from crystalgfn.rewards.base import example_crystals
from scripts.maintain.report_hull import area_under_roc, claims, evaluate, seconds_for


def salts(pairs: list[str]) -> pd.DataFrame:
    """Rock salts of the pairs of elements, at -1 to -2 eV/atom."""
    rows = []
    for i, formula in enumerate(pairs):
        row = {"formula": formula, "n_atoms": 2, "spacegroup": 225}
        row |= dict.fromkeys(("a", "b", "c"), 5.5) | dict.fromkeys(("alpha", "beta", "gamma"), 90.0)
        rows.append(row | {"formation_energy_per_atom": -1 - (i % 11) / 10, "e_above_hull": 0.01 * (i % 4)})
    return pd.DataFrame(rows)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    cations, anions = "Li Na K Rb Cs Ag Cu Tl".split(), "F Cl Br I".split()
    table = salts([cation + anion for cation in cations for anion in anions])
    # Of the validation file two rows also stand in the training file.
    table.iloc[:26].to_parquet(tmp_path / "train.parquet")
    table.iloc[24:].to_parquet(tmp_path / "val.parquet")
    return [tmp_path / "train.parquet", tmp_path / "val.parquet"]


def test_entries_of_several_files_on_a_scale(paths: list[Path], tmp_path: Path) -> None:
    composition, energies = entries(paths)
    assert len(composition) == len(energies) == 26 + 8
    assert torch.equal(entries([paths[0]])[1], energies[:26])
    moved = entries(paths, "charge")[1]
    assert torch.allclose(moved - energies, scale_shift(composition)) and not torch.equal(moved, energies)
    with pytest.raises(DataError, match=r"there is no file of entries .*nowhere\.parquet"):
        entries(tmp_path / "nowhere.parquet")


def test_perturbed_compositions_stay_compositions() -> None:
    base = torch.stack([composition_of(formula, 0) for formula in ("NaCl", "LiFePO4", "TiO2")]).long()
    found = hull_fit._perturbed(base, 500, 0)
    assert (found >= 0).all() and (found.sum(1) > 0).all()
    assert ((found > 0).sum(1) >= 2).all() and ((found > 0).sum(1) <= 6).all()
    allowed = (base > 0).any(0)
    assert not found[:, ~allowed].any()
    assert len(hull_fit._distinct(torch.cat([base, 3 * base]))) == 3
    assert len(hull_fit._distinct(found)) > 100


def test_a_hull_is_learned() -> None:
    hull = ExactHull.from_entries({"NaCl": -2.1, "KCl": -2.2, "NaF": -2.9, "KF": -2.9, "Na2O": -1.4, "NaO": -1.3})
    columns = [NUMBER[symbol] - 1 for symbol in ("Na", "K", "Cl", "F", "O")]
    points = torch.zeros(4000, 118, dtype=torch.int64)
    points[:, columns] = torch.randint(0, 4, (4000, 5), generator=torch.Generator().manual_seed(0))
    points = hull_fit._distinct(points[points.sum(1) > 0])
    settings = HullFitConfig(steps=600, batch=128, members=3, width=32)
    model = hull_fit._learn(points[::2], hull.energy(points[::2]), settings, progress=False)
    error = hull_fit.hull_errors(model, hull.energy(points[1::2]), points[1::2])
    assert error["mae"] < 0.08
    assert 0.4 < error["within_std"] < 0.9


@pytest.mark.unchecked
@pytest.mark.parametrize("scale", SCALES)
def test_fitting_writes_a_hull(scale: str, paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hull_fit, "HELD_OUT", 60)
    small = {"untrained": 80, "drawn": 80, "perturbed": 320, "steps": 5, "batch": 16, "members": 2, "width": 8}
    metrics = fit_hull(paths, tmp_path / "out", scale, progress=False, samplers=("formation-energy",), **small)
    assert metrics == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["entries"] == 34 and metrics["settings"]["steps"] == 5 and metrics["scale"] == scale
    assert set(metrics["against_the_exact_hull"]) >= {"untrained sampler", "formation-energy sampler"}
    assert torch.isfinite(HullModel.load(tmp_path / "out").energy(example_crystals())).all()


def test_the_report(paths: list[Path], tmp_path: Path) -> None:
    prop = energy_above_hull(scale="mp2020")
    table = evaluate(paths[1], paths, prop, cache=tmp_path)
    assert list(table.index)[:2] == ["proxy - hull", "label - hull"] and len(table) == 4
    # By their own labels the crystals lie on the hull of both files, so the error is what e_above_hull says.
    known = pd.read_parquet(paths[1]).e_above_hull
    assert table.loc["label - exact hull", "mae"] == pytest.approx(known.mean(), abs=1e-6)
    crystals = example_crystals()
    exact = {"hull": ExactHull.from_entries({"NaCl": -2.1})}
    found = claims(crystals, prop, exact)
    assert found.loc["claim", "50%"] == pytest.approx(float(prop(crystals).median()))
    wanted = EnergyAboveHull(energy=prop.energy, hull=exact["hull"])(crystals)
    assert found.loc["energy - hull", "below 0"] == pytest.approx(float((wanted < 0).double().mean()))
    assert seconds_for(prop, crystals, 100) > 0


def test_area_under_the_curve() -> None:
    score = torch.tensor([3.0, 2.0, 2.0, 1.0])
    assert area_under_roc(score, torch.tensor([True, True, False, False])) == pytest.approx(0.875)
    assert area_under_roc(score, torch.tensor([False, False, True, True])) == pytest.approx(0.125)
