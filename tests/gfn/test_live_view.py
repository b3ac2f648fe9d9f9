"""What people see of a training: figures, time left, the best crystals; in place or line by line."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.envs.hypergrid import HyperGrid
from crystalgfn.gfn import views
from crystalgfn.gfn.loggers import ThroughputMeter
from crystalgfn.gfn.objectives import TrajectoryBalance
from crystalgfn.gfn.training import TrainerConfig, TrainingRun
from crystalgfn.gfn.views import Lines, NoView, Status, Terminal, duration, live
from crystalgfn.policy.network import PolicyConfig, PolicyNetwork
from crystalgfn.rewards import Density, VolumePerAtom
from crystalgfn.rewards.base import example_crystals
from crystalgfn.sampling.table import BestCrystals
from crystalgfn.utils.interrupts import Interrupts

FIGURES = {"loss": 0.1234, "log_z": 5.678, "log_reward": -1.5, "ess": 0.42}
STATUS = Status(
    step=680,
    share=0.34,
    seconds=62.0,
    left=123.4,
    rate=3210.4,
    figures=FIGURES,
    best=["LiF   Fm-3m (225)  ln R 3.00", "NaCl  Fm-3m (225)  ln R 2.00"],
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(views, "time", clock)
    return clock


def screen(text: str) -> list[str]:
    """What a terminal shows after this text, with the three control sequences that are used."""
    lines: list[str] = [""]
    row = 0
    for part in re.findall(r"\x1b\[\d*[FKJ]|\n|[^\x1b\n]+", text):
        if part.endswith("F") and part.startswith("\x1b"):
            row -= int(part[2:-1])
            assert row >= 0, "the cursor leaves the block"
        elif part == "\x1b[J":
            del lines[row:]
            lines.append("")
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part != "\x1b[K":
            lines[row] = part  # every line is written from its start, and the rest of the old one erased
    return lines


# ---- views --------------------------------------------------------------------------------------------------------


def test_a_terminal_is_refreshed_in_place(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    stream = io.StringIO()
    view = Terminal(stream)
    view.show(STATUS)
    bare = {**FIGURES, "log_z": float("nan")}
    view.show(Status(step=700, share=0.35, seconds=64.0, left=None, rate=3000.0, figures=bare, best=STATUS.best[:1]))
    shown = screen(stream.getvalue())
    assert len(shown) == 4  # the block and the line of the cursor
    assert "step 700" in shown[0]
    assert "35%" in shown[0]
    assert "time left unknown" in shown[0]
    assert "ln Z -" in shown[1]
    assert "loss 0.123" in shown[1]
    assert "ESS while exploring 0.42" in shown[1]
    assert "3,000/s" in shown[1]
    assert shown[2].split() == ["best", *STATUS.best[0].split()]
    view.close()
    view.show(STATUS)
    again = screen(stream.getvalue())
    assert again[:3] == shown[:3], "what was shown last stays"
    assert "2:03 left" in again[3]
    assert again[6].split() == STATUS.best[1].split()


def test_long_lines_do_not_wrap(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    stream = io.StringIO()
    Terminal(stream).show(STATUS)
    assert max(map(len, screen(stream.getvalue()))) < 40


def test_elsewhere_there_is_a_line_now_and_then(clock):
    stream = io.StringIO()
    view = Lines(stream, seconds=10)
    assert not view.due()
    clock.now += 10
    assert view.due()
    view.show(STATUS)
    assert not view.due()
    (line,) = stream.getvalue().splitlines()
    assert "\x1b" not in line
    for words in ("34%", "step 680", "ln Z 5.68", "2:03 left", "3,210/s", "best: LiF Fm-3m (225) ln R 3.00"):
        assert words in line


def test_the_view_suits_the_stream():
    class Teletype(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(live(Teletype()), Terminal)
    assert isinstance(live(io.StringIO()), Lines)


@pytest.mark.parametrize(("seconds", "words"), [(7.2, "0:07"), (754, "12:34"), (5025, "1:23:45"), (59.7, "1:00")])
def test_durations(seconds, words):
    assert duration(seconds) == words


# ---- how fast -----------------------------------------------------------------------------------------------------


class Going:
    def __init__(self, step: int, elapsed: float, **options: object) -> None:
        self.step, self.elapsed, self.trainer = step, elapsed, TrainerConfig(batch_size=100, **options)


def test_the_pace_is_that_of_this_process():
    run = Going(500, 1000.0, steps=700)  # resumed
    pace = ThroughputMeter(run)
    assert pace.left() is None
    run.step, run.elapsed = 510, 1005.0
    assert (pace.lap(), pace.rate()) == (200.0, 200.0)
    assert pace.left() == pytest.approx(0.5 * 190)
    run.step, run.elapsed = 520, 1006.0
    assert pace.lap() == 1000.0
    assert pace.rate() == 200.0  # over two seconds at least
    run.step, run.elapsed = 540, 1008.0
    assert pace.rate() == 1000.0
    run = Going(5, 100.0, seconds=160)
    assert ThroughputMeter(run).left() == 60.0


# ---- the best -----------------------------------------------------------------------------------------------------


def random_crystals(n: int, seed: int) -> tuple[Crystals, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    crystals = example_crystals()[torch.randint(7, (n,), generator=generator)]
    group = torch.randint(1, 6, (n,), generator=generator)
    scale = 1 + torch.rand(n, 1, generator=generator, dtype=torch.float64)
    lattice = torch.cat([crystals.lattice[:, :3] * scale, crystals.lattice[:, 3:]], 1)
    return Crystals(group, crystals.composition, lattice), torch.randn(n, generator=generator, dtype=torch.float64)


def test_the_best_are_those_of_all_that_were_offered():
    best = BestCrystals([Density()], size=6)
    highest: dict[tuple[str, int], float] = {}
    for seed in range(20):
        crystals, log_reward = random_crystals(10, seed)
        best.offer(crystals, log_reward)
        for key, value in zip(zip(crystals.formulas(), crystals.space_group.tolist()), log_reward.tolist()):  # noqa: B905
            highest[key] = max(highest.get(key, -torch.inf), value)
    wanted = sorted(highest.items(), key=lambda item: -item[1])[:6]
    frame = best.table()
    assert list(zip(frame["formula"], frame["space_group"], strict=True)) == [key for key, _ in wanted]
    assert frame["log_reward"].tolist() == [value for _, value in wanted]
    assert frame["density"].tolist() == best.crystals.density.tolist()


def test_the_best_in_words():
    best = BestCrystals([Density(), VolumePerAtom()], told=2)
    assert (best.lines(), len(best.table())) == ([], 0)
    crystals = example_crystals()
    best.offer(crystals, torch.arange(7.0))
    assert len(best.lines()) == 2
    first, density = best.lines()[0], float(crystals.density[6])
    assert first.split()[:3] == [crystals.formulas()[6], "Pc", "(7)"]
    assert f"density {density:.3f} g/cm3" in first
    assert "volume per atom" in first
    assert first.endswith("ln R 6.00")


def test_the_best_survive_a_checkpoint_and_come_together():
    offers = [random_crystals(30, seed) for seed in range(4)]
    whole, first, second = BestCrystals(), BestCrystals(), BestCrystals()
    for i, offer in enumerate(offers):
        whole.offer(*offer)
        (first, second)[i % 2].offer(*offer)
    together = BestCrystals()
    together.load_state_dict({})
    for one in (second, first):
        together.load_state_dict(one.state_dict())
    for name, value in whole.state_dict().items():
        assert torch.equal(value, together.state_dict()[name])


# ---- a training ---------------------------------------------------------------------------------------------------


class Recorder(NoView):
    def __init__(self) -> None:
        self.seen: list[Status] = []
        self.closed = 0

    def due(self) -> bool:
        return True

    def show(self, status: Status) -> None:
        self.seen.append(status)

    def close(self) -> None:
        self.closed += 1


def grid_run(steps: int, view: Recorder) -> TrainingRun:
    env = HyperGrid(2, 4)
    network = PolicyNetwork.for_environment(PolicyConfig(width=8, blocks=1, components=1), env)
    trainer = TrainerConfig(steps=steps, batch_size=8, progress=False)
    return TrainingRun(env, network, env.log_reward, TrajectoryBalance(), trainer, view=view)


def test_a_training_shows_itself():
    """Any environment's: the view knows nothing of crystals."""
    view = Recorder()
    run = grid_run(5, view)
    run.fit()
    assert [status.step for status in view.seen] == [1, 2, 3, 4, 5, 5]
    assert [status.share for status in view.seen[:5]] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert view.seen[-1].left == 0
    assert view.seen[2].left > 0
    assert view.seen[-1].figures["log_z"] == float(run.log_z[0].detach())
    assert all(status.rate > 0 and status.best == [] for status in view.seen)
    assert view.closed == 1


