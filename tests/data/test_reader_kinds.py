"""Further instances of each kind of fault of files: another crystal is never read in silence."""

import json
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Lattice, Structure

from crystalgfn.crystallography.atoms import CELL, Record, SkippedRecord
from crystalgfn.data.reader import records
from crystalgfn.errors import DataError
from tests.data.test_reader_cases import COLUMNS, CUBE, FCC, LAPO4, MONAZITE, OCCUPIED, POSCAR, SALT, cif, found, named

ORTHORHOMBIC = (5.0, 6.0, 7.0, 90, 90, 90)
ONE = "Na1 Na 0.1 0.2 0.3\n"
UNTYPED = COLUMNS.replace("_atom_site_type_symbol\n", "")


def operations(*texts, tag="_symmetry_equiv_pos_as_xyz"):
    return f"loop_\n{tag}\n" + "\n".join(f"'{text}'" for text in texts)


def read(tmp_path, content, name="a.cif"):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(records(tmp_path / name))


def reason(tmp_path, content, name="a.cif"):
    (one,) = read(tmp_path, content, name)
    assert isinstance(one, SkippedRecord), one
    return one.reason


def crystal(tmp_path, content, name="a.cif"):
    (one,) = read(tmp_path, content, name)
    return found(one)


# ---- kind 2: settings without operations, or with operations that something contradicts ---------------------------


@pytest.mark.parametrize("symbol", ["P2(1)/n", "P 1 2(1)/n 1", "P_1_21/n_1", "p 21/n"])
def test_setting_in_the_spelling_of_shelx(symbol, tmp_path):
    assert crystal(tmp_path, cif(MONAZITE, named(symbol), LAPO4)) == (24, 5.08, 14)


@pytest.mark.parametrize(
    ("symbol", "n"), [("Fd-3mZ", 16), ("Fd-3mS", 8), ("F d 3 m :2", 16), ("F 41/d -3 2/m S", 8), ("Fd3m:1", 8)]
)
def test_setting_of_the_origin_without_a_space(symbol, n, tmp_path):
    assert crystal(tmp_path, cif((5.43,) * 3 + (90,) * 3, named(symbol), "Si1 Si 0 0 0\n"))[0] == n


@pytest.mark.parametrize(
    ("cell", "header", "words"),
    [
        (CUBE, "_symmetry_cell_setting cubic", "only _symmetry_cell_setting 'cubic'"),
        (CUBE, "_space_group_crystal_system hexagonal", "only _space_group_crystal_system 'hexagonal'"),
        (CUBE, "_space_group_name_H-M 'F m -3 m'", "only _space_group_name_h-m 'F m -3 m'"),
        (CUBE, "_space_group_number 225", "only _space_group_number '225'"),
        (CUBE, "_symmetry_space_group_name_Hall '-F 4 2 9'", "Hall symbol '-F 4 2 9' cannot be read"),
        (CUBE, "_space_group_name_Hall 'P 1'\n" + FCC, "'P 1' of space group 1 (P 1), and names number 225"),
        (CUBE, "_cell_modulation_dimension 1\n_space_group_ssg_name 'P'", "modulated"),
        (ORTHORHOMBIC, operations("x,y,z", "z,x,y", "y,z,x"), "symmetry the cell 5, 6, 7, 90, 90, 90 does not have"),
        (CUBE, operations("x,y,z", "-y,x-y,z", "-x+y,-x,z"), "symmetry the cell 5.64, 5.64, 5.64, 90"),
        (
            ORTHORHOMBIC,
            operations("x,y,z", "-x,-y,-z") + "\n" + operations("x,y,z", tag="_space_group_symop_operation_xyz"),
            "lists other symmetry operations as",
        ),
    ],
)
def test_setting_that_is_not_understood_is_named(cell, header, words, tmp_path):
    assert words in reason(tmp_path, cif(cell, header, ONE))


