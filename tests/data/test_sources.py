import json
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pymatgen.core import Lattice, Structure

from crystalgfn.crystallography.atoms import SkippedRecord
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.data.cells import LabelledCrystal
from crystalgfn.data.labelled import exclude, read_labelled, stream, write_labelled
from crystalgfn.errors import DataError, NotAvailable

SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
RUTILE = Structure.from_spacegroup("P4_2/mnm", Lattice.tetragonal(4.6, 2.96), ["Ti", "O"], [[0] * 3, [0.305, 0.305, 0]])
MIXED = Structure(Lattice.cubic(3.0), [{"Fe": 0.5, "Co": 0.5}], [[0, 0, 0]])

HEADER = "formula,spacegroup,n_atoms,a,b,c,alpha,beta,gamma,band_gap"
TWO = ["ZnO,186,4,3.25,3.25,5.2,90,90,120,0.7", "CsCl,221,2,4.1,4.1,4.1,90,90,90,5.5"]


def csv(tmp_path: Path, *lines: str, header: str = HEADER, name: str = "some.csv") -> Path:
    (tmp_path / name).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return tmp_path / name


def gap(path, **options):
    return read_labelled(path, "band_gap", progress=False, **options)


def reasons(path, **options) -> str:
    with pytest.raises(DataError) as caught:
        gap(path, **options)
    return str(caught.value)


def test_a_csv(tmp_path: Path) -> None:
    rows = gap(csv(tmp_path, *TWO))
    assert rows.crystals.formulas() == ["ZnO", "CsCl"]
    assert rows.crystals.n_atoms.tolist() == [4, 2]
    assert rows.labels.tolist() == [0.7, 5.5]
    assert rows.keys == [{("O1Zn1", 186)}, {("Cl1Cs1", 221)}]


def test_other_names_of_columns_and_tabs(tmp_path: Path) -> None:
    header = HEADER.replace("spacegroup", "space_group").replace("band_gap", "hardness")
    path = csv(tmp_path, *(line.replace(",", "\t") for line in TWO), header=header.replace(",", "\t"), name="some.tsv")
    rows = read_labelled(path, "hardness", column="hardness", progress=False)
    assert rows.labels.tolist() == [0.7, 5.5] and rows.crystals.space_group.tolist() == [186, 221]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Xq2O,186,4,3.25,3.25,5.2,90,90,120,0.7", "formula is 'Xq2O', which is not a formula of known elements"),
        (",186,4,3.25,3.25,5.2,90,90,120,0.7", "formula is None"),
        ("Fe0.5Co0.5,221,1,3,3,3,90,90,90,0.7", "crystals have whole atoms"),
        ("ZnO,231,4,3.25,3.25,5.2,90,90,120,0.7", "spacegroup is 231; space groups are the whole numbers 1-230"),
        ("ZnO,0,4,3.25,3.25,5.2,90,90,120,0.7", "spacegroup is 0"),
        ("ZnO,186.5,4,3.25,3.25,5.2,90,90,120,0.7", "spacegroup is 186.5"),
        ("ZnO,P63mc,4,3.25,3.25,5.2,90,90,120,0.7", "spacegroup is 'P63mc'; it must be a number"),
        ("ZnO,186,4,3.25,3.25,5.2,90,90,90,0.7", "contradicts space group 186, which is hexagonal"),
        ("CsCl,221,2,4.1,4.1,4.4,90,90,90,0.7", "contradicts space group 221, which is cubic"),
        ("TiO2,136,6,4.6,4.9,2.96,90,90,90,0.7", "contradicts space group 136, which is tetragonal"),
        ("ZrO2,14,12,5.2,5.2,5.3,80,99,90,0.7", "contradicts space group 14, which is monoclinic"),
        ("MgSiO3,62,20,4.8,4.9,6.9,90,93,90,0.7", "contradicts space group 62, which is orthorhombic"),
        ("ZnO,186,4,3.25,-3.25,5.2,90,90,120,0.7", "has no volume"),
        ("SiO2,2,6,5,5,5,120,120,125,0.7", "has no volume"),
        ("ZnO,186,4,3.25,,5.2,90,90,120,0.7", "b is empty; it must be a number"),
        ("ZnO,186,3,3.25,3.25,5.2,90,90,120,0.7", "n_atoms is 3, which is not a multiple of the 2 atoms of ZnO"),
        ("CsCl,221,8,4.1,4.1,4.1,90,90,90,0.7", "n_atoms counts those of the primitive cell"),
        ("NaCl,225,8,5.6,5.6,5.6,90,90,90,0.7", "may count the primitive or the conventional cell of group 225"),
        ("ZrO2,14,12,5.2,5.2,5.3,90,99,90,0.7", "may be in one of several settings"),
        ("ZnO,186,4,3.25,3.25,5.2,90,90,120,nan", "band_gap is nan; it must be a finite number"),
        ("ZnO,186,4,3.25,3.25,5.2,90,90,120,inf", "band_gap is inf"),
        ("ZnO,186,4,3.25,3.25,5.2,90,90,120,", "band_gap is empty"),
        ("ZnO,186,4,3.25,3.25,5.2,90,90,120,<1E-10", "band_gap is '<1E-10'"),
        ("ZnO,186,4,3.25,3.25", "it has 5 values for 10 columns"),
    ],
)
def test_bad_rows_are_named_or_skipped(tmp_path: Path, line: str, reason: str) -> None:
    path = csv(tmp_path, TWO[0], line, TWO[1])
    said = reasons(path)
    assert "some.csv: 1 of 3 rows cannot be used" in said and "line 3: " in said and reason in said
    assert "skip_bad=True" in said
    (one,) = [text for text in said.splitlines() if text.startswith("  line 3")]
    assert said.count("line ") == 1 and one.count("  line") == 1  # one row, one line
    with pytest.warns(UserWarning, match="1 of 3 rows cannot be used"):
        rows = gap(path, skip_bad=True)
    assert rows.crystals.formulas() == ["ZnO", "CsCl"]


