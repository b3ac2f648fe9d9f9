"""The fitted hull: what it says of any composition, and its file."""

import json
from pathlib import Path

import pytest
import torch

from crystalgfn.errors import CheckpointError, DataError, InvalidCrystal
from crystalgfn.properties.hull import WEIGHTS, HullModel
from crystalgfn.rewards.base import example_crystals
from crystalgfn.utils.files import data_folder

SHIPPED = data_folder("proxies") / "hull"


@pytest.fixture(scope="module")
def shipped() -> HullModel:
    return HullModel.load(SHIPPED)


@pytest.fixture
def small() -> HullModel:
    return HullModel(members=2, width=8).eval().requires_grad_(False)


def test_known_hulls(shipped: HullModel) -> None:
    # On the scale "charge": the exact hull of its entries.
    known = {"NaCl": -2.09, "TiO2": -3.50, "Fe2O3": -1.85, "Al2O3": -3.38, "LiFePO4": -2.43, "CaTiO3": -3.57}
    mixtures = {"NaClAu": -2.09 * 2 / 3, "Al2O3Pt": -3.38 * 5 / 6}
    said = shipped.energy(list(known | mixtures))
    wanted = torch.tensor(list((known | mixtures).values()), dtype=torch.float64)
    assert (said - wanted).abs().max() < 0.1


@pytest.mark.parametrize("formula", ["YF3", "HfF4", "NdF3", "PrF3", "ErF3", "YbF3"])
def test_compounds_that_the_entries_lack_are_filled_in(formula: str, shipped: HullModel) -> None:
    """Without them a sampler would find a mixture of these elements stable by 4 eV/atom."""
    assert float(shipped.energy([formula])) < -2.5


def test_its_card_has_its_figures() -> None:
    metrics = json.loads((SHIPPED / "metrics.json").read_text())
    card = (SHIPPED / "README.md").read_text()
    assert (SHIPPED / WEIGHTS).stat().st_size < 3e6
    for name, found in metrics["against_the_exact_hull"].items():
        assert found["mae"] < 0.03, name
        assert f"{found['mae']:.3f}" in card
    assert f"{metrics['entries']:,}" in card


def test_elements_are_at_zero_and_nothing_is_above(shipped: HullModel) -> None:
    mean, spread = shipped.moments(torch.eye(118))
    assert torch.equal(mean, torch.zeros(118, dtype=torch.float64))
    assert torch.equal(spread, torch.zeros(118, dtype=torch.float64))
    pairs = (torch.eye(118)[:, None] + torch.eye(118)).flatten(0, 1)
    mean, spread = shipped.moments(pairs)
    assert (mean <= 0).all() and torch.isfinite(spread).all() and (spread >= 0).all()


def test_a_composition_alone_and_in_a_batch(small: HullModel) -> None:
    crystals = example_crystals()
    batch = small.energy(crystals)
    assert torch.allclose(batch, torch.cat([small.energy(one) for one in crystals]), atol=1e-6)
    assert torch.allclose(batch, small.energy(3 * crystals.composition), atol=1e-6)
    assert torch.allclose(batch, small.energy(crystals.formulas()), atol=1e-6)
    assert small.energy(crystals[:0]).shape == (0,)
    assert not batch.requires_grad


def test_compositions_that_mean_nothing_are_refused(small: HullModel) -> None:
    with pytest.raises(InvalidCrystal, match="no atoms"):
        small.energy(torch.zeros(1, 118))
    with pytest.raises(DataError, match="'Qq' cannot be read"):
        small.energy(["Qq"])


def test_it_comes_back_from_its_file(small: HullModel, tmp_path: Path) -> None:
    small.spread_factor.fill_(3.0)
    small.save(tmp_path)
    again = HullModel.load(tmp_path)
    for one, other in zip(again.moments(example_crystals()), small.moments(example_crystals()), strict=True):
        assert torch.equal(one, other)
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS]


def test_files_that_are_none_are_named(small: HullModel, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no fitted hull"):
        HullModel.load(tmp_path)
    path = small.save(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged.*fit it again"):
        HullModel.load(tmp_path)
    with pytest.raises(CheckpointError, match="holds no fitted hull"):
        HullModel.load(SHIPPED.parent / "formation_energy")
