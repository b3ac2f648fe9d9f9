import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

import pytest
import torch
from joblib import Parallel, delayed

from crystalgfn import check_reward, rewards
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import NotTrusted, RewardError
from crystalgfn.properties.base import describe
from crystalgfn.rewards.base import example_crystals
from crystalgfn.rewards.external import crystal_keys

# loky's own thread may trip over workers that it is told to kill; results do not depend on it
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

CRYSTALS = example_crystals()
DENSITY = CRYSTALS.density

# Workers import these by name, or get them by value.


def density(crystals: Crystals) -> torch.Tensor:
    return crystals.density


def sleepy(crystals: Crystals) -> torch.Tensor:
    time.sleep(60)
    return crystals.density


def broken(crystals: Crystals) -> torch.Tensor:
    raise ValueError("no convergence")


def no_quartz(crystals: Crystals) -> torch.Tensor:
    quartz = crystals.space_group == 154
    return torch.where(quartz, torch.nan, crystals.density)


def no_cubic(crystals: Crystals) -> torch.Tensor:
    """Dies of cubic crystals."""
    if bool((crystals.space_group >= 195).any()):
        os._exit(1)
    return crystals.density


def scalar(crystals: Crystals) -> float:
    return 1.0


class Counting:
    """Density, with a line in a file for each call."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, crystals: Crystals) -> torch.Tensor:
        with open(self.path, "a") as file:
            file.write(f"{len(crystals)} {torch.get_num_threads()} {os.getpid()}\n")
        return crystals.density

    def calls(self) -> list[list[int]]:
        path = Path(self.path)
        return [[int(x) for x in line.split()] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def counting(tmp_path: Path) -> Counting:
    return Counting(str(tmp_path / "calls"))


def script(tmp_path: Path, body: str) -> list[str]:
    (tmp_path / "program.py").write_text("import csv, sys, time, os\nrows = list(csv.DictReader(sys.stdin))\n" + body)
    return [sys.executable, str(tmp_path / "program.py")]


DENSITIES = "for row in rows:\n    print(row['density'])\n"


def test_values_come_in_batches_from_another_process(counting: Counting) -> None:
    slow = rewards.slow(counting, batch_size=3, workers=2)
    torch.testing.assert_close(slow(CRYSTALS), DENSITY)
    calls = counting.calls()
    assert sorted(n for n, _, _ in calls) == [1, 3, 3]
    assert all(threads == 1 and process != os.getpid() for _, threads, process in calls)


def test_no_crystal_is_computed_twice(counting: Counting) -> None:
    slow = rewards.slow(counting)
    torch.testing.assert_close(slow(CRYSTALS[[0, 1, 0, 1, 1]]), DENSITY[[0, 1, 0, 1, 1]])
    torch.testing.assert_close(slow(CRYSTALS), DENSITY)
    assert [n for n, _, _ in counting.calls()] == [2, 5]
    check_reward(slow)
    assert len(counting.calls()) == 2
    assert slow(CRYSTALS[:0]).shape == (0,)


def test_the_file_keeps_values_from_run_to_run(counting: Counting, tmp_path: Path) -> None:
    path = str(tmp_path / "values.sqlite")
    rewards.slow(counting, cache=path)(CRYSTALS[:4])
    again = rewards.slow(counting, cache=path)
    torch.testing.assert_close(again(CRYSTALS), DENSITY)
    assert [n for n, _, _ in counting.calls()] == [4, 3]


def test_a_file_belongs_to_one_function(tmp_path: Path) -> None:
    path = str(tmp_path / "values.sqlite")
    rewards.slow(density, cache=path)
    with pytest.raises(RewardError, match="holds values of .*density .*, not of .*sleepy"):
        rewards.slow(sleepy, cache=path)
    (tmp_path / "text").write_text("not a database" * 100)
    with pytest.raises(RewardError, match="cannot be used: file is not a database"):
        rewards.slow(density, cache=str(tmp_path / "text"))
    with pytest.raises(RewardError, match="cannot be used"):
        rewards.slow(density, cache=str(tmp_path / "no" / "folder"))


def test_crystals_are_the_same_up_to_rounding() -> None:
    near = Crystals(CRYSTALS.space_group, CRYSTALS.composition, CRYSTALS.lattice + 1e-7)
    far = Crystals(CRYSTALS.space_group, CRYSTALS.composition, CRYSTALS.lattice + 1e-3)
    assert crystal_keys(near) == crystal_keys(CRYSTALS) and len(set(crystal_keys(CRYSTALS))) == len(CRYSTALS)
    assert not set(crystal_keys(far)) & set(crystal_keys(CRYSTALS))
    other = Crystals(CRYSTALS.space_group.roll(1), CRYSTALS.composition, CRYSTALS.lattice)
    assert not set(crystal_keys(other)) & set(crystal_keys(CRYSTALS))


def test_what_takes_too_long_is_stopped() -> None:
    slow = rewards.slow(sleepy, timeout=1.0, batch_size=2)
    start = time.time()
    with pytest.raises(RewardError, match=r"sleepy.* fails for Fe, space group 229.* and 1 more.*timeout=1.0 s"):
        slow(CRYSTALS[:3])
    assert time.time() - start < 20
    # the workers are usable again
    torch.testing.assert_close(rewards.slow(density)(CRYSTALS), DENSITY)


def test_what_raises_is_named() -> None:
    with pytest.raises(RewardError, match=r"broken.* fails for Fe, space group 229.*: ValueError: no convergence"):
        rewards.slow(broken, batch_size=1)(CRYSTALS)
    with pytest.raises(RewardError, match=r"returns shape \[\] for 2 crystals"):
        rewards.slow(scalar)(CRYSTALS[:2])


def test_nan_is_the_failure_of_one_crystal() -> None:
    with pytest.raises(RewardError, match=r"fails for SiO2, space group 154.*its value is NaN"):
        rewards.slow(no_quartz)(CRYSTALS)
    slow = rewards.slow(no_quartz, failed=-30.0)
    for _ in range(2):  # failures are not kept: a second try may do better
        with pytest.warns(UserWarning, match="SiO2.*-30 is taken"):
            values = slow(CRYSTALS)
        assert values[3] == -30.0
        keep = torch.arange(7) != 3
        torch.testing.assert_close(values[keep], DENSITY[keep])


def test_a_worker_that_dies_costs_its_own_batch_only() -> None:
    slow = rewards.slow(no_cubic, failed=-30.0, batch_size=1, workers=2)
    some = CRYSTALS[[1, 2, 3]]  # NaCl is cubic, rutile and quartz are not
    with pytest.warns(UserWarning, match="NaCl.*its worker process died") as said:
        values = slow(some)
    assert len(said) == 1 and values[0] == -30
    torch.testing.assert_close(values[1:], DENSITY[[2, 3]])


def worker_number(crystals: Crystals) -> torch.Tensor:
    return torch.full((len(crystals),), float(os.getpid()))


def test_a_worker_that_died_while_idle_is_replaced() -> None:
    some, others = CRYSTALS[[1, 2]], CRYSTALS[[3, 4]]
    slow = rewards.slow(worker_number)
    first = int(slow(some)[0])
    os.kill(first, signal.SIGKILL)
    time.sleep(1)
    assert int(slow(others)[0]) != first


def test_joblib_goes_on_beside_it() -> None:
    """Both start their workers with loky."""
    rewards.slow(density)(CRYSTALS)
    for _ in range(2):
        assert Parallel(n_jobs=2)(delayed(abs)(-i) for i in range(3)) == [0, 1, 2]
        torch.testing.assert_close(rewards.slow(density)(CRYSTALS), DENSITY)


def test_what_was_done_before_a_failure_is_kept(counting: Counting, tmp_path: Path) -> None:
    path = str(tmp_path / "values.sqlite")
    with pytest.raises(RewardError):
        rewards.slow(no_quartz, batch_size=3, cache=path)(CRYSTALS)
    assert sqlite3.connect(path).execute("SELECT COUNT(*) FROM crystals").fetchone() == (3,)


def test_an_external_program(tmp_path: Path) -> None:
    slow = rewards.program(script(tmp_path, DENSITIES), batch_size=3, workers=2)
    torch.testing.assert_close(slow(CRYSTALS), DENSITY)
    check_reward(slow)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("time.sleep(60)", "timeout=2.0 s"),
        ("os.fork() or time.sleep(60)\ntime.sleep(60)", "timeout=2.0 s"),
        ("sys.exit('no licence')", "ended with code 1: no licence"),
        ("print(1.0)", "prints 1 lines for 7 crystals"),
        ("print('\\n'.join(['x'] * 7))", "prints what is no number"),
        ("print('\\n'.join(['nan'] * 7))", "its value is NaN"),
    ],
)
def test_programs_that_fail(tmp_path: Path, body: str, reason: str) -> None:
    slow = rewards.program(script(tmp_path, body), timeout=2.0)
    start = time.time()
    with pytest.raises(RewardError, match="fails for Fe, space group 229.*and 6 more") as caught:
        slow(CRYSTALS)
    assert reason in str(caught.value) and time.time() - start < 20


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(RewardError, match="'no_such_program -x' cannot be started"):
        rewards.program("no_such_program -x")(CRYSTALS)


def test_slow_properties_and_configurations(tmp_path: Path) -> None:
    from crystalgfn.utils.instantiate import instantiate

    for slow in (rewards.slow("math.fsum", timeout=None), rewards.program("cat -n", workers=3, failed=0.0)):
        prop = rewards.function(slow, name="energy", unit="eV/atom")
        reward = rewards.boltzmann(prop, beta=2)
        again = instantiate(describe(reward), trust=None)
        assert again.prop.fn.name == slow.name and again.config() == reward.config()
    program = rewards.program(script(tmp_path, DENSITIES))
    reward = rewards.boltzmann(rewards.function(program, name="density"), beta=2)
    torch.testing.assert_close(reward(CRYSTALS), -2 * DENSITY)
    with pytest.raises(RewardError, match="cannot be imported by name"):
        rewards.slow(lambda crystals: crystals.density).config()


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"timeout": 0.0}, "timeout must be"),
        ({"failed": float("nan")}, "failed must be a number"),
    ],
)
def test_bad_settings(settings: dict, rule: str) -> None:
    with pytest.raises(RewardError, match=rule):
        rewards.slow(density, **settings)


def test_what_is_no_function() -> None:
    with pytest.raises(RewardError, match="cannot be called"):
        rewards.slow(3)
    with pytest.raises(RewardError, match="not the dotted path"):
        rewards.slow("no.such.function")
    with pytest.raises(RewardError, match="a command and its arguments are needed"):
        rewards.program([])


def test_training_with_a_slow_reward(tmp_path: Path) -> None:
    import crystalgfn as cg

    space = cg.CrystalSpace(elements=["Li", "O"], space_groups=[221, 225], n_atoms=(1, 4))
    reward = rewards.program(script(tmp_path, DENSITIES), batch_size=64)
    trainer = cg.Trainer(steps=2, batch_size=8, seconds=None, progress=False)
    policy = cg.PolicyConfig(width=16, blocks=1, components=2, rank=8)
    sampler = cg.train(space, reward, trainer=trainer, policy=policy, out=tmp_path / "run")
    crystals = sampler.sample(3)
    torch.testing.assert_close(sampler.log_reward(crystals), crystals.density)
    with pytest.raises(NotTrusted, match='crystalgfn.rewards.Program .*trust=."crystalgfn.rewards.Program"'):
        cg.Sampler.load(tmp_path / "run" / "sampler")
    loaded = cg.Sampler.load(tmp_path / "run" / "sampler", trust=["crystalgfn.rewards.Program"])
    torch.testing.assert_close(loaded.log_reward(crystals), crystals.density)
