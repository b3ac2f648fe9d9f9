"""A sampler adapts by itself where its effective sample size is low, and says so."""

import json

import pytest

import crystalgfn as cg
from crystalgfn.cli import app
from crystalgfn.errors import InvalidSpace
from crystalgfn.sampling.adaptation import CONFIG, adapt_if_low, budget
from crystalgfn.sampling.proportions import Adaptation, LowESSWarning, distrust

SPACE = {"elements": ["Na", "Cl", "O"], "space_groups": [225, 221], "n_atoms": (1, 4), "relative_volume": (0.5, 2.0)}
CUBIC = {"space_groups": [225]}
SMALL = cg.PolicyConfig(width=32, blocks=1, components=2)


def untrained(beta: float) -> cg.Sampler:
    sampler = cg.Sampler.untrained(cg.CrystalSpace(**SPACE), policy=SMALL)
    sampler.reward = cg.rewards.boltzmann(cg.rewards.Density(), beta=beta, direction="maximise")
    return sampler


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("auto", (CONFIG.steps, None, f"{CONFIG.steps} steps")),
        (True, (CONFIG.steps, None, f"{CONFIG.steps} steps")),
        (40, (40, None, "40 steps")),
        ("40", (40, None, "40 steps")),
        ("1.5s", (None, 1.5, "1.5 seconds")),
    ],
)
def test_the_budget_is_steps_unless_seconds_are_given(given, expected):
    assert budget(given) == expected


@pytest.mark.parametrize("given", ["soon", "0", 0, "-5", "0s", "5 min", False, 2.5])
def test_other_budgets_are_refused(given):
    with pytest.raises(InvalidSpace, match="give auto, a number of steps such as 500, or seconds such as 60s"):
        budget(given)


def test_a_low_ess_is_adapted_and_a_high_one_is_not():
    sampler = untrained(beta=3.0)
    before = sampler.diagnostics(1000, CUBIC).ess
    assert before < 0.3
    crystals = sampler.sample(50, space=CUBIC, adapt=60, seed=1)
    done = sampler.adaptation
    assert done.before == before and done.after > 0.3 and done.budget == "60 steps"
    assert str(done).startswith(f"adapted by 60 steps: ESS {before:.1%} before, {done.after:.1%} after")
    assert sampler.narrow(CUBIC).contains(crystals).all()
    adapted = next(iter(sampler.adapted.values()))[0]
    assert (adapted.sample(50, seed=1).lattice == crystals.lattice).all()
    sampler.sample(5, space=CUBIC, adapt=60)
    assert len(sampler.adapted) == 1  # not trained again
    assert sampler.diagnostics(1000, CUBIC).ess == before  # the sampler itself stays as it is
    flat = untrained(beta=0.01)
    found = flat.sample(20, space=CUBIC, adapt="auto", seed=2)
    assert flat.adaptation.after is None and "not adapted: ESS" in str(flat.adaptation)
    assert (found.lattice == flat.sample(20, space=CUBIC, seed=2).lattice).all()


def test_a_sample_that_stays_poor_is_not_to_be_trusted():
    with pytest.warns(LowESSWarning, match="adapted by 1 steps: .* the sample is not to be trusted"):
        adapt_if_low(untrained(beta=30.0), CUBIC, 1)
    assert "below 30%" in distrust(0.04) and "4.0%" in distrust(0.04)
    assert "not to be trusted" not in str(Adaptation(before=0.1, after=0.6, budget="5 steps"))


def test_the_command_adapts_and_states_the_budget(tmp_path, capsys):
    untrained(beta=3.0).save(tmp_path / "sampler")
    common = [f"sampler={tmp_path / 'sampler'}", "n=10", "space_groups=[225]", "structures=false", "picture=false",
              "progress=false", "diagnostics=1000"]  # fmt: skip
    assert app.sample([*common, f"out={tmp_path / 'plain'}"]) == 0
    said = capsys.readouterr().out
    assert "the sample is not to be trusted" in said and "adapt=auto or resample=auto correct it" in said
    assert app.sample([*common, "adapt=60", f"out={tmp_path / 'adapted'}"]) == 0
    said = capsys.readouterr().out
    assert "adapt=60: 60 steps of fine-tuning where the ESS in this space is below 30%" in said
    assert "adapted by 60 steps: ESS" in said and "not to be trusted" not in said
    record = json.loads((tmp_path / "adapted" / "run.json").read_text())
    assert record["adaptation"]["budget"] == "60 steps" and record["adaptation"]["after"] > 0.3
    assert app.sample([*common, "adapt=soon", f"out={tmp_path / 'no'}"]) == 2
    assert "adapt='soon'" in capsys.readouterr().err
    assert app.sample([*common, "adapt=auto", "shard_size=5", f"out={tmp_path / 'no'}"]) == 2
    assert "adapt does not go with shard_size" in capsys.readouterr().err
