"""What files of others hold is read as the crystal that is meant, or named; never another crystal."""

import gzip
import json
import os

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from crystalgfn.crystallography.atoms import CELL, Record, SkippedRecord
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.distances import reduced_basis
from crystalgfn.crystallography.standardize import standardise
from crystalgfn.data.labelled import read_labelled
from crystalgfn.data.reader import crystals, records
from crystalgfn.errors import DataError, InvalidCrystal

COLUMNS = "loop_\n" + "".join(f"_atom_site_{x}\n" for x in ("label", "type_symbol", "fract_x", "fract_y", "fract_z"))
SALT = "Na1 Na 0 0 0\nCl1 Cl 0.5 0.5 0.5\n"


def cif(cell, header, atoms=SALT, name="x", columns=COLUMNS):
    lines = [f"_cell_{'length' if len(x) == 1 else 'angle'}_{x} {v}" for x, v in zip(CELL, cell, strict=True)]
    return "\n".join([f"data_{name}", *lines, header, columns + atoms])


CUBE = (5.64, 5.64, 5.64, 90, 90, 90)
FCC = "_symmetry_space_group_name_H-M 'F m -3 m'"


def named(symbol):
    return f"_space_group_name_H-M_alt '{symbol}'"


def only(tmp_path, content, name="a.cif"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (one,) = records(path)
    return one


def found(one):
    """Atoms in the cell, density, group."""
    assert isinstance(one, Record), one
    return len(one.known_atoms.numbers), round(float(one.structure.density), 2), one.structure.get_space_group_info()[1]


RHOMBOHEDRAL = (4.7459, 4.7459, 4.7459, 57.24, 57.24, 57.24)
BISMUTH = "Bi1 Bi 0.2339 0.2339 0.2339\n"
MONAZITE = (6.8313, 7.0705, 6.5034, 90, 103.27, 90)
LAPO4 = (
    "La1 La 0.28154 0.16033 0.10068\nP1 P 0.3048 0.1639 0.6121\nO1 O 0.2503 0.0077 0.4477\n"
    "O2 O 0.3799 0.3315 0.4964\nO3 O 0.4748 0.1071 0.8018\nO4 O 0.1277 0.2168 0.7101\n"
)
MAGNETITE = "Fe1 Fe 0.125 0.125 0.125\nFe2 Fe 0.5 0.5 0.5\nO1 O 0.2547 0.2547 0.2547\n"


@pytest.mark.parametrize("symbol", ["R -3 m :R", "R -3 m", "R -3 m R", "R_-3_m", "R-3m:R"])
def test_rhombohedral_axes_without_operations(symbol, tmp_path):
    assert found(only(tmp_path, cif(RHOMBOHEDRAL, named(symbol), BISMUTH))) == (2, 9.81, 166)


def test_the_same_crystal_on_hexagonal_axes(tmp_path):
    cell = Structure(Lattice.from_parameters(*RHOMBOHEDRAL), ["Bi"] * 2, [[0.2339] * 3, [-0.2339] * 3])
    a = 2 * 4.7459 * np.sin(np.radians(57.24 / 2))
    c = cell.volume * 3 / (a * a * np.sqrt(0.75))
    one = only(tmp_path, cif((a, a, c, 90, 90, 120), named("R -3 m :H"), "Bi1 Bi 0 0 0.2339\n"))
    assert found(one) == (6, 9.81, 166)


@pytest.mark.parametrize(
    ("symbol", "group"),
    [("P 21/n", 14), ("P 2_1/n", 14), ("P21/n", 14), ("P 1 21/n 1", 14), ("P 1 2_1/n 1", 14)],
)
def test_short_symbols_of_monoclinic_settings(symbol, group, tmp_path):
    one = only(tmp_path, cif(MONAZITE, named(symbol), LAPO4))
    distances = one.structure.distance_matrix
    assert found(one) == (24, 5.08, group)
    assert distances[distances > 0].min() == pytest.approx(1.52, abs=0.02)


@pytest.mark.parametrize("symbol", ["I 2/a", "A 2/a", "I 2/m", "A 2/m", "P 21/a", "P 2/n", "C 2/c", "B 2/b"])
def test_settings_without_operations_are_those_of_gemmi(symbol, tmp_path):
    import gemmi

    group = gemmi.find_spacegroup_by_name(symbol)
    axis = group.monoclinic_unique_axis() if hasattr(group, "monoclinic_unique_axis") else "b"
    cell = (6.1, 7.3, 8.7, 90, 103, 90) if symbol != "B 2/b" else (6.1, 7.3, 8.7, 90, 90, 103)
    one = only(tmp_path, cif(cell, named(symbol), "Na1 Na 0.113 0.271 0.389\n"))
    assert len(one.known_atoms.numbers) == len(group.operations()) and one.space_group == group.number, axis


@pytest.mark.parametrize("symbol", ["F d -3 m :2", "F d -3 m Z", "F d -3 m (origin choice 2)", "F d -3 m"])
def test_origin_choice_2_without_operations(symbol, tmp_path):
    """Where the symbol leaves the origin open, the other one would put atoms on top of each other."""
    one = only(tmp_path, cif((8.394, 8.394, 8.394, 90, 90, 90), named(symbol), MAGNETITE))
    assert found(one) == (56, 5.2, 227)


def test_origin_that_is_left_open_is_said(tmp_path):
    text = cif((5.43, 5.43, 5.43, 90, 90, 90), named("F d -3 m"), "Si1 Si 0 0 0\n")
    with pytest.warns(UserWarning, match="leaves the origin open; F d -3 m:1 is taken"):
        assert found(only(tmp_path, text)) == (8, 2.33, 227)
    formula = "\n_chemical_formula_sum 'Si16'\n_cell_formula_units_Z 1"
    assert found(only(tmp_path, cif((5.43,) * 3 + (90,) * 3, named("F d -3 m") + formula, "Si1 Si 0 0 0\n")))[0] == 16


@pytest.mark.parametrize(
    "header",
    [
        named("F 4/m -3 2/m"),
        named("F m -3 m"),
        named("F M -3 M"),
        "_space_group_name_Hall '-F 4 2 3'",
        "_symmetry_Int_Tables_number 225",
        "_space_group.name_H-M_alt 'F m -3 m'",
    ],
)
def test_symbols_in_full_and_others(header, tmp_path):
    assert found(only(tmp_path, cif(CUBE, header))) == (8, 2.16, 225)


@pytest.mark.parametrize(
    ("cell", "header", "words"),
    [
        (CUBE, named("Q m -3 m"), "'Q m -3 m' is not known"),
        (CUBE, "_symmetry_space_group_name_H-M ?\n_symmetry_Int_Tables_number ?", "its space group is unknown"),
        (CUBE, "_symmetry_Int_Tables_number 231", "'231'; they go from 1 to 230"),
        ((5, 6, 7, 90, 90, 90), FCC, "symmetry the cell 5, 6, 7, 90, 90, 90 does not have"),
        (CUBE, named("P n m a") + "\n_symmetry_Int_Tables_number 61", "which has number 62, and 61"),
        (CUBE, "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\n-x,-y,z\n-x,y,-z\n", "are no group"),
        (CUBE, "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\nx,y\n", "'x,y', which cannot be read"),
    ],
)
def test_settings_that_are_not_understood_are_named(cell, header, words, tmp_path):
    one = only(tmp_path, cif(cell, header))
    assert isinstance(one, SkippedRecord) and words in one.reason


def test_operations_without_the_centring_of_the_group(tmp_path):
    import gemmi

    listed = [one.triplet() for one in gemmi.find_spacegroup_by_name("P m -3 m").operations()]
    header = FCC + "\nloop_\n_symmetry_equiv_pos_as_xyz\n" + "\n".join(f"'{one}'" for one in listed)
    assert "without the centring" in only(tmp_path, cif(CUBE, header)).reason


def test_several_data_blocks_are_several_crystals(tmp_path):
    fluoride = cif((4.06, 4.06, 4.06, 90, 90, 90), FCC, "Li1 Li 0 0 0\nF1 F 0.5 0.5 0.5\n", "lif")
    texts = ["data_global\n_journal_year 2020", cif(CUBE, FCC, name="nacl"), fluoride, cif(CUBE, named("Q"), name="q")]
    path = tmp_path / "many.cif"
    path.write_text("\n".join(texts))
    salt, lif, bad = records(path)
    assert (salt.where, lif.where, bad.where) == tuple(f"many.cif, block {x}" for x in ("nacl", "lif", "q"))
    assert found(salt)[0] == found(lif)[0] == 8 and isinstance(bad, SkippedRecord)
    path.write_text("\n".join([texts[1], texts[1]]))  # of one name
    assert [one.where for one in records(path)] == ["many.cif, block 1", "many.cif, block 2"]


OCCUPIED = COLUMNS + "_atom_site_occupancy\n"


def test_occupancies_that_are_not_numbers(tmp_path):
    text = cif(CUBE, FCC, "Na1 Na 0 0 0 .\nCl1 Cl 0.5 0.5 0.5 ?\n", columns=OCCUPIED)
    with pytest.warns(UserWarning, match="the unknown occupancy of Cl1 is taken as 1"):
        assert found(only(tmp_path, text)) == (8, 2.16, 225)
    text = cif(CUBE, FCC, "Na1 Na 0 0 0 1.0(2)\nCl1 Cl 0.5 0.5 0.5 1\nK1 K 0.25 0.25 0.25 0\n", columns=OCCUPIED)
    assert found(only(tmp_path, text)) == (8, 2.16, 225)


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        (("0.5", "-0.1"), "the occupancy of Co1 is '-0.1'"),
        (("0.5", "full"), "the occupancy of Co1 is 'full'"),
        (("0.5", "nan"), "the occupancy of Co1 is 'nan'"),
        (("0.7", "0.5"), "the occupancies at Fe1 sum to 1.2"),
        (("1", "1"), "the occupancies at Fe1 sum to 2"),
    ],
)
def test_occupancies_that_cannot_be(shares, words, tmp_path):
    atoms = f"Fe1 Fe 0 0 0 {shares[0]}\nCo1 Co 0 0 0 {shares[1]}\nO1 O 0.5 0.5 0.5 1\n"
    assert words in only(tmp_path, cif((4.2, 4.2, 4.2, 90, 90, 90), FCC, atoms, columns=OCCUPIED)).reason


