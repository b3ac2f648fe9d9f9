"""Throughput: exclusive times, matrix operations counted as they are, figures that belong together."""

import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import crystalgfn as cg
from crystalgfn.benchmarks import profiling
from crystalgfn.benchmarks.exactness import SoftVolume
from crystalgfn.benchmarks.profiling import SECTIONS, MatrixOperations, Stopwatch, busy_core, matrix_rate, rate
from crystalgfn.benchmarks.throughput import (
    ThroughputPlan,
    measure_throughput,
    standing_still,
    throughput_tables,
    untrained,
)
from crystalgfn.envs.hypergrid import HyperGrid
from crystalgfn.errors import InvalidSpace, RewardError
from crystalgfn.gfn.objectives import TrajectoryBalance, VarGrad
from crystalgfn.gfn.rollout import rollout
from crystalgfn.gfn.scoring import log_forward
from crystalgfn.gfn.training import TrainingRun
from crystalgfn.policy.network import PolicyConfig, PolicyNetwork
from crystalgfn.sampling.sampler import Sampler

CPU = torch.device("cpu")
SMALL = PolicyConfig(width=32, blocks=1, components=3)
QUICK = ThroughputPlan(batch_sizes=(20,), threads=(1,), seconds=0.05)
SPACE = {"elements": ["Na", "Cl"], "space_groups": [2, 62, 225], "n_atoms": (1, 8)}


def burn(seconds: float) -> None:
    """Use the CPU; sleeping would not count."""
    start = time.process_time()
    while time.process_time() - start < seconds:
        pass


class HandWatch(Stopwatch):
    """Its time is set by hand."""

    clock = 0.0

    def _now(self) -> float:
        return self.clock


class Owner:
    """Holds parts as a run or a sampler does."""

    def __init__(self, *parts):
        self.first, self.rest = parts[0], {"all": list(parts[1:])}


def sampler(**options) -> Sampler:
    return untrained(cg.CrystalSpace(**SPACE), SoftVolume(), SMALL, **options)


# ---- the watch ----------------------------------------------------------------------------------------------------


def test_times_are_exclusive():
    watch = HandWatch(CPU)

    def at(clock, function, *arguments):
        watch.clock = clock
        function(*arguments)

    at(1.0, watch.enter, "environment")
    at(3.0, watch.enter, "masks")
    at(6.0, watch.leave)
    at(7.0, watch.leave)
    watch.clock = 10.0
    shares = watch.shares()
    assert shares == pytest.approx(dict.fromkeys(SECTIONS, 0.0) | {"other": 0.4, "environment": 0.3, "masks": 0.3})


def test_a_failing_call_closes_its_section():
    watch = Stopwatch(CPU)

    def fail():
        assert watch.current == "reward"
        raise ValueError

    with pytest.raises(ValueError):
        watch.timed("reward", fail)()
    assert watch.current == "other"


def test_what_a_generator_yields_is_timed_and_what_is_done_with_it_is_not():
    watch = Stopwatch(CPU)

    def steps():
        for _ in range(3):
            burn(0.02)
            yield watch.current

    for inside in watch.timed("environment", steps)():
        assert (inside, watch.current) == ("environment", "other")
        burn(0.04)
    shares = watch.shares()
    assert shares["environment"] == pytest.approx(1 / 3, abs=0.1)


class SlowGrid(HyperGrid):
    """Masks that take long."""

    def options(self, state, head, rows):
        burn(0.05)
        return super().options(state, head, rows)


def test_shares_say_which_part_is_slow():
    env = SlowGrid(2, 4)
    network = PolicyNetwork.for_environment(SMALL, env)
    for slow in ("masks", "reward"):
        watch = Stopwatch(CPU)
        reward = watch.timed("reward", lambda x: burn(0.5) or env.log_reward(x)) if slow == "reward" else env.log_reward
        trainer = cg.Trainer(steps=10, batch_size=4, progress=False)
        run = TrainingRun(env, network, reward, watch.objective(TrajectoryBalance()), trainer)
        run.take_step()
        with watch.watching(run):
            watch.reset()
            run.take_step()
        shares = watch.shares()
        assert sum(shares.values()) == pytest.approx(1)
        assert shares[slow] > 0.6
        assert all(shares[name] > 0 for name in ("masks", "environment", "network", "optimiser", "other"))


def test_the_backward_pass_is_the_networks():
    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            burn(0.3)
            return gradient

    class SlowBackward(VarGrad):
        def __call__(self, *arguments):
            loss, delta = super().__call__(*arguments)
            return 2 * Slow.apply(loss), delta

    env = HyperGrid(2, 4)
    watch = Stopwatch(CPU)
    objective = watch.objective(SlowBackward())
    assert objective.learns_log_z is False
    trainer = cg.Trainer(steps=10, batch_size=4, progress=False)
    run = TrainingRun(env, PolicyNetwork.for_environment(SMALL, env), env.log_reward, objective, trainer)
    run.take_step()
    with watch.watching(run):
        watch.reset()
        run.take_step()
    assert watch.shares()["network"] > 0.6


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_every_optimiser_of_a_run_is_watched(optimizer):
    env = HyperGrid(2, 4)
    trainer = cg.Trainer(steps=10, batch_size=4, optimizer=optimizer, progress=False)
    run = TrainingRun(env, PolicyNetwork.for_environment(SMALL, env), env.log_reward, TrajectoryBalance(), trainer)
    with Stopwatch(CPU).watching(run):
        assert all("step" in vars(one) for one in run.optimizers.all)
    assert not any("step" in vars(one) for one in run.optimizers.all)


