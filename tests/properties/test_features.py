import numpy as np
import pytest
import torch

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.properties.features import LARGEST, Features, element_table, group_table, wyckoff_table
from crystalgfn.rewards.base import example_crystals


@pytest.fixture(scope="module")
def features() -> Features:
    return Features()


def test_tables_cover_every_element_and_group() -> None:
    table = element_table()
    assert table.shape == (118, 5) and np.isfinite(table).all()
    assert table[elements.NUMBER["F"] - 1, 0] == pytest.approx(3.98)
    kinds = group_table()
    assert kinds.shape == (230, 21) and np.isfinite(kinds).all()
    assert kinds[:, :13].sum(1).tolist() == [2.0] * 230  # one lattice system and one point symmetry each
    # Fm-3m in the International Tables: a 4, b 4, c 8, d 24 are fixed; e to i have one parameter, j and k two, l three.
    assert kinds[224, -4:].tolist() == [4, 5, 2, 1]
    assert np.exp(kinds[224, 13:17]) == pytest.approx([48, 4, 1, 6])


def test_statistics_are_those_of_the_atoms(features: Features) -> None:
    crystal = example_crystals()[5]  # YBa2Cu3O7
    row = features(crystal)[0]
    atoms = np.repeat(np.arange(118), crystal.composition[0].numpy())
    values = element_table()[atoms]
    assert row[:118].numpy() == pytest.approx(crystal.composition[0].numpy() / 13)
    expected = np.concatenate([values.mean(0), values.std(0), values.min(0), values.max(0)])
    assert row[118:138].numpy() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    pairs = np.abs(values[:, None, :2] - values[None, :, :2]).mean((0, 1))
    assert row[138:140].numpy() == pytest.approx(pairs, rel=1e-4)


def test_elements_beyond_the_first_five_count(features: Features) -> None:
    composition = torch.zeros(1, 118, dtype=torch.int64)
    composition[0, [0, 7, 10, 16, 25, 28, 50, 54]] = torch.tensor([1, 2, 3, 1, 2, 1, 4, 5])
    crystal = Crystals(torch.tensor([1]), composition, torch.tensor([[6.0, 7, 8, 91, 92, 93]]))
    values = element_table()[np.repeat(np.arange(118), composition[0].numpy())]
    row = features(crystal)[0]
    assert row[118:123].numpy() == pytest.approx(values.mean(0), rel=1e-5)
    assert row[128:138].numpy() == pytest.approx(np.concatenate([values.min(0), values.max(0)]), rel=1e-6)
    # ... and do not change what a crystal beside them is
    both = Crystals.cat([crystal, example_crystals()[1]])
    torch.testing.assert_close(features(both)[1], features(example_crystals()[1])[0])


def test_lattice_features_follow_the_volume(features: Features) -> None:
    crystals = example_crystals()
    scaled = torch.cat([crystals.lattice[:, :3] * 1.1, crystals.lattice[:, 3:]], 1)
    change = features(Crystals(crystals.space_group, crystals.composition, scaled)) - features(crystals)
    grown = float(np.log(1.1))
    expected = torch.zeros_like(change)
    start = features.size - 1 - 21 - 14  # ln volume per atom, ln packing, 3 ln lengths, 3 shape, 3 sorted, 3 cosines
    expected[:, start] = 3 * grown
    expected[:, start + 1] = -3 * grown
    expected[:, start + 2 : start + 5] = grown
    torch.testing.assert_close(change, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("z", range(1, 119))
def test_every_element_has_finite_features(z: int, features: Features) -> None:
    composition = torch.zeros(1, 118, dtype=torch.int64)
    composition[0, z - 1] = 20
    crystal = Crystals(torch.tensor([1]), composition, torch.tensor([[3.0, 4, 5, 80, 85, 89]]))
    assert torch.isfinite(features(crystal)).all()


def test_tables_are_of_the_package(features: Features) -> None:
    assert torch.equal(features.element_table[:, 1].double(), torch.tensor(elements.RADIUS).float().double())
    assert features.group_table[:, 14].exp().round().tolist() == space_groups.CENTRING.tolist()


def ways_to_place(positions: list, n: int) -> list[list]:
    """Every choice of positions for n atoms, by recursion over the positions."""
    if n == 0:
        return [[]]
    if not positions:
        return []
    first, *rest = positions
    most = n // first.primitive_multiplicity if first.n_free else min(1, n // first.primitive_multiplicity)
    return [
        [first] * k + others
        for k in range(most + 1)
        for others in ways_to_place(rest, n - k * first.primitive_multiplicity)
    ]


@pytest.mark.parametrize("number", [1, 2, 14, 62, 148, 194, 225, 227])
def test_what_an_element_may_do_is_what_an_enumeration_finds(number: int) -> None:
    table = wyckoff_table()[number - 1]
    assert table[0].tolist() == [0, 0, 0, 0]
    for n in range(1, 9):
        every = ways_to_place(list(space_groups.WYCKOFF[number - 1]), n)
        if not every:
            assert table[n].tolist() == [0, 0, 2, -1]
            continue
        free = [sum(p.n_free for p in one) for one in every]
        expected = [max(free) / n, min(free) / n, min(map(len, every)) / n, np.log1p(len(every))]
        assert table[n].tolist() == pytest.approx(expected, rel=1e-5)


def test_wyckoff_features_are_shares_of_the_atoms() -> None:
    features = Features(wyckoff=True)
    crystal = example_crystals()[5]  # YBa2Cu3O7
    table = wyckoff_table()[int(crystal.space_group[0]) - 1]
    counts = [1, 2, 3, 7]
    most, least, orbits, ways = ([float(table[n, i]) for n in counts] for i in range(4))
    expected = [sum(n * v for n, v in zip(counts, values, strict=True)) / 13 for values in (most, least, orbits)]
    expected += [min(most), sum(n * v for n, v in zip(counts, ways, strict=True)) / 13]
    assert features(crystal)[0, -5:].tolist() == pytest.approx(expected, rel=1e-5)
    many = Crystals(torch.tensor([1]), crystal.composition * LARGEST, torch.tensor([[40.0, 40, 40, 90, 90, 90]]))
    assert features(many)[0, -5:].tolist() == pytest.approx([3, 3, 1, 3, np.log(2)], rel=1e-5)