@pytest.mark.parametrize("total", [1.001, 1.0005, 1.015])
def test_sums_of_rounded_occupancies_are_scaled(total, tmp_path):
    atoms = f"Fe1 Fe 0 0 0 0.667\nCo1 Co 0 0 0 {total - 0.667:.4f}\nO1 O 0.5 0.5 0.5 1\n"
    one = only(tmp_path, cif((4.2, 4.2, 4.2, 90, 90, 90), FCC, atoms, columns=OCCUPIED))
    amounts = one.structure.composition.get_el_amt_dict()
    assert amounts["Fe"] + amounts["Co"] == pytest.approx(4) and amounts["Fe"] / 4 == pytest.approx(0.667 / total)


@pytest.mark.parametrize("kind", ["OH", "Wat", "Va", "X", "M", "OH2", "Lp", "NH4", "NO3", "CO3", "Zz"])
def test_types_that_are_no_element_are_named(kind, tmp_path):
    one = only(tmp_path, cif(CUBE, FCC, f"Na1 Na 0 0 0\nA1 {kind} 0.5 0.5 0.5\n"))
    assert isinstance(one, SkippedRecord) and f"A1 has the type '{kind}', which is no element" in one.reason


@pytest.mark.parametrize("label", ["OH1", "Wat1", "Va", "M2", "T1", "Vac1", "1"])
def test_labels_that_are_no_element_are_named(label, tmp_path):
    columns = COLUMNS.replace("_atom_site_type_symbol\n", "")
    one = only(tmp_path, cif(CUBE, FCC, f"Na1 0 0 0\n{label} 0.5 0.5 0.5\n", columns=columns))
    assert isinstance(one, SkippedRecord) and f"the site {label!r} has no type" in one.reason


