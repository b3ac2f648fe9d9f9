"""A reference with a hole is found out by the shipped hull; one without is left alone."""

import pandas as pd
import pytest
import torch

from crystalgfn.crystallography.elements import NUMBER
from crystalgfn.discovery.phases import MARGIN, CheckedHull, KnownPhases, doubts

KNOWN = {"TiO2": -3.51, "SrO": -3.05, "SrTiO3": -3.62, "Sr2TiO4": -3.53}
NUMBERS = [NUMBER[symbol] for symbol in ("Sr", "Ti", "O")]


@pytest.fixture(scope="module")
def full() -> CheckedHull:
    return CheckedHull.of(KnownPhases.read(KNOWN, NUMBERS, scale="charge"))


@pytest.fixture(scope="module")
def hollow() -> CheckedHull:
    """Titanium's oxides are missing."""
    return CheckedHull.of(KnownPhases.read({"SrO": -3.05, "Ti": 0.0}, NUMBERS, scale="charge"))


def test_where_the_reference_is_whole_its_hull_counts(full):
    formulas = ["SrTiO3", "Sr3Ti2O7", "SrTi2O5", "TiO2", "SrO"]
    assert float(full.gap(formulas).max()) < MARGIN
    assert torch.equal(full.energy(formulas), full.phases.energy(formulas))


def test_in_a_hole_the_shipped_one_counts(full, hollow):
    formulas = ["TiO2", "SrTiO3"]
    assert float(hollow.gap(formulas).min()) > 1.0
    assert torch.allclose(hollow.energy(formulas), full.phases.energy(formulas), atol=0.1)
    assert float(hollow.phases.energy(["TiO2"])) > -0.3  # nothing but the scale's shift
    # where the reference has all there is, it is left alone
    assert torch.equal(hollow.energy(["SrO"]), hollow.phases.energy(["SrO"]))


def test_it_is_said_how_many_are_in_holes(hollow):
    table = pd.DataFrame({"rank": [1, 2, None], "formula": ["TiO2", "SrO", "SrTiO3"]})
    told = hollow.with_gaps(table)
    assert told["hull_gap"].iloc[0] > 1.0 > MARGIN > told["hull_gap"].iloc[1]
    assert doubts(told).startswith("At 1 of 2 ranked compositions") and "larger reference" in doubts(told)
    assert doubts(told.iloc[1:2]) == "" and doubts(table) == ""
    assert len(hollow.with_gaps(table.iloc[:0])) == 0
