"""Several processes train what one process with the joint batch does."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from forks import COMMAND, Forks

from crystalgfn.benchmarks.exactness import SoftVolume
from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.errors import CheckpointError, TrainingError
from crystalgfn.gfn.objectives import Objective, TrajectoryBalance, VarGrad
from crystalgfn.gfn.training import CHECKPOINT, TrainerConfig, TrainingRun
from crystalgfn.policy.network import PolicyConfig, PolicyNetwork
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.sampling.table import BestCrystals
from crystalgfn.space.space import CrystalSpace

STEPS, HALF = 6, 3
OBJECTIVES: dict[str, Objective] = {"balance": TrajectoryBalance(), "vargrad": VarGrad(huber=5.0)}
CASES = [(name, strata) for name in OBJECTIVES for strata in (True, False)]
ROOT = Path(__file__).resolve().parents[2]
#: One of two processes; writes what it has learned in each case to the folder, and does the second half of one anew.
PROCESS = """
import sys
from pathlib import Path
import torch
from torch import distributed
sys.path[:0] = [sys.argv[4], sys.argv[4] + "/tests", sys.argv[4] + "/tests/gfn"]
import test_distributed as tests

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{sys.argv[3]}", rank=rank, world_size=2)
found = {}
for name, strata in tests.CASES:
    run = tests.training(name, strata, 1, folder / f"{name} {strata}")
    for step in range(tests.STEPS):
        figures = run.take_step()
        run._keep_best()
        if step + 1 == tests.HALF:
            run.save()
    found[f"{name} {strata}"] = tests.learned(run, figures)
    again = tests.training(name, strata, 1, folder / f"{name} {strata}")
    again.load()
    for _ in range(tests.HALF, tests.STEPS):
        figures = again.take_step()
    found[f"{name} {strata} resumed"] = tests.learned(again, figures)
parts = tests.training("vargrad", True, 2, None)
for _ in range(tests.STEPS):
    figures = parts.take_step()
