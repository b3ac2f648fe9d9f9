"""The band gap on folds: who is fitted on what, and what comes out."""

import numpy as np
import pandas as pd
import pytest

from crystalgfn.errors import CheckpointError, DataError
from scripts.maintain import report_matbench
from scripts.maintain.report_matbench import matbench_folds

QUICK = {"holdout": 0.1, "epochs": 2, "members": 2, "width": 8, "depth": 1, "batch": 16, "progress": False}


def table(folds: list[int]) -> pd.DataFrame:
    symbols = ["Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba", "Ti"]
    formulas = [f"{one}{other}" for one in symbols for other in ("F", "Cl", "Br", "I", "O", "S")]
    columns = {"formula": formulas, "n_atoms": 2, "spacegroup": 225, "band_gap": np.arange(len(formulas)) % 4}
    cell = {"a": 6.5, "b": 6.5, "c": 6.5, "alpha": 90, "beta": 90, "gamma": 90}
    return pd.DataFrame({**columns, **cell, "fold": np.resize(folds, len(formulas))})


def test_each_fold_is_predicted_by_the_others(tmp_path):
    rows = table([0, 1, 2])
    rows.loc[rows.fold == 2, "band_gap"] = 9.0  # what no other fold has
    rows.to_csv(tmp_path / "gaps.csv", index=False)
    found = matbench_folds(tmp_path / "gaps.csv", **QUICK)
    assert found.index.tolist() == [0, 1, 2] and found.rows.tolist() == [20, 20, 20]
    assert found.mae[2] > 5.9 and found["median"][2] > 5.9  # so nothing of it was fitted on
    assert np.isfinite(found.to_numpy()).all()


def test_one_fold_is_refused(tmp_path):
    table([3]).to_csv(tmp_path / "gaps.csv", index=False)
    with pytest.raises(DataError, match=r"gaps\.csv: every row needs a fold, and there must be two or more"):
        matbench_folds(tmp_path / "gaps.csv", **QUICK)


def test_an_interrupted_report_goes_on(tmp_path, monkeypatch):
    table([0, 1, 2]).to_csv(tmp_path / "gaps.csv", index=False)
    expected = matbench_folds(tmp_path / "gaps.csv", **QUICK)
    real, fitted = report_matbench.fit_proxy, []

    def fit_proxy(rows, settings, out, progress):
        if len(fitted) == 1:
            fitted.append(None)
            raise KeyboardInterrupt
        fitted.append(out)
        return real(rows, settings, out, progress)

    monkeypatch.setattr(report_matbench, "fit_proxy", fit_proxy)
    with pytest.raises(KeyboardInterrupt):
        matbench_folds(tmp_path / "gaps.csv", out=tmp_path / "folds", **QUICK)
    found = matbench_folds(tmp_path / "gaps.csv", out=tmp_path / "folds", **QUICK)
    assert len(fitted) == 4  # the first fold was not fitted again
    pd.testing.assert_frame_equal(found, expected)
    with pytest.raises(CheckpointError, match="other settings"):
        matbench_folds(tmp_path / "gaps.csv", out=tmp_path / "folds", **{**QUICK, "epochs": 3})
    other = table([0, 1, 2])
    other["band_gap"] += 1
    other.to_csv(tmp_path / "others.csv", index=False)
    with pytest.raises(CheckpointError, match="other data"):
        matbench_folds(tmp_path / "others.csv", out=tmp_path / "folds", **QUICK)
    for text in ("{", "[]", "null", "{}"):
        (tmp_path / "folds" / "fold_0" / "fold.json").write_text(text)
        with pytest.raises(CheckpointError, match="damaged"):
            matbench_folds(tmp_path / "gaps.csv", out=tmp_path / "folds", **QUICK)


def test_the_command_takes_every_setting_of_a_fit(tmp_path, monkeypatch, capsys):
    table([0, 1]).to_csv(tmp_path / "gaps.csv", index=False)
    given = {}

    def matbench_folds(path, **options):
        given.update(options)
        return pd.DataFrame({"mae": [0.3, 0.5], "median": [1.0, 1.0]})

    monkeypatch.setattr(report_matbench, "matbench_folds", matbench_folds)
    arguments = [str(tmp_path / "gaps.csv"), "--wyckoff", "--no-residual", "--epochs", "3", "--weight-decay", "0.5"]
    monkeypatch.setattr("sys.argv", ["matbench_report", *arguments])
    report_matbench.main()
    assert (given["wyckoff"], given["residual"], given["epochs"], given["weight_decay"]) == (True, False, 3, 0.5)
    assert "mean of the folds: 0.4000 eV, by the median 1.0000 eV" in capsys.readouterr().out
