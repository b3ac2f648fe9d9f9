"""Figures of structure prediction on records whose worth is known."""

import json

import numpy as np
import pytest

from crystalgfn.benchmarks.csp import report, scores
from crystalgfn.benchmarks.csp.scores import Scores, best
from crystalgfn.utils import statistics

NAN = float("nan")


def record(where, formula, rms, known=None, polymorphs=None, k=3, **more):
    """The record of one answer, every structure valid."""
    plain = {
        "where": where, "task": "T4", "method": "ours", "k": k, "seed": 0, "formula": formula, "space_group": 1,
        "system": "triclinic", "free": 0, "e_above_hull": None, "rms": rms, "valid": [True] * len(rms),
        "known": known or {}, "polymorphs": polymorphs or [where], "ratio": [1.0] * len(rms), "faults": [],
        "seconds": 2.0, "cpu_seconds": 1.0, "error": None,
    }  # fmt: skip
    return {**plain, **more}


def test_the_best_so_far():
    assert best([None, 0.3, 0.4, 0.1], 5).tolist() == [np.inf, 0.3, 0.3, 0.1, 0.1]
    assert best([], 2).tolist() == [np.inf, np.inf]


def test_rates_and_errors_of_known_answers():
    """Found at once, at the second try, and never."""
    found = Scores.of([record("a", "A1", [0.1, 0.05]), record("b", "B1", [None, 0.2]), record("c", "C1", [])])
    all_ = found.intervals()
    assert all_["rate"].value.tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert all_["rmse"].value.tolist() == pytest.approx([0.1, 0.125, 0.125])
    assert all_["crmse"].value.tolist() == pytest.approx([(0.1 + 1) / 3, (0.05 + 0.2 + 0.5) / 3, 0.25])
    assert all_["metre"].value.tolist() == all_["rate"].value.tolist()  # no two crystals have the same formula
    made = found.made()
    assert (made["structures"], made["valid"], made["empty"], made["faulty"]) == (4, 1.0, pytest.approx(1 / 3), 0.0)
    assert (made["seconds"], made["cpu_seconds"]) == (1.5, 0.75)


def test_what_was_made_for_one_polymorph_counts_for_the_other():
    """Each of two polymorphs got the structure of the other: no match, but METRe finds both."""
    swapped = [
        record("a", "A1", [None], {"b": [0.1]}, ["a", "b"]),
        record("b", "A1", [None], {"a": [0.3]}, ["a", "b"]),
        record("c", "C1", [None]),
    ]
    found = Scores.of(swapped)
    figures = found.intervals()
    assert figures["rate"].value[0] == 0.0
    assert figures["metre"].value[0] == pytest.approx(2 / 3)
    assert figures["crmse"].value[0] == pytest.approx((0.3 + 0.1 + 0.5) / 3)
    assert found.select([0]).intervals()["crmse"].value[0] == pytest.approx(0.3)  # made for "b", which is not selected


def test_the_share_of_polymorphs_found():
    """Of three polymorphs the first structure matches one, the second another; one formula is known once only."""
    rows = [
        record("a", "A1", [0.1, None], {"b": [None, 0.1], "c": [None, None]}, ["a", "b", "c"]),
        record("d", "D1", [0.1, 0.1]),
    ]
    formulas, polymorphs, found = Scores.of(rows).recalled()
    assert (formulas, polymorphs) == (1, 3)
    assert found.value.tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    # two crystals of one formula are one formula: the mean of what was made for each
    rows.append(record("b", "A1", [None, None], {"a": [None, None], "c": [None, None]}, ["a", "b", "c"]))
    formulas, _, found = Scores.of(rows).recalled()
    assert formulas == 1 and found.value[-1] == pytest.approx(1 / 3)


def test_answers_of_older_records():
    old = [record("a", "A1", [0.1])]
    for name in ("known", "polymorphs", "ratio", "faults", "cpu_seconds", "e_above_hull"):
        del old[0][name]
    found = scores.csp_figures(old)
    (row,) = found["rows"]
    assert row["rate"]["value"] == [1.0] * 3
    assert "metre" not in row and "crmse" not in row and found["recall"] == []
    assert row["valid"] is None and row["cpu_seconds"] is None and row["seconds"] == 2.0
    assert "METRe @" not in report.csp_tables(found)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    truth = np.array([0.3, 0.5, 0.8])
    inside = np.zeros(3)
    for _ in range(200):
        found = statistics.bootstrap_mean((rng.random((150, 3)) < truth).astype(float))
        inside += (found.low <= truth) & (truth <= found.high)
    assert ((inside / 200 > 0.88) & (inside / 200 <= 1)).all()


