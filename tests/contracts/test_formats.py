"""Every format of the package keeps the contract, and so does the one of docs/how-to/add-a-file-format.md."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from crystalgfn.crystallography.atoms import Atoms, Record
from crystalgfn.data.formats.base import check_format, formats
from crystalgfn.errors import DataError
from tests.contracts.format import FormatContract

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-file-format.md"
SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
CELL = dict(zip((f"prim_{x}" for x in ("a", "b", "c", "alpha", "beta", "gamma")), SALT.lattice.parameters, strict=True))


class TestCif(FormatContract):
    format = formats()[".cif"]

    def write(self, folder):
        (folder / "salt.cif").write_text(SALT.to(fmt="cif"))
        return folder / "salt.cif"


class TestPoscar(FormatContract):
    format = formats()[".vasp"]

    def write(self, folder):
        (folder / "salt.vasp").write_text(SALT.to(fmt="poscar"))
        return folder / "salt.vasp"


class TestExtendedXYZ(FormatContract):
    format = formats()[".extxyz"]

    def write(self, folder):
        lattice = " ".join(str(x) for x in SALT.lattice.matrix.ravel())
        atoms = "".join(f"{site.specie} {' '.join(f'{x:.6f}' for x in site.coords)}\n" for site in SALT)
        text = f'{len(SALT)}\nLattice="{lattice}" Properties=species:S:1:pos:R:3 pbc="T T T"\n{atoms}'
        (folder / "salt.extxyz").write_text(text)
        return folder / "salt.extxyz"


class TestParquet(FormatContract):
    format = formats()[".parquet"]

    def write(self, folder):
        row = {"Z": [site.specie.Z for site in SALT], "frac": SALT.frac_coords.ravel().tolist(), **CELL}
        pd.DataFrame([row]).to_parquet(folder / "salt.parquet")
        return folder / "salt.parquet"


class TestTable(FormatContract):
    format = formats()[".csv"]

    def write(self, folder):
        pd.DataFrame({"cif": [SALT.to(fmt="cif")], "gap": [5.0]}).to_csv(folder / "salt.csv", index=False)
        return folder / "salt.csv"


class TestJson(FormatContract):
    format = formats()[".json"]

    def write(self, folder):
        (folder / "salt.json").write_text(json.dumps([SALT.as_dict()]))
        return folder / "salt.json"


@pytest.fixture
def page(capsys, tmp_path, monkeypatch):
    """What the code of the page defines, run as it stands."""
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return {**names, "printed": capsys.readouterr().out}


def test_the_page_that_adds_a_format(page, tmp_path, monkeypatch):
    from crystalgfn.data import reader
    from crystalgfn.data.formats import base

    assert page["printed"] == "Cs1 Cl1\n"
    found = {**formats(), ".res": page["RES"]}
    monkeypatch.setattr(base, "formats", lambda: found)
    monkeypatch.setattr(reader, "formats", lambda: found)
    (one,) = reader.records(tmp_path)  # a folder of such files is a set of crystals
    assert one.structure.get_space_group_info()[1] == 221


class Wrong:
    suffixes = (".wrong",)
    structures = True

    def __init__(self, *yielded):
        self.yielded = yielded

    def open(self, uri):
        yield from self.yielded


@pytest.mark.parametrize(
    ("yielded", "words"),
    [
        ((), "yields nothing"),
        (("a crystal",), "must yield Record or SkippedRecord"),
        ((Record("", None),), "does not say where it stands"),
        ((Record("a", None), Record("a", None)), "the same place"),
        (
            (
                Record(
                    "a",
                    Atoms(
                        where="a", lattice=np.full(6, np.nan), points=np.zeros((1, 3)), numbers=np.ones(1, dtype=int)
                    ),
                ),
            ),
            "not six finite",
        ),
        ((Record("a", None),), "yields a crystal from a damaged file"),
    ],
)
def test_a_format_that_breaks_a_rule_is_told_which(yielded, words, tmp_path):
    (tmp_path / "x.wrong").write_text("x")
    with pytest.raises(DataError, match=words):
        check_format(Wrong(*yielded), tmp_path / "x.wrong")


def test_a_format_without_suffixes_is_refused(tmp_path):
    with pytest.raises(DataError, match="needs suffixes"):
        check_format(object(), tmp_path)
