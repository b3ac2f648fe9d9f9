"""Reading measured conductivities, fitting them with bounds as bounds, and the shipped proxy."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from crystalgfn.crystallography.crystals import Crystals, Disordered
from crystalgfn.data.databases import read_obelix
from crystalgfn.errors import DataError, InvalidCrystal
from crystalgfn.properties.ensemble import EnsembleProxy
from crystalgfn.properties.features import Features
from crystalgfn.rewards import load_proxy
from crystalgfn.rewards.base import example_crystals
from crystalgfn.utils.files import data_folder
from scripts.maintain.fit_conductivity import (
    SIZE,
    ConductivityFitConfig,
    _surprise,
    cross_validate,
    fit_conductivity,
    folds,
    misses,
    scores,
    spearman,
)

SHIPPED = data_folder("proxies") / "ionic_conductivity"
SMALL = {"epochs": 60, "batch": 16, "members": 2, "width": 16, "centres": 4}


def measured(n: int = 60) -> pd.DataFrame:
    """Made materials that conduct the better the more S stands for O; every tenth value is only a bound."""
    rows = []
    for i in range(n):
        sulphur = (i % 20) / 10
        row = {
            "True Composition": f"Li2.0Ge{1 + i / 100}O{2 - sulphur}S{sulphur}",
            "Space group #": (225, 62, 167)[i % 3],
        }
        row |= {"a": 5.0, "b": 5.0, "c": 5.0 + i / 50, "alpha": 90.0, "beta": 90.0, "gamma": 90.0}
        row["Ionic conductivity (S cm-1)"] = "<1E-8" if i % 10 == 0 else f"{10 ** (-8 + 3 * sulphur):.3e}"
        rows.append(row)
    return pd.DataFrame(rows)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    measured().to_csv(tmp_path / "measured.csv", index=False)
    return tmp_path / "measured.csv"


def test_rows_are_read_with_their_occupancies(path: Path) -> None:
    rows = read_obelix(path)
    assert len(rows) == 60
    assert rows.censored.tolist() == [i % 10 == 0 for i in range(60)]
    assert rows.values[:2].tolist() == pytest.approx([-8.0, -8 + 0.3], abs=1e-3)
    # Fm-3m has four lattice points in its cell.
    assert rows.crystals.composition[0, 2] == 0.5 and rows.crystals.composition[1, 2] == 2
    assert rows.crystals.composition[1, 31] == pytest.approx(1.01)
    assert len(rows[rows.censored]) == 6


def test_equal_compositions_are_one_material_and_in_one_fold(tmp_path: Path) -> None:
    table = pd.concat([measured(), measured()])
    table.iloc[60:, 0] = [f"{text}".replace("Li2.0", "Li2") for text in table.iloc[60:, 0]]
    table.to_csv(tmp_path / "twice.csv", index=False)
    rows = read_obelix(tmp_path / "twice.csv")
    assert torch.equal(rows.material[:60], rows.material[60:])
    fold = folds(rows, 0)
    assert torch.equal(fold[:60], fold[60:])
    assert fold.unique().tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match="there are 6 rows; five folds need at least 50"):
        folds(rows[:6], 0)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("Ionic conductivity (S cm-1)", "about 1", "row 7: the conductivity 'about 1' is neither"),
        ("Ionic conductivity (S cm-1)", "-1e-5", "row 7: the conductivity '-1e-5' is neither"),
        ("Ionic conductivity (S cm-1)", None, "row 7: the conductivity 'nan' is neither"),
        ("True Composition", "Qq2O", "entry 7: the formula 'Qq2O' cannot be read"),
        ("Space group #", 231, "row 7: 231 is no space group"),
        ("a", -5.0, "row 7: the cell .* needs six positive numbers"),
    ],
)
def test_rows_that_cannot_be_used_are_named(column: str, value: object, message: str, tmp_path: Path) -> None:
    table = measured().astype({column: object})
    table.loc[7, column] = value
    table.to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(DataError, match=message):
        read_obelix(tmp_path / "bad.csv")


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_obelix(tmp_path / "nowhere.csv")
    measured().drop(columns="a").to_csv(tmp_path / "cut.csv", index=False)
    with pytest.raises(DataError, match="has no column a"):
        read_obelix(tmp_path / "cut.csv")
    measured()[:0].to_csv(tmp_path / "empty.csv", index=False)
    with pytest.raises(DataError, match="has no rows"):
        read_obelix(tmp_path / "empty.csv")


def test_whole_occupancies_have_the_features_of_ordered_crystals() -> None:
    crystals = example_crystals()
    disordered = Disordered(crystals.space_group, crystals.composition.double(), crystals.lattice)
    assert torch.allclose(Features()(disordered), Features()(crystals), atol=1e-5)
    with pytest.raises(InvalidCrystal, match="floating-point amounts"):
        Disordered(crystals.space_group, crystals.composition, crystals.lattice)


def test_the_columns_of_the_cells_size_are_those() -> None:
    """Twice the cell, the same material: only these features change."""
    crystals = example_crystals()[6]
    features = Features()
    one = features(crystals)
    scaled = torch.cat([crystals.lattice[:, :3] * 2 ** (1 / 3), crystals.lattice[:, 3:]], 1)
    two = features(Crystals(crystals.space_group, 2 * crystals.composition, scaled))
    changed = ((one - two).abs() > 1e-4).nonzero()[:, 1].tolist()
    assert changed == sorted(i % one.shape[1] for i in SIZE)


def test_a_bound_costs_only_what_lies_above_it() -> None:
    said = torch.tensor([[-3.0, -0.5, 0.0, 0.5, 30.0]])
    cost = _surprise(said, torch.zeros(5), torch.ones(5, dtype=torch.bool), 0.2)[0]
    assert cost[0] < 1e-4 and (cost[1:] > cost[:-1]).all() and torch.isfinite(cost).all()
    known = _surprise(said, torch.zeros(5), torch.zeros(5, dtype=torch.bool), 0.2)[0]
    assert known[2] == 0 and known[1] == known[3] > 0.3


def test_errors_of_bounds_count_upwards(path: Path) -> None:
    rows = read_obelix(path)[:11]
    mean = rows.values + torch.tensor([-2.0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3.0], dtype=torch.float64)
    assert misses(mean, rows).tolist() == pytest.approx([0.0, *[1.0] * 9, 3.0])
    assert scores(mean, rows)["mae"] == pytest.approx(12 / 11, abs=1e-4)
    assert scores(mean, rows)["mae_of_values"] == pytest.approx(1.0)
    assert spearman(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 9.0])) == pytest.approx(0.866, abs=1e-3)


def test_what_decides_is_learned(path: Path) -> None:
    rows = read_obelix(path)
    settings = ConductivityFitConfig(**SMALL)
    mean, spread = cross_validate(rows, folds(rows, 0), settings, progress=False)
    assert scores(mean, rows)["spearman"] > 0.8
    assert spread.median() > 0


def test_fitting_writes_a_proxy_that_loads(path: Path, tmp_path: Path) -> None:
    metrics = fit_conductivity(path, tmp_path / "out", progress=False, **SMALL | {"epochs": 5})
    assert metrics == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["rows"], metrics["censored"]) == (60, 6)
    proxy = load_proxy(tmp_path / "out")
    assert (proxy.name, proxy.unit) == ("ionic_conductivity", "log10 S/cm")
    assert torch.isfinite(proxy.confidence_bound(example_crystals(), -1.0)).all()


@pytest.fixture(scope="module")
def shipped() -> EnsembleProxy:
    return load_proxy("ionic_conductivity")


def test_the_shipped_proxy_beats_forest_and_median() -> None:
    metrics = json.loads((SHIPPED / "metrics.json").read_text())
    card = (SHIPPED / "README.md").read_text()
    assert "heuristic" in card and "478" in card
    assert f"{metrics['five_folds']['mae']:.3f}" in card and f"{metrics['five_folds']['spearman']:.3f}" in card
    assert 0.55 < metrics["five_folds"]["within_std"] < 0.8
    assert (metrics["rows"], metrics["censored"]) == (478, 29)


def test_known_conductors(shipped: EnsembleProxy) -> None:
    # Li10GeP2S12, Li7La3Zr2O12 (cubic), LiF-like rock salt: a superionic, a good and a bad conductor.
    composition = torch.zeros(3, 118, dtype=torch.int64)
    composition[0, [2, 31, 14, 15]] = torch.tensor([20, 2, 4, 24])
    composition[1, [2, 56, 39, 7]] = torch.tensor([28, 12, 8, 48])
    composition[2, [2, 13, 7]] = torch.tensor([8, 4, 12])  # Li2SiO3, twice
    lattice = torch.tensor(
        [[8.69, 8.69, 12.6, 90, 90, 90], [12.97, 12.97, 12.97, 90, 90, 90], [9.39, 5.40, 4.66, 90, 90, 90]],
        dtype=torch.float64,
    )
    said = shipped(Crystals(torch.tensor([137, 230, 36]), composition, lattice))
    assert -2.8 < said[0] < -1.6 and -5 < said[1] < -2.8
    assert said[2] < said[1] - 1


def test_elements_that_it_has_not_seen_are_less_sure(shipped: EnsembleProxy) -> None:
    crystals = example_crystals()
    strange = torch.zeros_like(crystals.composition)
    strange[:, 93] = crystals.n_atoms
    assert (shipped.std(Crystals(crystals.space_group, strange, crystals.lattice)) > 2).all()