def test_all_bad_rows_are_listed_in_order_up_to_twenty(tmp_path: Path) -> None:
    bad = [f"ZnO,{231 + i},4,3.25,3.25,5.2,90,90,120,0.7" for i in range(25)]
    said = reasons(csv(tmp_path, TWO[0], *bad)).splitlines()
    assert said[0].endswith("25 of 26 rows cannot be used")
    assert [line.split(":")[0].strip() for line in said[1:21]] == [f"line {i}" for i in range(3, 23)]
    assert said[21].strip() == "and 5 more"


def test_a_row_with_its_cif_over_many_lines_keeps_the_line_numbers(tmp_path: Path) -> None:
    text = RUTILE.to(fmt="cif").strip()
    quoted = '"' + text.replace('"', '""') + '"'
    path = csv(tmp_path, f"{quoted},1.8", "no cif,2.0", header="cif,band_gap")
    line = 2 + len(text.splitlines())
    assert f"line {line}: the column cif is not a CIF that can be read" in reasons(path)
    with pytest.warns(UserWarning, match="1 of 2"):
        rows = gap(path, skip_bad=True)
    assert rows.crystals.formulas() == ["TiO2"] and rows.crystals.space_group.tolist() == [136]


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    assert "is empty" in reasons(tmp_path / "empty.csv")
    assert "is empty" in reasons(csv(tmp_path))
    assert "has no column band_gap" in reasons(csv(tmp_path, *TWO, header=HEADER.replace("band_gap", "gap")))
    assert "has no columns n_atoms, spacegroup" in reasons(
        csv(tmp_path, "ZnO,3.25,3.25,5.2,90,90,120,0.7", header="formula,a,b,c,alpha,beta,gamma,band_gap")
    )
    assert "there is no file or folder" in reasons(tmp_path / "nothing.csv")
    assert "there is no file or folder" in reasons(tmp_path / "nothing")
    (tmp_path / "some.docx").write_text("x")
    assert "is of a kind that is not read" in reasons(tmp_path / "some.docx")
    (tmp_path / "bytes.csv").write_bytes(HEADER.encode() + b"\n\xff\xfe\n")
    assert "cannot be read as a table" in reasons(tmp_path / "bytes.csv")
    with pytest.raises(DataError, match="no data for the property 'hardness'"):
        read_labelled(csv(tmp_path, *TWO), "hardness")
    assert "setting is 'ita'" in reasons(csv(tmp_path, *TWO), setting="ita")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bytes.csv", "empty.csv", "some.csv", "some.docx"]


