"""The ionic conductivity beside a random forest and the median, on the same five folds.

    python -m scripts.maintain.report_conductivity obelix/train.csv

Needs scikit-learn, for the forest alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch

from crystalgfn.data.databases import Measurements, read_obelix
from crystalgfn.errors import NotAvailable
from crystalgfn.properties.features import Features
from crystalgfn.typing import Values
from scripts.maintain.fit_conductivity import FOLDS, ConductivityFitConfig, cross_validate, folds, scores
from scripts.maintain.program import run


def compare(
    path: str | Path, settings: ConductivityFitConfig | None = None, trees: int = 500, progress: bool = True
) -> pd.DataFrame:
    """Errors of the ensemble, forests and the median, one row each; columns as in `scores`.

    The forests see all features of the ensemble, also those of the size of the cell. They know no bounds: one takes
    them as values, the other leaves them out.

    Raises:
        NotAvailable: scikit-learn is missing.
        DataError: rows that cannot be used.
    """
    settings = settings or ConductivityFitConfig()
    rows = read_obelix(path)
    fold = folds(rows, settings.seed)
    every = torch.ones(len(rows), dtype=torch.bool)
    found = {
        "ensemble": cross_validate(rows, fold, settings, progress)[0],
        "forest, bounds as values": _forest(rows, fold, every, trees, 1.0),
        "forest, bounds as values, a third of the features a split": _forest(rows, fold, every, trees, 1 / 3),
        "forest, bounds left out": _forest(rows, fold, ~rows.censored, trees, 1 / 3),
        "median": _median(rows, fold),
    }
    return pd.DataFrame({name: scores(mean, rows) for name, mean in found.items()}).T


def _forest(rows: Measurements, fold: Values, used: Values, trees: int, share: float) -> Values:
    try:
        from sklearn.ensemble import RandomForestRegressor
    except ImportError as error:
        raise NotAvailable("the random forest needs scikit-learn: pip install scikit-learn") from error
    features = Features()(rows.crystals).numpy()
    found = torch.zeros(len(rows), dtype=torch.float64)
    for f in range(FOLDS):
        seen = (fold != f) & used
        forest = RandomForestRegressor(trees, max_features=share, random_state=0)
        forest.fit(features[seen.numpy()], rows.values[seen].numpy())
        found[fold == f] = torch.from_numpy(forest.predict(features[(fold == f).numpy()]))
    return found


def _median(rows: Measurements, fold: Values) -> Values:
    found = torch.zeros(len(rows), dtype=torch.float64)
    for f in range(FOLDS):
        found[fold == f] = rows.values[fold != f].median()
    return found


def main(arguments: list[str] | None = None) -> None:
    """The command: prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.maintain.report_conductivity", description="Compare the ionic conductivity."
    )
    parser.add_argument("data", help="OBELiX's CSV file, such as obelix/train.csv")
    parser.add_argument("--seed", type=int, default=0, help="of the folds and the ensemble")
    given = parser.parse_args(arguments)
    print(compare(given.data, ConductivityFitConfig(seed=given.seed)).to_string(float_format=lambda x: f"{x:.3f}"))


if __name__ == "__main__":
    run(main)
