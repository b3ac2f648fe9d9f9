from pathlib import Path

import pytest
import torch

from crystalgfn import check_reward, rewards
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.elements import NUMBER
from crystalgfn.errors import CheckpointError, NotAvailable, RewardError
from crystalgfn.properties.base import describe
from crystalgfn.rewards import DistanceToData, load_distance
from crystalgfn.rewards.base import example_crystals


def crystals(n: int, size: float = 4.0, **counts: int) -> Crystals:
    composition = torch.zeros(n, 118, dtype=torch.int64)
    for symbol, count in counts.items():
        composition[:, NUMBER[symbol] - 1] = count
    length = size * (1 + 0.01 * torch.linspace(-1, 1, n).double())
    return Crystals(
        torch.full((n,), 221), composition, torch.stack([*[length] * 3, *[torch.full_like(length, 90)] * 3], 1)
    )


@pytest.fixture
def distance() -> DistanceToData:
    """To two families: lithium chloride and lithium sulfide."""
    return DistanceToData.fit(Crystals.cat([crystals(40, Li=1, Cl=1), crystals(40, 5.0, Li=2, S=1)]), n_centres=2)


def test_the_data_are_near_and_others_far(distance: DistanceToData) -> None:
    near = distance(Crystals.cat([crystals(40, Li=1, Cl=1), crystals(40, 5.0, Li=2, S=1)]))
    assert float((near == 0).double().mean()) == pytest.approx(0.9, abs=0.03)
    other = [crystals(1, 4.2, Li=1, Cl=1), crystals(1, 6.0, Li=1, Cl=1), crystals(1, Au=1)]
    close, strained, gold = distance(Crystals.cat(other)).tolist()
    assert 0 < close < strained and gold > close
    # two formula units in twice the volume are the same crystal to it
    double = crystals(1, 4 * 2 ** (1 / 3), Li=2, Cl=2)
    torch.testing.assert_close(distance(double), distance(crystals(1, Li=1, Cl=1)))


def test_centres_are_means(distance: DistanceToData) -> None:
    shares = distance.centres[:, :118].square().sum(1)
    torch.testing.assert_close(shares, torch.ones(2).double())
    assert distance.centres.shape == (2, 119)
    with pytest.raises(RewardError, match="32 centres need at least 128 crystals, not 20"):
        DistanceToData.fit(crystals(20, Li=1))


def test_it_makes_a_reward(distance: DistanceToData) -> None:
    check_reward(rewards.boltzmann(distance, beta=2))
    assert not distance(example_crystals()).requires_grad
    with pytest.raises(RewardError, match="lies in no file"):
        distance.config()


def test_it_is_saved_and_loaded(distance: DistanceToData, tmp_path: Path) -> None:
    from crystalgfn.utils.instantiate import instantiate

    distance.save(tmp_path / "mine")
    loaded = instantiate(describe(load_distance(tmp_path / "mine")), trust=None)
    torch.testing.assert_close(loaded(example_crystals()), distance(example_crystals()))


def test_files_that_hold_none(distance: DistanceToData, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(CheckpointError, match="damaged"):
        load_distance(tmp_path)
    (tmp_path / "distance.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="damaged"):
        load_distance(tmp_path)
    save_file({"weight": torch.zeros(1)}, tmp_path / "distance.safetensors")
    with pytest.raises(CheckpointError, match="does not hold a distance"):
        load_distance(tmp_path)
    with pytest.raises(NotAvailable, match="'band_gap' has no distance"):
        load_distance("band_gap")
