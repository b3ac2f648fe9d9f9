"""Training that is killed with SIGKILL, at any moment, goes on and ends as one that was not."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from forks import Forks

from crystalgfn.cli import app
from crystalgfn.gfn.loggers import CsvLogger
from crystalgfn.gfn.training import CHECKPOINT

STEPS, EVERY = 36, 3
ARGUMENTS = [
    "reward=density", "policy=small", "elements=[Li,O]", "space_groups=[221,225]", "n_atoms=[1,6]", "batch_size=20",
    "diagnostics=0", "progress=false", "trainer.precision=float32", "trainer.replay_fraction=0.2", "seed=5",
    f"steps={STEPS}", f"trainer.log_every={EVERY}",
]  # fmt: skip
#: What of a run must not depend on kills; the clock's columns of the figures do.
SAME = ("sampler/weights.safetensors", "sampler/config.json", "config.yaml", "best.csv")
#: A process for each moment, which dies by SIGKILL right then; each goes on with the run of the last. Prints what the
#: process died of, the last step in the checkpoint and in the figures, and the files of the sampler.
DRIVER = """
import os, signal, sys, time
from pathlib import Path
import torch
from crystalgfn.cli import app
from crystalgfn.gfn import checkpoint as tensors, loggers, training
from crystalgfn.sampling import curves, sampler
from crystalgfn.utils import files

torch.set_num_threads(1)
out, start = Path(sys.argv[1]), sys.argv[2].split("|")

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def nth(calls, function, instead):
    def counted(*arguments, **options):
        nonlocal calls
        calls -= 1
        return instead(*arguments, **options) if calls == 0 else function(*arguments, **options)
    return counted

def after(function):
    def both(*arguments, **options):
        function(*arguments, **options)
        die()
    return both

