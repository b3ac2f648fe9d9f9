"""Searching again for the lowest energy of labels, without CHGNet."""

import numpy as np
import pytest
import torch

from crystalgfn import CrystalSpace, PolicyConfig, Sampler
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import DataError
from crystalgfn.fitting.labels import BOUND, FIT, HELD, HIGH, SOURCES, VALUE, Labels
from scripts.maintain.labels.improve import CHUNK, improve_labels, lower, uncertain

N = 3 * CHUNK
STRAINED, PROPOSED = SOURCES.index("strained"), SOURCES.index("proposed")


@pytest.fixture
def labels() -> Labels:
    """Kinds in turn; every fourth a strained crystal; values 0, 1, 2, ..."""
    space = CrystalSpace(elements=["Na", "K", "Cl", "F"], space_groups=[221, 225], n_atoms=(2, 4))
    drawn = Sampler.untrained(space, policy=PolicyConfig(width=16, blocks=1, components=2)).sample(N, seed=0)
    at = torch.arange(N)
    return Labels(
        crystals=Crystals(drawn.space_group, drawn.composition, drawn.lattice.float()),
        value=at.float(),
        kind=at % 3,
        source=torch.where(at % 4 == 0, STRAINED, PROPOSED),
        split=torch.where(at % 5 == 0, HELD, FIT),
        placed=torch.ones(N, dtype=torch.bool),
        converged=torch.zeros(N, dtype=torch.bool),
        candidates=torch.full((N,), 8),
        refined=torch.zeros(N, dtype=torch.bool),
    )


class Search:
    """Finds energies that differ from the old ones by so much, and no structure of the first crystal of a chunk."""

    def __init__(self, labels: Labels, change: float, kind: int = BOUND, stop_at: int | None = None) -> None:
        self.labels, self.change, self.kind, self.stop_at, self.called = labels, change, kind, stop_at, []

    def __call__(self, crystals: Crystals, number: int) -> tuple[Labels, torch.Tensor]:
        if number == self.stop_at:
            raise KeyboardInterrupt
        self.called.append(number)
        rows = uncertain(self.labels).nonzero().squeeze(1)[number * CHUNK : (number + 1) * CHUNK]
        assert torch.equal(self.labels.crystals[rows].lattice, crystals.lattice)
        found = self.labels[rows[1:]]
        columns = {name: getattr(found, name) for name in Labels.__dataclass_fields__}
        columns |= {
            "value": found.value + self.change,
            "kind": torch.full_like(found.kind, self.kind),
            "split": torch.full_like(found.split, FIT),
            "source": torch.full_like(found.source, 2),
            "candidates": torch.full_like(found.candidates, 3),
        }
        return Labels(**columns), torch.arange(1, len(rows))


def test_what_may_lie_lower(labels: Labels) -> None:
    assert torch.equal(uncertain(labels), (labels.kind != VALUE) & (labels.source == PROPOSED))


def test_only_lower_ones_are_taken_and_nothing_else_changes(labels: Labels, tmp_path) -> None:
    rows = uncertain(labels).nonzero().squeeze(1)
    first = rows[::CHUNK]  # these have no structure
    again = improve_labels(labels, Search(labels, -0.5), tmp_path / "lower", progress=False)
    searched = torch.zeros(N, dtype=torch.bool)
    searched[rows] = True
    searched[first] = False
    assert torch.equal(again.value, torch.where(searched, labels.value - 0.5, labels.value))
    assert torch.equal(again.kind, torch.where(searched, torch.tensor(BOUND), labels.kind))
    assert torch.equal(again.candidates, torch.where(searched, torch.tensor(3), labels.candidates))
    for name in ("source", "split"):
        assert torch.equal(getattr(again, name), getattr(labels, name))

    higher = improve_labels(labels, Search(labels, 0.5), tmp_path / "higher", progress=False)
    was_high = searched & (labels.kind == HIGH)  # where labels ended there is now a bound
    assert torch.equal(higher.value, torch.where(was_high, labels.value + 0.5, labels.value))
    assert torch.equal(higher.kind, torch.where(was_high, torch.tensor(BOUND), labels.kind))

    nothing = improve_labels(labels, Search(labels, -0.5, HIGH), tmp_path / "high", progress=False)
    assert torch.equal(nothing.value, labels.value) and torch.equal(nothing.kind, labels.kind)


def test_lower() -> None:
    kind, value = torch.tensor([BOUND, BOUND, HIGH, HIGH, BOUND]), torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0])
    new_kind, new = torch.tensor([BOUND, VALUE, BOUND, HIGH, HIGH]), torch.tensor([1.1, 0.9, 1.2, 0.5, 0.5])
    assert lower(kind, value, new_kind, new).tolist() == [False, True, True, False, False]


def test_interrupted_it_goes_on(labels: Labels, tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        improve_labels(labels, Search(labels, -0.5, stop_at=1), tmp_path, progress=False)
    search = Search(labels, -0.5)
    resumed = improve_labels(labels, search, tmp_path, progress=False)
    assert search.called == list(range(1, -(-int(uncertain(labels).sum()) // CHUNK)))
    whole = improve_labels(labels, Search(labels, -0.5), tmp_path / "whole", progress=False)
    assert torch.equal(resumed.value, whole.value)


def test_other_labels_in_the_folder(labels: Labels, tmp_path) -> None:
    improve_labels(labels, Search(labels, -0.5), tmp_path, progress=False)
    others = labels[torch.from_numpy(np.random.default_rng(0).permutation(N))]
    with pytest.raises(DataError, match="about other labels than these; choose another folder"):
        improve_labels(others, Search(others, -0.5), tmp_path, progress=False)