@pytest.mark.parametrize("name", ["_symmetry_equiv_pos_as_xyz ?", "loop_\n_symmetry_equiv_pos_as_xyz\n."])
def test_setting_whose_operations_are_unknown_is_that_of_its_symbol(name, tmp_path):
    assert crystal(tmp_path, cif(CUBE, f"{name}\n{FCC}")) == (8, 2.16, 225)


@pytest.mark.parametrize(
    ("listed", "number"),
    [(("x,y,z",), 1), (("x,y,z", "-x,-y,-z"), 2), (("x,y,z", "-x,-y,z", "-x,y,-z", "x,-y,-z"), 16)],
)
def test_operations_of_another_group_than_is_named_are_said(listed, number, tmp_path):
    (tmp_path / "a.cif").write_text(cif(CUBE, FCC + "\n" + operations(*listed)))
    with pytest.warns(UserWarning, match=f"operations of space group {number} .*, and names number 225"):
        (one,) = records(tmp_path / "a.cif")
    assert len(one.known_atoms.numbers) == 2


# ---- kinds 3 and 20: what a block says twice ----------------------------------------------------------------------


@pytest.mark.parametrize("dot", [False, True])
def test_second_list_of_atoms_is_not_lost(dot, tmp_path):
    second = (COLUMNS.replace("_atom_site_", "_atom_site.") if dot else COLUMNS) + "K1 K .25 .25 .25\n"
    assert "_atom_site_fract_x twice" in reason(tmp_path, cif(CUBE, FCC) + second)


@pytest.mark.parametrize("line", ["_cell_length_a 11", FCC.replace("F m -3 m", "P 1"), "_cell.length_a 6"])
def test_value_that_is_given_twice_is_named(line, tmp_path):
    assert "twice, with different values" in reason(tmp_path, cif(CUBE, f"{FCC}\n{line}"))
    assert crystal(tmp_path, cif(CUBE, f"{FCC}\n_cell_length_a 5.64")) == (8, 2.16, 225)


@pytest.mark.parametrize("header", ["Direct configuration=     2", "direct configuration= 2"])
def test_second_configuration_of_a_poscar_is_not_lost(header, tmp_path):
    text = f"x\n1\n4 0 0\n0 4 0\n0 0 4\nNa\n1\nDirect configuration= 1\n0 0 0\n{header}\n.1 0 0\n"
    assert "several configurations" in reason(tmp_path, text, "a.vasp")


# ---- kind 4: values that mean no element, no place, or a molecule -------------------------------------------------


@pytest.mark.parametrize("kind", ["HO", "CO", "HF", "NO", "Mg/Fe", "2H", "Siva"])
def test_type_that_is_a_molecule_is_named(kind, tmp_path):
    assert f"type '{kind}', which is no element" in reason(
        tmp_path, cif(CUBE, FCC, f"Na1 Na 0 0 0\nA1 {kind} .5 .5 .5\n")
    )


def test_capitals_are_elements_where_all_symbols_are(tmp_path):
    (one,) = read(tmp_path, cif(CUBE, FCC, "CO1 CO 0 0 0\nO1 O .5 .5 .5\n"))
    assert one.known_atoms.amounts == {8: 4, 27: 4}


@pytest.mark.parametrize("label", ["Mg/Fe1", "Mg,Fe", "Al0.5Si0.5", "Fe1Mn1", "La/V", "Mg0.5V0.5", "HO1", "CO1", "VA1"])
def test_label_of_two_elements_is_named(label, tmp_path):
    assert "its label names no element" in reason(
        tmp_path, cif(CUBE, FCC, f"Na1 0 0 0\n{label} .5 .5 .5\n", columns=UNTYPED)
    )


