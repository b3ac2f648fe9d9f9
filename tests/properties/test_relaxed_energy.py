"""The regression of relaxed energies is the closed form, and the shipped one ranks what it has not seen."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from crystalgfn.errors import DataError
from crystalgfn.fitting.relaxed_energy import crystals_of_table, fit_relaxed_energy
from crystalgfn.properties.plausibility import CrystalPlausibility
from crystalgfn.properties.registry import load_proxy
from crystalgfn.properties.relaxed_energy import RelaxedEnergy
from crystalgfn.rewards.base import example_crystals
from crystalgfn.rewards.transforms import stable
from crystalgfn.utils.files import data_folder

DRAWS = data_folder("proxies") / "relaxed_energy" / "draws.csv"


def test_the_fit_is_ridge_regression(tmp_path: Path):
    """Against least squares on rows with the penalty appended."""
    plausibility = CrystalPlausibility.load(data_folder("proxies") / "plausibility")
    fit_relaxed_energy(DRAWS, tmp_path, plausibility, penalty=500.0)
    model = RelaxedEnergy.load(tmp_path)
    table = pd.read_csv(DRAWS)
    crystals = example_crystals()
    x = model.standardised(crystals_of_table(table)).double().numpy()
    y = table.above_hull.clip(-0.2, 0.8).to_numpy()
    rows = np.concatenate([x, np.sqrt(500.0) * np.eye(x.shape[1])])
    weights = np.linalg.lstsq(rows, np.concatenate([y - y.mean(), np.zeros(x.shape[1])]), rcond=None)[0]
    mine = model(crystals).double().numpy()
    theirs = model.standardised(crystals).double().numpy() @ weights + y.mean()
    assert np.allclose(mine, theirs, atol=2e-4)
    inverse = np.linalg.inv(x.T @ x + 500.0 * np.eye(x.shape[1]))
    own = model.standardised(crystals).double().numpy()
    spread = float(model.noise) * np.sqrt(np.einsum("bi,ij,bj->b", own, inverse, own))
    assert np.allclose(model.std(crystals).double().numpy(), spread, rtol=0.02)


def test_shipped_ranks_what_was_held_out(tmp_path: Path):
    found = fit_relaxed_energy(DRAWS, tmp_path)["held_out"]
    assert found["rank_correlation"] > 0.45 and found["mae"] < 0.9 * found["mae_of_the_mean"]
    first, last = found["within_0.1_by_quarters"][0], found["within_0.1_by_quarters"][3]
    assert first > 0.45 > 0.15 > last
    shipped, again = load_proxy("relaxed_energy"), RelaxedEnergy.load(tmp_path)
    crystals = example_crystals()
    assert torch.allclose(shipped(crystals), again(crystals), atol=1e-4)


def test_composition_and_group_alone():
    model, crystals = load_proxy("relaxed_energy"), example_crystals()
    assert isinstance(model, RelaxedEnergy) and model.unit == "eV/atom"
    stretched = type(crystals)(crystals.space_group, crystals.composition, crystals.lattice * 1.5)
    assert torch.equal(model(crystals), model(stretched))
    doubled = type(crystals)(crystals.space_group, crystals.composition * 2, crystals.lattice)
    assert torch.allclose(model(crystals), model(doubled))


def test_the_reward_counts_it():
    """ln R falls by beta times what the bound lies above the floor."""
    crystals, model = example_crystals(), load_proxy("relaxed_energy")
    plain, with_it = stable(beta=20.0), stable(beta=20.0, relaxed=model, relaxed_floor=0.05)
    expected = -20.0 * model.confidence_bound(crystals, 1.0).clamp_min(0.05)
    assert torch.allclose(with_it(crystals) - plain(crystals), expected, atol=1e-4)
    with pytest.raises(ValueError, match="relaxed_floor must be a finite number"):
        stable(relaxed=model, relaxed_floor=float("nan"))


def test_tables_that_cannot_be_used(tmp_path: Path):
    path = tmp_path / "draws.csv"
    path.write_text("formula,space_group\nNaCl,225\n")
    with pytest.raises(DataError, match="no column above_hull"):
        fit_relaxed_energy(path, tmp_path)
    path.write_text("formula,space_group,above_hull\nNaCl,225,0.0\n")
    with pytest.raises(DataError, match="1 rows.*at least 100"):
        fit_relaxed_energy(path, tmp_path)
