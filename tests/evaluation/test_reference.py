"""Hulls of references: those that pymatgen finds, of rows with atoms and without."""

import numpy as np
import pandas as pd
import pytest

from crystalgfn.crystallography.atoms import CELL, Record
from crystalgfn.crystallography.elements import SYMBOLS
from crystalgfn.errors import DataError
from crystalgfn.evaluation.metrics.compositions import composition_row
from crystalgfn.evaluation.reference import Entry, Reference
from crystalgfn.properties.energy_scale import scale_shift

LI, O, NA, CL = 3, 8, 11, 17  # noqa: E741


def entry(where, pairs, energy) -> Entry:
    item = Record(where, None, {"e_form": energy})
    return Entry(where=where, amounts=tuple((z, float(n)) for z, n in pairs), ordered=True, group=225, origin=item)


def reference_of(compositions, energies) -> Reference:
    rows = enumerate(zip(compositions, energies, strict=True))
    return Reference.of("known", [entry(f"row {i}", pairs, energy) for i, (pairs, energy) in rows])


def energy(hull, pairs) -> float:
    return float(hull.energy(composition_row(pairs)[None]))


def test_a_binary_system():
    hull = reference_of([((LI, 2), (O, 1)), ((LI, 2), (O, 2)), ((LI, 1), (O, 1)), ((LI, 1), (O, 3))],
                        [-2.0, -1.0, -1.7, 0.5]).hull("e_form", "mp2020")  # fmt: skip
    assert energy(hull, ((LI, 4), (O, 2))) == pytest.approx(-2.0)
    assert energy(hull, ((LI, 1), (O, 1))) == pytest.approx(-1.7)  # the lower of two of one formula
    assert energy(hull, ((LI, 3), (O, 1))) == pytest.approx(-2.0 * 0.75)  # Li2O and lithium
    assert 0.5 - energy(hull, ((LI, 1), (O, 3))) == pytest.approx(0.5 + 1.7 / 2)
    assert energy(hull, ((LI, 5),)) == 0 and energy(hull, ((NA, 1), (CL, 1))) == 0
    assert hull.known_elements == {LI, O} and hull.n_entries == 4


def test_it_is_the_hull_that_pymatgen_finds():
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    rng = np.random.default_rng(0)
    compositions = [tuple((z, int(n)) for z, n in zip((LI, O, NA, CL), rng.integers(0, 4, 4), strict=True) if n)
                    for _ in range(60)]  # fmt: skip
    compositions = [c for c in compositions if len(c) > 1]
    energies = rng.uniform(-2, 0.2, len(compositions))
    hull = reference_of(compositions, energies).hull("e_form", "mp2020")
    formulas = [Composition({SYMBOLS[z - 1]: n for z, n in pairs}) for pairs in compositions]
    entries = [PDEntry(one, float(e) * one.num_atoms) for one, e in zip(formulas, energies, strict=True)]
    entries += [PDEntry(Composition(SYMBOLS[z - 1]), 0.0) for z in (LI, O, NA, CL)]
    diagram = PhaseDiagram(entries)
    expected = [diagram.get_hull_energy_per_atom(one) for one in formulas]
    assert [energy(hull, c) for c in compositions] == pytest.approx(expected, abs=1e-6)


def test_crystals_are_compared_on_the_scale_of_the_charges():
    """Half of the sulfur of pyrite carries its charge, which the published constants do not know."""
    both = reference_of([((26, 1), (16, 1)), ((26, 1), (16, 2))], [-0.5, -0.6])
    own, published = both.hull("e_form"), both.hull("e_form", "mp2020")
    iron_sulfide, pyrite, between = (composition_row(((26, n), (16, m)))[None] for n, m in ((1, 1), (1, 2), (3, 4)))
    assert own.published.energy(pyrite) == published.energy(pyrite) == pytest.approx(-0.6)
    assert float(scale_shift(pyrite)) > 0.15
    mixture = 4 / 7 * (float(scale_shift(iron_sulfide)) - 0.5) + 3 / 7 * (float(scale_shift(pyrite)) - 0.6)
    assert float(own.energy(between)) == pytest.approx(mixture - float(scale_shift(between)), abs=1e-9)


def test_a_reference_without_energies_is_one_sentence():
    items = [Record("row 0", None, {"band_gap": 1.0})]
    reference = Reference.of(
        "known.parquet", [Entry(where="row 0", amounts=((LI, 1.0),), ordered=True, group=225, origin=items[0])]
    )
    with pytest.raises(DataError, match=r"known.parquet has no numbers in a column e_form.*energy=<column>"):
        reference.hull("e_form")


@pytest.mark.slow
def test_mp20_s_own_energies_above_the_hull(shared_data):
    """Where the entries that make up a hull are in the files, it is the one that MP-20 names."""
    from crystalgfn.data.reader import records

    files = [shared_data / "mp20" / f"{name}.parquet" for name in ("train", "val")]
    hull, val = Reference.read(files).hull("formation_energy_per_atom"), list(records(files[1]))
    chosen = np.random.default_rng(0).choice(len(val), 200, replace=False)
    own = {i: np.unique(val[i].known_atoms.numbers, return_counts=True) for i in chosen}
    found = {
        i: val[i].numbers["formation_energy_per_atom"] - energy(hull, zip(*map(np.ndarray.tolist, pair), strict=True))
        for i, pair in own.items()
    }
    gaps = np.array([found[i] - val[i].numbers["e_above_hull"] for i in chosen])
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
    hull = one.hull("formation_energy_per_atom")
    assert hull.n_entries == 2 and energy(hull, ((NA, 2), (CL, 2))) == pytest.approx(-2.1)
    assert energy(hull, ((LI, 2), (O, 1))) == 0
    both = Reference.read([tmp_path / "known.parquet", tmp_path / "more.parquet"])
    assert [entry.where for entry in both.entries] == ["known.parquet, row 0", "more.parquet, row 0"]
    hull = both.hull("formation_energy_per_atom")
    assert hull.n_entries == 3 and energy(hull, ((LI, 2), (O, 1))) == pytest.approx(-1.9)
    pd.DataFrame({**rows, "formula": ["LiCl", "salt"]}).to_parquet(tmp_path / "wrong.parquet")
    with pytest.raises(DataError, match="'salt' is no formula"):
        Reference.read(tmp_path / "wrong.parquet")
