"""Where the figures of a training go: a CSV file, Weights & Biases, or nowhere."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Protocol


class Logger(Protocol):
    """Takes the figures of a step."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Record figures."""

    def close(self) -> None:
        """Finish."""


class NoLogger:
    """Records nothing."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class CsvLogger:
    """One line a record, flushed at once; a resumed run goes on in the same file.

    Args:
        path: the file; its folder is made.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._columns: list[str] | None = None
        if self.path.exists() and self.path.stat().st_size:
            with self.path.open(newline="") as file:
                self._columns = next(csv.reader(file), None)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Append a line."""
        row = {"step": step, **metrics}
        fresh = self._columns is None
        if fresh:
            self._columns = list(row)
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self._columns, extrasaction="ignore", restval="")
            if fresh:
                writer.writeheader()
            writer.writerow(row)

    def close(self) -> None:
        """Every line is already on disk."""


class WandbLogger:
    """Weights & Biases; offline unless asked, so no account is needed.

    Args:
        project: name of the project.
        mode: "offline", "online" or "disabled".
        folder: where wandb keeps its files.
        config: settings to record.
    """

    def __init__(
        self,
        project: str = "crystalgfn",
        mode: str = "offline",
        folder: str | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        import wandb

        self._run = wandb.init(project=project, mode=mode, dir=folder, config=config)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Record figures."""
        self._run.log(metrics, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
