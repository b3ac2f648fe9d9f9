from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import CheckpointError, RewardError
from crystalgfn.properties import ensemble
from crystalgfn.properties.ensemble import WEIGHTS, EnsembleProxy
from crystalgfn.rewards import Property, boltzmann, check_reward, load_proxy
from crystalgfn.rewards.base import example_crystals
from crystalgfn.utils.instantiate import instantiate


@pytest.fixture
def proxy() -> EnsembleProxy:
    torch.manual_seed(1)
    return EnsembleProxy("colour", "eV", members=3, width=8).requires_grad_(False)


@pytest.fixture
def crystals() -> Crystals:
    return example_crystals()


def test_moments_are_those_of_the_members(proxy: EnsembleProxy, crystals: Crystals) -> None:
    assert isinstance(proxy, Property)
    proxy.label_mean.fill_(2.0)
    proxy.label_std.fill_(0.5)
    proxy.spread_factor.fill_(3.0)
    members = proxy.members(crystals).double()
    assert members.shape == (3, 7)
    torch.testing.assert_close(proxy(crystals), members.mean(0))
    torch.testing.assert_close(proxy.std(crystals), 3 * members.std(0))
    torch.testing.assert_close(proxy.confidence_bound(crystals, -2.0), members.mean(0) - 6 * members.std(0))


def test_means_are_held_to_the_range_of_the_labels(proxy: EnsembleProxy, crystals: Crystals) -> None:
    free = proxy.members(crystals).double()
    low, high = free.quantile(0.2), free.quantile(0.8)
    proxy.low.fill_(float(low))
    proxy.high.fill_(float(high))
    held = proxy(crystals)
    torch.testing.assert_close(held, free.clamp(proxy.low, proxy.high).mean(0))
    assert not torch.equal(held, free.mean(0))


def test_each_member_is_a_network_of_its_own(proxy: EnsembleProxy, crystals: Crystals) -> None:
    x = (proxy.features(crystals) - proxy.shift) * proxy.scale
    for m in range(3):
        part = slice(8 * m, 8 * m + 8)
        hidden = x @ proxy.first[:, part] + proxy.offset[part]
        hidden = torch.relu(hidden + proxy.groups[crystals.space_group - 1, part])
        hidden = torch.relu(hidden @ proxy.weights[0][m] + proxy.biases[0][m])
        out = (hidden @ proxy.weights[1][m] + proxy.biases[1][m]).squeeze(1)
        torch.testing.assert_close(proxy.members(crystals)[m], out)


def test_unfamiliar_elements_add_to_the_spread_by_their_share(proxy: EnsembleProxy, crystals: Crystals) -> None:
    before, mean = proxy.std(crystals), proxy(crystals)
    proxy.unfamiliar[7] = 0.6  # oxygen
    share = crystals.composition[:, 7] / crystals.n_atoms
    torch.testing.assert_close(proxy.std(crystals), before + 0.6 * share)
    assert torch.equal(proxy(crystals), mean)


def test_intervals_hold_their_share_of_what_they_were_calibrated_on(proxy: EnsembleProxy) -> None:
    generator = torch.Generator().manual_seed(0)
    crystals = Crystals.cat([example_crystals()] * 300)
    stretch = 1 + 0.2 * torch.rand(len(crystals), 1, generator=generator, dtype=torch.float64)
    crystals = replace(crystals, lattice=torch.cat([crystals.lattice[:, :3] * stretch, crystals.lattice[:, 3:]], 1))
    mean, spread = proxy.moments(crystals)
    value = mean + 2 * spread * torch.randn(len(mean), generator=generator)
    proxy.calibrate((value - mean).abs(), spread)
    for share in (0.05, 0.5, 0.9, 0.95):
        low, high = proxy.interval(crystals, share)
        inside = ((low <= value) & (value <= high)).double().mean()
        assert float(inside) == pytest.approx(share, abs=0.003)
    within = (value - mean).abs() <= proxy.std(crystals)
    assert float(within.double().mean()) == pytest.approx(0.68, abs=0.003)


