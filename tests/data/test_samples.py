"""Whatever people keep crystals in is read, what is broken is named, and what is missing is said in a sentence."""

import warnings

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure
from structure_fixtures import cif_of

from crystalgfn.crystallography.atoms import Record, SkippedRecord
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.data.formats.cif import parse
from crystalgfn.data.formats.cif_symmetry import claimed_group
from crystalgfn.data.reader import crystals
from crystalgfn.errors import DataError, NotAvailable

SALT = OrbitStructure(225, (5.64, 5.64, 5.64, 90.0, 90.0, 90.0), (Orbit("a", 11), Orbit("b", 17))).to_structure()
HALF = Structure(Lattice.cubic(4.2), [{"Li": 0.5, "Fe": 0.5}, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def write(structure, path) -> None:
    """A CIF as pymatgen writes it, all of it in P 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about labels
        path.write_text(structure.to(fmt="cif"))


def read(path) -> list[Record | SkippedRecord]:
    return list(crystals(path))


def test_a_folder_of_cifs_with_a_broken_one(tmp_path):
    (tmp_path / "a.cif").write_text(cif_of(SALT, 225))
    write(HALF, tmp_path / "b.cif")
    (tmp_path / "c.cif").write_text("data_nothing\n_cell_length_a 3\n")
    (tmp_path / "notes.txt").write_text("not a crystal")
    (tmp_path / "a.vasp").write_text("the same crystals in another format")
    salt, half, broken = read(tmp_path)
    assert salt.structure.matches(SALT) and salt.space_group == 225
    assert not half.structure.is_ordered and half.structure.composition.reduced_formula == "Li0.5Fe0.5O1"
    assert isinstance(broken, SkippedRecord) and broken.where == "c.cif" and "CIF" in broken.reason


def test_extended_xyz_frame_by_frame(tmp_path):
    lattice = " ".join(str(x) for x in SALT.lattice.matrix.ravel())
    atoms = "\n".join(f"{s.specie} {' '.join(map(str, s.coords))}" for s in SALT)
    good = f'{len(SALT)}\nLattice="{lattice}" Properties=species:S:1:pos:R:3 space_group=225 pbc="T T T"\n{atoms}\n'
    molecule = "2\nProperties=species:S:1:pos:R:3\nH 0 0 0\nH 0 0 0.74\n"
    (tmp_path / "some.extxyz").write_text(good + molecule + "what is this\n")
    salt, molecule, lost = read(tmp_path / "some.extxyz")
    assert salt.structure.matches(SALT) and salt.space_group == 225 and salt.where == "some.extxyz, frame 0 (line 1)"
    assert "no Lattice" in molecule.reason and "lost" in lost.reason


def test_without_ase_it_says_so(tmp_path, monkeypatch):
    (tmp_path / "some.xyz").write_text("1\n\nH 0 0 0\n")
    monkeypatch.setitem(__import__("sys").modules, "ase.io", None)
    with pytest.raises(NotAvailable, match="pip install ase"):
        read(tmp_path / "some.xyz")


def test_a_run_with_what_its_table_says(tmp_path):
    (tmp_path / "cifs").mkdir()
    (tmp_path / "cifs" / "0.cif").write_text(cif_of(SALT, 225))
    table = {"space_group": [225, 62], "formation_energy": [-2.1, -1.0], "a": [5.6, 4.0]}
    files = {"file": ["cifs/0.cif", None], "error": [None, "no room"]}
    pd.DataFrame({**table, **files}).to_parquet(tmp_path / "table.parquet")
    salt, missing = read(tmp_path)
    assert salt.where == "cifs/0.cif" and salt.numbers == {"formation_energy": -2.1} and salt.space_group == 225
    assert (missing.where, missing.reason) == ("row 1", "no room")


def test_parquet_with_atoms_and_csv_with_cifs(tmp_path):
    cell = dict(zip(("a", "b", "c", "alpha", "beta", "gamma"), SALT.lattice.parameters, strict=True))
    row = {f"prim_{k}": v for k, v in cell.items()} | {"energy": -2.0, "spacegroup": 225}
    row |= {"Z": [s.specie.Z for s in SALT], "frac": SALT.frac_coords.ravel().tolist()}
    pd.DataFrame([row]).to_parquet(tmp_path / "a.parquet")
    (one,) = read(tmp_path / "a.parquet")
    assert one.structure.matches(SALT) and one.space_group == 225 and one.numbers == {"energy": -2.0}
    pd.DataFrame({"cif": [cif_of(SALT, 225), None], "gap": [5.0, 1.0]}).to_csv(tmp_path / "a.csv")
    good, empty = read(tmp_path / "a.csv")
    assert good.structure.matches(SALT) and good.numbers["gap"] == 5.0 and empty.reason == "cif is empty"


def test_what_is_no_crystal_is_named(tmp_path):
    flat = Structure(Lattice.from_parameters(3, 3, 1e-4, 90, 90, 90), ["Na"], [[0, 0, 0]])
    write(flat, tmp_path / "flat.cif")
    dummy = Structure(Lattice.cubic(3), ["X"], [[0, 0, 0]])
    write(dummy, tmp_path / "x.cif")
    assert all(isinstance(one, SkippedRecord) for one in read(tmp_path))


@pytest.mark.parametrize(
    ("tag", "group"),
    [
        ("_symmetry_Int_Tables_number 62", 62),
        ("_space_group_IT_number   '225'", 225),
        ("_symmetry_space_group_name_H-M 'P n m a'", 62),
        ("_space_group_name_H-M_alt \"F m -3 m\"", 225),
        ("_symmetry_Int_Tables_number 999", 0),
        ("_cell_length_a 3.0", 0),
    ],
)  # fmt: skip
def test_the_group_that_a_cif_names(tag, group):
    ((_, tags),) = parse(f"data_x\n{tag}\n_cell_length_b 4\n")
    assert claimed_group(tags) == group


@pytest.mark.parametrize("kind", ["nowhere", "empty", "texts", "shards", "no files", "other"])
def test_sources_without_crystals_are_refused_in_a_sentence(kind, tmp_path):
    words = {"nowhere": "no file or folder", "empty": "holds no", "texts": "holds no", "shards": "no atoms"}
    words |= {"no files": "structures=true", "other": "give one of these"}
    path = tmp_path / "source"
    if kind == "other":
        path.write_text("hello")
    elif kind != "nowhere":
        path.mkdir()
    if kind == "texts":
        (path / "readme.txt").write_text("hello")
    if kind == "shards":
        (path / "shards").mkdir()
        (path / "manifest.json").write_text("{}")
    if kind == "no files":
        pd.DataFrame({"space_group": [1], "file": pd.Series([None], dtype="str")}).to_parquet(path / "table.parquet")
    with pytest.raises(DataError, match=words[kind]):
        read(path)


def test_oxidation_states_are_dropped(tmp_path):
    write(SALT.copy().add_oxidation_state_by_element({"Na": 1, "Cl": -1}), tmp_path / "a.cif")
    (one,) = read(tmp_path)
    assert {str(e) for e in one.structure.composition} == {"Na", "Cl"}
    assert np.isclose(one.structure.volume, SALT.volume)