def test_the_standard_setting_reads_every_kind(tmp_path: Path) -> None:
    path = csv(
        tmp_path,
        "NaCl,225,2,5.6,5.6,5.6,90,90,90,5",
        "ZrO2,14,12,5.3,5.2,5.2,90,99,90,4",
        "MgSiO3,62,20,4.93,6.90,4.78,90,90,90,5",
        "Al2O3,167,10,4.76,4.76,12.99,90,90,120,6",
    )
    rows = gap(path, setting="standard")
    assert rows.crystals.n_atoms.tolist() == [2, 12, 20, 10]
    torch.testing.assert_close(rows.crystals.volume_per_atom[0], torch.tensor(5.6**3 / 8).double())
    torch.testing.assert_close(
        rows.crystals.volume_per_atom[3], torch.tensor(4.76**2 * 12.99 * 0.75**0.5 / 30).double()
    )


def folder_of_cifs(tmp_path: Path) -> Path:
    folder = tmp_path / "cifs"
    folder.mkdir()
    for name, structure in {"salt": SALT, "rutile": RUTILE, "mixed": MIXED}.items():
        structure.to(str(folder / f"{name}.cif"))
    (folder / "broken.cif").write_text("data_broken\nloop_\n_cell")
    return folder


def test_a_folder_of_cifs(tmp_path: Path) -> None:
    folder = folder_of_cifs(tmp_path)
    csv(folder, "salt.cif,5.0", "rutile,1.8", header="file,band_gap", name="targets.csv")
    rows = gap(folder)
    assert rows.crystals.formulas() == ["NaCl", "TiO2"] and rows.crystals.n_atoms.tolist() == [2, 6]
    assert rows.keys[0] == {("Cl1Na1", 225)} and rows.labels.tolist() == [5.0, 1.8]


def test_bad_cifs_are_named(tmp_path: Path) -> None:
    folder = folder_of_cifs(tmp_path)
    lines = ["salt.cif,NaCl,5.0", "mixed.cif,,0", "broken.cif,,0", "gone.cif,,0", "rutile.cif,SnO2,1.8"]
    csv(folder, *lines, header="file,formula,band_gap", name="targets.csv")
    said = reasons(folder)
    assert "4 of 5 rows" in said
    for text in (
        "line 3: the structure (Fe0.5Co0.5) is disordered",
        "line 4: broken.cif is not a CIF",
        "line 5: there is no file gone.cif",
        "line 6: formula is 'SnO2', but the atoms are those of TiO2",
    ):
        assert text in said
    csv(folder, name="second.csv")
    assert "needs one table of targets" in reasons(folder)


def frames(tmp_path: Path) -> Path:
    from ase.io import write as ase_write
    from pymatgen.io.ase import AseAtomsAdaptor

    atoms = [AseAtomsAdaptor.get_atoms(one, msonable=False) for one in (SALT, RUTILE)]
    for one, value in zip(atoms, (5.0, 1.8), strict=True):
        one.info = {"band_gap": value}
    ase_write(tmp_path / "some.extxyz", atoms, format="extxyz")
    return tmp_path / "some.extxyz"


def test_extended_xyz(tmp_path: Path) -> None:
    rows = gap(frames(tmp_path))
    assert rows.crystals.formulas() == ["NaCl", "TiO2"] and rows.crystals.space_group.tolist() == [225, 136]
    assert rows.labels.tolist() == [5.0, 1.8]


