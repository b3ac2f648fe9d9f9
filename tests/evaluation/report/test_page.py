"""The page of an evaluation: whole, without network, with all that it promises, and safe with any names."""

import base64
import json
import re
import sys
from html.parser import HTMLParser

import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

pytest.importorskip("plotly")
pytest.importorskip("pymatviz", exc_type=ImportError)

from crystalgfn.cli import evaluate as evaluate_samples
from crystalgfn.cli.app import evaluate
from crystalgfn.crystallography.atoms import CELL, Record, SkippedRecord, record_of
from crystalgfn.errors import NotAvailable
from crystalgfn.evaluation.describe import Describer
from crystalgfn.evaluation.metrics.base import BAD, FAIR, GOOD, STATED, CrystalSet
from crystalgfn.evaluation.metrics.distributions import (
    DistributionMetric,
    DistributionSummary,
    PropertyDistribution,
    statistics_of,
)
from crystalgfn.evaluation.report import components
from crystalgfn.evaluation.report import page as html_report
from crystalgfn.evaluation.summary import evaluation

ODD = "</script><script>alert(1)</script>&\"'.cif"
VOID = {"meta", "input", "br", "link", "img", "hr"}
LABEL = "CHGNet, not DFT"


class Page(HTMLParser):
    """Elements in order, ends checked against beginnings; text of scripts and of the rest apart."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.scripts, self.text = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self.open and self.open[-1] == "script" else self.text).append(data)

    def json(self, name):
        names = [attrs.get("id") for tag, attrs in self.tags if tag == "script"]
        return json.loads(dict(zip(names, self.scripts, strict=True))[name])


def salt(a: str, b: str, edge: float) -> Structure:
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(edge), [a, b], [[0, 0, 0], [0.5, 0.5, 0.5]])


def rows(*samples: Record) -> pd.DataFrame:
    frame = pd.DataFrame([{"index": i, **Describer((0.1,), 0.1).row(one)} for i, one in enumerate(samples)])
    frame["unique"], frame["duplicate_of"] = True, None
    return frame


def judge(frame, errors=(), **more):
    return evaluation(CrystalSet(frame=frame, given=len(frame) + len(errors), **more), errors)


@pytest.fixture(scope="module")
def frame():
    """Three crystals, the second disordered, the third under a name that tries to end a script."""
    alloy = Structure(Lattice.cubic(3.6), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    claim = {"energy_above_hull": 0.02}
    given = (record_of("a.cif", salt("Na", "Cl", 5.64), 225, claim), record_of("b.cif", alloy, 0, claim))
    return rows(*given, record_of(ODD, salt("Mg", "O", 4.2), 225, claim))


@pytest.fixture(scope="module")
def full(frame):
    """The page with a reference, energies and an error, and what it was made of."""
    frame = frame.assign(novel=True, calculator=LABEL.partition(",")[0])
    relaxed = frame.loc[[0]].assign(
        e_above_hull=-0.5, formation_energy=-2.0, start_energy=-1.9, converged=True, displacement=0.1, volume_ratio=1.0,
        relax_error=None, relax_seconds=1.0, relaxed_unique=True, relaxed_novel=True,
    )  # fmt: skip
    cell = dict(zip((f"relaxed_{name}" for name in CELL), (4.0, 4.0, 4.0, 60.0, 60.0, 60.0), strict=True))
    relaxed = relaxed.assign(**cell, relaxed_Z=[[11, 17]], relaxed_frac=[[0.0, 0, 0, 0.5, 0.5, 0.5]])
    more = [name for name in relaxed if name not in frame] + ["index"]
    known = rows(record_of("k", salt("K", "Br", 6.6)), record_of("l", salt("Li", "F", 4.0))).assign(
        formation_energy=-3.0
    )
    reference = CrystalSet(frame=known, given=2, space_groups={225: 1})
    frame = frame.merge(relaxed[more], on="index", how="left")
    samples = CrystalSet(frame=frame, given=4, energies=LABEL, relaxations=relaxed, hull_entries=7)
    figures = evaluation(samples, [SkippedRecord(f"bad{ODD}", "no <cell>")], reference)
    about = {"command": "crystalgfn-evaluate samples=<x>", "machine": {"cpu": "c"}, "settings": {"samples": f"s/{ODD}"}}
    text = html_report.report_page(figures, about)
    return text, Page(text), figures, known


def test_it_is_well_formed_and_has_every_section(full):
    _, page, _, _ = full
    assert page.open == []
    sections = {attrs["id"] for tag, attrs in page.tags if tag == "section"}
    links = {attrs["href"][1:] for tag, attrs in page.tags if tag == "a" and attrs["href"].startswith("#")}
    assert sections == links == {
        "headline", "not-judged", "best-structures", "properties", "elements", "symmetry", "lattice-and-volume",
        "diversity", "stability", "reported-and-computed", "all-structures", "all-figures",
        "how-it-was-made",
    }  # fmt: skip
    figures = page.json("data-figures")
    places = [attrs["data-figure"] for _, attrs in page.tags if "data-figure" in attrs]
    assert sorted(places) == sorted(figures) and len(set(places)) == len(places)
    wanted = {"density", "volume_per_atom", "formation_energy"}
    assert wanted | {"elements", "sunburst", "edges", "angles", "reported_e_above_hull"} <= set(figures)
    # one relaxed crystal, two elements in each, one space group in the reference: a single bar says nothing
    assert not {"e_above_hull", "n_elements", "sunburst_known"} & set(figures)
    assert all("width" not in fig["layout"] or fig["layout"]["width"] is None for fig in figures.values())


def test_nothing_is_loaded_from_elsewhere(full):
    _, page, _, _ = full
    for tag, attrs in page.tags:
        assert attrs.get("src", "data:").startswith("data:") and tag not in {
            "link",
            "iframe",
            "object",
            "embed",
            "base",
        }
        assert attrs.get("href", "#").startswith(("#", "data:"))
    ours = page.scripts[-1]
    assert not re.search(r"https?://|fetch\(|XMLHttp|import\(|WebSocket", ours)
    assert "url(" not in html_style(full[0]) and "@import" not in html_style(full[0])
    assert sum(len(one) > 1_000_000 for one in page.scripts) == 1  # plotly.js, once


def html_style(text):
    return text.partition("<style>")[2].partition("</style>")[0]


def test_odd_names_stay_text(full):
    _, page, figures, _ = full
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 5
    assert page.json("data-rows")["rows"][2][0] == ODD
    assert f"bad{ODD}" in page.text and "no <cell>" in page.text and "crystalgfn-evaluate samples=<x>" in page.text
    assert any(ODD in one for one in page.text)


def test_each_cif_is_the_structure(full):
    _, page, _, _ = full
    links = [attrs for tag, attrs in page.tags if tag == "a" and "download" in attrs]
    assert len(links) == len(page.json("data-best")) == 1  # of the valid, unique and novel ones one has an energy
    found = [Structure.from_str(base64.b64decode(one["href"].partition(",")[2]).decode(), fmt="cif") for one in links]
    assert found[0].composition.reduced_formula == "NaCl" and found[0].lattice.a == pytest.approx(4.0)  # as relaxed
    assert links[0]["download"] == "01_NaCl_225.cif"


def test_energies_are_called_what_they_are(full):
    _, page, figures, _ = full
    captions = [one for one in page.text if LABEL in one]
    assert any(one.startswith("Energy above the hull") for one in captions)
    assert any("mean difference -0.520" in one for one in captions)  # -0.5 found, 0.02 claimed
    assert any("more than 0.2 eV/atom below the hull" in one for one in page.text)
    assert sum(LABEL in one.name and "7 entries" in one.why for one in figures.verdicts()) == 4


def test_without_reference_and_energies_there_is_a_page(frame):
    frame = frame.drop(columns="source_energy_above_hull")
    page = Page(html_report.report_page(judge(frame)))
    assert page.open == [] and "There is no reference to compare with." in page.text
    assert "No formation energies are known of these crystals." in page.text
    assert any(one.startswith("No crystal has both an energy") for one in page.text)
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a" and "download" in attrs]
    found = [Structure.from_str(base64.b64decode(one.partition(",")[2]).decode(), fmt="cif") for one in links]
    chosen, _, how = html_report.choose_best(CrystalSet(frame=frame, given=3))
    assert [one.composition.reduced_formula for one in found] == list(chosen["formula"]) and "no energies" in how
    assert "sunburst" in page.json("data-figures") and "sunburst_known" not in page.json("data-figures")


def test_verdicts_follow_the_reference_and_the_limits(frame):
    known = rows(record_of("k", salt("K", "Br", 6.6)), record_of("l", salt("Li", "F", 4.0)))
    beside = evaluation(CrystalSet(frame=frame, given=3), [], CrystalSet(frame=known, given=2))
    by_name = {one.name: one for one in beside.verdicts()}
    assert by_name["Readable"].level == GOOD
    volume = by_name["Usual volume"]  # lithium fluoride is denser than usual, so are two of the three
    assert volume.why.startswith("Compared with 50.0 % of 2") and volume.figure == "33.3 %" and volume.level == FAIR
    broken = judge(frame, [SkippedRecord(str(i), "x") for i in range(30)])
    by_name = {one.name: one for one in broken.verdicts()}
    assert by_name["Readable"].level == BAD and by_name["Readable"].figure == "9.1 %"
    far = PropertyDistribution(
        unit="Å3", samples=statistics_of([1.0]), reference=statistics_of([2.0]), wasserstein=1.0, scaled=0.5
    )
    summary = DistributionSummary(properties={"volume_per_atom": far}, energies=None)
    (one,) = DistributionMetric().verdict(summary, None)
    assert one.name == "Distance: volume per atom" and one.level == FAIR


def test_every_figure_is_in_the_text_and_judged_ones_are_headlines(full):
    _, page, figures, _ = full
    text, found = figures.text(), figures.verdicts()
    assert all(f"| {one.name} | {one.figure} |" in text for one in found)
    names = [attrs for tag, attrs in page.tags if attrs.get("class", "").startswith("card ")]
    assert len(names) == sum(one.level != STATED for one in found) < len(found)


def test_a_large_table_is_cut_and_says_so(frame, monkeypatch):
    monkeypatch.setattr(components, "ROWS", 2)
    page = Page(html_report.report_page(judge(frame)))
    assert len(page.json("data-rows")["rows"]) == 2 and any("The first 2 of 3 are here" in one for one in page.text)


def test_numbers_that_are_none_become_null(frame):
    frame = frame.assign(
        neutral_icsd=pd.array([True, False, None], dtype="boolean"), source_gap=[1.23456789, float("nan"), 2]
    )
    found = components.rows(frame)
    columns = dict(zip(found["keys"], zip(*found["rows"], strict=True), strict=True))
    assert columns["neutral_icsd"] == (True, False, None) and columns["source_gap"] == (1.2346, None, 2.0)
    assert components.data({"a": [None, "<"]}) == '{"a":[null,"\\u003c"]}'


def run(tmp_path, *more):
    cifs = tmp_path / "cifs"
    cifs.mkdir(exist_ok=True)
    if not (cifs / "a.cif").exists():
        salt("Na", "Cl", 5.64).to(str(cifs / "a.cif"))
    out = tmp_path / "out"
    assert evaluate([f"samples={cifs}", f"out={out}", "progress=false", *more]) == 0
    return out, json.loads((out / "summary.json").read_text())["report"]


def test_the_command_writes_it_unless_told_not_to(tmp_path, capsys):
    out, said = run(tmp_path)
    assert said == "report.html" and Page((out / "report.html").read_text(encoding="utf-8")).open == []
    assert "report.html" in capsys.readouterr().out and not list(out.glob(".*.part*"))
    (out / "report.html").unlink()
    out, said = run(tmp_path, "report=false")
    assert said == "not asked for (report=false)" and not (out / "report.html").exists()


def test_without_the_libraries_all_else_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymatviz", None)
    with pytest.raises(NotAvailable, match=r"pip install -e \"\.\[evaluate\]\""):
        html_report.page_libraries()
    out, said = run(tmp_path)
    assert said in capsys.readouterr().err and "was not written" in said and "pip install" in said
    assert (out / evaluate_samples.TABLE).exists() and not (out / "report.html").exists()
