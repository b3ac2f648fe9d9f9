"""The acquisition: order by prediction, uncertainty and what was chosen before."""

import itertools

import numpy as np
import pytest

from crystalgfn.discovery.acquisition import Acquisition, AcquisitionConfig, LowerConfidenceBound

FORMULAS = [{"formula": one} for one in ("A", "A", "B", "C")]


def chosen(mean, std, labels, n, taken=(), **config):
    return LowerConfidenceBound(AcquisitionConfig(**config)).choose(np.array(mean), np.array(std), labels, n, taken)


def test_without_uncertainty_and_penalties_the_lowest_come_first():
    assert chosen([0.3, 0.1, 0.2, 0.0], [1, 2, 3, 4], FORMULAS, 3, kappa=0.0, penalties={}) == [3, 1, 2]
    assert isinstance(LowerConfidenceBound(), Acquisition)


def test_uncertainty_counts_kappa_times():
    mean, std = [0.0, 0.1], [0.05, 0.3]
    assert chosen(mean, std, FORMULAS[2:], 1, kappa=0.3, penalties={}) == [0]
    assert chosen(mean, std, FORMULAS[2:], 1, kappa=0.5, penalties={}) == [1]


def test_the_same_formula_is_chosen_again_only_where_it_is_lower_by_the_penalty():
    mean = [0.0, 0.01, 0.05, 0.2]
    assert chosen(mean, [0.0] * 4, FORMULAS, 4, penalties={"formula": 0.1}) == [0, 2, 1, 3]
    assert chosen(mean, [0.0] * 4, FORMULAS, 4, penalties={"formula": 0.01}) == [0, 1, 2, 3]
    assert chosen(mean, [0.0] * 4, FORMULAS, 1, taken=FORMULAS[:1], penalties={"formula": 0.1}) == [2]
    many = [FORMULAS[0]] * 100
    assert chosen(mean, [0.0] * 4, FORMULAS, 1, taken=many, penalties={"formula": 0.1}, most=0) == [0]


def test_every_greedy_choice_has_the_lowest_score_of_those_left():
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=20), rng.uniform(size=20)
    labels = [{"formula": str(i % 4), "prototype": str(i % 3)} for i in range(20)]
    penalties = {"formula": 0.3, "prototype": 0.1}
    order = chosen(mean, std, labels, 20, kappa=0.7, penalties=penalties)
    assert sorted(order) == list(range(20))
    for k in range(20):

        def score(i, k=k):
            before = [labels[j] for j in order[:k]]
            same = {kind: sum(one[kind] == labels[i][kind] for one in before) for kind in penalties}
            return mean[i] - 0.7 * std[i] + sum(penalties[kind] * n for kind, n in same.items())

        assert score(order[k]) == pytest.approx(min(score(i) for i in order[k:]))


def test_what_has_no_finite_score_is_never_chosen():
    assert chosen([np.nan, 0.0, np.inf], [0.0] * 3, FORMULAS[:3], 3) == [1]
    assert list(itertools.chain(chosen([], [], [], 3))) == []
