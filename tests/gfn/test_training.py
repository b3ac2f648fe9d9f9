"""Training: right on known targets, resumable to the bit, clear when something breaks."""

import pytest
import torch

from crystalgfn.benchmarks.exactness import SoftVolume, hypergrid, hypergrids
from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.envs.hypergrid import HyperGrid
from crystalgfn.errors import CheckpointError, RewardError
from crystalgfn.gfn.batches import Replay
from crystalgfn.gfn.loggers import CsvLogger
from crystalgfn.gfn.objectives import TrajectoryBalance, VarGrad
from crystalgfn.gfn.training import CHECKPOINT, TrainerConfig, TrainingRun
from crystalgfn.policy.network import PolicyConfig, PolicyNetwork
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.sampling.train import train
from crystalgfn.space.space import CrystalSpace

SMALL = PolicyConfig(width=32, blocks=1, components=3)
SPACE = {"elements": ["Na", "Cl"], "space_groups": [2, 62, 166, 225], "n_atoms": (1, 8)}


@pytest.mark.parametrize("objective", [TrajectoryBalance(), VarGrad(), TrajectoryBalance(huber=1.0)])
@pytest.mark.unchecked
def test_the_hypergrid_is_learned(objective):
    found = hypergrid(HyperGrid(2, 8), objective, steps=400)
    assert found.error < 0.05
    assert abs(found.log_z_error) < 0.02


@pytest.mark.slow
def test_hypergrid_figures():
    """L1 by exact flow pushing: 8² after 32,000 trajectories, 8⁴ after 200,000."""
    small, large = hypergrids()
    print("8²:", small, "8⁴:", large)
    assert (small.trajectories, large.trajectories) == (32_000, 200_000)
    assert small.error < 1e-5
    assert large.error < 0.02
    assert abs(small.log_z_error) < 0.01
    assert abs(large.log_z_error) < 0.01


def test_flow_pushing_conserves_probability_and_agrees_with_counts():
    env = HyperGrid(2, 4)
    torch.manual_seed(1)
    network = PolicyNetwork.for_environment(SMALL, env)
    with torch.no_grad():
        network.heads["move"].linear.weight.normal_()
    exact = env.stop_probabilities(network)
    assert abs(float(exact.sum()) - 1) < 1e-9
    from crystalgfn.gfn.rollout import rollout

    drawn = rollout(env, network, 40_000, generator=torch.Generator().manual_seed(0)).objects
    counts = torch.bincount(drawn[:, 0] * 4 + drawn[:, 1], minlength=16) / 40_000
    assert float((counts - exact).abs().sum()) < 0.03


def crystal_run(folder, steps, **options):
    space = CrystalSpace(**SPACE)
    env = CrystalEnvironment(space)
    torch.manual_seed(0)
    network = PolicyNetwork.for_environment(SMALL, env)
    trainer = TrainerConfig(steps=steps, batch_size=64, progress=False, replay_fraction=0.2, **options)
    omega = torch.log(torch.tensor([0.0, 0.3, 0.7, 0, 0, 0], dtype=torch.float64))
    return TrainingRun(
        env,
        network,
        SoftVolume(),
        TrajectoryBalance(),
        trainer,
        stratum=lambda c: c.n_elements,
        log_omega=omega,
        seed=7,
        folder=folder,
    )


def test_a_resumed_run_is_the_very_run(tmp_path):
    whole = crystal_run(None, 12)
    losses = [whole.take_step()["loss"] for _ in range(12)]
    first = crystal_run(tmp_path, 12)
    again = [first.take_step()["loss"] for _ in range(5)]
    first.save()
    second = crystal_run(tmp_path, 12)
    second.load()
    again += [second.take_step()["loss"] for _ in range(7)]
    assert again == losses
    for a, b in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_interruption_keeps_a_checkpoint(tmp_path):
    run = crystal_run(tmp_path, 1000)
    take_step, calls = run.take_step, []

    def interrupted():
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(take_step())
        return calls[-1]

    run.take_step = interrupted
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    resumed = crystal_run(tmp_path, 1000)
    resumed.load()
    assert resumed.step == 3
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]


def test_bad_checkpoints_are_named(tmp_path):
    run = crystal_run(tmp_path, 10)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        run.load()
    run.save()
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="truncated"):
        run.load()
    torch.save({"kind": "something"}, path)
    with pytest.raises(CheckpointError, match="not a training checkpoint"):
        run.load()
    path.write_bytes(content)
    other = PolicyNetwork.for_environment(PolicyConfig(width=16, blocks=1), run.env)
    run.scorer.network = other
    with pytest.raises(CheckpointError, match="another space, policy or version"):
        run.load()


def test_an_unwritable_folder_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        train(
            CrystalSpace(**SPACE),
            SoftVolume(),
            trainer=TrainerConfig(steps=1, batch_size=8, progress=False),
            out=blocked / "run",
        )


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        (lambda c: torch.full((len(c),), torch.nan), "nan"),
        (lambda c: torch.zeros(len(c), 1), "shape"),
        (lambda c: torch.zeros(len(c), dtype=torch.int64), "floating"),
        (lambda c: {"log_r": 0.0}, "dict"),
        (lambda c: torch.zeros(len(c), device="meta"), "meta"),
    ],
)
def test_broken_rewards_are_named(reward, words):
    with pytest.raises(RewardError, match=words):
        train(
            CrystalSpace(**SPACE), reward, policy=SMALL, trainer=TrainerConfig(steps=1, batch_size=16, progress=False)
        )


def test_real_crystals_are_trained_on(tmp_path):
    space = CrystalSpace(**SPACE)
    from crystalgfn.sampling.sampler import Sampler

    real = Sampler.untrained(space, seed=3, policy=SMALL).sample(50)
    trainer = TrainerConfig(steps=10, batch_size=64, real_fraction=0.5, progress=False, log_every=1)
    sampler = train(
        space,
        SoftVolume(),
        policy=SMALL,
        trainer=trainer,
        real=real,
        out=tmp_path,
        logger=CsvLogger(tmp_path / "log.csv"),
    )
    assert torch.isfinite(sampler.log_prob(real)).all()
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("step,loss")


def test_a_replay_is_a_ring_with_bounded_weights() -> None:
    space = CrystalSpace(elements=["Na", "Cl"], n_atoms=(2, 4), n_elements=(2, 2))
    crystals = Sampler.untrained(space).sample(12)
    replay = Replay(type(crystals), 5, bound=2.0)
    excess = torch.linspace(-9, 9, 12, dtype=torch.float64)
    for start in (0, 4, 8):
        part = slice(start, start + 4)
        replay.add(crystals[part], torch.zeros(4, dtype=torch.float64), excess[part])
        assert len(replay) == min(5, start + 4)
    assert len(replay) == 5 and torch.equal(replay.objects.lattice, crystals[7:].lattice)
    assert torch.allclose(replay.weight, excess[7:].clamp(-2, 2).exp())


def test_shares_of_a_batch_leave_something_to_sample() -> None:
    for shares in ((0.5, 0.5), (0.9, 0.2)):
        with pytest.raises(ValueError, match="leave nothing to sample"):
            TrainerConfig(replay_fraction=shares[0], real_fraction=shares[1])
    assert TrainerConfig(replay_fraction=0.5, real_fraction=0.25).real_fraction == 0.25