def test_nothing_is_left_behind():
    env = HyperGrid(2, 4)
    network = PolicyNetwork.for_environment(SMALL, env)
    optimiser = torch.optim.Adam(network.parameters())
    parts = (env, network, optimiser)
    before = [set(vars(part)) for part in parts]
    watch = Stopwatch(CPU)
    with pytest.raises(ZeroDivisionError), watch.watching(Owner(*parts)):
        assert {"options", "apply"} <= set(vars(env))
        assert {"trunk", "distribution"} <= set(vars(network))
        assert "step" in vars(optimiser)
        raise ZeroDivisionError
    assert [set(vars(part)) for part in parts] == before


def test_an_owner_without_an_environment_is_refused():
    network = PolicyNetwork.for_environment(SMALL, HyperGrid(2, 4))
    with pytest.raises(LookupError, match="Owner holds no Environment"), Stopwatch(CPU).watching(Owner(network)):
        pass


# ---- the floor ----------------------------------------------------------------------------------------------------


def test_products_are_counted_by_dtype_and_shape():
    a, b = torch.randn(5, 7), torch.randn(7, 3)
    with MatrixOperations() as counter:
        a @ b
        torch.nn.functional.linear(a, b.T, torch.zeros(3))
        torch.bmm(torch.randn(2, 5, 7), torch.randn(2, 7, 3))
        (a.double() @ b.double()).exp()
        with torch.autocast("cpu", torch.bfloat16):
            a @ b
    one = 2 * 5 * 7 * 3
    assert counter.operations == {torch.float32: 4 * one, torch.float64: one, torch.bfloat16: one}
    assert counter.shapes == {(5, 7, 3): 4 * one}
    assert counter.main_shape() == (5, 7, 3)


def test_the_trunk_takes_what_its_layers_say():
    env = HyperGrid(2, 4)
    network = PolicyNetwork.for_environment(PolicyConfig(width=16, blocks=3), env)
    cells = env.cells()
    with MatrixOperations() as counter, torch.no_grad():
        network.trunk(env.observation_of(cells))
    assert counter.operations == {torch.float32: 3 * 2 * 2 * len(cells) * 16 * 16}
    assert counter.main_shape() == (len(cells), 16, 16)


def test_the_count_is_torchs_own_in_walks_scores_and_their_gradients():
    from crystalgfn.envs.crystal import CrystalEnvironment

    env = CrystalEnvironment(cg.CrystalSpace(**SPACE))
    network = PolicyNetwork.for_environment(SMALL, env)

    def work() -> None:
        walked = rollout(env, network, 50, generator=torch.Generator().manual_seed(0))
        log_forward(env, network, walked).sum().backward()

    with MatrixOperations() as counter:
        work()
    with FlopCounterMode(display=False) as reference:
        work()
    assert reference.get_total_flops() > 0
    assert sum(counter.operations.values()) == reference.get_total_flops()


def test_only_what_is_asked_for_is_counted():
    asked = []
    counter = MatrixOperations(lambda: bool(asked))
    with counter:
        torch.ones(2, 2) @ torch.ones(2, 2)
        asked.append(1)
        torch.ones(3, 3) @ torch.ones(3, 3)
    assert counter.operations == {torch.float32: 54}
    with pytest.raises(LookupError, match="no matrix product"):
        MatrixOperations().main_shape()


def test_rates():
    found, calls = rate(lambda: burn(0.02), 0.1, CPU)
    assert calls >= 2
    assert found.per_cpu_second == pytest.approx(50, rel=0.15)
    assert found.on(CPU) == found.per_cpu_second
    assert found.on(torch.device("cuda")) == found.per_second
    speed = matrix_rate((64, 64, 64), torch.float32, CPU, 0.1)
    assert 1e8 < speed.per_cpu_second < 1e13


# ---- the measurement ----------------------------------------------------------------------------------------------


