"""What labels off equilibrium teach: values, bounds from above, the end of labels from below."""

from dataclasses import replace

import pytest
import torch

from crystalgfn.fitting.labels import (
    FIT,
    KNOWN,
    SLACK,
    SLACK_REFINED,
    SOURCES,
    TOO_LOW,
    OffEquilibriumLabels,
    member_values,
    read_labels,
)
from crystalgfn.properties.ensemble import EnsembleProxy
from crystalgfn.rewards.base import example_crystals


class Constant(EnsembleProxy):
    """A proxy of two members that says 0 everywhere."""

    def __init__(self):
        super().__init__("formation_energy", "eV/atom", members=2, width=1, depth=1)

    def network(self, features, space_group):
        return torch.zeros(2, len(features))


def loss(
    target: float,
    bound: bool = False,
    high: bool = False,
    seen: tuple[bool, ...] = (True, True),
    slack: float = SLACK,
) -> float:
    labels = OffEquilibriumLabels(
        crystals=example_crystals()[:1], features=torch.zeros(1, 3), target=torch.full((2, 1), target),
        is_upper_bound=torch.tensor([bound]), bound_slack=torch.tensor([slack]), is_lower_bound=torch.tensor([high]),
        seen=torch.tensor(seen)[:, None], sampling_weight=torch.ones(1),
    )  # fmt: skip
    return float(labels.loss(Constant(), torch.Generator().manual_seed(0)))


def test_a_prediction_above_a_bound_counts_fully_and_one_below_it_little() -> None:
    assert loss(-1.0) == loss(-1.0, bound=True) == pytest.approx(2 * 0.99)  # two members, Huber beyond 0.02
    assert loss(1.0, bound=True) == pytest.approx(loss(1.0) * KNOWN / SLACK)
    assert loss(1.0, bound=True, slack=0.1) == pytest.approx(loss(1.0) * KNOWN / 0.1)


def test_bounds_are_trusted_more_where_the_refiner_placed_the_atoms() -> None:
    labels = read_labels()
    refined = replace(labels, refined=torch.ones_like(labels.refined))
    for given, slack in ((replace(labels, refined=~refined.refined), SLACK), (refined, SLACK_REFINED)):
        found = OffEquilibriumLabels.of(Constant(), given, balance=0.5, left_out=0.02, seed=0)
        assert found.bound_slack.unique().tolist() == pytest.approx([slack])


def test_where_labels_end_only_a_prediction_below_is_wrong() -> None:
    assert loss(-1.0, high=True) == 0.0
    assert loss(1.0, high=True) == pytest.approx(2 * 0.99 * TOO_LOW)


def test_a_member_learns_only_from_the_labels_that_it_may_see() -> None:
    assert loss(-1.0, seen=(False, False)) == 0.0


def test_members_believe_either_calculator_half_of_them_each() -> None:
    labels = replace(read_labels()[:4], disagreement=torch.tensor([0.0, 0.2, -0.4, torch.nan]))
    for members in (2, 5, 6):
        found = member_values(labels, members, seed=0) - labels.value
        first = torch.tensor([0.0, -0.2, 0.4, 0.0])
        assert torch.allclose(found.sum(0), members // 2 * first, atol=1e-5)
        assert ((found.abs() < 1e-6) | (found - first).abs().lt(1e-6)).all()
    assert not torch.equal(found[:, 1] == 0, found[:, 2] == 0)  # not always the same members


def test_cells_of_labels_are_seen_a_little_off_each_time() -> None:
    class Volumes(Constant):
        seen: list[torch.Tensor] = []

        def network(self, features, space_group):
            self.seen.append(features[:, self.at])
            return torch.zeros(2, len(features))

    labels = read_labels()[:300]
    proxy = Volumes()
    proxy.at = proxy.features.size - 1 - 21 - 14  # ln volume per atom
    for jitter in (0.0, 0.02):
        off = OffEquilibriumLabels.of(proxy, labels, balance=0.5, left_out=0.02, seed=0, jitter=jitter)
        known = labels.crystals.volume_per_atom.log()
        generator = torch.Generator().manual_seed(0)
        proxy.seen.clear()
        for _ in range(20):
            off.loss(proxy, generator)
        moved = (torch.cat(proxy.seen)[:, None] - known).abs().amin(1)
        assert (float(moved.max()) < 1e-5) == (jitter == 0)
        assert float(moved.max()) < 5 * jitter + 1e-5
    assert (moved > 0).double().mean() > 0.9


def test_strained_crystals_do_not_crowd_out_the_other_labels() -> None:
    labels = read_labels(high=True)
    found = OffEquilibriumLabels.of(Constant(), labels, balance=0.4, left_out=0.02, seed=0)
    strained = (labels.source == SOURCES.index("strained"))[labels.split == FIT]
    assert float(found.sampling_weight[~strained].sum()) == pytest.approx(0.4, abs=1e-5)
    assert float(found.sampling_weight[strained].sum()) == pytest.approx(0.6, abs=1e-5)
    alone = labels[labels.source == SOURCES.index("strained")]
    assert (OffEquilibriumLabels.of(Constant(), alone, balance=0.4, left_out=0.02, seed=0).sampling_weight == 1).all()