@pytest.mark.parametrize(
    ("label", "number"), [("Cl1", 17), ("CL1", 17), ("O2A", 8), ("OA1", 8), ("Fe3+", 26), ("C12", 6), ("Nb", 41)]
)
def test_labels_of_elements(label, number, tmp_path):
    columns = COLUMNS.replace("_atom_site_type_symbol\n", "")
    one = only(tmp_path, cif(CUBE, FCC, f"Na1 0 0 0\n{label} 0.5 0.5 0.5\n", columns=columns))
    assert set(one.known_atoms.amounts) == {11, number}


@pytest.mark.parametrize(("kind", "number"), [("Fe3+", 26), ("O2-", 8), ("Cu+2", 29), ("CL", 17), ("Cl1-", 17)])
def test_types_with_charges(kind, number, tmp_path):
    one = only(tmp_path, cif(CUBE, FCC, f"Na1 Na 0 0 0\nA1 {kind} 0.5 0.5 0.5\n"))
    assert set(one.known_atoms.amounts) == {11, number}


def test_deuterium_is_hydrogen_and_said(tmp_path):
    with pytest.warns(UserWarning, match="D is read as hydrogen"):
        assert only(tmp_path, cif(CUBE, FCC, "Li1 Li 0 0 0\nD1 D 0.5 0.5 0.5\n")).known_atoms.amounts == {1: 4, 3: 4}
    frame = '2\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nLi 0 0 0\nD 2 2 2\n'
    with pytest.warns(UserWarning, match="D is read as hydrogen"):
        assert only(tmp_path, frame, "a.xyz").known_atoms.amounts == {1: 1, 3: 1}
    poscar = "x\n1\n4 0 0\n0 4 0\n0 0 4\nLi D\n1 1\nDirect\n0 0 0\n.5 .5 .5\n"
    with pytest.warns(UserWarning, match="D is read as hydrogen"):
        assert only(tmp_path, poscar, "a.vasp").known_atoms.amounts == {1: 1, 3: 1}


