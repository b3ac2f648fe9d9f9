"""Arguments of another type or without a meaning are refused by name, before the work."""

import pytest

import crystalgfn as cg
from crystalgfn.errors import CheckpointError, ConfigurationError, InvalidSpace, RewardError

NAN, INF = float("nan"), float("inf")
SPACE = cg.CrystalSpace(elements=["Na", "Cl"], n_atoms=(2, 2))
SAMPLER = cg.Sampler.untrained(SPACE, policy=cg.PolicyConfig(width=16, blocks=1, components=2))


PROGRAM = """
import crystalgfn as cg
from crystalgfn.errors import CrystalGFNError
NAN = float("nan")
space = cg.CrystalSpace(elements=["Na", "Cl"], n_atoms=(2, 2))
small = cg.PolicyConfig(width=16, blocks=1, components=2)
sampler = cg.Sampler.untrained(space, policy=small)
right = {"space": space, "reward": cg.rewards.dense(1.0), "policy": small,
         "trainer": cg.TrainerConfig(steps=1, batch_size=4, progress=False)}
tried = [lambda n=n: sampler.sample(n) for n in (1.5, NAN, None, "3", True, -1)]
tried += [lambda seed=seed: sampler.sample(2, seed=seed) for seed in (-1, 1.5, "a", None, 2**70)]
tried += [lambda one=one: sampler.log_prob(one) for one in (None, 3, "NaCl")]
wrong = {"space": {}, "reward": 3, "trainer": 3, "policy": 3, "real": 3, "init": 3, "seed": "x"}
tried += [lambda one=one: cg.train(**{**right, **dict([one])}) for one in wrong.items()]
tried += [lambda one=one: cg.check_constraint(one) for one in (None, 3, "x", object())]
tried += [lambda one=one: cg.predict(one) for one in (None, 3)]
tried += [lambda one=one: cg.refine_structures(one) for one in (None, 3)]
tried += [lambda one=one: cg.Crystals.from_structures(one) for one in (None, 3)]
tried += [lambda one=one: sampler.save(one) for one in (None, 3, [])]
tried += [lambda one=one: cg.train(**right, out=one) for one in (3, [])]
tried += [lambda one=one: cg.build_structures(one) for one in (None, "NaCl")]
tried += [lambda one=one: space.contains(one) for one in (None, 3)]
tried += [lambda one=one: space.explain(one) for one in (None, 3)]
tried += [lambda one=one: sampler.sample(2, space=one) for one in (3, "NaCl")]
tried += [lambda one=one: sampler.to(one) for one in ("gpu", 3.5, "cuda:99")]
tried += [lambda: cg.Crystals.cat(3)]
for one in tried:
    try:
        one()
    except CrystalGFNError as error:
        print(error)
    else:
        print("nothing was said")
"""


def test_arguments_of_another_type_are_named(forks):
    """In a process without shape checks, which would refuse them first."""
    said = forks.run(PROGRAM).splitlines()
    starts = [
        *["n"] * 6,
        *["seed"] * 5,
        *["crystals is"] * 3,
        "space is dict",
        "int '3' is no reward",
        "trainer is int",
    ]
    starts += [
        "policy is int",
        "real is int",
        "init is int",
        "seed is str",
        *["None lacks", "3 lacks", "'x' lacks", "<obj"],
    ]
    starts += ["formula is NoneType", "formula is int", *["NoneType is no list", "int is no list"] * 2]
    starts += [
        *["path is"] * 3,
        *["out is"] * 2,
        *["crystals is"] * 6,
        *["space is"] * 2,
        *["device="] * 3,
        "batches is",
    ]
    assert len(said) == len(starts)
    assert [line for line, start in zip(said, starts, strict=True) if not line.startswith(start)] == []


@pytest.mark.parametrize("name", [3, None, ["a"], "a" * 5000, "nonsense"])
def test_names_of_samplers_and_proxies_that_are_none(name):
    with pytest.raises(CheckpointError):
        cg.Sampler.load(name)
    with pytest.raises(RewardError):
        cg.load_proxy(name)


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 1.5}, {"steps": "3"}, {"seconds": INF}, {"learning_rate": INF}, {"learning_rate": NAN},
        {"replay_size": 0}, {"checkpoint_seconds": -1}, {"epsilon": "x"}, {"gradient_clip": NAN},
        {"inverse_temperature": None}, {"batch_size": 1.5}, {"log_z_learning_rate": NAN},
    ],
)  # fmt: skip
def test_settings_of_a_training_that_mean_nothing(settings):
    (name,) = settings
    with pytest.raises(ConfigurationError, match=name):
        cg.TrainerConfig(**settings)


@pytest.mark.parametrize("reward", [None, 3, "stable"])
def test_rewards_that_cannot_be_called(reward):
    with pytest.raises(RewardError, match="is no reward"):
        cg.rewards.evaluate(reward, SAMPLER.sample(1))


@pytest.mark.parametrize("command", [3, None, "a 'b", {"a": 1}])
def test_programs_that_are_no_command(command):
    with pytest.raises(RewardError, match="command"):
        cg.rewards.program(command)


@pytest.mark.parametrize("states", [["Li"], ["Li", "Fe"], "icsd2", {"Li": [0.5]}])
def test_tables_of_oxidation_states_that_are_none(states):
    with pytest.raises(InvalidSpace, match="oxidation_states"):
        cg.CrystalSpace(elements=["Li", "O"], oxidation_states=states)
