"""Hulls of known mixtures, and the same as the package's own fast hull."""

import numpy as np
import pandas as pd
import pytest

from crystalgfn.data.samples import Item
from crystalgfn.data.structures import CELL
from crystalgfn.errors import DataError
from crystalgfn.evaluation.reference import Entry, Reference
from crystalgfn.properties.convex_hull import ReferenceHull

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

    from crystalgfn.properties.convex_hull import ExactHull

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
    from crystalgfn.data.samples import read_items

    files = [shared_data / "mp20" / f"{name}.parquet" for name in ("train", "val")]
    hull, val = ReferenceHull(*Reference.read(files).energies("formation_energy_per_atom")), read_items(files[1])
    chosen = np.random.default_rng(0).choice(len(val), 200, replace=False)
    own = {i: np.unique(val[i].content.numbers, return_counts=True) for i in chosen}
    found = {
        i: hull.above(
            tuple(zip(*map(np.ndarray.tolist, pair), strict=True)), val[i].values["formation_energy_per_atom"]
        )
        for i, pair in own.items()
    }
    gaps = np.array([found[i] - val[i].values["e_above_hull"] for i in chosen])
    print(f"within 0.02: {(np.abs(gaps) < 0.02).mean():.3f}, too low {(gaps < -0.02).mean():.3f}")
    assert (np.abs(gaps) < 0.02).mean() > 0.8


def test_rows_without_atoms_count_for_the_hull(tmp_path):
    """A table may hold the energy of a compound whose atoms it leaves out."""
    cell = {f"prim_{name}": [4.0, None] if len(name) == 1 else [90.0, None] for name in CELL}
    rows = {"formula": ["LiCl", "NaCl"], "Z": [[LI, CL], None], "frac": [[0, 0, 0, 0.5, 0.5, 0.5], None],
            "formation_energy_per_atom": [-2.0, -2.1], **cell}  # fmt: skip
    pd.DataFrame(rows).to_parquet(tmp_path / "known.parquet")
    other = {"formula": ["Li2O"], "Z": [[LI, LI, O]], "frac": [[0.25] * 3 + [0.75] * 3 + [0.0] * 3],
             "formation_energy_per_atom": [-1.9]}  # fmt: skip
    first = {name: values[:1] for name, values in cell.items()}
    pd.DataFrame({**other, **first}).to_parquet(tmp_path / "more.parquet")
    one = Reference.read(tmp_path / "known.parquet")
    assert [entry.where for entry in one.entries] == ["row 0"] and not one.errors
    hull = ReferenceHull(*one.energies("formation_energy_per_atom"))
    assert hull.n_entries == 2 and hull.energy(((NA, 2), (CL, 2))) == pytest.approx(-2.1)
    assert hull.energy(((LI, 2), (O, 1))) == 0
    both = Reference.read([tmp_path / "known.parquet", tmp_path / "more.parquet"])
    assert [entry.where for entry in both.entries] == ["known.parquet, row 0", "more.parquet, row 0"]
    hull = ReferenceHull(*both.energies("formation_energy_per_atom"))
    assert hull.n_entries == 3 and hull.energy(((LI, 2), (O, 1))) == pytest.approx(-1.9)
    pd.DataFrame({**rows, "formula": ["LiCl", "salt"]}).to_parquet(tmp_path / "wrong.parquet")
    with pytest.raises(DataError, match="'salt' is no formula"):
        Reference.read(tmp_path / "wrong.parquet")