def test_bad_frames_are_named(tmp_path: Path) -> None:
    path = frames(tmp_path)
    good = path.read_text()
    lattice = 'Lattice="3 0 0 0 3 0 0 0 3"'
    bad = f"1\nband_gap=1.0\nFe 0 0 0\n1\n{lattice}\nFe 0 0 0\n1\n{lattice} band_gap=1\nFe 0\n"
    path.write_text(bad + good + "not a number\n")
    said = reasons(path)
    assert "4 of 6 rows" in said
    for text in (
        "frame 0 (line 1): it has no Lattice",
        "frame 1 (line 4): it has no band_gap; the comment line of a frame holds band_gap=<number>",
        "frame 2 (line 7): it cannot be read as extended XYZ",
        "(line 28): 'not a number' is not a number of atoms",
    ):
        assert text in said
    path.write_text("")
    assert "is empty" in reasons(path)


def test_streams_give_rows_one_by_one(tmp_path: Path) -> None:
    path = csv(tmp_path, TWO[0], "Xq,1,1,3,3,3,90,90,90,1")
    rows = stream(path, "band_gap")
    first = next(rows)
    assert (
        isinstance(first, LabelledCrystal)
        and first.where == "line 2"
        and len(first.crystal) == 1
        and first.label == 0.7
    )
    assert isinstance(next(rows), SkippedRecord)
    assert next(rows, None) is None


def test_parquet_streams_too(tmp_path: Path) -> None:
    cell = dict(zip(("a", "b", "c", "alpha", "beta", "gamma"), RUTILE.lattice.parameters, strict=True))
    row = {"formula": "TiO2", "spacegroup": 136, "band_gap": 1.8, **{f"cell_{k}": v for k, v in cell.items()}}
    row |= {"Z": [site.specie.Z for site in RUTILE], "frac": RUTILE.frac_coords.ravel().tolist()}
    pd.DataFrame([row]).to_parquet(tmp_path / "some.parquet")
    (record,) = stream(tmp_path / "some.parquet", "band_gap")
    assert record.where == "row 0" and record.crystal.formulas() == ["TiO2"]
    # and is read whole though it has no conventional cell, since all rows have positions
    rows = gap(tmp_path / "some.parquet", cache=tmp_path / "cache")
    assert torch.equal(rows.crystals.lattice, record.crystal.lattice)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    rows = gap(csv(tmp_path, *TWO, "ZrO2,14,12,5.3,5.2,5.2,90,99,90,4"), setting="standard")
    write_labelled(rows, tmp_path / "kept.parquet", "band_gap")
    again = gap(tmp_path / "kept.parquet", setting="standard")
    assert torch.equal(again.crystals.composition, rows.crystals.composition) and again.keys == rows.keys
    torch.testing.assert_close(again.crystals.lattice, rows.crystals.lattice)
    assert torch.equal(again.labels, rows.labels)


def test_bad_rows_of_parquet(tmp_path: Path) -> None:
    path = csv(tmp_path, *TWO)
    table = pd.read_csv(path)
    table.loc[2] = ["Xq", 1, 1, 3.0, 3.0, 3.0, 90, 90, 90, 1.0]
    table.loc[3] = ["ZnO", 300, 4, 3.25, 3.25, 5.2, 90, 90, 120, 1.0]
    table.to_parquet(tmp_path / "bad.parquet")
    said = reasons(tmp_path / "bad.parquet", cache=tmp_path / "cache")
    assert "2 of 4 rows" in said and "row 2: formula is 'Xq'" in said and "row 3: spacegroup is 300" in said
    assert not (tmp_path / "cache").exists()
    with pytest.warns(UserWarning, match="2 of 4 rows"):
        rows = gap(tmp_path / "bad.parquet", cache=tmp_path / "cache", skip_bad=True)
    assert rows.crystals.formulas() == ["ZnO", "CsCl"]
    table.loc[:1].iloc[:0].to_parquet(tmp_path / "none.parquet")
    assert "is empty" in reasons(tmp_path / "none.parquet", cache=tmp_path / "cache")
    table = table.loc[:1]
    table.loc[1, "c"] = 8.0
    table.to_parquet(tmp_path / "odd.parquet")
    with pytest.warns(UserWarning, match="contradicts space group 221"):
        rows = gap(tmp_path / "odd.parquet", cache=tmp_path / "cache")
    assert rows.crystals.formulas() == ["ZnO"]