@pytest.mark.parametrize(
    ("kind", "number"), [("Li+0.5", 3), ("D+", 1), ("O2-", 8), ("Fe+2.67", 26), ("S6+", 16), ("O-2.00", 8)]
)
def test_types_with_odd_charges(kind, number, tmp_path):
    (one,) = read(tmp_path, cif(CUBE, FCC, f"Na1 Na 0 0 0\nA1 {kind} .5 .5 .5\n"))
    assert set(one.known_atoms.amounts) == {11, number}


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("_atom_site_calc_flag", ("d", "dum"), "Cl1 is a dummy"),
        ("_atom_site_attached_hydrogens", ("0", "2"), "the 2 hydrogen atoms attached to Cl1 have no coordinates"),
    ],
)
def test_atoms_without_a_place_are_named(column, values, words, tmp_path):
    atoms = f"Na1 Na 0 0 0 {values[0]}\nCl1 Cl .5 .5 .5 {values[1]}\n"
    assert words in reason(tmp_path, cif(CUBE, FCC, atoms, columns=COLUMNS + column + "\n"))


def test_elements_of_the_formula_that_are_not_listed_are_said(tmp_path):
    (tmp_path / "a.cif").write_text(
        cif(CUBE, FCC + "\n_chemical_formula_sum 'H1 Na1 O1'", "Na1 Na 0 0 0\nO1 O .5 .5 .5\n")
    )
    with pytest.warns(UserWarning, match="it lists no H, which its formula 'H1 Na1 O1' has"):
        (one,) = records(tmp_path / "a.cif")
    assert found(one)[0] == 8


@pytest.mark.parametrize("text", ["1_0", "0,5", "1/2", "0x1"])
def test_coordinates_and_cells_of_other_notations_are_named(text, tmp_path):
    assert f"the coordinate '{text}'" in reason(tmp_path, cif(CUBE, FCC, f"Na1 Na {text} 0 0\n"))
    assert f"_cell_length_a is '{text}'" in reason(tmp_path, cif((text, *CUBE[1:]), FCC))


# ---- kind 1: numbers that mean another cell -----------------------------------------------------------------------


@pytest.mark.parametrize("angles", [(1.5708, 1.5708, 1.5708), (1.2, 1.3, 1.4)])
def test_angles_in_radians_are_named(angles, tmp_path):
    assert "write degrees, not radians" in reason(tmp_path, cif((*CUBE[:3], *angles), FCC.replace("F m -3 m", "P 1")))


# ---- kinds 5 and 16: rounded numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "y"), [("0.167", "0.333"), ("0.1667", "0.3333")])
def test_rounded_sixths_are_one_atom(x, y, tmp_path):
    """The Wyckoff position 6h of P 6/m m m (x, 2x), at x = 1/6: three-fold kagome points doubled."""
    (one,) = read(tmp_path, cif((5.3, 5.3, 4.1, 90, 90, 120), named("P 6/m m m"), f"Cu1 Cu {x} {y} 0\n"))
    assert len(one.known_atoms.numbers) == 6


@pytest.mark.parametrize(("shares", "n"), [((0.34, 0.34, 0.33), 3), ((0.51, 0.5), 2)])
def test_sums_a_little_above_one_are_scaled_in_json_too(shares, n, tmp_path):
    species = [{"element": e, "occu": x} for e, x in zip(("Fe", "Co", "Ni"), shares, strict=False)]
    entry = Structure(Lattice.cubic(3), ["Na"], [[0, 0, 0]]).as_dict()
    entry["sites"][0]["species"] = species
    (one,) = read(tmp_path, json.dumps(entry), "a.json")
    assert one.structure.composition.num_atoms == pytest.approx(1) and len(one.structure.composition) == n


@pytest.mark.parametrize(
    ("species", "words"),
    [
        ([("Na", 0.7), ("K", 0.7)], "sum to 1.4"),
        ([("Na", 1.2)], "outside 0 to 1"),
        ([], "site 0 has no species"),
        ([("X0+", 1)], "X0\\+ is no element"),
    ],
)
def test_sites_of_json_that_cannot_be(species, words, tmp_path):
    entry = Structure(Lattice.cubic(3), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3]).as_dict()
    entry["sites"][0]["species"] = [{"element": e, "occu": x} for e, x in species]
    assert words.replace("\\", "") in reason(tmp_path, json.dumps(entry), "a.json")


