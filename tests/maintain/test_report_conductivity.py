"""The comparison with forests and the median, and what it says where scikit-learn is missing."""

import sys
from pathlib import Path

import pytest
from maintain.test_fit_conductivity import SMALL, measured

from crystalgfn.errors import NotAvailable
from scripts.maintain.fit_conductivity import ConductivityFitConfig
from scripts.maintain.report_conductivity import compare


@pytest.fixture
def path(tmp_path: Path) -> Path:
    measured().to_csv(tmp_path / "measured.csv", index=False)
    return tmp_path / "measured.csv"


def test_all_are_measured_on_the_same_rows(path: Path) -> None:
    pytest.importorskip("sklearn", reason="the forest needs scikit-learn")
    table = compare(path, ConductivityFitConfig(**SMALL), trees=20, progress=False)
    assert table.index[0] == "ensemble" and table.index[-1] == "median" and len(table) == 5
    assert (table["mae"][:-1] < table.loc["median", "mae"]).all()


def test_without_scikit_learn_it_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(NotAvailable, match="pip install scikit-learn"):
        compare(path, ConductivityFitConfig(**SMALL | {"epochs": 1}), progress=False)
