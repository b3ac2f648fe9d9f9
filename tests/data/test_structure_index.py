"""The index of real crystals: round trips, files, what is left out."""

import numpy as np
import pandas as pd
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from crystalgfn.crystallography.atoms import SkippedRecord, atoms_of
from crystalgfn.crystallography.convert import fingerprint, formula_of, orbit_structure
from crystalgfn.data import structure_index
from crystalgfn.data.reader import records
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.errors import DataError
from crystalgfn.structures.config import templates_of

ROCK_SALT = Structure.from_spacegroup(225, Lattice.cubic(5.64), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
FLUORITE = Structure.from_spacegroup(225, Lattice.cubic(5.46), ["Ca", "F"], [[0] * 3, [0.25] * 3])
RUTILE = Structure.from_spacegroup(136, Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]])


def orbits(structure):
    return orbit_structure(atoms_of("here", structure))


@pytest.mark.parametrize("structure", [ROCK_SALT, FLUORITE, RUTILE])
def test_round_trip(structure):
    """A structure in any cell and origin comes back as the same crystal."""
    moved = structure.get_primitive_structure()
    moved.translate_sites(list(range(len(moved))), [0.11, 0.23, 0.37])
    found = orbits(moved)
    assert StructureMatcher(scale=False, stol=0.01).fit(found.to_structure(), structure)
    assert np.allclose(fingerprint(found), fingerprint(orbits(structure)), atol=1e-4)


def test_real_crystals_come_back(shared_data):
    matcher = StructureMatcher(scale=False, stol=0.1)
    table = pd.read_parquet(shared_data / "mp20" / "val.parquet").sample(25, random_state=3)
    for row in table.itertuples():
        cell = Lattice.from_parameters(*(getattr(row, f"prim_{x}") for x in ("a", "b", "c", "alpha", "beta", "gamma")))
        structure = Structure(cell, row.Z, np.reshape(row.frac, (-1, 3)))
        found = orbits(structure)
        assert found.space_group == row.spacegroup
        assert matcher.fit(found.to_structure(), structure), row.formula


def test_an_index_is_what_was_put_in_also_from_a_file(tmp_path):
    index = Prototypes.of(
        [orbits(s) for s in (ROCK_SALT, FLUORITE, RUTILE)], filed=[225, 0, 136], errors=["row 3: bad"]
    )
    index.save(tmp_path / "index.npz")
    again = Prototypes.read(tmp_path / "index.npz")
    assert again.errors == ("row 3: bad",) and again.formulas() == ["Cl1Na1", "Ca1F2", "O2Ti1"]
    for one, other in zip(index, again, strict=True):
        assert one == other and formula_of(one) in again.formulas()
    assert again.volume_per_atom == pytest.approx([5.64**3 / 8, 5.46**3 / 12, 4.59**2 * 2.96 / 6])
    assert list(again.by_counts) == [(225, (1, 1)), (225, (1, 2)), (136, (2, 4))]
    second = again.select([2, 1])
    assert [s.space_group for s in second] == [136, 225] and np.array_equal(second.fingerprint(0), again.fingerprint(2))


def test_crystals_of_a_file_held_out_are_left_out():
    index = Prototypes.of([orbits(s) for s in (ROCK_SALT, FLUORITE, RUTILE)], filed=[221, 0, 136])
    assert index.without([("Cl1Na1", 221)]).formulas() == ["Ca1F2", "O2Ti1"]  # by the group of the source
    assert index.without([("Cl1Na1", 225), ("O2Ti1", 225)]).formulas() == ["Ca1F2", "O2Ti1"]


def test_joined_indices_are_in_order():
    one, two = Prototypes.of([orbits(ROCK_SALT)]), Prototypes.of([orbits(RUTILE), orbits(FLUORITE)])
    joined = Prototypes.join([one, two])
    assert joined.formulas() == ["Cl1Na1", "O2Ti1", "Ca1F2"] and joined[1] == two[0]
    assert np.allclose(joined.fingerprint(2), two.fingerprint(1))


