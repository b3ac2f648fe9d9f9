"""What ``crystalgfn predict`` writes, and what it refuses."""

import json

import pandas as pd
import pytest
from pymatgen.core import Structure

from crystalgfn.cli import app


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("predict") / "out"
    arguments = ["predict", "formula=[NaCl,CsCl]", "n=2", "refiner=null", f"out={out}", "progress=false"]
    assert app.main(arguments) == 0
    return out


def test_rock_salt_comes_first_and_its_file_is_read_again(out):
    frame = pd.read_parquet(out / "table.parquet")
    assert frame["formula"].tolist() == ["NaCl", "NaCl", "CsCl", "CsCl"]
    assert frame["rank"].tolist() == [1, 2, 1, 2]
    assert frame["symbol"][0] == "Fm-3m" and frame["probability"].between(0, 1).all()
    first = Structure.from_file(out / frame["file"][0])
    assert first.get_space_group_info()[1] == 225 and first.composition.reduced_formula == "NaCl"
    assert json.loads((out / "run.json").read_text())["counts"] == {"structures": 4}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["out={new}"], "predict needs a formula"),
        (["formula=NaCl", "space_group=Xyz", "out={new}"], "space_group=Xyz"),
        (["formula=NaCl", "out={out}"], "already holds a run"),
    ],
)
def test_mistakes_are_one_sentence(out, tmp_path, capsys, arguments, words):
    assert app.main(["predict", *(one.format(new=tmp_path / "new", out=out) for one in arguments)]) == 2
    assert words in capsys.readouterr().err
