"""Effective numbers, distances of histograms and of distributions, intervals of shares, against known values."""

import numpy as np
import pandas as pd
import pytest

from crystalgfn.evaluation.metrics.base import Selection
from crystalgfn.evaluation.metrics.distributions import distributions
from crystalgfn.evaluation.metrics.diversity import KINDS, best_rows, count, diversity, total_variation
from crystalgfn.utils.statistics import share, share_of


def frame(groups):
    table = pd.DataFrame({name: ["x"] * len(groups) for name in KINDS})
    table["space_group"] = groups
    table["Z"] = [[11, 17, 17], [3, 8]] * (len(groups) // 2)
    return table


def test_effective_numbers():
    even, one = count(["a", "b", "c", "d"] * 5), count(["a"] * 7)
    assert even.effective == pytest.approx(4) and even.shannon == pytest.approx(np.log(4)) and even.distinct == 4
    assert one.effective == pytest.approx(1) and one.counts == {"a": 7}
    assert count(["a", None, "b", float("nan")]).counts == {"a": 1, "b": 1}
    assert (count([]).distinct, count([]).effective) == (0, 0)


def test_a_set_of_crystals():
    found = diversity(frame([225, 225, 1, 62]), {225: 50, 62: 50})
    assert found.p1.k == 1 and found.p1.n == 4
    assert found.kinds["element"].counts == {"Cl": 2, "Li": 2, "Na": 2, "O": 2}  # once a crystal
    assert found.kinds["space_group"].counts == {"225": 2, "1": 1, "62": 1}
    assert found.distance == pytest.approx(0.25)
    assert diversity(frame([225, 62] * 500), {225: 50, 62: 50}).distance == 0
    assert 0.1 < diversity(frame([225, 62] * 2), {225: 50, 62: 50}).noise < 0.3  # four tosses of a coin: 0.1875
    assert diversity(frame([0, 0])).p1.share is None


def test_the_best_are_those_with_the_smallest_numbers():
    table = pd.DataFrame({"e": [3.0, np.nan, 1.0, 2.0]})
    assert best_rows(table, Selection("e", 2)).e.tolist() == [1.0, 2.0]
    assert best_rows(table, Selection("e", 9, largest=True)).e.tolist() == [3.0, 2.0, 1.0]


def test_total_variation():
    assert total_variation({1: 2, 2: 2}, {1: 50, 2: 50}) == 0
    assert total_variation({1: 3}, {2: 5}) == 1
    assert total_variation({1: 3, 2: 1}, {1: 1, 2: 3}) == pytest.approx(0.5)


def test_a_shift_is_its_own_wasserstein_distance():
    own = pd.DataFrame({"density": np.arange(10.0)})
    assert distributions(own, own + 3)["density"].wasserstein == pytest.approx(3)


def test_distributions_beside_the_reference():
    own = pd.DataFrame({"density": [1.0, 2.0, np.nan], "n_atoms": [4, 8, 2]})
    found = distributions(own, pd.DataFrame({"density": [2.0, 3.0], "n_atoms": [2, 2]}))
    assert set(found) == {"density", "n_atoms"}
    assert found["density"].wasserstein == pytest.approx(1.0) and found["density"].scaled == pytest.approx(2.0)
    assert found["density"].samples.n == 2 and found["n_atoms"].scaled is None
    assert distributions(own)["density"].reference is None


def test_wilson():
    one = share(0, 10)  # as in Wilson's paper and every calculator
    assert (one.share, one.low, one.high) == pytest.approx((0, 0, 0.2775), abs=1e-4)
    half = share(50, 100)
    assert (half.low, half.high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert share(10, 10).high == 1 and share(0, 0).share is None and str(share(0, 0)) == "none of 0"
    assert (share_of([True, None, False, True]).k, share_of([True, None, float("nan")]).n) == (2, 1)
    with pytest.raises(ValueError, match="3 of 2"):
        share(3, 2)
