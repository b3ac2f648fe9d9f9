"""Where the figures of a training go: a terminal, a CSV file, Weights & Biases, or nowhere."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, Literal, Protocol

import pandas as pd
import torch

from crystalgfn.gfn.config import TrainerConfig
from crystalgfn.utils.files import path_of, write_aside


class Logger(Protocol):
    """Takes the figures of a training."""

    def resume(self, step: int) -> None:
        """Forget what was recorded after ``step``: the training goes on from there."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Record the figures of a step."""

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """Record a table, in place of one of the same name."""

    def close(self) -> None:
        """Finish."""


class NoLogger(Logger):
    """Records nothing."""


class CsvLogger(Logger):
    """One line a record, flushed at once; a resumed run goes on in the same file. Tables are files beside it."""

    def __init__(self, path: str | Path) -> None:
        self.path = path_of(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._columns: list[str] | None = None
        if self.path.exists() and self.path.stat().st_size:
            with self.path.open(newline="") as file:
                self._columns = next(csv.reader(file), None)

    def resume(self, step: int) -> None:
        """Cut the lines of later steps, and a line that a kill left unfinished."""
        if not self.path.exists():
            return
        head, *lines = self.path.read_text().splitlines(keepends=True) or [""]
        whole = head.startswith("step,") and head.endswith("\n")
        kept = [head] + [line for line in lines if _is_of(line, head, step)] if whole else []
        self._columns = next(csv.reader([head])) if whole else None
        write_aside(self.path, lambda aside: aside.write_text("".join(kept)))

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Append a line."""
        row = {"step": step, **metrics}
        fresh = self._columns is None
        columns = self._columns = self._columns or list(row)
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, extrasaction="ignore", restval="", lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row)
        with self.path.open("a", newline="") as file:
            file.write(text.getvalue())  # in one piece

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """Write ``<name>.csv`` beside the file."""
        path = self.path.with_name(f"{name}.csv")
        write_aside(path, lambda aside: frame.to_csv(aside, index=False, float_format="%.6g"))


class Recorder(Logger):
    """Keeps the figures of the steps for Python, and hands them on.

    Args:
        inner: what takes them besides.
    """

    def __init__(self, inner: Logger) -> None:
        self.inner, self.rows = inner, []
        self.rows: list[dict[str, float]]

    def resume(self, step: int) -> None:
        """Forget later steps."""
        self.rows = [row for row in self.rows if row["step"] <= step]
        self.inner.resume(step)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Keep a row."""
        self.rows.append({"step": step, **metrics})
        self.inner.log(step, metrics)

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """Handed on."""
        self.inner.table(name, frame)

    def close(self) -> None:
        """Handed on."""
        self.inner.close()

    def frame(self) -> pd.DataFrame:
        """A row a record."""
        return pd.DataFrame(self.rows)


class WandbLogger:
    """Weights & Biases, and the same as CSV; offline unless asked, so no account is needed.

    Args:
        project: name of the project.
        mode: "offline", "online" or "disabled".
        folder: where wandb keeps its files; made where it is missing.
        path: a CSV file for the same figures; None: none.
        config: settings to record.
    """

    def __init__(
        self,
        project: str = "crystalgfn",
        mode: Literal["offline", "online", "disabled"] = "offline",
        folder: str | None = None,
        path: str | Path | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        import wandb

        if folder is not None:
            path_of(folder).mkdir(parents=True, exist_ok=True)
        self._csv = NoLogger() if path is None else CsvLogger(path)
        # its own copy of what is printed would hold every refreshment of the live view
        settings = wandb.Settings(console="off")
        self._run = wandb.init(project=project, mode=mode, dir=folder, config=config, settings=settings)
        self._tables: dict[str, pd.DataFrame] = {}

    def resume(self, step: int) -> None:
        """A process that goes on records a run of its own, from ``step`` on; the CSV file is one."""
        self._csv.resume(step)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Record figures."""
        self._csv.log(step, metrics)
        self._run.log(metrics, step=step)

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """Record a table; wandb is given the last one when the run is finished."""
        self._csv.table(name, frame)
        self._tables[name] = frame

    def close(self) -> None:
        """Finish the run."""
        import wandb

        if self._tables:
            self._run.log({name: wandb.Table(dataframe=frame) for name, frame in self._tables.items()})
        self._run.finish()
        self._csv.close()


def _is_of(line: str, head: str, last: int) -> bool:
    """Whether a line is whole and of a step up to ``last``."""
    step = line.partition(",")[0]
    return line.endswith("\n") and line.count(",") == head.count(",") and step.isdigit() and int(step) <= last


class Keeper(Protocol):
    """What a training keeps of the objects that it samples."""

    def offer(self, objects: Any, log_reward: torch.Tensor) -> None:
        """Objects with their ln R [B]."""

    def lines(self) -> list[str]:
        """A few words on each of the best, best first."""
        ...

    def table(self) -> pd.DataFrame:
        """A row for each that is kept, best first."""
        ...

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What is kept, as tensors."""
        ...

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """The state of `state_dict`."""


class Run(Protocol):
    """What is known of a training in progress."""

    step: int
    elapsed: float
    trainer: TrainerConfig


class ThroughputMeter:
    """How fast a training goes in this process, objects a second."""

    #: Seconds that a rate is taken over, at least.
    SPAN = 2.0

    def __init__(self, run: Run) -> None:
        self.run = run
        self._start = self._lap = self._mark = (run.step, run.elapsed)
        self._rate = 0.0

    def lap(self) -> float:
        """Trained objects a second since the last lap."""
        before, self._lap = self._lap, (self.run.step, self.run.elapsed)
        return self._since(before)

    def rate(self) -> float:
        """Trained objects a second lately."""
        if not self._rate or self.run.elapsed - self._mark[1] > self.SPAN:
            self._rate = self._since(self._mark)
            self._mark = (self.run.step, self.run.elapsed)
        return self._rate

    def left(self) -> float | None:
        """Seconds to the end of the training, as it went so far; None before the first step."""
        trainer = self.run.trainer
        if trainer.seconds is not None:
            return max(trainer.seconds - self.run.elapsed, 0.0)
        steps = self.run.step - self._start[0]
        if not steps or trainer.steps is None:
            return None
        return (self.run.elapsed - self._start[1]) / steps * (trainer.steps - self.run.step)

    def _since(self, mark: tuple[int, float]) -> float:
        return (self.run.step - mark[0]) * self.run.trainer.batch_size / max(self.run.elapsed - mark[1], 1e-9)