@pytest.mark.parametrize("place", ["0 0 .", "0 ? 0", "x 0 0", "nan 0 0", "0 0 inf"])
def test_coordinates_that_are_missing_are_named(place, tmp_path):
    one = only(tmp_path, cif(CUBE, FCC, f"K1 K {place}\n" + SALT))
    assert isinstance(one, SkippedRecord) and "K1 has the coordinate" in one.reason


@pytest.mark.parametrize(
    ("x", "y", "z"), [("0.333", "0.667", "0.621"), ("0.33", "0.67", "0.621"), ("0.3333", "0.6666", "0.621")]
)
def test_rounded_special_positions_are_one_atom(x, y, z, tmp_path):
    cell, atoms = (3.16, 3.16, 12.3, 90, 90, 120), f"Mo1 Mo 0.3333 0.6667 0.25\nS1 S {x} {y} {z}\n"
    one = only(tmp_path, cif(cell, named("P 63/m m c"), atoms))
    distances = one.structure.distance_matrix
    assert found(one) == (6, 5.0, 194) and distances[distances > 0].min() == pytest.approx(2.42, abs=0.02)


def test_split_sites_stay_apart(tmp_path):
    """Atoms that are near a special position by more digits than rounding explains are disordered, not rounded."""
    atoms = "Li1 Li 0.0200 0 0 0.5\nO1 O 0.5 0.5 0.5 1\n"
    one = only(tmp_path, cif((4.2, 4.2, 4.2, 90, 90, 90), named("P -1"), atoms, columns=OCCUPIED))
    assert one.known_atoms.amounts == {3: 1.0, 8: 1.0} and len(one.known_atoms.numbers) == 3


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_encodings_of_windows(encoding, tmp_path):
    text = cif(CUBE, FCC + "\n_publ_author_name 'Müller'").replace("\n", "\r\n")
    assert found(only(tmp_path, text.encode(encoding))) == (8, 2.16, 225)


def test_packed_and_binary_files(tmp_path):
    assert found(only(tmp_path, gzip.compress(cif(CUBE, FCC).encode()), "a.cif.gz")) == (8, 2.16, 225)
    assert "cannot be read" in only(tmp_path, b"\x1f\x8bnothing", "b.cif.gz").reason
    assert "no text file" in only(tmp_path, b"\x00\x01\x02\xff" * 50, "c.cif").reason


POSCAR = "{}\n{}\n5.64 0 0\n0 5.64 0\n0 0 5.64\n{}4 4\nDirect\n{}"
FOUR = ["0 0 0", "0 .5 .5", ".5 0 .5", ".5 .5 0"]
POINTS = "\n".join(FOUR + [".5 .5 .5", ".5 0 0", "0 .5 0", "0 0 .5"]) + "\n"


@pytest.mark.parametrize("comment", ["my crystal", "Na", "C B N", "Na2 Cl2", "", "rock salt Na Cl"])
def test_poscars_that_name_no_elements(comment, tmp_path):
    one = only(tmp_path, POSCAR.format(comment, "1.0", "", POINTS), "a.vasp")
    assert isinstance(one, SkippedRecord) and "names no elements" in one.reason


