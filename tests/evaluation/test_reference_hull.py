"""Hulls of known mixtures, and the same as the package's own fast hull."""

import numpy as np
import pytest

from crystalgfn.errors import DataError
from crystalgfn.evaluation.reference import Entry, Reference
from crystalgfn.evaluation.reference_hull import ReferenceHull
from crystalgfn.evaluation.samples import Item

LI, O, NA, CL = 3, 8, 11, 17  # noqa: E741


def test_a_binary_system():
    hull = ReferenceHull([((LI, 2), (O, 1)), ((LI, 2), (O, 2)), ((LI, 1), (O, 1)), ((LI, 1), (O, 3))],
                         [-2.0, -1.0, -1.7, 0.5])  # fmt: skip
    assert hull.energy(((LI, 4), (O, 2))) == pytest.approx(-2.0)
    assert hull.energy(((LI, 1), (O, 1))) == pytest.approx(-1.7)  # the lower of two of one formula
    assert hull.energy(((LI, 3), (O, 1))) == pytest.approx(-2.0 * 0.75)  # Li2O and lithium
    assert hull.above(((LI, 1), (O, 3)), 0.5) == pytest.approx(0.5 + 1.7 / 2)
    assert hull.above(((LI, 2), (O, 1)), -2.3) == pytest.approx(-0.3)  # new and stable
    assert hull.energy(((LI, 5),)) == 0 and hull.energy(((NA, 1), (CL, 1))) == 0
    assert hull.known_elements == {LI, O}


def test_it_is_the_hull_that_rewards_use():
    import torch

    from crystalgfn.proxies.exact_hull import ExactHull

    rng = np.random.default_rng(0)
    compositions = [tuple((z, int(n)) for z, n in zip((LI, O, NA, CL), rng.integers(0, 4, 4), strict=True) if n)
                    for _ in range(60)]  # fmt: skip
    compositions = [c for c in compositions if len(c) > 1]
    energies = rng.uniform(-2, 0.2, len(compositions))
    table = torch.zeros(len(compositions), 118)
    for row, pairs in zip(table, compositions, strict=True):
        for z, n in pairs:
            row[z - 1] = n
    fast, ours = ExactHull(table, torch.from_numpy(energies)), ReferenceHull(compositions, energies)
    assert [ours.energy(c) for c in compositions] == pytest.approx(fast.energy(table).tolist(), abs=1e-6)


def test_a_reference_without_energies_is_one_sentence():
    items = [Item("row 0", "atoms", None, 225, {"band_gap": 1.0})]
    reference = Reference.of("known.parquet", [Entry("row 0", ((LI, 1.0),), True, 225, items[0])])
    with pytest.raises(DataError, match=r"known.parquet has no numbers in a column e_form.*energy=<column>"):
        reference.energies("e_form")


@pytest.mark.slow
def test_mp20_s_own_energies_above_the_hull(shared_data):
    """Where the entries that make up a hull are in the files, it is the one that MP-20 names."""
    from crystalgfn.evaluation.samples import read_items

    entries, val = [], read_items(shared_data / "mp20" / "val.parquet")
    for item in [*read_items(shared_data / "mp20" / "train.parquet"), *val]:
        numbers, counts = np.unique(item.content.numbers, return_counts=True)
        pairs = tuple(zip(numbers.tolist(), counts.tolist(), strict=True))
        if np.isfinite(item.values["formation_energy_per_atom"]):
            entries.append((pairs, item.values["formation_energy_per_atom"]))
    hull = ReferenceHull([c for c, _ in entries], [e for _, e in entries])
    chosen = np.random.default_rng(0).choice(len(val), 200, replace=False)
    own = {i: np.unique(val[i].content.numbers, return_counts=True) for i in chosen}
    found = {
        i: hull.above(
            tuple(zip(*map(np.ndarray.tolist, pair), strict=True)), val[i].values["formation_energy_per_atom"]
        )
        for i, pair in own.items()
    }
    gaps = np.array([found[i] - val[i].values["e_above_hull"] for i in chosen])
    assert (np.abs(gaps) < 0.02).mean() > 0.6
