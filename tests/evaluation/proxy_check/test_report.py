import numpy as np
import pandas as pd
import pytest

from crystalgfn.evaluation.proxy_check.report import auc, gap, prediction_picture, prediction_tables, summary

NAN = np.nan


@pytest.fixture
def frame() -> pd.DataFrame:
    """Five crystals: three checked, one crowded, one not placed."""
    return pd.DataFrame(
        {
            "predicted": [-1.0, -2.0, -3.0, -4.0, -5.0],
            "std": [0.1] * 5,
            "confidence_bound": [-0.9, -1.9, -2.9, -3.9, -4.9],
            "e_star": [-0.9, -2.1, -2.4, NAN, NAN],
            "atoms_converged": [True, True, False, False, False],
            "is_converged": [True, False, False, False, False],
            "e_relaxed": [-1.1, -2.1, NAN, NAN, NAN],
            "cell_converged": [True, False, False, False, False],
            "volume_ratio": [0.9, 1.1, NAN, NAN, NAN],
            "length_ratio": [0.8, 1.1, NAN, NAN, NAN],
            "calculator": "CHGNet",
            "failure": [None, None, None, "crowded", "not placed"],
        }
    )


def test_a_gap_by_hand():
    one = gap(np.array([-1.0, -2.0, -3.0, NAN]), np.array([-0.9, -2.2, -2.4, 1.0]))
    assert (one["crystals"], one["spearman"]) == (3, pytest.approx(1.0))
    assert one["median_abs"] == pytest.approx(0.2)
    assert one["mean_abs"] == pytest.approx(0.3)
    assert one["bias"] == pytest.approx((-0.1 + 0.2 - 0.6) / 3)
    assert one["quantiles"]["50%"] == pytest.approx(-0.1)


def test_no_pairs_no_gap_and_no_ranking_of_two():
    assert gap(np.array([1.0, NAN]), np.array([NAN, 1.0])) is None
    assert gap(np.array([1.0, 2.0]), np.array([1.0, 2.0]))["spearman"] is None


def test_counts_and_gaps(frame):
    found = summary(frame)
    names = ("crystals", "placed", "checked", "atoms_converged", "is_converged", "relaxed", "cell_converged")
    assert [found[name] for name in names] == [5, 4, 3, 2, 1, 2, 1]
    assert found["failures"] == {"crowded": 1, "not placed": 1}
    assert found["predicted_e_star"] == gap(frame.predicted[:3], frame.e_star[:3])
    assert found["confidence_bound_e_star"]["bias"] == pytest.approx(found["predicted_e_star"]["bias"] + 0.1)
    assert found["predicted_relaxed"]["bias"] == pytest.approx(0.1)
    assert found["gained_by_cell"]["50%"] == pytest.approx(0.1)
    assert found["length_change"]["50%"] == pytest.approx(0.15)
    assert "above_hull" not in found


def test_energies_above_a_hull(frame):
    found = summary(frame.assign(hull=[-1.0, -2.2, -2.5, -4.0, -5.2]))["above_hull"]
    assert found["e_star"]["crystals"] == 3
    assert found["e_star"]["median"] == pytest.approx(0.1)
    assert found["e_relaxed"]["below"] == 0.5
    assert found["predicted"]["near"] == pytest.approx(0.6)


def test_the_tables_say_it_all(frame):
    text = prediction_tables(summary(frame.assign(hull=-3.0)))
    assert "| placed | 4 | 80% |" in text
    assert "| crowded | 1 |" in text and "The 2 crystals without E* are in no row" in text
    assert "| predicted - E* | 3 | 0.100 |" in text
    assert "relaxed over sampled volume" in text and "above the hull" in text


def test_nothing_checked_is_reported_too(frame, tmp_path):
    none = frame.iloc[3:].reset_index(drop=True)
    text = prediction_tables(summary(none))
    assert "| with E* at the sampled lattice | 0 | 0% |" in text and "predicted - E*" not in text
    prediction_picture(none, tmp_path / "none.png")
    prediction_picture(frame, tmp_path / "some.png", "five")
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in ("none.png", "some.png"))


def test_the_area_under_a_roc_curve_by_hand():
    score = pd.Series([0.1, 0.2, 0.3, 0.4, 9.0])
    positive = pd.Series([True, False, True, False, True])
    known = pd.Series([True, True, True, True, False])
    assert auc(score, positive, known) == pytest.approx(3 / 4)  # of four pairs one is the wrong way round
    assert auc(score, positive & False, known) is None