@pytest.mark.parametrize(
    ("comment", "scale", "symbols", "name"),
    [
        ("Na Cl", "1.0", "", "a.vasp"),
        ("Na4Cl4", "1.0", "", "a.vasp"),
        ("Na4 Cl4", "-179.406144", "", "POSCAR"),
        ("x", "1.0 1.0 1.0", "Na_pv Cl\n", "CONTCAR"),
        ("x", "1", "Na/abc Cl\n", "a.poscar"),
    ],
)
def test_poscars_that_do(comment, scale, symbols, name, tmp_path):
    assert found(only(tmp_path, POSCAR.format(comment, scale, symbols, POINTS), name)) == (8, 2.16, 225)


def test_a_left_handed_cell_is_the_same_crystal_and_not_its_mirror_image(tmp_path):
    """Quartz in a left-handed basis keeps its group, which its mirror image has not."""
    rows = Lattice.hexagonal(4.913, 5.405)
    quartz = Structure.from_spacegroup("P3_121", rows, ["Si", "O"], [[0.4697, 0, 1 / 3], [0.4135, 0.2669, 0.4524]])
    for order in ([0, 1, 2], [1, 0, 2]):
        matrix, points = quartz.lattice.matrix[order], quartz.frac_coords[:, order]
        lines = ["q", "1", *(" ".join(map(repr, map(float, row))) for row in matrix), "Si O", "3 6", "Direct"]
        lines += [" ".join(map(repr, map(float, p))) for p in points]
        one = only(tmp_path, "\n".join(lines) + "\n", "a.vasp")
        assert one.structure.get_space_group_info()[1] == 152


def table(tmp_path, rows, name="x.parquet", **options):
    pd.DataFrame(rows).to_parquet(tmp_path / name, **options)
    return tmp_path / name


def row(numbers, points, cell=CUBE, **values):
    return {
        **dict(zip((f"prim_{x}" for x in CELL), map(float, cell), strict=True)),
        "Z": numbers,
        "frac": points,
        **values,
    }


GOOD = row([3, 9], [0, 0, 0, 0.5, 0.5, 0.5], (4, 4, 4, 90, 90, 90), formation_energy_per_atom=-3.0)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (row([119, 17], [0, 0, 0, 0.5, 0.5, 0.5]), "atomic number 119"),
        (row([17, 0], [0, 0, 0, 0.5, 0.5, 0.5]), "atomic number 0"),
        (row([17, -1], [0, 0, 0, 0.5, 0.5, 0.5]), "atomic number -1"),
        (row([11, 17], [0, 0, 0, 0.5]), "4 coordinates and 2 atoms"),
        (row([11, 17], [0, 0, 0, float("nan"), 0.5, 0.5]), "a coordinate that is no number"),
        (row([11, 17], [0, 0, 0, float("inf"), 0.5, 0.5]), "a coordinate that is no number"),
        (row([11, 17], [0, 0, 0, 1e160, 0.5, 0.5]), "a fractional coordinate of 1e+160"),
        (row([11, 17], [0, 0, 0, 0.5, 0.5, 0.5], (51234, 5, 5, 90, 90, 90)), "cell lengths 51234, 5, 5"),
        (row([11, 17], [0, 0, 0, 0.5, 0.5, 0.5], (1e160, 5, 5, 90, 90, 90)), "cell lengths 1e+160"),
        (row([11, 17], [0, 0, 0, 0.5, 0.5, 0.5], (5, 5, -5, 90, 90, 90)), "cell lengths 5, 5, -5"),
        (row([11, 17], [0, 0, 0, 0.5, 0.5, 0.5], (5, 5, 5, 120, 120, 125)), "close no cell"),
        (row([], []), "has no atoms"),
    ],
)
def test_rows_that_are_no_crystal_are_named_everywhere(bad, words, tmp_path):
    path = table(tmp_path, [{**bad, "formation_energy_per_atom": -2.0}, GOOD])
    first, second = records(path)
    assert isinstance(first, SkippedRecord) and first.where == "row 0" and words in first.reason
    assert isinstance(second, Record) and second.where == "row 1"
    with pytest.raises(DataError, match=r"1 of 2 rows cannot be used\n  row 0: "):
        read_labelled(path, progress=False, cache=tmp_path / "c")
    with pytest.warns(UserWarning, match="row 0"):
        assert read_labelled(path, progress=False, cache=tmp_path / "c", skip_bad=True).crystals.formulas() == ["LiF"]


