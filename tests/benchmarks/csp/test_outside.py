"""Crystals to find in files of several kinds, and structures that other programs predicted for them."""

import json

import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

from crystalgfn.benchmarks.csp import run, tasks
from crystalgfn.benchmarks.csp.outside import Outside
from crystalgfn.benchmarks.csp.scores import csp_figures
from crystalgfn.errors import DataError

SALT = Structure.from_spacegroup(225, Lattice.cubic(5.64), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
DENSE = Structure.from_spacegroup(221, Lattice.cubic(3.4), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
RUTILE = Structure.from_spacegroup(136, Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0] * 3, [0.305, 0.305, 0]])
CRYSTALS = (SALT, RUTILE, DENSE)


def text(structure):
    return str(CifWriter(structure))


def as_parquet(path):
    import pandas as pd

    rows = []
    for structure in CRYSTALS:
        cell = dict(zip(("a", "b", "c", "alpha", "beta", "gamma"), structure.lattice.parameters, strict=True))
        atoms = {"Z": [site.specie.Z for site in structure], "frac": structure.frac_coords.ravel().tolist()}
        rows.append({**{f"prim_{name}": value for name, value in cell.items()}, **atoms})
    pd.DataFrame(rows).assign(e_above_hull=[0.0, 0.0, 0.1]).to_parquet(path / "val.parquet")
    return path / "val.parquet", ["row 0", "row 1", "row 2"], 0.1


def as_csv(path):
    import pandas as pd

    table = pd.DataFrame({"material_id": ["x", "y", "z"], "e_above_hull": [0.0, None, 0.1]})
    table.assign(cif=[text(one) for one in CRYSTALS]).to_csv(path / "val.csv")
    return path / "val.csv", ["row 0", "row 1", "row 2"], 0.1


def as_folder(path):
    for name, structure in zip(("a_1", "b", "c"), CRYSTALS, strict=True):
        (path / f"{name}.cif").write_text(text(structure))
    return path, ["a_1.cif", "b.cif", "c.cif"], None


@pytest.mark.parametrize("kind", [as_parquet, as_csv, as_folder])
def test_every_kind_of_source_asks_the_same(kind, tmp_path):
    source, names, above = kind(tmp_path)
    one, other, dense = tasks.targets(source).crystals
    assert [one.where, other.where, dense.where] == names
    assert [q.orbits.space_group for q in (one, other, dense)] == [225, 136, 221]
    assert set(one.known) == {names[2]} and set(dense.known) == {names[0]} and other.known == {}
    assert one.polymorphs == dense.polymorphs == (names[0], names[2]) and other.polymorphs == (names[1],)
    assert dense.e_above_hull == above
    (drawn,) = tasks.targets(source, 1, seed=0).crystals  # polymorphs are those of the whole source
    assert len(drawn.polymorphs) == (1 if drawn.where == names[1] else 2)


def test_copies_are_one_polymorph():
    turned = SALT.copy()
    turned.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 1]])
    assert tasks.distinct({"a": SALT, "b": turned, "c": DENSE}) == ("a", "c")


def test_crystals_that_cannot_be_asked_for_are_named(tmp_path):
    source, _, _ = as_folder(tmp_path)
    (source / "broken.cif").write_text("hello")
    asked = tasks.targets(source)
    assert len(asked.crystals) == 3 and [one.where for one in asked.skipped] == ["broken.cif"]
    for file in source.glob("[!b]*.cif"):
        file.unlink()
    (source / "b.cif").unlink()
    with pytest.raises(DataError, match="holds no crystal with atoms; the first: broken.cif"):
        tasks.targets(source)


@pytest.fixture
def asked(tmp_path):
    (tmp_path / "data").mkdir()
    return tasks.targets(as_parquet(tmp_path / "data")[0]).crystals