@pytest.fixture
def matminer(monkeypatch: pytest.MonkeyPatch) -> None:
    """matminer's loader with two rows instead of 106,113."""
    frame = pd.DataFrame({"structure": [SALT, RUTILE], "gap pbe": [5.0, 1.8]})
    datasets = types.ModuleType("matminer.datasets")

    def load_dataset(name: str) -> pd.DataFrame:
        if name == "matbench_mp_gap":
            return frame
        if name == "matbench_steels":
            return pd.DataFrame({"composition": ["Fe"], "yield strength": [2000.0]})
        raise ValueError(f"Dataset {name} not found")

    datasets.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "matminer", types.ModuleType("matminer"))
    monkeypatch.setitem(sys.modules, "matminer.datasets", datasets)


def test_matbench(matminer: None) -> None:
    rows = gap("matbench:matbench_mp_gap")
    assert rows.crystals.formulas() == ["NaCl", "TiO2"] and rows.labels.tolist() == [5.0, 1.8]
    with pytest.raises(DataError, match="holds band_gap, not formation_energy"):
        read_labelled("matbench:matbench_mp_gap")
    with pytest.raises(DataError, match="the target of matbench_phonons is not known here"):
        gap("matbench:matbench_phonons")
    with pytest.raises(DataError, match="matminer cannot load matbench_gaps: Dataset matbench_gaps not found"):
        gap("matbench:matbench_gaps", column="gap")
    with pytest.raises(DataError, match="matbench_steels has no column structure"):
        gap("matbench:matbench_steels", column="yield strength")


def test_matbench_without_matminer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matminer", None)
    monkeypatch.setitem(sys.modules, "matminer.datasets", None)
    with pytest.raises(NotAvailable, match="pandas<3"):
        gap("matbench:matbench_mp_gap")


class Response:
    """What requests gives back, as far as pymatgen's client looks at it."""

    def __init__(self, rows: list[dict], status: int = 200) -> None:
        self.status_code, self.text = status, json.dumps({"data": rows})
        self.content = self.text.encode()