def test_figures_belong_together():
    one = sampler()
    before = [parameter.clone() for parameter in one.network.parameters()]
    plan = ThroughputPlan(batch_sizes=(20, 10), threads=(1,), seconds=0.05)
    found = measure_throughput(one, TrajectoryBalance(), cg.Trainer(progress=False), plan, keep_policy=False)
    assert [(m.device, m.threads, m.batch_size) for m in found] == [("cpu", 1, 10), ("cpu", 1, 20)]
    assert all(torch.equal(a, b) for a, b in zip(before, one.network.parameters(), strict=True))
    for m in found:
        for activity in (m.trained, m.sampled):
            assert activity.crystals.per_cpu_second > 0
            assert activity.calls >= 2
            assert activity.peak_memory > 50
            assert sum(activity.shares.values()) == pytest.approx(1)
            assert set(activity.operations) <= set(activity.matrix)
            needed = sum(n / activity.matrix[d].per_cpu_second for d, n in activity.operations.items())
            assert activity.floor == pytest.approx(1 / needed)
            assert activity.reached == pytest.approx(activity.crystals.per_cpu_second / activity.floor)
        assert all(m.trained.shares[name] > 0 for name in SECTIONS)
        assert m.sampled.shares["reward"] == m.sampled.shares["optimiser"] == 0
        # a step walks, scores and goes back through the scores
        assert sum(m.trained.operations.values()) > 2 * sum(m.sampled.operations.values())
    text = throughput_tables(found)
    assert text.count("| cpu | 1 | 20 |") == 6
    assert "bfloat16" in text
    assert asdict(found[0])["trained"]["crystals"]["per_cpu_second"] > 0


def test_the_rewards_operations_are_not_the_networks():
    class Multiplies(SoftVolume):
        def __call__(self, crystals):
            return super().__call__(crystals) + (torch.zeros(500, 500) @ torch.zeros(500, 500)).sum()

    counts = []
    for reward in (SoftVolume(), Multiplies()):
        one = sampler()
        one.reward = reward
        (found,) = measure_throughput(one, TrajectoryBalance(), cg.Trainer(progress=False), QUICK)
        counts.append(sum(found.trained.operations.values()))
    assert counts[1] < counts[0] + 2 * 500**3 / 20 / 2


def test_threads_are_set_and_given_back():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), profiling.set_threads(before + 2):
        assert torch.get_num_threads() == before + 2
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_policy_that_is_kept_stays_as_it_was(optimizer):
    one = sampler()
    trainer = standing_still(cg.Trainer(batch_size=20, optimizer=optimizer, progress=False))
    run = TrainingRun(one.environment(one.space), one.network, SoftVolume(), TrajectoryBalance(), trainer)
    before = [parameter.clone() for parameter in one.network.parameters()]
    for _ in range(5):
        run.take_step()
    for a, b in zip(before, one.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0)


def test_strata_of_an_untrained_sampler():
    assert sampler(strata=[0.5, 0.5, 0, 0, 0]).omega == (0.5, 0.5, 0, 0, 0)
    assert sampler().omega is None
    assert sum(sampler(strata="default").omega) == pytest.approx(1)
    with pytest.raises(InvalidSpace, match="most"):
        sampler(strata="most")


def test_a_sampler_without_a_reward_cannot_be_measured():
    with pytest.raises(RewardError, match="no reward"):
        measure_throughput(Sampler.untrained(cg.CrystalSpace(**SPACE), policy=SMALL), VarGrad(), cg.Trainer(), QUICK)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_sizes": (0,)}, "batch_sizes=.0.: give whole numbers"),
        ({"batch_sizes": ()}, "batch_sizes"),
        ({"threads": (1, 0)}, "threads"),
        ({"devices": ()}, "devices"),
        ({"seconds": 0.0}, "seconds=0.0"),
    ],
)
def test_plans_that_cannot_be(settings, words):
    with pytest.raises(ValueError, match=words):
        ThroughputPlan(**settings)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_measured():
    plan = ThroughputPlan(batch_sizes=(200,), threads=(1,), devices=("cuda",), seconds=0.2)
    (found,) = measure_throughput(sampler(), TrajectoryBalance(), cg.Trainer(progress=False), plan)
    assert found.trained.reached == pytest.approx(found.trained.crystals.per_second / found.trained.floor)
    assert 0 < found.sampled.peak_memory < 1e5


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads CPU times from /proc")
def test_a_competing_load_computes_and_ends():
    import os
    import time

    def cpu_seconds(pid: int) -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    with busy_core() as pid:
        end = time.perf_counter() + 20
        while cpu_seconds(pid) < 0.2 and time.perf_counter() < end:
            time.sleep(0.05)
        assert cpu_seconds(pid) >= 0.2
    assert not Path(f"/proc/{pid}").exists()


def test_what_is_left_beside_a_load_is_measured_and_said():
    plan = ThroughputPlan(batch_sizes=(10,), threads=(1,), seconds=0.05, competing_load=True)
    (found,) = measure_throughput(sampler(), TrajectoryBalance(), cg.Trainer(progress=False), plan)
    assert set(found.loaded) == {"trained", "sampled"} and all(0 < share < 5 for share in found.loaded.values())
    words = throughput_tables([found])
    row = next(line for line in words.split("core busy")[1].splitlines() if "trained" in line).split(" | ")
    assert row[-2] == row[-1].removesuffix(" |")  # with one thread its own speed is that of one core
    assert "of one free core's" in words and asdict(found)["loaded"] == found.loaded
