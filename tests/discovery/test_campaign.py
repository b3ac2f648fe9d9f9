"""Campaigns: a kill at any moment changes nothing, the budget holds, failures are listed, hopeless ones end."""

import json

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from crystalgfn import Crystals
from crystalgfn.crystallography.elements import NUMBER
from crystalgfn.discovery.acquisition import LowerConfidenceBound
from crystalgfn.discovery.campaign import Campaign, CampaignPlan
from crystalgfn.discovery.correction import GaussianProcess
from crystalgfn.discovery.proposer import PlacedCrystal, structure_features
from crystalgfn.errors import CalculatorError
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.utils.run_folder import RunFolder

METALS = ("Li", "Na", "K", "Rb", "Cs", "Ag", "Cu", "Tl")
HALOGENS = ("F", "Cl", "Br", "I")


class Predicted:
    """A formation energy that is wrong by what depends on the halogen."""

    name, unit = "formation_energy", "eV/atom"

    def __call__(self, crystals):
        z = torch.arange(1, 119)
        return -(crystals.composition * z).sum(1).double() / 100

    def std(self, crystals):
        return torch.full((len(crystals),), 0.1, dtype=torch.float64)

    def confidence_bound(self, crystals, n_sigma):
        return self(crystals) + n_sigma * 0.1


class Salts:
    """Halides of the rock salt and the caesium chloride structure, in an order that the round decides."""

    ess = 1.0

    def draw(self, number, shift=None):
        rng = np.random.default_rng(number)
        rows = torch.zeros(24, 118, dtype=torch.int64)
        for row in rows:
            row[[NUMBER[rng.choice(METALS)] - 1, NUMBER[rng.choice(HALOGENS)] - 1]] = 1
        groups = torch.from_numpy(rng.choice([221, 225], 24))
        edge = 4.0 + rng.random(24)
        lattice = torch.tensor([[a, a, a, 90, 90, 90] for a in edge], dtype=torch.float64)
        drawn = Crystals(groups, rows, lattice)
        return drawn if shift is None else drawn[np.argsort(shift(drawn), kind="stable")[:16]]

    def place(self, crystals, number):
        placed = []
        for one in crystals:
            group, names = int(one.space_group[0]), list(one.counts(0))
            structure = Structure(Lattice.cubic(float(one.lattice[0, 0])), names, [[0, 0, 0], [0.5] * 3])
            placed.append(PlacedCrystal(crystal=one, structure=structure, prototype=f"AB_{group}", origin="fixed"))
        return placed


def relaxed(job):
    """The truth: 0.02 eV/atom an atomic number of the halogen above the prediction."""
    z = sorted(site.specie.Z for site in job.structure)
    halogen = next(n for n in z if n in (9, 17, 35, 53))
    return {"index": job.index, "error": None, "calculator": "toy", "formation_energy": -sum(z) / 100 + 0.004 * halogen,
            "seconds": 0.1}  # fmt: skip


def campaign(folder, budget=20, job=relaxed, **plan):
    hull = ExactHull.from_entries({"LiF": -0.1, "NaCl": -0.2})
    settings = CampaignPlan(budget=budget, batch=4, shortlist=10, calculator="chgnet", **plan)
    return Campaign(
        folder, Salts(), Predicted(), hull, GaussianProcess(), structure_features, LowerConfidenceBound(), settings,
        progress=False, job=job,
    )  # fmt: skip


def result(path, **more):
    with RunFolder(path) as folder:
        one = campaign(folder, **more)
        one.run()
        return one


@pytest.fixture
def undisturbed(tmp_path):
    return result(tmp_path / "whole")


def test_the_correction_learns_the_error_of_the_prediction(undisturbed):
    rows = undisturbed.chosen
    gaps = {
        number: [
            abs(one["corrected"] + undisturbed.hull.energy([one["labels"]["formula"]]).item()
                - undisturbed.relaxed[i]["formation_energy"])
            for i, one in rows.items() if one["round"] == number and i in undisturbed.relaxed
        ]
        for number in (0, 4)
    }  # fmt: skip
    assert np.mean(gaps[4]) < 0.5 * np.mean(gaps[0])
    pairs = [(one["labels"]["formula"], one["labels"]["prototype"]) for one in rows.values()]
    assert len(set(pairs)) == len(pairs) == 20 and undisturbed.spent == 20 and undisturbed.stopped_by == "budget"


@pytest.mark.parametrize("moment", range(10))
def test_killed_at_ten_moments_and_gone_on_with(tmp_path, undisturbed, moment):
    calls = [0]

    def killed(job):
        calls[0] += 1
        if calls[0] > 2 * moment:
            raise KeyboardInterrupt
        return relaxed(job)

    with pytest.raises(KeyboardInterrupt), RunFolder(tmp_path / "killed") as folder:
        campaign(folder, job=killed).run()
    journal = tmp_path / "killed" / "work" / "relaxations.jsonl"
    if moment % 2 and journal.exists():  # the last line is cut off too
        journal.write_bytes(journal.read_bytes()[:-7])
    after = result(tmp_path / "killed")
    assert json.dumps(after.chosen) == json.dumps(undisturbed.chosen)
    assert after.relaxed == undisturbed.relaxed


def test_a_larger_budget_goes_on_from_a_smaller_one(tmp_path, undisturbed):
    first = result(tmp_path / "more", budget=6)
    assert first.spent == 6
    after = result(tmp_path / "more")
    assert after.relaxed == undisturbed.relaxed and after.chosen == undisturbed.chosen


def test_failures_are_kept_with_their_reason_and_the_campaign_goes_on(tmp_path):
    def failing(job):
        if job.index % 2:
            return {"index": job.index, "error": "NaN", "calculator": "toy", "seconds": 0.0}
        return relaxed(job)

    found = result(tmp_path / "some", job=failing)
    assert found.spent == 20 and sum(one["error"] is None for one in found.relaxed.values()) == 10


def test_where_all_fail_it_stops_with_a_sentence(tmp_path):
    def failing(job):
        return {"index": job.index, "error": "toy has no energy", "calculator": "toy", "seconds": 0.0}

    with pytest.raises(CalculatorError, match="none of the 12 candidates .* toy has no energy; mend the calculator"):
        result(tmp_path / "none", job=failing)


def test_a_space_without_anything_new_ends_the_campaign(tmp_path):
    found = result(tmp_path / "small", budget=1000)
    assert found.stopped_by == "space exhausted" and found.spent == len(found.chosen) <= 64
    assert [len(one["chosen"]) for one in found.rounds[-3:]] == [0, 0, 0]


def test_seconds_stop_it_where_it_can_go_on(tmp_path, undisturbed):
    found = result(tmp_path / "late", seconds=1e-9)
    assert found.stopped_by == "seconds" and found.spent == 0
    assert result(tmp_path / "late").relaxed == undisturbed.relaxed


@pytest.mark.parametrize(("name", "value"), [("budget", 0), ("batch", -1), ("steps", 1.5), ("seconds", 0)])
def test_numbers_that_mean_nothing_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}: give a "):
        CampaignPlan(**{name: value})
