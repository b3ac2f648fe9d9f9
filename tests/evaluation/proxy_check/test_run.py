"""A check that is interrupted goes on; crystals and predictions are those of its start."""

import numpy as np
import pytest
import torch

from crystalgfn import CrystalSpace, PolicyConfig, Sampler, load_proxy, rewards
from crystalgfn.errors import CheckpointError, RewardError
from crystalgfn.evaluation.proxy_check.check import DRAWN, ProxyCheck, ProxyCheckPlan, ReferenceResult
from crystalgfn.properties.convex_hull import ExactHull

PLAN = ProxyCheckPlan(n=10, chunk=4, n_sigma=2.0)


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    space = CrystalSpace(elements=["Na", "Cl"], space_groups=[225], n_atoms=(1, 4))
    sampler = Sampler.untrained(space, policy=PolicyConfig(width=16, blocks=1, components=2))
    sampler.reward = rewards.boltzmann(load_proxy("formation_energy"), 8.0)
    return sampler


class Fake:
    """Every crystal at minus its volume; notes what it is asked, and fails when told to."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.asked, self.given, self.stop_at = [], [], stop_at

    def __call__(self, crystals, plan, number, given=None):
        if number == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append(number)
        self.given.append(given)
        return [ReferenceResult(e_star=-float(v), is_converged=True) for v in crystals.volume_per_atom]


def test_predictions_and_references_stand_side_by_side(sampler, tmp_path):
    run = ProxyCheck(tmp_path, sampler, PLAN)
    assert len(run.table()) == 0
    run.work(progress=False, check=Fake())
    table = run.table()
    assert len(table) == 10 and not run.todo
    assert table.e_star.to_numpy() == pytest.approx(-table.volume_per_atom.to_numpy())
    energy = load_proxy("formation_energy")
    drawn = sampler.sample(10, seed=0)
    assert table.predicted.to_numpy() == pytest.approx(energy(drawn).numpy())
    assert table.confidence_bound.to_numpy() == pytest.approx(energy.confidence_bound(drawn, 2.0).numpy())
    assert np.isnan(table.e_relaxed).all() and table.failure.isna().all()


def test_an_interrupted_check_goes_on_with_the_same_crystals(sampler, tmp_path):
    first = ProxyCheck(tmp_path, sampler, PLAN)
    with pytest.raises(KeyboardInterrupt):
        first.work(progress=False, check=Fake(stop_at=1))
    assert (first.done, len(first.table())) == (4, 4)
    other = Sampler.untrained(sampler.space, policy=PolicyConfig(width=8, blocks=1, components=1))
    other.reward = rewards.boltzmann(load_proxy("formation_energy"), 1.0)
    again, fake = ProxyCheck(tmp_path, other, PLAN), Fake()
    again.work(progress=False, check=fake)
    assert fake.asked == [1, 2]
    assert torch.equal(again.crystals.lattice, first.crystals.lattice) and torch.equal(again.predicted, first.predicted)
    assert again.table().e_star.to_numpy() == pytest.approx(-first.crystals.volume_per_atom.numpy())


def test_templates_are_handed_on_and_hulls_looked_up(sampler, tmp_path):
    run, fake = ProxyCheck(tmp_path, sampler, ProxyCheckPlan(n=3, chunk=2)), Fake()
    run.work(lambda one: [int(one.n_atoms[0])], progress=False, check=fake)
    assert [cells for part in fake.given for cells in part] == [[n] for n in run.crystals.n_atoms.tolist()]
    hull = ExactHull.from_entries({"Na": 0.0, "Cl": 0.0, "NaCl": -2.1})
    table = run.table(hull)
    assert table.hull[table.formula == "NaCl"].to_numpy() == pytest.approx(-2.1)
    assert (table.formula == "NaCl").any()


def test_processes_find_the_same(sampler, tmp_path):
    ProxyCheck(tmp_path / "two", sampler, PLAN).work(n_jobs=2, progress=False, check=minus_density)
    ProxyCheck(tmp_path / "one", sampler, PLAN).work(n_jobs=1, progress=False, check=minus_density)
    two, one = (ProxyCheck(tmp_path / name, sampler, PLAN).table() for name in ("two", "one"))
    assert two.equals(one)


def minus_density(crystals, plan, number, given=None):
    return [ReferenceResult(e_star=-float(d)) for d in crystals.density]


def test_another_run_is_refused(sampler, tmp_path):
    ProxyCheck(tmp_path, sampler, PLAN, run={"sampler": "one"})
    with pytest.raises(CheckpointError, match="sampler=one, not two"):
        ProxyCheck(tmp_path, sampler, PLAN, run={"sampler": "two"})
    with pytest.raises(CheckpointError, match="n=10, not 11"):
        ProxyCheck(tmp_path, sampler, ProxyCheckPlan(n=11, chunk=4, n_sigma=2.0), run={"sampler": "one"})


@pytest.mark.parametrize("damage", ["drawn", "part"])
def test_damaged_files_are_named(damage, sampler, tmp_path):
    run = ProxyCheck(tmp_path, sampler, PLAN)
    run.work(progress=False, check=Fake())
    path = tmp_path / DRAWN if damage == "drawn" else sorted((tmp_path / "parts").iterdir())[1]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=f"{path.name} is damaged"):
        ProxyCheck(tmp_path, sampler, PLAN).table()


def test_a_reward_without_the_energy_draws_nothing(sampler, tmp_path):
    other = Sampler.untrained(sampler.space, policy=PolicyConfig(width=8, blocks=1, components=1))
    with pytest.raises(RewardError, match="formation_energy"):
        ProxyCheck(tmp_path, other, PLAN)
    assert not list(tmp_path.iterdir())