found["parts"] = tests.learned(parts, figures)
torch.save(found, folder / f"{rank}.pt")
distributed.destroy_process_group()
"""


def training(objective: str, strata: bool, accumulate: int, folder: Path | None, **options: object) -> TrainingRun:
    env = CrystalEnvironment(CrystalSpace(elements=["Na", "Cl"], space_groups=[2, 62, 166, 225], n_atoms=(1, 8)))
    torch.manual_seed(0)
    network = PolicyNetwork.for_environment(PolicyConfig(width=16, blocks=1, components=3), env).double()
    trainer = TrainerConfig(
        steps=STEPS, batch_size=64, accumulate=accumulate, replay_fraction=0.25, precision="float32", epsilon=0.1,
        progress=False, **options,
    )  # fmt: skip
    omega = torch.log(torch.tensor([0.0, 0.3, 0.7, 0, 0, 0], dtype=torch.float64)) if strata else None
    return TrainingRun(
        env, network, SoftVolume(), OBJECTIVES[objective], trainer, stratum=lambda c: c.n_elements, log_omega=omega,
        seed=7, folder=folder, best=BestCrystals(),
    )  # fmt: skip


def learned(run: TrainingRun, figures: dict[str, float]) -> dict[str, object]:
    weights = {name: value.clone() for name, value in run.scorer.state_dict().items()}
    return {"weights": weights, "figures": figures, "best": run.best.state_dict()}


def alone(objective: str, strata: bool, accumulate: int) -> dict[str, object]:
    run = training(objective, strata, accumulate, None)
    for _ in range(STEPS):
        figures = run.take_step()
        run._keep_best()
    return learned(run, figures)


def same(one: dict, other: dict, tolerance: float = 1e-9) -> None:
    assert one["weights"].keys() == other["weights"].keys()
    for name, value in one["weights"].items():
        assert float((value - other["weights"][name]).abs().max()) <= tolerance, name
    assert one["figures"] == pytest.approx(other["figures"], abs=10 * tolerance)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def together(folder, forks) -> list[dict[str, dict]]:
    """What two processes learned, of which one is forked and one has its own order of sets and dictionaries."""
    command = [str(folder), str(folder / "meeting"), str(ROOT)]
    other = subprocess.Popen(
        [sys.executable, "-c", PROCESS, "1", *command],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    for process in (forks.start(PROCESS, 0, *command), other):
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize(("objective", "strata"), CASES)
def test_two_processes_learn_what_one_does_with_the_joint_batch(objective, strata, together):
    one = alone(objective, strata, accumulate=2)
    two = together[0][f"{objective} {strata}"]
    same(one, two)
    for name in one["best"]:
        assert torch.allclose(one["best"][name], two["best"][name], rtol=1e-9, atol=1e-9)
    start = training(objective, strata, 2, None).scorer.state_dict()
    assert any(not torch.equal(start[name], value) for name, value in one["weights"].items()), "something was learned"


def test_processes_and_parts_together(together):
    same(alone("vargrad", True, accumulate=4), together[0]["parts"])


@pytest.mark.parametrize(("objective", "strata"), CASES)
def test_both_processes_have_the_very_same_weights(objective, strata, together):
    first, second = (one[f"{objective} {strata}"] for one in together)
    same(first, second, tolerance=0)


@pytest.mark.parametrize(("objective", "strata"), CASES)
def test_two_processes_resume_to_the_very_same_weights(objective, strata, together):
    for one in together:
        same(one[f"{objective} {strata}"], one[f"{objective} {strata} resumed"], tolerance=0)


def test_a_checkpoint_of_two_processes_is_one_of_two_parts(together, folder):
    """Training may go on in one process, but only with as many streams of random numbers."""
    run = training("vargrad", True, 2, folder / "vargrad True")
    run.load()
    for _ in range(HALF, STEPS):
        figures = run.take_step()
    same(learned(run, figures), together[0]["vargrad True"])
    for accumulate in (1, 4):
        with pytest.raises(CheckpointError, match=f"of 2 streams .* not {accumulate}"):
            training("vargrad", True, accumulate, folder / "vargrad True").load()


def test_parts_add_up_to_the_gradient_of_the_whole_batch():
    """With given trajectories: the mean of the parts' gradients is that of their mean loss."""
    run = training("balance", True, 2, None)
    batches = [source.draw(run.network, 0.0) for source in run.sources]
    losses = []
    for part in batches:
        (scored,), log_z = run.scorer(part)
        losses.append(run.objective(scored, part[0].log_reward, log_z, part[0].index)[0])
    whole = torch.autograd.grad(torch.stack(losses).mean(), list(run.network.parameters()), allow_unused=True)
    for source, part in zip(run.sources, batches, strict=True):
        source.draw = lambda *_, part=part: part
    run._start_log_z = lambda _: None
    run.optimizers.step = lambda: None
    run.take_step()
    for parameter, gradient in zip(run.network.parameters(), whole, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        if gradient is not None:
            assert torch.allclose(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


def test_a_batch_that_cannot_be_shared_out_is_refused(monkeypatch):
    monkeypatch.setattr("crystalgfn.utils.distributed.world_size", lambda: 3)
    with pytest.raises(TrainingError, match="batch_size=64 .* over 3 processes .* multiple of 3"):
        training("vargrad", True, 1, None)


# ---- the command --------------------------------------------------------------------------------------------------

TINY = [
    "reward=density", "policy=small", "elements=[Li,O]", "space_groups=[221,225]", "n_atoms=[1,4]", "batch_size=20",
    "diagnostics=20", "trainer.precision=float32", "trainer.log_every=2",
]  # fmt: skip


def torchrun(arguments: list[str], **settings: object) -> subprocess.Popen:
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", str(ROOT / "scripts" / "train.py"), *arguments]
    return subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, **settings,
    )  # fmt: skip


def pair(forks: Forks, arguments: list[str], cwd: Path | None = None) -> tuple[list[int], str, str]:
    """Two processes with the variables that torchrun sets: how they ended, and what both said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    both = [
        forks.start(COMMAND, "train", *arguments, env={**shared, "RANK": rank, "LOCAL_RANK": rank}, cwd=cwd)
        for rank in ("0", "1")
    ]
    said, errors = zip(*(process.communicate(timeout=300) for process in both), strict=True)
    return [process.returncode for process in both], "".join(said), "".join(errors)


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_the_command_line_with_torchrun(forks, tmp_path):
    process = torchrun([*TINY, "steps=6", f"out={tmp_path}/${{now:%H-%M-%S-%f}}"])
    said, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    (out,) = tmp_path.iterdir()  # one folder, for all the time of day of the first process
    assert {"sampler", "config.yaml", "metrics.csv", "best.csv", "curves.png", CHECKPOINT} <= set(os.listdir(out))
    assert [line.split(",")[0] for line in (out / "metrics.csv").read_text().splitlines()] == ["step", "2", "4", "6"]
    for words in ("The sampler is in", "100%  step 6", "ESS"):
        assert len(lines(said + err, words)) == 1, said + err
    weights = Sampler.load(out / "sampler").network.state_dict()

    ended, said, err = pair(forks, [*TINY, "steps=6", f"out={out}"])
    assert 0 not in ended
    (line,) = lines(err, "error: ")
    assert "already holds a run" in line
    assert all(torch.equal(v, weights[k]) for k, v in Sampler.load(out / "sampler").network.state_dict().items())

    process = torchrun(["resume=true", f"out={out}", "steps=1000000"], start_new_session=True)
    start = time.monotonic()
    while len((out / "metrics.csv").read_text().splitlines()) < 8:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - start < 120
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to torchrun and to both processes
    said, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert len(lines(err, "The checkpoint is kept")) == 1, err
    done = torch.load(out / CHECKPOINT)["step"]
    assert done >= int((out / "metrics.csv").read_text().splitlines()[-1].split(",")[0]) >= 14
    ended, said, err = pair(forks, ["resume=true", f"out={out}", f"steps={done + 2}"])
    assert ended == [0, 0], err
    assert torch.load(out / CHECKPOINT)["step"] == done + 2


REWARD = """
import os
import torch

calls = 0

def breaks(crystals):
    global calls
    calls += 1
    if calls == 4 and os.environ["RANK"] == "1":
        {what}
    return torch.zeros(len(crystals))
"""


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("return torch.full((len(crystals),), float('nan'))", "gives log R = nan"),
        ("os.kill(os.getpid(), 9)", "another process of this training ended without a word"),
    ],
)
def test_one_process_that_fails_ends_all_with_one_sentence(what, words, forks, tmp_path):
    (tmp_path / "broken_reward.py").write_text(REWARD.format(what=what))
    mine = ["~reward", "+reward={_target_: hydra.utils.get_method, path: broken_reward.breaks}"]
    ended, said, err = pair(forks, [*TINY[1:], *mine, "steps=1000000", f"out={tmp_path / 'run'}"], cwd=tmp_path)
    assert 0 not in ended
    (found,) = lines(err, "error: ")
    assert words in found
    assert "crystalgfn/gfn" not in err, "no traceback of ours"
    assert not (tmp_path / "run" / "sampler").exists()