@pytest.fixture
def materials(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The Materials Project with three materials, one without a band gap; gives the requests back."""
    import requests

    asked: list[dict] = []
    known = {
        "mp-1": {"structure": SALT.as_dict(), "formula_pretty": "NaCl", "symmetry": {"number": 225}, "band_gap": 5.0},
        "mp-2": {"structure": RUTILE.as_dict(), "formula_pretty": "TiO2", "symmetry": {"number": 136}, "band_gap": 1.8},
        "mp-3": {
            "structure": RUTILE.as_dict(),
            "formula_pretty": "TiO2",
            "symmetry": {"number": 136},
            "band_gap": None,
        },
    }

    def get(self: object, url: str, params: dict, **_: object) -> Response:
        asked.append({"url": url, **params})
        if params.get("formula") == "Fm":
            return Response([], status=403)
        wanted = params["material_ids"].split(",") if "material_ids" in params else known
        fields = url.split("_fields=")[1].split("&")[0].split(",")
        rows = [{"material_id": name, **known[name]} for name in wanted if name in known]
        return Response([{key: row[key] for key in fields} for row in rows])

    monkeypatch.setattr(requests.Session, "get", get)
    monkeypatch.setenv("PMG_MAPI_KEY", "k" * 32)
    monkeypatch.setattr("pymatgen.ext.matproj.SETTINGS", {"PMG_MAPI_KEY": "k" * 32})
    return asked


def test_the_materials_project(materials: list[dict], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crystalgfn.data.databases.CHUNK", 2)
    rows = list(stream("materials_project:Ti-*", "band_gap"))
    assert [row.where for row in rows] == ["mp-1", "mp-2", "mp-3"]
    assert [request.get("material_ids") for request in materials] == [None, "mp-1,mp-2", "mp-3"]
    assert materials[0]["chemsys"] == "Ti-*"
    assert rows[0].crystal.formulas() == ["NaCl"] and rows[0].key == {("Cl1Na1", 225)}
    assert str(rows[2]) == "mp-3: band_gap is empty; it must be a number"
    with pytest.warns(UserWarning, match="1 of 3"):
        assert gap("materials_project:TiO2", skip_bad=True).labels.tolist() == [5.0, 1.8]
    assert "mp-9: the Materials Project returns no structure" in reasons("materials_project:mp-1,mp-9")


def test_what_the_materials_project_refuses(materials: list[dict], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "refuses 'Fm': REST query returned with error status code 403" in reasons("materials_project:Fm")
    assert "needs a query" in reasons("materials_project:")
    monkeypatch.setattr("pymatgen.ext.matproj.SETTINGS", {})
    assert "set it as PMG_MAPI_KEY" in reasons("materials_project:TiO2")


def test_no_row_of_val_through_matbench(shared_data: Path, tmp_path: Path) -> None:
    """Crystals of MatBench with formula and group of a crystal of val are dropped, others stay."""
    val = pd.read_parquet(shared_data / "mp20" / "val.parquet").iloc[:40]
    bench = pd.read_parquet(shared_data / "matbench_mp_gap" / "structures_le20.parquet")
    pairs = set(zip(val.formula, val.spacegroup, strict=True))
    same = np.array([pair in pairs for pair in zip(bench.formula, bench.spacegroup, strict=True)])
    assert same.sum() >= 20
    pd.concat([bench[same], bench[~same].iloc[:20]]).to_parquet(tmp_path / "bench.parquet")
    val.to_parquet(tmp_path / "val.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = gap(tmp_path / "bench.parquet", cache=tmp_path)
        held = gap(tmp_path / "val.parquet", cache=tmp_path)
    kept = exclude(rows, held)
    assert len(rows) == same.sum() + 20 and len(kept) <= 20
    left = {pair for key in kept.keys for pair in key}
    assert left and not left & {pair for key in held.keys for pair in key}
    assert isinstance(kept.crystals, Crystals)


def test_rows_of_parquet_that_could_be_read_wrongly(tmp_path: Path) -> None:
    """One atom of a formula O2: read by the formula as it is written, its composition would be empty."""
    lines = [TWO[0], "O2,225,1,4.3,4.3,4.3,90,90,90,0.0"]
    path = csv(tmp_path, *lines)
    assert gap(path).crystals.n_atoms.tolist() == [4, 1]
    pd.read_csv(path).to_parquet(tmp_path / "some.parquet")
    with pytest.warns(UserWarning, match="row 1: n_atoms is 1, which is not a multiple of the 2 atoms of O2"):
        rows = gap(tmp_path / "some.parquet", cache=tmp_path / "cache")
    assert rows.crystals.formulas() == ["ZnO"]


def test_measured_enthalpies_of_formation():
    """What the tables of thermochemistry say: NaCl -411.1 and SrTiO3 -1672.4 kJ/mol (NIST-JANAF, Barin)."""
    from crystalgfn.data.reader import records
    from crystalgfn.properties.energy_scale import scale_shift

    found = {one.values["formula"]: one.values for one in records("experiment")}
    assert len(found) == 2135 and all(one.keys() >= {"measured", "material_id"} for one in found.values())
    kilojoules = 96.485
    assert found["NaCl"]["measured"] * 2 * kilojoules == pytest.approx(-411.1, abs=1.0)
    assert found["SrTiO3"]["measured"] * 5 * kilojoules == pytest.approx(-1672.4, abs=5.0)
    for name in ("NaNO3", "FeS2", "SrTiO3"):  # on the scale of the charges it is what was measured
        moved = found[name]["formation_energy_per_atom"] + float(scale_shift([name]))
        assert moved == pytest.approx(found[name]["measured"], abs=1e-9)