# ---- kind 6: encodings, and files that are none -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.cif", "a.vasp", "a.parquet", "a.json"])
def test_pointers_of_git_lfs_are_named(name, tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 3\n"
    try:
        words = reason(tmp_path, pointer, name)
    except DataError as error:
        words = str(error)
    assert "pointer of Git LFS" in words


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "utf-16"])
def test_encodings_of_windows_in_poscars(encoding, tmp_path):
    points = "0 0 0\n0 .5 .5\n.5 0 .5\n.5 .5 0\n.5 .5 .5\n.5 0 0\n0 .5 0\n0 0 .5\n"
    text = POSCAR.format("Müller", "1.0", "Na Cl\n", points).replace("\n", "\r\n")
    assert crystal(tmp_path, text.encode(encoding), "a.vasp") == (8, 2.16, 225)


# ---- kind 7: POSCARs ----------------------------------------------------------------------------------------------

POINTS = ["0 0 0", "0 .5 .5", ".5 0 .5", ".5 .5 0", ".5 .5 .5", ".5 0 0", "0 .5 0", "0 0 .5"]


def poscar(scale="1.0", symbols="Na Cl", counts="4 4", points=POINTS):
    lines = ["x", scale, "5.64 0 0", "0 5.64 0", "0 0 5.64", symbols, counts, "Direct", *points, ""]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (poscar(counts="4 3"), "7 atoms are counted, and line 16"),
        (poscar(scale="1.0 2.0"), "one scale or three"),
        (poscar(scale="1_0"), "one scale or three"),
        (poscar(symbols="NA CL"), "NA is no element"),
        (poscar(symbols="H.5 Cl"), "H.5 is no element"),
        (
            poscar(symbols="Cl Na", points=[p + (" Cl" if i > 3 else " Na") for i, p in enumerate(POINTS)]),
            "names Na beside",
        ),
    ],
)
def test_poscars_that_contradict_themselves_are_named(content, words, tmp_path):
    assert words in reason(tmp_path, content, "a.vasp")


@pytest.mark.parametrize("scale", ["1.0d0 1.0d0 2.0d0", "1 1 2 ! three", "1.0 1.0 2.0"])
def test_three_scales_of_a_poscar(scale, tmp_path):
    assert crystal(tmp_path, poscar(scale), "a.vasp") == (8, 1.08, 139)


# ---- kinds 8 to 10: tables ----------------------------------------------------------------------------------------

PRIMITIVE = {f"prim_{x}": [v] for x, v in zip(CELL, (5.0, 5.0, 5.0, 90.0, 90.0, 90.0), strict=True)}
PLAIN = {"Z": [[11, 17]], "frac": [[0, 0, 0, 0.5, 0.5, 0.5]], **PRIMITIVE}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"frac": [[[0, 0.5], [0, 0.5], [0, 0.5]]]}, "lists of 2"),
        ({"Z": [[True, True]]}, "True is no number"),
        ({"Z": [["Na", "Cl"]]}, "no numbers"),
        ({"prim_a": [True]}, "True is no number"),
        ({"frac": [[{"x": 0.0}, {"x": 0.5}]]}, "no numbers"),
        ({"prim_alpha": [1.57], "prim_beta": [1.57], "prim_gamma": [1.57]}, "not radians"),
    ],
)
def test_columns_of_other_shapes_are_named(changed, words, tmp_path):
    pq.write_table(pa.table({**PLAIN, **changed}), tmp_path / "a.parquet")
    (one,) = records(tmp_path / "a.parquet")
    assert isinstance(one, SkippedRecord) and words in one.reason


