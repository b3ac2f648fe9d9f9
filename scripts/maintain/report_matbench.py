"""The band gap on MatBench's five official folds: ``python -m scripts.maintain.report_matbench mp_gap.parquet``.

The file has columns formula, n_atoms, spacegroup, a, b, c, alpha, beta, gamma (conventional standard cells), band_gap,
fold. Leaderboard entries see coordinates; this proxy sees group, composition and lattice alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crystalgfn.data.labelled import Rows, read_labelled
from crystalgfn.errors import CheckpointError, DataError
from crystalgfn.fitting.ensemble_fit import CHECKPOINT, FitConfig, fit_proxy
from crystalgfn.utils.files import write_aside
from scripts.maintain.program import run

RESULT = "fold.json"


def matbench_folds(
    path: str | Path, progress: bool = True, skip_bad: bool = True, out: str | Path | None = None, **settings: Any
) -> pd.DataFrame:
    """Errors on each fold of a proxy fitted on the others, a row each: rows, mae, median (what the median gap makes).

    Args:
        path: Parquet or CSV file.
        progress: shows bars.
        skip_bad: leave out rows that cannot be read, with a warning.
        out: folder in which fits and results of the folds are kept, so that an interrupted report goes on; None: none.
        **settings: as `crystalgfn.fitting.ensemble_fit.FitConfig` has them.

    Raises:
        DataError: rows that cannot be used, or no second fold.
        CheckpointError: ``out`` holds a report with other settings or of other data, or a damaged one.
    """
    chosen = FitConfig(**{"property": "band_gap", **settings})
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)  # better found out before the work
    how = {"setting": "standard", "skip_bad": skip_bad, "progress": progress}
    rows = read_labelled(path, "band_gap", **how)
    fold = read_labelled(path, "fold", column="fold", **how).labels.numpy()
    numbers = np.unique(fold)
    if len(fold) != len(rows) or len(numbers) < 2:
        raise DataError(f"{path}: every row needs a fold, and there must be two or more")
    of = {"settings": asdict(chosen), "data": _digest(rows, fold)}
    found = {}
    for number in numbers:
        train, test = rows[fold != number], rows[fold == number]
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) if out is None else Path(out) / f"fold_{int(number)}"
            known = _known(folder / RESULT, of)
            if known is None:
                proxy, _ = fit_proxy(train, chosen, folder, progress)
                error = (proxy(test.crystals) - test.labels).abs()
                median = (train.labels.median() - test.labels).abs()
                known = {"rows": len(test), "mae": float(error.mean()), "median": float(median.mean())}
                text = json.dumps({**of, **known})
                write_aside(folder / RESULT, lambda aside, text=text: aside.write_text(text))
                (folder / CHECKPOINT).unlink(missing_ok=True)
        found[int(number)] = known
    return pd.DataFrame(found).T.rename_axis("fold").astype({"rows": int})


def _digest(rows: Rows, fold: np.ndarray) -> str:
    """Changes with the data."""
    crystals = rows.crystals
    parts = (crystals.space_group, crystals.composition, crystals.lattice, rows.labels)
    found = hashlib.blake2b(np.ascontiguousarray(fold).tobytes(), digest_size=8)
    for part in parts:
        found.update(part.numpy().tobytes())
    return found.hexdigest()


def _known(path: Path, of: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a fold that is there already."""
    if not path.exists():
        return None
    try:
        known = json.loads(path.read_text())
        result = {name: known[name] for name in ("rows", "mae", "median")}
        other = [name for name in of if known[name] != of[name]]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r}); delete it to fit the fold again") from error
    if other:
        raise CheckpointError(f"{path} is of a fit with other {other[0]}; delete it or choose another folder")
    return result


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--out", type=Path, help="folder where an interrupted report goes on")
    for name, value in asdict(FitConfig(property="band_gap", epochs=12, members=3, weight_decay=0.3)).items():
        flag = f"--{name.replace('_', '-')}"
        if type(value) is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=value)
        elif type(value) is not str:
            parser.add_argument(flag, type=type(value), default=value)
    options = vars(parser.parse_args())
    path = options.pop("path")
    table = matbench_folds(path, **options)
    print(table.round(4).to_string())
    print(f"mean of the folds: {table.mae.mean():.4f} eV, by the median {table['median'].mean():.4f} eV")


if __name__ == "__main__":
    run(main)