def test_several_sources_are_one_index_without_what_is_known(tmp_path):
    for name, own in {"one": (ROCK_SALT, RUTILE), "two": (FLUORITE, ROCK_SALT)}.items():
        Prototypes.of([orbits(s) for s in own]).save(tmp_path / f"{name}.npz")
    index = Prototypes.read([tmp_path / "one.npz", tmp_path / "two.npz"])
    assert index.formulas() == ["Cl1Na1", "O2Ti1", "Ca1F2"]
    assert set(templates_of([str(tmp_path / "one.npz"), str(tmp_path / "two.npz")]).index.formulas()) == set(
        index.formulas()
    )
    with pytest.raises(DataError, match="no source of crystals is named"):
        Prototypes.read([])
    with pytest.raises(DataError, match="three"):
        Prototypes.read([tmp_path / "one.npz", tmp_path / "three.npz"])


def test_a_folder_of_cifs_with_bad_ones(tmp_path):
    ROCK_SALT.to(tmp_path / "salt.cif", fmt="cif")
    disordered = Structure(Lattice.cubic(4), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    disordered.to(tmp_path / "alloy.cif", fmt="cif")
    (tmp_path / "broken.cif").write_text("not a crystal")
    Structure(Lattice.cubic(5), ["H", "O"], [[0, 0, 0], [0.02, 0.02, 0.02]]).to(tmp_path / "close.cif", fmt="cif")
    index = Prototypes.build(tmp_path)
    assert index.formulas() == ["Cl1Na1"]
    assert [e.split(":")[0] for e in index.errors] == ["alloy.cif", "broken.cif", "close.cif"]
    assert "disordered" in index.errors[0] and "Å apart" in index.errors[2]
    assert all("\n" not in e for e in index.errors)


def test_an_index_is_kept_beside_a_hash_of_its_source(tmp_path):
    ROCK_SALT.to(tmp_path / "salt.cif", fmt="cif")
    made = Prototypes.read(tmp_path, cache=tmp_path / "kept")
    files = list((tmp_path / "kept").iterdir())
    assert len(files) == 1 and Prototypes.read(files[0])[0] == made[0]
    RUTILE.to(tmp_path / "rutile.cif", fmt="cif")
    assert len(Prototypes.read(tmp_path, cache=tmp_path / "kept")) == 2


def test_a_large_source_is_standardised_once_also_by_another_process(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ROCK_SALT.to(tmp_path / "salt.cif", fmt="cif")
    Prototypes.read(tmp_path / "salt.cif")
    assert not (tmp_path / "cache").exists()  # one crystal is not worth a file
    monkeypatch.setattr(structure_index, "FEWEST", 1)
    made = Prototypes.read(tmp_path / "salt.cif")
    (kept,) = (tmp_path / "cache" / "crystalgfn").iterdir()
    monkeypatch.setattr(Prototypes, "build", None)
    assert Prototypes.read(tmp_path / "salt.cif")[0] == made[0]
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept.write_bytes(b"damaged")
    assert Prototypes.read(tmp_path / "salt.cif")[0] == made[0]


def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(structure_index, "FEWEST", 1)
    ROCK_SALT.to(tmp_path / "salt.cif", fmt="cif")
    with pytest.warns(UserWarning, match="the index of crystals cannot be kept in"):
        assert len(Prototypes.read(tmp_path / "salt.cif")) == 1


def test_csv_with_cifs(tmp_path):
    table = pd.DataFrame({"cif": [ROCK_SALT.to(fmt="cif"), None, RUTILE.to(fmt="cif")], "spacegroup": [225, 1, 136]})
    table.to_csv(tmp_path / "table.csv")
    entries = list(records(tmp_path / "table.csv"))
    assert [isinstance(e, SkippedRecord) for e in entries] == [False, True, False]
    assert entries[2].space_group == 136 and str(entries[1]) == f"line {3 + table.cif[0].count(chr(10))}: cif is empty"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.parquet", None, "there is no file or folder"),
        ("table.txt", "x", "of a kind that is not read; give one of these: .cif"),
        ("table.csv", "a,b\n1,2\n", "has no column cif; it has a, b"),
        ("table.parquet", "x", "cannot be read as Parquet"),
        ("index.npz", "x", "is no index of crystals"),
        ("missing.npz", None, "there is no index of crystals"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        Prototypes.read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_folder_without_cifs(tmp_path):
    with pytest.raises(DataError, match="holds no .cif file"):
        Prototypes.build(tmp_path)