@pytest.mark.parametrize("changed", [{"Z": [[[11], [17]]]}, {"frac": [[[0.0, 0, 0], [0.5, 0.5, 0.5]]]}, {}])
def test_columns_of_lists_are_read(changed, tmp_path):
    pq.write_table(pa.table({**PLAIN, **changed}), tmp_path / "a.parquet")
    (one,) = records(tmp_path / "a.parquet")
    np.testing.assert_array_equal(one.known_atoms.points, [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert one.known_atoms.numbers.tolist() == [11, 17]


@pytest.mark.parametrize("value", [[cif(CUBE, FCC)], 5, {"a": "b"}])
def test_columns_cif_without_text_are_named(value, tmp_path):
    pq.write_table(pa.table({"cif": [value]}), tmp_path / "a.parquet")
    (one,) = records(tmp_path / "a.parquet")
    assert isinstance(one, SkippedRecord) and "holds no text" in one.reason
    pq.write_table(pa.table({"cif": [cif(CUBE, FCC).encode()]}), tmp_path / "b.parquet")
    assert found(next(iter(records(tmp_path / "b.parquet")))) == (8, 2.16, 225)


def test_columns_of_one_name_are_refused(tmp_path):
    text = cif(CUBE, FCC)
    pq.write_table(
        pa.Table.from_arrays([pa.array([text]), pa.array([1.0]), pa.array([2.0])], ["cif", "e", "e"]),
        tmp_path / "a.parquet",
    )
    (tmp_path / "b.csv").write_text("formula,e, e\nNaCl,1,2\n")
    for name in ("a.parquet", "b.csv"):
        with pytest.raises(DataError, match="the column e twice"):
            list(records(tmp_path / name))
    (tmp_path / "c.csv").write_text("formula;e\nNaCl;1,5\n")
    with pytest.raises(DataError, match="separated by semicolons"):
        list(records(tmp_path / "c.csv"))


@pytest.mark.parametrize(
    "index", [pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]), pd.Index([5, 5]), pd.Index([2, 1], name="e")]
)
def test_saved_indices_are_no_numbering(index, tmp_path):
    pd.DataFrame([{"formula": "NaCl", "x": 1.0}, {"formula": "LiF", "x": 2.0}], index=index).to_parquet(
        tmp_path / "a.parquet"
    )
    assert [(one.where, one.numbers["x"]) for one in records(tmp_path / "a.parquet")] == [
        ("row 0", 1.0),
        ("row 1", 2.0),
    ]


@pytest.mark.parametrize("number", ["[1_1, 17]", "[0, 17]", "[11, -17]", "[11, 1e30]", "[11, 17.5]"])
def test_atomic_numbers_of_csv_that_are_none(number, tmp_path):
    row = f'"{number}","0 0 0 .5 .5 .5",5,5,5,90,90,90\n'
    (tmp_path / "a.csv").write_text("Z,frac," + ",".join(PRIMITIVE) + "\n" + row)
    (one,) = records(tmp_path / "a.csv")
    assert isinstance(one, SkippedRecord) and any(
        word in one.reason for word in ("no atomic number", "no element", "no number")
    )


@pytest.mark.parametrize("name", ["a" * 5000, "x\\0", "~/x.cif", "C:\\x.cif", ".", "http://x/y.cif"])
def test_names_of_files_that_are_none(name, tmp_path):
    pd.DataFrame({"file": [name]}).to_csv(tmp_path / "a.csv", index=False)
    (one,) = records(tmp_path / "a.csv")
    assert isinstance(one, SkippedRecord) and one.where == "line 2" and len(one.reason) < 300


# ---- kind 15: extended XYZ of others ------------------------------------------------------------------------------

BOX = 'Lattice="5.64 0 0 0 5.64 0 0 0 5.64" '
SPECIES = "Properties=species:S:1:pos:R:3"
PAIR = "Na 0 0 0\nCl 2.82 2.82 2.82\n"


