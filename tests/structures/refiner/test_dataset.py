"""Crystals for training: read, standardised, kept, and refused."""

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.errors import DataError
from crystalgfn.structures.refiner import dataset

COLUMNS = [f"prim_{name}" for name in ("a", "b", "c", "alpha", "beta", "gamma")]
ROCK_SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
CAESIUM = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
RUTILE = Structure.from_spacegroup("P4_2/mnm", Lattice.tetragonal(4.6, 2.96), ["Ti", "O"], [[0, 0, 0], [0.3, 0.3, 0]])


def table(path, structures, groups):
    rows = []
    for structure, group in zip(structures, groups, strict=True):
        cell = dict(zip(COLUMNS, structure.lattice.parameters, strict=True))
        z = [site.specie.Z for site in structure]
        rows.append({"spacegroup": group, "Z": z, "frac": structure.frac_coords.ravel(), **cell})
    pd.DataFrame(rows).to_parquet(path)
    return path


def test_a_parquet_file(tmp_path):
    source = table(tmp_path / "a.parquet", [ROCK_SALT, CAESIUM, RUTILE], [225, 221, 136])
    held_out = table(tmp_path / "b.parquet", [CAESIUM], [221])
    counts = dataset.prepare([source], tmp_path / "a.npz", held_out)
    assert counts == {"used": 2, "held_out": 1, "too_large": 0, "bad": 0}
    (salt, rutile), about = dataset.load_prepared(tmp_path / "a.npz")
    assert (salt.space_group, salt.composition) == (225, {11: 1, 17: 1})
    assert rutile.wyckoff() == {"Ti": ["a"], "O": ["f"]} and rutile.lattice == pytest.approx(
        (4.6, 4.6, 2.96, 90, 90, 90)
    )
    (oxygen,) = [orbit for orbit in rutile.orbits if orbit.species == 8]
    assert oxygen.parameters[0] % 0.4 == pytest.approx(0.3, abs=1e-6)  # 0.3 or 0.7
    assert about["sources"] == ["a.parquet"] and about["held_out"] == 1
    assert dataset.pairs(tmp_path / "a.npz") == {("Cl1Na1", 225), ("O2Ti1", 136)}
    again = dataset.prepare([source], tmp_path / "c.npz", tmp_path / "a.npz")
    assert (again["used"], again["held_out"]) == (1, 2)
    assert dataset.prepare([source], tmp_path / "d.npz", max_atoms=4)["too_large"] == 1


def test_a_folder_of_cifs(tmp_path):
    RUTILE.to_file(str(tmp_path / "rutile.cif"))
    ROCK_SALT.get_primitive_structure().to_file(str(tmp_path / "salt.cif"))
    assert dataset.prepare([tmp_path], tmp_path / "x.npz")["used"] == 2
    structures, _ = dataset.load_prepared(tmp_path / "x.npz")
    assert sorted(s.space_group for s in structures) == [136, 225]


def test_saved_structures_come_back(tmp_path, random_orbits):
    dataset.save(tmp_path / "x.npz", random_orbits, {"bad": 0})
    assert dataset.load_prepared(tmp_path / "x.npz")[0] == random_orbits


def test_letters_beyond_z(tmp_path):
    structure = OrbitStructure(47, (5.0, 6.0, 7.0, 90.0, 90.0, 90.0), (Orbit("A", 8, (0.1, 0.2, 0.3)),))
    dataset.save(tmp_path / "x.npz", [structure], {})
    assert dataset.load_prepared(tmp_path / "x.npz")[0] == [structure]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not a cif", "bad.cif: not a CIF that can be read"),
        (None, "bad.cif: .* is disordered"),
        ("close", "bad.cif: two atoms are 0.30 Å apart"),
    ],
)
def test_structures_that_cannot_be_used(tmp_path, text, words):
    RUTILE.to_file(str(tmp_path / "rutile.cif"))
    path = tmp_path / "bad.cif"
    if text is None:
        Structure(Lattice.cubic(4), [{"Na": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to_file(str(path))
    elif text == "close":
        Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.0, 0.0, 0.075]]).to_file(str(path))
    else:
        path.write_text(text)
    with pytest.raises(DataError, match=words):
        dataset.prepare([tmp_path], tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()
    assert dataset.prepare([tmp_path], tmp_path / "x.npz", skip_bad=True) == {
        "used": 1, "held_out": 0, "too_large": 0, "bad": 1,
    }  # fmt: skip


def test_sources_that_cannot_be_used(tmp_path):
    pd.DataFrame({"Z": [[1]]}).to_parquet(tmp_path / "few.parquet")
    (tmp_path / "text.parquet").write_text("no")
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("few.parquet", "no column frac"),
        ("text.parquet", "cannot be read as Parquet"),
        ("missing.parquet", "there is no file or folder"),
        ("table.csv", "there is no file or folder"),
        ("empty", "holds no .cif file"),
    ):
        with pytest.raises(DataError, match=words):
            dataset.prepare([tmp_path / name], tmp_path / "x.npz")
    source = table(tmp_path / "a.parquet", [ROCK_SALT], [225])
    with pytest.raises(DataError, match=r"no crystal is left to train on \(1 in .*a.parquet too\); give others"):
        dataset.prepare([source], tmp_path / "x.npz", source)
    with pytest.raises(DataError, match=r"\(1 above max_atoms=1\)"):
        dataset.prepare([source], tmp_path / "x.npz", max_atoms=1)


def test_files_that_hold_something_else(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    (tmp_path / "y.npz").write_text("no")
    for name in ("x.npz", "y.npz", "z.npz"):
        with pytest.raises(DataError, match="prepared crystals"):
            dataset.load_prepared(tmp_path / name)


def test_the_largest_cell_that_is_allowed_is_used(tmp_path):
    source = table(tmp_path / "a.parquet", [RUTILE], [136])
    assert dataset.prepare([source], tmp_path / "x.npz", max_atoms=6) == {
        "used": 1, "held_out": 0, "too_large": 0, "bad": 0,
    }  # fmt: skip
    with pytest.raises(DataError):
        dataset.prepare([source], tmp_path / "y.npz", max_atoms=5)
