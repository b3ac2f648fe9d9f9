"""Two ways to place atoms, compared after relaxation."""

import pytest
import torch

from crystalgfn.benchmarks import placement
from crystalgfn.benchmarks.placement import PlacementOutcome
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.structures.refiner.refiner import DiffusionRefiner


def test_only_crystals_that_both_ways_have_are_compared():
    one = [
        PlacementOutcome(
            energy_above_relaxed=1.0, rmsd=0.5, steps=10, converged=True, symmetry_preserved=True, energy=-3.0
        ),
        PlacementOutcome(
            energy_above_relaxed=9.0, rmsd=9.0, steps=9, converged=False, symmetry_preserved=False, energy=9.0
        ),
        PlacementOutcome(reason="no room"),
    ]
    other = [
        PlacementOutcome(
            energy_above_relaxed=0.2, rmsd=0.1, steps=4, converged=True, symmetry_preserved=True, energy=-3.5
        ),
        PlacementOutcome(reason="no room"),
        PlacementOutcome(reason="no room"),
    ]
    said = placement.placement_table({"at random": one, "by the refiner": other}, "CHGNet")
    rows = [line.split("|")[1:] for line in said.splitlines() if line.startswith(("| at random", "| by the"))]
    assert [float(row[3]) for row in rows] == [1.0, 0.2] and [int(row[2]) for row in rows] == [1, 2]
    assert all(int(row[1]) == 1 for row in rows) and "nearer to the relaxed structure for 100 %" in said


def test_rock_salt_is_relaxed():
    pytest.importorskip("chgnet")
    composition = torch.zeros(1, 118, dtype=torch.int64)
    composition[0, [10, 16]] = 1
    lattice = torch.tensor([[5.69, 5.69, 5.69, 90.0, 90.0, 90.0]], dtype=torch.float64)
    crystals = Crystals(torch.tensor([225]), composition, lattice)
    for way in placement.WAYS:  # letters without a free coordinate: all ways are one
        (salt,) = placement.measure_placement(
            crystals, placement.place(way, crystals, DiffusionRefiner.load("default"))
        )
        assert salt.reason is None and salt.converged and salt.symmetry_preserved
        assert salt.energy_above_relaxed == pytest.approx(0.0, abs=1e-4) and salt.rmsd == pytest.approx(0.0, abs=1e-3)


@pytest.mark.unchecked
def test_what_pyxtal_does_not_find_has_a_reason():
    composition = torch.zeros(1, 118, dtype=torch.int64)
    composition[0, [10, 16]] = 1
    lattice = torch.tensor([[2.0, 2.0, 2.0, 90.0, 90.0, 90.0]], dtype=torch.float64)
    crystals = Crystals(torch.tensor([225]), composition, lattice)
    (crowded,) = placement.place("pyxtal", crystals, DiffusionRefiner.load("default"))
    assert crowded == (None, "pyxtal finds no crystal")
    pytest.importorskip("chgnet")
    assert placement.measure_placement(crystals, [crowded]) == [PlacementOutcome(reason="pyxtal finds no crystal")]