def half_saved(state, path):
    saved(state, path)
    os.truncate(path, os.path.getsize(path) // 2)
    die()

def half_line(self, step, metrics):
    written = self.path.stat().st_size
    log(self, step, metrics)
    os.truncate(self.path, (written + self.path.stat().st_size) // 2)
    die()

saved, log = torch.save, loggers.CsvLogger.log
PLACES = {  # whose method dies, its name, and how
    "before a file is there": (files.os, "replace", die),
    "with a file there": (files.os, "replace", after(os.replace)),
    "within a checkpoint": (tensors.torch, "save", half_saved),
    "within a line": (loggers.CsvLogger, "log", half_line),
    "after a line": (loggers.CsvLogger, "log", after(log)),
    "within a step": (training.relative_ess.__globals__["torch"].nn.utils, "clip_grad_norm_", die),
    "after training": (sampler.Sampler, "save", die),
    "before the curves": (curves, "training_curves", die),
}

def state():
    steps = torch.load(out / "checkpoint.pt")["step"] if (out / "checkpoint.pt").exists() else None
    lines = (out / "metrics.csv").read_text().splitlines() if (out / "metrics.csv").exists() else []
    there = sorted(path.name for path in (out / "sampler").glob("[a-z]*"))
    return " ".join(map(str, [steps, lines[-1].split(",")[0] if lines else None, *there]))

for moment in sys.argv[3:]:
    place, _, number = moment.partition(":")
    arguments = ["resume=true", f"out={out}"] if (out / "config.yaml").exists() else [*start, f"out={out}"]
    before = (out / "checkpoint.pt").stat().st_mtime_ns if (out / "checkpoint.pt").exists() else 0
    pid = os.fork()
    if not pid:
        if place in PLACES:
            owner, name, instead = PLACES[place]
            setattr(owner, name, nth(int(number), getattr(owner, name), instead))
        os._exit(app.train(arguments))
    if place == "seconds":  # after the next checkpoint
        while (out / "checkpoint.pt").stat().st_mtime_ns == before:
            time.sleep(0.001)
        time.sleep(float(number))
        os.kill(pid, signal.SIGKILL)
    code = os.waitpid(pid, 0)[1]
    print(f"{moment}|{os.WTERMSIG(code)} {os.WEXITSTATUS(code)}|{state()}", flush=True)
"""
MOMENTS = [
    "with a file there:1",  # config.yaml, and no checkpoint yet
    "before a file is there:1",  # the first checkpoint
    "with a file there:1",
    "within a step:1",
    "after a line:2",
    "within a line:1",
    "within a step:8",
    "within a checkpoint:4",
    # a process that goes on replaces metrics.csv, then best.csv and the checkpoint by turns
    "before a file is there:7",
    "with a file there:5",
    "with a file there:4",
    "after training:1",
    "with a file there:4",
    "before the curves:1",
    "to the end",
]


def driven(forks: Forks, out: Path, start: list[str], moments: list[str]) -> list[list[str]]:
    """Of each process: its moment, its signal and exit code, and what it left."""
    said = forks.run(DRIVER, out, "|".join(start), *moments, timeout=600)
    return [line.split("|") for line in said.splitlines() if line.count("|") == 2]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert app.train([*ARGUMENTS, f"out={out}"]) == 0
    return out


def assert_same(out: Path, other: Path, clock: str) -> None:
    for name in SAME:
        here, there = ((folder / name).read_bytes() for folder in (out, other))
        if name == "config.yaml":
            here = here.replace(str(out).encode(), b"out").replace(clock.encode(), b"checkpoint_seconds: 60.0")
            there = there.replace(str(other).encode(), b"out")
        assert here == there, name
    figures = [pd.read_csv(folder / "metrics.csv") for folder in (out, other)]
    assert figures[0]["step"].tolist() == list(range(EVERY, STEPS + 1, EVERY))
    for column in ("loss", "log_z", "log_reward", "ess"):
        assert figures[0][column].tolist() == figures[1][column].tolist()
    states = [flat(torch.load(folder / CHECKPOINT)) for folder in (out, other)]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        if not key.endswith(("elapsed", "checkpoint_seconds")):
            same = torch.equal(value, states[1][key]) if isinstance(value, torch.Tensor) else value == states[1][key]
            assert same, key
    assert not [path for path in out.rglob(".*") if path.is_file()], "leftovers are removed"
    assert (out / "curves.png").exists()


def flat(thing: object, name: str = "") -> dict[str, object]:
    if isinstance(thing, dict):
        return {k: v for key, value in thing.items() for k, v in flat(value, f"{name}.{key}").items()}
    if isinstance(thing, list):
        return {k: v for i, value in enumerate(thing) for k, v in flat(value, f"{name}.{i}").items()}
    return {name: thing}


def test_a_run_killed_at_every_kind_of_moment_ends_as_one_that_was_not(undisturbed, forks, tmp_path):
    out = tmp_path / "run"
    start = [*ARGUMENTS, "trainer.checkpoint_seconds=1e-9"]  # a checkpoint after every step
    found = driven(forks, out, start, MOMENTS)
    assert [(moment, died) for moment, died, _ in found] == [
        (moment, "0 0" if moment == "to the end" else "9 0") for moment in MOMENTS
    ]
    assert [steps for *_, steps in found] == [
        "None None",
        "None None",
        "0 None",
        "0 None",
        "5 6",  # the line of step 6 will be there once, from the process that trains that step again
        "5 6",
        "12 12",
        "15 15",
        "17 18",
        "19 18",
        "20 21",
        "36 36",
        "36 36 weights.safetensors",
        "36 36 config.json weights.safetensors",
        "36 36 config.json weights.safetensors",
    ]
    assert_same(out, undisturbed, "checkpoint_seconds: 1.0e-09")


def test_a_run_killed_by_the_clock_ends_as_one_that_was_not(undisturbed, forks, tmp_path):
    out = tmp_path / "run"
    moments = ["with a file there:2", *[f"seconds:{0.009 * i}" for i in range(5)], "to the end"]
    found = driven(forks, out, [*ARGUMENTS, "trainer.checkpoint_seconds=0.02"], moments)
    assert [died for _, died, _ in found[:2]] == ["9 0", "9 0"]
    assert {died for _, died, _ in found} == {"9 0", "0 0"}  # a fast machine may be done before the last kills
    assert_same(out, undisturbed, "checkpoint_seconds: 0.02")


def test_a_run_that_lost_its_checkpoint_is_not_begun_anew_in_silence(undisturbed, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(undisturbed, out)
    (out / CHECKPOINT).unlink()
    assert app.train(["resume=true", f"out={out}"]) == 2
    assert "there is no checkpoint" in capsys.readouterr().err


# ---- the figures --------------------------------------------------------------------------------------------------


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_later_lines_are_cut(tmp_path):
    path = tmp_path / "log.csv"
    logger = CsvLogger(path)
    for step in (10, 20, 30):
        logger.log(step, {"loss": step / 10, "rate": 1.0})
    again = CsvLogger(path)
    again.resume(20)
    assert lines(path) == ["step,loss,rate", "10,1.0,1.0", "20,2.0,1.0"]
    again.log(30, {"loss": 7.0, "rate": 2.0, "new": 1.0})
    assert lines(path)[-1] == "30,7.0,2.0"
    again.resume(0)
    assert lines(path) == ["step,loss,rate"]


@pytest.mark.parametrize("cut", [1, 4, 8, 14])
def test_a_line_that_was_cut_is_forgotten(cut, tmp_path):
    path = tmp_path / "log.csv"
    logger = CsvLogger(path)
    logger.log(10, {"loss": 1.0})
    logger.log(20, {"loss": 12345.5})
    path.write_bytes(path.read_bytes()[:-cut])
    logger = CsvLogger(path)
    logger.resume(20)
    assert lines(path) == ["step,loss", "10,1.0"] if cut < 14 else ["step,loss"]
    logger.log(20, {"loss": 2.0})
    assert lines(path)[-1] == "20,2.0"


@pytest.mark.parametrize("text", ["", "st", "step,lo", "step,loss"])
def test_a_heading_that_was_cut_is_written_again(text, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(text)
    logger = CsvLogger(path)
    logger.resume(0)
    logger.log(10, {"loss": 1.0})
    assert lines(path) == ["step,loss", "10,1.0"]