def test_ctrl_c_waits_for_the_end_of_the_step(tmp_path):
    view = Recorder()
    run = grid_run(100, view)
    run.folder = tmp_path
    step = run.optimizers.step

    def interrupted() -> None:
        if run.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        step()

    run.optimizers.step = interrupted
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run.fit()
    finally:
        assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    assert run.step == 4
    again = grid_run(100, view)
    again.folder = tmp_path
    again.load()
    assert again.step == 4
    for a, b in zip(run.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_second_ctrl_c_does_not_wait():
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Interrupts(patient=True) as patient:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGINT)
            assert patient.seen == 3
        with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupts.seen == 1
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


WANDB = """
import sys
import pandas as pd
from crystalgfn.gfn.loggers import WandbLogger
logger = WandbLogger(folder=sys.argv[1], path=sys.argv[1] + "/metrics.csv")
logger.resume(0)
logger.log(10, {"loss": 2.0, "log_z": float("nan")})
logger.table("best", pd.DataFrame({"formula": ["first"]}))
logger.table("best", pd.DataFrame({"formula": ["LiF", "NaCl"]}))
logger.close()
"""


def test_wandb_works_offline_without_an_account(tmp_path):
    pytest.importorskip("wandb")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, "-c", WANDB, str(tmp_path / "run")], cwd=tmp_path, timeout=300, capture_output=True, text=True,
        env={**environment, "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "metrics.csv").read_text() == "step,loss,log_z\n10,2.0,nan\n"
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    (table,) = (tmp_path / "run" / "wandb").glob("offline-run-*/files/media/table/best*.json")
    assert json.loads(table.read_text())["data"] == [["LiF"], ["NaCl"]]
