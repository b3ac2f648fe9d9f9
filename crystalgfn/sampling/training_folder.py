"""The folder of a training that Python starts: the same files as the command's, and never another run's place."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from crystalgfn.errors import CheckpointError, CrystalGFNError
from crystalgfn.gfn.loggers import CsvLogger, Logger, NoLogger, Recorder
from crystalgfn.gfn.training import CHECKPOINT
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.sampling.sharded import run_fingerprint
from crystalgfn.utils import distributed, provenance
from crystalgfn.utils.files import path_of
from crystalgfn.utils.run_folder import CONFIG, RunFolder

METRICS, CURVES, SAMPLER = "metrics.csv", "curves.png", "sampler"


@dataclass
class TrainingFiles:
    """Where a training writes.

    Attributes:
        path: the folder; None: nothing is written.
        recorder: takes the figures of the steps.
        sampler: set when it is done.
    """

    path: Path | None
    recorder: Recorder
    sampler: Sampler | None = None

    def history(self) -> pd.DataFrame:
        """The figures by step, of a resumed training those before too."""
        log = None if self.path is None else self.path / METRICS
        return pd.read_csv(log) if log is not None and log.exists() else self.recorder.frame()


@contextmanager
def training_folder(
    out: str | Path | RunFolder | None, resume: bool, logger: Logger | None, settings: Callable[[], Mapping[str, Any]]
) -> Any:
    """The folder of a training: the command's own as it is; a path gets settings, figures, curves and a record.

    Args:
        out: a path, the folder of a command at work, or None.
        resume: whether to go on with the run that is there.
        logger: takes the figures; None: ``metrics.csv`` in a folder.
        settings: what ``config.yaml`` holds.

    Yields:
        `TrainingFiles`.

    Raises:
        ConfigurationError: ``out`` is no path.
        CheckpointError: the path holds a run already, or cannot be written.
    """
    if out is None or isinstance(out, RunFolder):
        files = TrainingFiles(None if out is None else out.path, Recorder(logger or NoLogger()))
        with _forgotten_if_refused(files, active=not resume):
            yield files
        return
    first, started = distributed.first(), time.time()
    with ExitStack() as stack:
        try:
            run = stack.enter_context(RunFolder(path_of(out, "out"), "a training", active=first))
        except OSError as error:
            raise CheckpointError(f"cannot write {out}: {error.strerror or error}; choose another folder") from error
        files = _begun(run, logger, settings if first and not resume else None)
        stack.enter_context(_forgotten_if_refused(files, active=first and not resume))
        yield files
        if first:
            _record(run, files, settings(), started)


def _begun(run: RunFolder, logger: Logger | None, settings: Callable[[], Mapping[str, Any]] | None) -> TrainingFiles:
    """The files of a run in its folder, whose settings are written where they are given."""
    if settings is not None:
        _refuse_a_run(run.path)
        run.agree(_as_of_command(settings(), run.path))
    own = CsvLogger(run.path / METRICS) if logger is None and run.active else NoLogger()
    return TrainingFiles(run.path, Recorder(logger or own))


@contextmanager
def _forgotten_if_refused(files: TrainingFiles, active: bool) -> Any:
    """Leaves no checkpoint of a training that was refused in its first steps: there is nothing to go on from."""
    try:
        yield
    except CrystalGFNError:
        if active and files.path is not None and not files.recorder.rows:
            with suppress(OSError):
                (files.path / CHECKPOINT).unlink(missing_ok=True)
        raise


def _as_of_command(settings: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The settings with what the command asks for besides, so that it can go on with the run."""
    logger = {"_target_": f"{CsvLogger.__module__}.{CsvLogger.__qualname__}", "path": str(path / METRICS)}
    more = {"real": None, "init": None, "trust": [], "resume": False, "diagnostics": 2000, "json": False}
    return {**settings, "out": str(path), "logger": logger, **more}


def _refuse_a_run(path: Path) -> None:
    there = next((name for name in (CONFIG, CHECKPOINT, METRICS, SAMPLER) if (path / name).exists()), None)
    if there is not None:
        raise CheckpointError(
            f"{path} already holds a run ({there}); go on with it by resume=True, or choose another out"
        )


def _record(run: RunFolder, files: TrainingFiles, settings: Mapping[str, Any], started: float) -> None:
    names, history = [SAMPLER], files.history()
    if (run.path / METRICS).exists() and len(history):
        from crystalgfn.sampling.curves import training_curves

        training_curves(run.path / METRICS, run.path / CURVES)
        names += [METRICS, CURVES]
    content = {
        "command": "crystalgfn.train (Python)",
        "settings": settings,
        "seed": settings["seed"],
        "versions": {**provenance.versions(), **provenance.libraries()},
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started)),
        "seconds": round(time.time() - started, 3),
        "sampler": {"hash": run_fingerprint(files.sampler)} if files.sampler is not None else {},
        "counts": {"steps": int(history["step"].iloc[-1])} if len(history) else {},
        "files": names,
        "warnings": [],
    }
    run.record(provenance.json_safe(content))


def described(one: Any) -> Any:
    """An object by its class and arguments, as ``config.yaml`` has it; what cannot be is named alone."""
    if one is None or isinstance(one, (str, int, float)):
        return one
    if callable(getattr(one, "config", None)):
        return one.config()
    kind = type(one)
    target = {"_target_": f"{kind.__module__}.{kind.__qualname__}"}
    if callable(getattr(one, "to_dict", None)):
        return {**target, **one.to_dict()}
    if is_dataclass(one):
        return {**target, **{field.name: _listed(getattr(one, field.name)) for field in fields(one)}}
    return {"_target_": f"{one.__module__}.{one.__qualname__}" if hasattr(one, "__qualname__") else target["_target_"]}


def _listed(value: Any) -> Any:
    return [_listed(one) for one in value] if isinstance(value, (list, tuple)) else value
