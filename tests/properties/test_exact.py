from pathlib import Path

import pytest
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import CheckpointError, NotAvailable, RewardError
from crystalgfn.rewards import PROXIES, Density, Property, VolumePerAtom, describe, function, load_proxy
from crystalgfn.rewards.base import example_crystals
from crystalgfn.utils.instantiate import instantiate


def twice_the_density(crystals: Crystals) -> torch.Tensor:
    return 2 * crystals.density


@pytest.fixture
def crystals() -> Crystals:
    return example_crystals()


def test_density_and_volume_are_those_of_the_cell(crystals: Crystals) -> None:
    # Iron: two atoms of 55.845 u in a cube of 2.83 Å; 1 u / Å3 is 1.66053907 g/cm3.
    assert float(Density()(crystals)[0]) == pytest.approx(2 * 55.845 * 1.66053907 / 2.83**3, rel=1e-6)
    assert float(VolumePerAtom()(crystals)[1]) == pytest.approx(5.59**3 / 8, rel=1e-12)


@pytest.mark.parametrize("prop", [Density(), VolumePerAtom(), function(twice_the_density, "twice", "g/cm3")])
def test_exact_properties_are_their_own_bound(prop: Property, crystals: Crystals) -> None:
    assert isinstance(prop, Property)
    assert torch.equal(prop.std(crystals), torch.zeros(7, dtype=torch.float64))
    assert torch.equal(prop.confidence_bound(crystals, 3.0), prop(crystals))
    assert torch.equal(instantiate(describe(prop), trust=None)(crystals), prop(crystals))
    assert prop.to("cpu") is prop


def test_a_function_inside_another_has_no_name_to_save() -> None:
    with pytest.raises(RewardError, match="cannot be imported by name"):
        function(lambda c: c.density, "mine").config()


def test_a_wrong_path_of_a_function_is_named() -> None:
    with pytest.raises(RewardError, match="'nowhere.at_all' is not the dotted path"):
        function("nowhere.at_all", "mine")
    with pytest.raises(RewardError, match="cannot be called"):
        function(3.0, "mine")


def test_a_proxy_that_is_not_shipped_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROXIES, "colour", "wavelength, nm")
    with pytest.raises(NotAvailable, match="'colour'.*not shipped.*Fit one"):
        load_proxy("colour")


def test_an_unknown_proxy_is_named() -> None:
    with pytest.raises(RewardError, match="no proxy 'colour': it is neither one of formation_energy"):
        load_proxy("colour")


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="weights.safetensors is missing"):
        load_proxy(tmp_path)