def test_members_that_agree_may_be_wrong(crystals: Crystals) -> None:
    proxy = EnsembleProxy("colour", "eV", members=2, width=4).requires_grad_(False)
    for parameter in proxy.parameters():
        parameter.zero_()
    assert float(proxy.std(crystals).max()) == 0
    proxy.calibrate(torch.linspace(0, 1, 21, dtype=torch.float64), torch.zeros(21, dtype=torch.float64))
    low, high = proxy.interval(crystals, 0.9)
    torch.testing.assert_close(high - low, torch.full_like(low, 1.8))


def test_intervals_end_at_the_range_of_the_labels(proxy: EnsembleProxy, crystals: Crystals) -> None:
    mean, spread = proxy.moments(crystals)
    proxy.calibrate(100 + mean.abs(), spread)
    proxy.low.fill_(0.0)
    assert float(proxy.interval(crystals)[0].min()) == 0


def test_intervals_that_cannot_be_given(proxy: EnsembleProxy, crystals: Crystals) -> None:
    with pytest.raises(RewardError, match="colour are not calibrated"):
        proxy.interval(crystals)
    with pytest.raises(RewardError, match="share=0.99.*0.05 to 0.95"):
        proxy.interval(crystals, 0.99)


def test_large_batches_go_through_in_parts(
    proxy: EnsembleProxy, crystals: Crystals, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = proxy(crystals)
    monkeypatch.setattr(ensemble, "CHUNK", 3)
    torch.testing.assert_close(proxy(crystals), whole)
    assert proxy(crystals[:0]).shape == (0,)


def test_a_proxy_makes_a_reward_that_keeps_the_contract(proxy: EnsembleProxy) -> None:
    check_reward(boltzmann(proxy, beta=8))


def test_the_dtype_is_that_of_the_lattice(proxy: EnsembleProxy, crystals: Crystals) -> None:
    assert proxy(crystals).dtype == torch.float64
    single = Crystals(crystals.space_group, crystals.composition, crystals.lattice.float())
    assert proxy(single).dtype == torch.float32


def test_another_device_is_named(proxy: EnsembleProxy, crystals: Crystals) -> None:
    with pytest.raises(RewardError, match="colour is on cpu and the crystals on meta"):
        proxy(crystals.to("meta"))


def test_a_saved_proxy_is_the_same_when_loaded(proxy: EnsembleProxy, crystals: Crystals, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="has not been saved"):
        proxy.config()
    values, spread = proxy(crystals), proxy.std(crystals)
    proxy.save(tmp_path / "mine")
    loaded = load_proxy(tmp_path / "mine")
    assert (loaded.name, loaded.unit) == ("colour", "eV")
    assert torch.equal(loaded(crystals), values) and torch.equal(loaded.std(crystals), spread)
    assert torch.equal(instantiate(loaded.config(), trust=None)(crystals), values)
    assert torch.equal(instantiate(proxy.config(), trust=None)(crystals), values)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == [WEIGHTS]  # nothing left aside


def test_damaged_weights_are_named(proxy: EnsembleProxy, tmp_path: Path) -> None:
    path = proxy.save(tmp_path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:5], b"", b"not weights at all, but a text"):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged"):
            load_proxy(tmp_path)


def rewritten(path: Path, **changes: str) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = {**file.metadata(), **changes}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata)


FOREIGN = {
    "format": ("pickle", "holds no proxy"),
    "version": ("99", "has version '99' of the format, this package reads 2"),
    "shape": ('{"members": 3, "width": 9}', "does not fit this package's model"),
}


@pytest.mark.parametrize("key", FOREIGN)
def test_foreign_weights_are_named(key: str, proxy: EnsembleProxy, tmp_path: Path) -> None:
    path = proxy.save(tmp_path)
    value, sentence = FOREIGN[key]
    rewritten(path, **{key: value})
    with pytest.raises(CheckpointError, match=sentence):
        load_proxy(tmp_path)


def test_weights_of_another_property_are_named(proxy: EnsembleProxy, tmp_path: Path) -> None:
    proxy.save(tmp_path)
    with pytest.raises(CheckpointError, match="predicts 'colour', not 'band_gap'"):
        EnsembleProxy.load(tmp_path, property="band_gap")


def test_weights_without_metadata_are_no_proxy(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match="holds no proxy"):
        load_proxy(tmp_path)
