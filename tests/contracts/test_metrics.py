"""Every metric of the package keeps the contract, and so does the one that the documentation adds."""

import importlib.metadata
import json
import re
import sys
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from crystalgfn.cli import app
from crystalgfn.errors import DataError
from crystalgfn.evaluation.metrics import registry
from crystalgfn.evaluation.metrics.base import Verdict
from crystalgfn.evaluation.metrics.registry import BUILT_IN, all_metrics, check_metric
from tests.contracts.metric import MetricContract

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "add-a-metric.md"


@pytest.fixture(scope="module")
def structures():
    salt = Structure.from_spacegroup(225, Lattice.cubic(5.64), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
    rutile = Structure.from_spacegroup(136, Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0] * 3, [0.305, 0.305, 0]])
    mixed = Structure(Lattice.cubic(4.16), [{"Li": 0.5, "Fe": 0.5}, "O"], [[0] * 3, [0.5] * 3])
    return [salt, rutile, mixed]


class TestValidity(MetricContract):
    metric = BUILT_IN[0]


class TestSymmetry(MetricContract):
    metric = BUILT_IN[1]


class TestNovelty(MetricContract):
    metric = BUILT_IN[2]


class TestDiversity(MetricContract):
    metric = BUILT_IN[3]


class TestDistributions(MetricContract):
    metric = BUILT_IN[4]


class TestStability(MetricContract):
    metric = BUILT_IN[5]


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def page(tmp_path, monkeypatch, structures):
    """The page's own file, beside a folder of crystals."""
    (tmp_path / "coordination.py").write_text(blocks()[0], encoding="utf-8")
    (tmp_path / "cifs").mkdir()
    for i, one in enumerate(structures[:2]):
        one.to(str(tmp_path / "cifs" / f"{i}.cif"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("coordination", None)


def test_the_metric_of_the_documentation_is_one_file(page, capsys):
    names: dict = {}
    exec(blocks()[1], names)
    said, found = capsys.readouterr().out, names["found"]
    assert "| Mean coordination number |" in said
    # six in rock salt
    assert found.samples.frame.coordination_number[0] == 6 and found.to_dict()["mean_coordination"] > 4
    assert "coordination" in {one.name for own in found.panels().values() for one in own}


def test_an_installed_package_adds_it_to_the_command(page, monkeypatch, capsys):
    point = importlib.metadata.EntryPoint("coordination", "coordination:Coordination", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == registry.GROUP else [])
    given = ["samples=cifs", "out=out", "progress=false", "report=false"]
    assert app.evaluate([*given, "reference=cifs"]) == 0
    found = json.loads((page / "out" / "summary.json").read_text(encoding="utf-8"))
    assert found["mean_coordination"] == found["mean_coordination_reference"] > 4
    assert "| Mean coordination number |" in capsys.readouterr().out


class Wrong:
    """A metric with nothing wrong, to be spoiled."""

    name = "wrong"

    def columns(self, sample):
        return {"wrong_size": len(sample.structure)}

    def summary(self, samples, reference):
        return {"wrong_mean": float(samples.values("wrong_size").mean())}

    def verdict(self, summary, reference):
        return [Verdict(name="Wrong", figure=f"{summary['wrong_mean']:.1f}")]

    def figure(self, samples, reference, summary):
        return []


def changes(self, samples, reference):
    samples.frame["wrong_size"] = 0
    return {"wrong_mean": 0.0}


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("name", "two words", "Python name"),
        ("figure", None, "is no metric"),
        ("columns", lambda self, sample: {sample.where: 1}, "of others"),
        ("columns", lambda self, sample: {"density": 1.0}, "'density', which another"),
        ("columns", lambda self, sample: {"cell": sample.structure}, "JSON"),
        ("columns", lambda self, sample: [1], "not a mapping"),
        ("summary", lambda self, samples, reference: {"valid": 1}, "'valid'"),
        ("summary", lambda self, samples, reference: 3.0, "neither a mapping"),
        ("summary", changes, "changes the rows"),
        ("verdict", lambda self, summary, reference: ["fine"], "no list of Verdict"),
        ("verdict", lambda self, summary, reference: [Verdict(name="a", figure="b", level="fine")], "level 'fine'"),
        ("figure", lambda self, samples, reference, summary: [1], "no list of Panel"),
    ],
)
def test_what_is_wrong_is_said(part, value, words, monkeypatch):
    monkeypatch.setattr(Wrong, part, value)
    if value is None:
        monkeypatch.delattr(Wrong, part)
    with pytest.raises(DataError, match=words):
        check_metric(Wrong())


def test_names_are_unique():
    check_metric(Wrong())  # which has nothing wrong

    class Other(Wrong):
        name = "validity"

    with pytest.raises(DataError, match="two metrics are called 'validity'"):
        all_metrics([Other()])
    with pytest.raises(DataError, match="is no metric"):
        all_metrics([Wrong])