def test_nested_coordinates_are_read(tmp_path):
    path = table(tmp_path, [row([11, 17], [[0.0, 0, 0], [0.5, 0.5, 0.5]]), row([11], [[0.1, 0.2, 0.3]])])
    assert [one.known_atoms.points.shape for one in records(path)] == [(2, 3), (1, 3)]


@pytest.mark.parametrize("missing", [["prim_gamma"], ["prim_b", "prim_alpha"], ["Z"], ["frac"]])
def test_columns_that_are_missing_are_named(missing, tmp_path):
    path = tmp_path / "x.parquet"
    pd.DataFrame([GOOD]).drop(columns=missing).to_parquet(path)
    with pytest.raises(DataError, match="has no columns? " + ", ".join(missing)):
        list(records(path))


def test_text_where_numbers_belong_is_named(tmp_path):
    first, _ = records(table(tmp_path, [{**GOOD, "prim_a": "wide"}, {**GOOD, "prim_a": "4"}]))
    assert isinstance(first, SkippedRecord) and "no numbers" in first.reason


@pytest.mark.parametrize("index", [[1, 0], [7, 3], ["b", "a"]])
def test_a_saved_index_is_no_numbering(index, tmp_path):
    rows = [{**GOOD, "spacegroup": 225, "tag": 1.0}, {**GOOD, "spacegroup": 1, "tag": 2.0}]
    pd.DataFrame(rows, index=index).to_parquet(tmp_path / "x.parquet")
    one, two = records(tmp_path / "x.parquet")
    assert (one.where, one.space_group, one.numbers["tag"]) == ("row 0", 225, 1.0)
    assert (two.where, two.space_group, two.numbers["tag"]) == ("row 1", 1, 2.0)
    assert not any("index" in name for name in one.values)


def test_what_else_lies_in_a_folder(tmp_path):
    """Resource forks of a Mac, dangling links, folders with the name of a file."""
    (tmp_path / "a.cif").write_text(cif(CUBE, FCC))
    (tmp_path / "._a.cif").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")
    (tmp_path / ".hidden.cif").write_text("data_x")
    os.symlink("nowhere.cif", tmp_path / "b.cif")
    (tmp_path / "c.cif").mkdir()
    good, link, folder = records(tmp_path)
    assert found(good) == (8, 2.16, 225)
    assert isinstance(link, SkippedRecord) and link.where == "b.cif" and "No such file" in link.reason
    assert isinstance(folder, SkippedRecord) and folder.where == "c.cif" and "directory" in folder.reason


FRAME = '2\nLattice="5.64 0 0 0 5.64 0 0 0 5.64" Properties=species:S:1:pos:R:3 {}\nNa 0 0 0\nCl 2.82 2.82 2.82\n'


@pytest.mark.parametrize("flags", ["F F F", "T T F", "0 0 0"])
def test_frames_that_are_not_periodic(flags, tmp_path):
    one = only(tmp_path, FRAME.format(f'pbc="{flags}" formation_energy_per_atom=-2.1'), "a.extxyz")
    assert isinstance(one, SkippedRecord) and "not periodic" in one.reason
    with pytest.raises(DataError, match="not periodic"):
        read_labelled(tmp_path / "a.extxyz", progress=False)


@pytest.mark.parametrize("key", ['spacegroup="F m -3 m"', 'spacegroup="Fm-3m"', "spacegroup=225", "space_group=225"])
def test_space_groups_of_frames_by_symbol_and_number(key, tmp_path):
    one = only(tmp_path, FRAME.format(f"{key} formation_energy_per_atom=-2.1"), "a.extxyz")
    assert one.space_group == 225
    assert ("Cl1Na1", 225) in read_labelled(tmp_path / "a.extxyz", progress=False).keys[0]


@pytest.mark.parametrize("label", ['"-2.1 -3"', "low", "nan", '"[1, 2]"'])
def test_labels_that_are_no_number(label, tmp_path):
    only(tmp_path, FRAME.format(f"formation_energy_per_atom={label}"), "a.extxyz")
    with pytest.raises(DataError, match="formation_energy_per_atom is"):
        read_labelled(tmp_path / "a.extxyz", progress=False)