def test_intervals_where_there_is_little():
    values = np.array([[1.0, np.inf], [3.0, np.inf]])
    found = statistics.bootstrap_mean(values, np.isfinite(values))
    assert (found.value[0], found.low[0], found.high[0]) == (2.0, 1.0, 3.0)
    assert np.isnan(found.value[1]) and np.isnan(found.low[1])
    assert found.columns()["value"] == [2.0, None]
    assert np.isnan(statistics.bootstrap_mean(np.zeros((0, 2))).value).all()
    assert (statistics.bootstrap_mean(np.ones((5, 1))).low, statistics.bootstrap_mean(np.ones((5, 1))).high) == (
        1.0,
        1.0,
    )


@pytest.mark.parametrize(
    ("formula", "is_one"),
    [("Li2S1", True), ("Bi2Te3", True), ("Se1Sn1", True),
     ("Ba1O4S1", False), ("Bi1Cl1S1", False), ("Cl1Na1", False), ("Si1", False)],
)  # fmt: skip
def test_chalcogenides(formula, is_one):
    assert scores.chalcogenide(formula) == is_one


def test_the_hard_slices():
    rows = [
        record("a", "Li2S1", [0.1], e_above_hull=0.05),
        record("b", "Cl1Na1", [None], e_above_hull=0.0),
        record("c", "O1Zn1", [None], e_above_hull=0.021),
        *(record(where, formula, rms, method="templates") for where, formula, rms in
          (("a", "Li2S1", []), ("b", "Cl1Na1", [None, 0.1]), ("c", "O1Zn1", [0.1]))),
    ]  # fmt: skip
    found = scores.csp_figures(rows)
    sizes = {
        row["slice"]: (row["crystals"], row["rate"]["value"][0]) for row in found["rows"] if row["method"] == "ours"
    }
    assert sizes == {
        "all crystals": (3, pytest.approx(1 / 3)),
        "chalcogenides": (1, 1.0),
        "metastable (over 0.02 eV/atom above the hull)": (2, 0.5),
        "without one of the templates": (1, 1.0),
        "first of the templates is wrong": (1, 0.0),
    }


def test_the_tables_and_the_page_say_the_same(tmp_path):
    rows = [
        record("a", "A1", [0.1, None], {"b": [None, 0.1]}, ["a", "b"], method="<ours>"),
        record("c", "C1", [None], method="<ours>", faults=["c/1.cif: not a CIF"], error="no cell was found"),
    ]
    found = {"command": "crystalgfn-benchmark task=csp", "machine": {"spglib": "2"}, "settings": {"seed": 0}}
    found |= {"data": "val.csv", "crystals": 2, "skipped": ["row 7: cif is empty"], **scores.csp_figures(rows)}
    text = report.csp_tables(found)
    assert "| T4 | <ours> | 2 | 50.0 (0.0-100.0) |" in text
    assert "| T4 | <ours> | 1 | 2 | 50.0 (50.0-50.0) |" in text
    for words in ("c/1.cif: not a CIF", "no cell was found", "row 7: cif is empty"):
        assert words in text
    report.write_csp_page(tmp_path / "csp.html", json.loads(json.dumps(found, allow_nan=False)))
    page = (tmp_path / "csp.html").read_text()
    assert "50.0 (0.0-100.0)" in page and "<ours>" not in page and "\\u003cours>" in page
    assert "crystalgfn-benchmark task=csp" in page and "c/1.cif: not a CIF" in page
    assert "http://" not in page.split("<script>")[0] and "<link" not in page  # nothing is fetched


def test_the_page_without_plotly(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    page = report.csp_page(scores.csp_figures([record("a", "A1", [0.1])]))
    assert 'pip install -e ".[evaluate]"' in page and len(page) < 100_000
