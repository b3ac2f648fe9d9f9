"""Entries, swapped crystals, and a hull fitted on a few of them; the report's figures."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from crystalgfn.crystallography.elements import NUMBER, SYMBOLS
from crystalgfn.data.labelled import read_labelled
from crystalgfn.errors import DataError
from crystalgfn.fitting import hull as hull_fit
from crystalgfn.fitting.completion import neighbours, swapped
from crystalgfn.fitting.hull import HullFitConfig, entries, fit_hull
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.properties.hull_entries import composition_of
from crystalgfn.properties.hull_surrogate import HullModel
from crystalgfn.rewards import EnergyAboveHull, load_proxy
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


def test_entries_leave_out_what_is_in_val(paths: list[Path], tmp_path: Path) -> None:
    val = read_labelled(paths[1], cache=tmp_path, progress=False)
    composition, energies = entries(paths[0], val)
    assert len(composition) == len(energies) == 24
    ours = {tuple(row) for row in composition.tolist()}
    assert not ours & {tuple(row) for row in val.crystals.composition.tolist()}
    with pytest.raises(DataError, match="no row with a formation energy that is not in the validation file"):
        entries(paths[1], val)
    with pytest.raises(DataError, match=r"nowhere\.parquet cannot be read"):
        entries(tmp_path / "nowhere.parquet", val)


def test_entries_of_several_files_count_in_the_first_that_has_them(paths: list[Path], tmp_path: Path) -> None:
    val = read_labelled(paths[1], cache=tmp_path, progress=False)
    more = pd.concat([pd.read_parquet(paths[0]).iloc[:3].assign(formation_energy_per_atom=-9.0), salts(["AuF"])])
    more.astype({"spacegroup": "int16"}).to_parquet(tmp_path / "more.parquet")
    composition, energies = entries([paths[0], tmp_path / "more.parquet"], val)
    alone, known = entries(paths[0], val)
    assert torch.equal(composition[:24], alone) and torch.equal(energies[:24], known)
    assert len(composition) == 25 and composition[24, NUMBER["Au"] - 1] == 1 and float(energies[24]) == -1


def test_neighbours_are_alike() -> None:
    near = neighbours()
    first = {symbol: [SYMBOLS[z] for z in near[NUMBER[symbol] - 1, :3].tolist()] for symbol in ("La", "K", "Cl", "Zr")}
    assert "Ce" in first["La"] and "Rb" in first["K"] and "Br" in first["Cl"] and "Hf" in first["Zr"]
    assert (near[NUMBER["He"] - 1] == -1).all()  # no oxidation state in common with any other
    assert not (near == torch.arange(118)[:, None]).any()


def test_swapped_crystals_fill_a_hull() -> None:
    proxy = load_proxy("formation_energy")
    salt = example_crystals()[1]
    composition, energies = swapped(salt, proxy, progress=False)
    assert (composition.sum(1) == 2).all() and ((composition > 0).sum(1) == 2).all()
    hull = ExactHull(composition, energies)
    # KCl and NaBr, which it has not seen, from NaCl; their real energies, and above them a spread of 0.1 to 0.2
    assert hull.energy(["KCl", "NaBr"]).tolist() == pytest.approx([-2.2, -1.85], abs=0.4)
    # A spread more raises every energy.
    assert (swapped(salt, proxy, n_sigma=2.0, progress=False)[1] > energies).all()
    empty = swapped(salt[:0], proxy, progress=False)
    assert len(empty[0]) == len(empty[1]) == 0


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
def test_fitting_writes_a_hull(paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hull_fit, "HELD_OUT", 60)
    small = {"untrained": 60, "drawn": 60, "perturbed": 300, "steps": 5, "batch": 16, "members": 2, "width": 8}
    metrics = fit_hull(*paths, tmp_path / "out", cache=tmp_path, progress=False, **small)
    assert metrics == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["entries"] == 24 and metrics["settings"]["steps"] == 5
    # Every formula of the validation file is one of the swapped ones, so none is left to measure on.
    assert set(metrics["against_completed_hull"]) == {"untrained sampler", "formation-energy sampler"}
    assert torch.isfinite(HullModel.load(tmp_path / "out").energy(example_crystals())).all()


def test_the_report(paths: list[Path], tmp_path: Path) -> None:
    prop = load_proxy("energy_above_hull")
    table = evaluate(paths[1], paths[0], prop, cache=tmp_path)
    assert list(table.index)[:2] == ["proxy - hull", "label - hull"] and len(table) == 6
    # By their own labels the crystals lie on the hull of both files, so the error is what e_above_hull says.
    known = pd.read_parquet(paths[1]).e_above_hull
    assert table.loc["label - exact hull of train and val", "mae"] == pytest.approx(known.mean(), abs=1e-6)
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