def test_what_stands_between_semicolons_is_text(tmp_path):
    remarks = [
        "_publ_section_title\n;\nthe older model had\n_symmetry_Int_Tables_number 1\n;\n",
        "_iucr_refine_fcf_details\n;\ndata_other\nloop_\n _space_group_symop_operation_xyz\n x,y,z\n;\n",
        "_publ_section_comment\n;\n_cell_length_a 12\n_atom_site_label Zz\n;\n",
    ]
    for remark in remarks:
        one = only(tmp_path, cif(CUBE, remark + FCC))
        assert found(one) == (8, 2.16, 225) and one.space_group == 225


def test_numbers_that_kill_spglib_do_not_reach_it():
    for point in (np.nan, np.inf):
        bad = Structure(Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
        bad.sites[1].frac_coords[1] = point
        with pytest.raises(InvalidCrystal, match="structure 1"):
            Crystals.from_structures([Structure(Lattice.cubic(3), ["Fe"], [[0, 0, 0]]), bad])
        assert standardise((5, 5, 5, 90, 90, 90), np.array([[0, 0, point]]), np.array([11])) is None
    with pytest.raises(InvalidCrystal, match="structure 0"):
        Crystals.from_structures([Structure(Lattice.cubic(3), ["X"], [[0, 0, 0]])])
    for rows in (np.diag([1e160, 5, 5]), np.diag([np.nan, 5, 5]), np.diag([0.0, 5, 5])):
        with pytest.raises(InvalidCrystal, match="span no cell"):
            reduced_basis(rows)


def test_structures_of_pymatgen_in_json(tmp_path):
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    mixed = Structure(Lattice.cubic(4.2), [{"Li": 0.5, "Fe": 0.5}, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    strange = {"lattice": {"matrix": "?"}, "sites": []}
    content = {"salt": {"structure": salt.as_dict(), "energy": -3.0}, "mixed": mixed.as_dict(), "strange": strange}
    (tmp_path / "x.json").write_text(json.dumps(content))
    one, two, bad = records(tmp_path / "x.json")
    assert found(one) == (8, 2.16, 225) and one.numbers == {"energy": -3.0} and one.where == "salt"
    assert two.structure.composition.reduced_formula == "Li0.5Fe0.5O1" and isinstance(bad, SkippedRecord)


def test_a_table_reads_no_file_outside_of_its_folder(tmp_path):
    (tmp_path / "secret.cif").write_text(cif(CUBE, FCC))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "inside.cif").write_text(cif(CUBE, FCC))
    names = ["../secret.cif", str(tmp_path / "secret.cif"), "inside.cif"]
    pd.DataFrame({"file": names}).to_csv(tmp_path / "set" / "table.csv", index=False)
    one, two, three = records(tmp_path / "set" / "table.csv")
    assert all(isinstance(x, SkippedRecord) and "outside" in x.reason for x in (one, two)) and found(three)[0] == 8


def test_several_sources_are_read_in_order(tmp_path):
    for name in ("a.cif", "b.cif"):
        (tmp_path / name).write_text(cif(CUBE, FCC))
    table(tmp_path, [GOOD])
    several = [tmp_path / "a.cif", tmp_path / "b.cif", tmp_path / "x.parquet"]
    assert [one.where for one in crystals(several)] == ["a.cif", "b.cif", "x.parquet, row 0"]
    with pytest.raises(DataError, match="no source of crystals is named"):
        list(records([]))


def test_rows_with_a_formula_and_an_energy_alone_are_a_hull(tmp_path):
    from crystalgfn.evaluation.reference import Reference

    for name, write in (("x.csv", pd.DataFrame.to_csv), ("x.parquet", pd.DataFrame.to_parquet)):
        write(pd.DataFrame({"formula": ["Na", "Cl", "NaCl"], "e": [0.0, 0.0, -2.1]}), tmp_path / name, index=False)
        reference = Reference.read(tmp_path / name)
        assert not reference.entries and reference.hull("e").n_entries == 3
    with pytest.raises(DataError, match="no crystal with positions"):
        list(crystals(tmp_path / "x.csv"))


def test_an_operation_that_flattens_space_is_named(tmp_path):
    loop = "loop_\n _symmetry_equiv_pos_as_xyz\n 'x,y,z'\n '-z,0,5-x+1/2'\n"
    (tmp_path / "x.cif").write_text(cif(CUBE, loop))
    (bad,) = records(tmp_path / "x.cif")
    assert isinstance(bad, SkippedRecord) and "does not keep volumes" in bad.reason