@pytest.mark.parametrize(
    ("count", "comment", "atoms", "words"),
    [
        (2, BOX + SPECIES + ' PBC="F F F"', PAIR, "not periodic"),
        (2, BOX + "Properties=species:S:1:frac_pos:R:3", PAIR, "no column pos"),
        (2, BOX + SPECIES + ":Z:I:1", "Na 0 0 0 11\nCl 1 1 1 9\n", "twice: species, Z"),
        (2, BOX + SPECIES + ":occupancy:R:1", "Na 0 0 0 .5\nCl 2 2 2 1\n", "partial occupancies"),
        (2, BOX + SPECIES, "Na 0 0 0\nCO 2 2 2\n", "'CO' may be an element or a molecule"),
        (2, BOX + SPECIES, "Na 0 0 0\nNa+ 2 2 2\n", "'Na+' is no element"),
        (2, BOX + SPECIES, "Na 0 0 0\n17 2 2 2\n", "'17' is no element"),
        (3, BOX + SPECIES, PAIR, "says 3 atoms, and 2 lines"),
        (999_999_999, BOX + SPECIES, PAIR, "says 999999999 atoms"),
    ],
)
def test_frames_of_others_that_mean_something_else(count, comment, atoms, words, tmp_path):
    assert words in reason(tmp_path, f"{count}\n{comment}\n{atoms}", "a.extxyz")


def test_frames_with_fewer_atoms_than_lines_are_no_crystal(tmp_path):
    found = read(tmp_path, f"1\n{BOX}{SPECIES}\n{PAIR}", "a.extxyz")
    assert all(isinstance(one, SkippedRecord) for one in found) and "line 4 has one more" in found[0].reason


@pytest.mark.parametrize(
    ("properties", "atoms"),
    [
        ("pos:R:3:species:S:1", "0 0 0 Li\n2.82 2.82 2.82 D\n"),
        ("tag:I:1:species:S:1:pos:R:3", "5 Li 0 0 0\n5 D 2.82 2.82 2.82\n"),
    ],
)
def test_frames_with_columns_in_another_order(properties, atoms, tmp_path):
    (one,) = read(tmp_path, f"2\n{BOX}Properties={properties}\n{atoms}", "a.extxyz")
    assert one.known_atoms.amounts == {1: 1, 3: 1}
    np.testing.assert_allclose(one.known_atoms.points[1], 0.5)


def test_frames_that_ase_writes_of_a_disordered_cif(tmp_path):
    from ase.io import read as read_ase
    from ase.io import write

    (tmp_path / "a.cif").write_text(
        cif(CUBE, FCC, "Na1 Na 0 0 0 .5\nK1 K 0 0 0 .5\nCl1 Cl .5 .5 .5 1\n", columns=OCCUPIED)
    )
    write(tmp_path / "b.extxyz", read_ase(tmp_path / "a.cif"), format="extxyz")
    (one,) = records(tmp_path / "b.extxyz")
    assert isinstance(one, SkippedRecord) and "partial occupancies" in one.reason


# ---- kind 17: one bad entry of several ----------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["nonsense", "5", "{}", '{"structure": "text"}', '{"lattice": 5, "sites": 5}'])
def test_one_bad_line_of_json_lines_does_not_stop_the_others(line, tmp_path):
    good = json.dumps(Structure(Lattice.cubic(5), ["Na", "Cl"], [[0] * 3, [0.5] * 3]).as_dict())
    first, bad, last = read(tmp_path, f"{good}\n{line}\n{good}\n", "a.jsonl")
    assert isinstance(first, Record) and isinstance(last, Record) and isinstance(bad, SkippedRecord)


def test_a_structure_of_a_surface_is_no_crystal(tmp_path):
    slab = Structure(Lattice.cubic(5, pbc=(True, True, False)), ["Na"], [[0] * 3])
    assert "not periodic" in reason(tmp_path, json.dumps(slab.as_dict()), "a.json")


# ---- kind 22: text that looks like syntax -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "remark", ["\n;\nloop_\n_atom_site_fract_x\n0\n;\n", " 'O''Neil # no comment'", ' "it\'s data_x"\n']
)
def test_remarks_that_look_like_syntax(remark, tmp_path):
    assert crystal(tmp_path, cif(CUBE, f"_publ_section_title{remark}\n{FCC}\n_exptl_note_# 'x'", SALT)) == (
        8,
        2.16,
        225,
    )
