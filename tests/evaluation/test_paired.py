"""Two ways to place atoms, compared after relaxation."""

import pytest
import torch

from crystalgfn.domain.crystals import Crystals
from crystalgfn.evaluation import paired
from crystalgfn.evaluation.paired import Outcome
from crystalgfn.structures.refine import Refiner


def test_only_crystals_that_both_ways_have_are_compared():
    one = [Outcome(1.0, 0.5, 10, True, True, -3.0), Outcome(9.0, 9.0, 9, False, False, 9.0), Outcome(reason="no room")]
    other = [Outcome(0.2, 0.1, 4, True, True, -3.5), Outcome(reason="no room"), Outcome(reason="no room")]
    said = paired.table({"at random": one, "by the refiner": other})
    rows = [line.split("|")[1:] for line in said.splitlines() if line.startswith(("| at random", "| by the"))]
    assert [float(row[3]) for row in rows] == [1.0, 0.2] and [int(row[2]) for row in rows] == [1, 2]
    assert all(int(row[1]) == 1 for row in rows) and "nearer to rest for 100 %" in said
    assert len(paired.figures({"a": one})["a"]) == 3


def test_rock_salt_is_at_rest():
    pytest.importorskip("chgnet")
    composition = torch.zeros(1, 118, dtype=torch.int64)
    composition[0, [10, 16]] = 1
    lattice = torch.tensor([[5.69, 5.69, 5.69, 90.0, 90.0, 90.0]], dtype=torch.float64)
    crystals = Crystals(torch.tensor([225]), composition, lattice)
    for way in paired.WAYS:  # letters without a free coordinate: all ways are one
        (salt,) = paired.measure(crystals, paired.place(way, crystals, Refiner.load("default")))
        assert salt.reason is None and salt.converged and salt.kept
        assert salt.above == pytest.approx(0.0, abs=1e-4) and salt.moved == pytest.approx(0.0, abs=1e-3)


def test_what_pyxtal_does_not_find_has_a_reason():
    composition = torch.zeros(1, 118, dtype=torch.int64)
    composition[0, [10, 16]] = 1
    lattice = torch.tensor([[2.0, 2.0, 2.0, 90.0, 90.0, 90.0]], dtype=torch.float64)
    crystals = Crystals(torch.tensor([225]), composition, lattice)
    (crowded,) = paired.place("pyxtal", crystals, Refiner.load("default"))
    assert crowded == (None, "pyxtal finds no crystal")
    pytest.importorskip("chgnet")
    assert paired.measure(crystals, [crowded]) == [Outcome(reason="pyxtal finds no crystal")]