def test_structures_of_another_program(asked, tmp_path):
    """A whole answer in ranks, one broken and one of another formula in the middle, and none for the last crystal."""
    folder = tmp_path / "theirs"
    (folder / "1").mkdir(parents=True)
    (folder / "0_2.cif").write_text(text(DENSE))
    (folder / "0_10.cif").write_text(text(SALT))  # the third by rank, the second by spelling
    (folder / "0_3.cif").write_text("data_x\n_cell_length_a what")
    (folder / "1" / "0.cif").write_text(text(SALT))
    (folder / "1" / "1.cif").write_text(text(RUTILE))
    (folder / "1" / "notes.cif").write_text("")
    (folder / "77.cif").write_text(text(SALT))  # no crystal that is asked for
    theirs = Outside.of(folder, [q.where for q in asked], ("T4",))
    records = run.run_csp(asked, {"theirs": theirs}, k=5, out=tmp_path / "records.jsonl")
    assert [(r["where"], r["task"], len(r["rms"])) for r in records] == [
        ("row 0", "T4", 3),
        ("row 1", "T4", 2),
        ("row 2", "T4", 0),
    ]
    salt, rutile, dense = records
    assert [rms is not None for rms in salt["rms"]] == [False, False, True]
    assert [rms is not None for rms in salt["known"]["row 2"]] == [True, False, False]
    assert [rms is not None for rms in rutile["rms"]] == [False, True]
    assert "0_3.cif" in salt["faults"][0] and rutile["faults"] == ["1/0.cif: is NaCl, and O2Ti1 was asked for"]
    assert salt["seconds"] is None and salt["ratio"][1] is None

    found = csp_figures(records)
    (row,) = [row for row in found["rows"] if row["slice"] == "all crystals"]
    assert row["rate"]["value"][0] == 0.0 and row["rate"]["value"][2] == pytest.approx(2 / 3)
    assert row["metre"]["value"][0] == pytest.approx(1 / 3)  # DENSE, made for the salt
    assert (row["empty"], row["faulty"], row["seconds"]) == (pytest.approx(1 / 3), pytest.approx(2 / 5), None)
    assert found["recall"][0]["recall"]["value"][:3] == pytest.approx([0.25, 0.25, 0.5])

    # the same again is not read again; another folder by the same name is
    lines = (tmp_path / "records.jsonl").read_text()
    run.run_csp(asked, {"theirs": theirs}, k=5, out=tmp_path / "records.jsonl")
    assert (tmp_path / "records.jsonl").read_text() == lines
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "0.cif").write_text(text(SALT))
    more = Outside.of(tmp_path / "more", [q.where for q in asked], ("T4",))
    again = run.run_csp(asked, {"theirs": more}, k=5, out=tmp_path / "records.jsonl")
    assert [len(r["rms"]) for r in again] == [1, 0, 0] and again[0]["rms"][0] == pytest.approx(0, abs=1e-6)


def test_answers_of_another_data_set_are_not_taken(asked, tmp_path):
    """Rows of two files have the same names; a record is that of a crystal only where the crystal is the same."""
    out = tmp_path / "records.jsonl"
    run.run_csp(asked[:1], {"none": lambda what, k, seed: []}, ("T2",), out=out)
    record = {**json.loads(out.read_text()), "formula": "Fe1"}
    out.write_text(json.dumps(record) + "\n")
    (again,) = run.run_csp(asked[:1], {"none": lambda what, k, seed: [SALT]}, ("T2",), out=out)
    assert again["formula"] == "Cl1Na1" and again["rms"] == [pytest.approx(0, abs=1e-6)]


def test_a_name_of_a_row_goes_before_a_rank(tmp_path):
    for name in ("a_1", "a_2", "b_7"):
        (tmp_path / f"{name}.cif").write_text(text(SALT))
    found = Outside.of(tmp_path, ["a.cif", "a_1.cif", "b.cif"])
    assert {name: [file.rpartition("/")[2] for file in own] for name, own in found.files.items()} == {
        "a_1": ["a_1.cif"], "a": ["a_2.cif"], "b": ["b_7.cif"],
    }  # fmt: skip


def test_folders_that_answer_nothing(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        Outside.of(tmp_path / "nowhere", ["row 7"])
    (tmp_path / "first.cif").write_text(text(SALT))
    with pytest.raises(DataError, match=r"name those of the first of them 7.cif, 7_1.cif or 7/1.cif"):
        Outside.of(tmp_path, ["row 12", "row 7"])
