"""A classifier fitted on two kinds of crystals tells them apart, and says why in words."""

import json
from pathlib import Path

import pytest
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.elements import NUMBER
from crystalgfn.errors import DataError
from crystalgfn.fitting.plausibility import PlausibilityConfig, classifier_scores, fit_plausibility
from crystalgfn.properties.base import Property
from crystalgfn.properties.plausibility import CrystalPlausibility, formula_units, stoichiometry_keys

CATIONS, ANIONS = "Li Na K Rb Cs Ag Cu Tl".split(), "F Cl Br I".split()


def crystals(rows: list[tuple[int, dict[str, int]]]) -> Crystals:
    composition = torch.zeros(len(rows), 118, dtype=torch.int64)
    for i, (_, counts) in enumerate(rows):
        for symbol, count in counts.items():
            composition[i, NUMBER[symbol] - 1] = count
    return Crystals(torch.tensor([g for g, _ in rows]), composition, torch.full((len(rows), 6), 5.0))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CrystalPlausibility, Crystals, Crystals]:
    """Known: MX2 and MX in cubic groups; drawn: M2X5 and MX4 in others."""
    good = [(g, {m: 1, x: n}) for g in (225, 221, 227) for m in CATIONS for x in ANIONS for n in (1, 2)]
    bad = [(g, {m: a, x: b}) for g in (1, 14, 62) for m in CATIONS for x in ANIONS for a, b in ((2, 5), (1, 4))]
    out = tmp_path_factory.mktemp("fit")
    known, drawn = crystals(good), crystals(bad)
    metrics = fit_plausibility(known, drawn, out, progress=False, epochs=60, batch=64, width=16, members=2)
    assert metrics == json.loads((out / "metrics.json").read_text())
    return out, CrystalPlausibility.load(out), known, drawn


def test_it_tells_them_apart_and_is_a_property(fitted) -> None:
    out, model, known, drawn = fitted
    assert isinstance(model, Property)
    found = classifier_scores(model, known, drawn)
    assert found["auc"] > 0.99 and json.loads((out / "metrics.json").read_text())["checks"]["held out"]["auc"] > 0.95
    p = model(known)
    assert ((p >= 0) & (p <= 1)).all() and p.dtype == known.lattice.dtype
    assert torch.allclose(model.confidence_bound(known, -1.0), p - model.std(known))
    assert len(model(known[:0])) == 0
    # Only group and composition count, and multiples of a formula unit are the same.
    twice = Crystals(known.space_group, 2 * known.composition, 2 * known.lattice)
    assert torch.allclose(model(twice), p)


def test_reasons_name_what_is_rare(fitted) -> None:
    _, model, known, _ = fitted
    odd = crystals([(14, {"Ce": 1, "Nd": 1, "Se": 3}), (225, {"Na": 1, "Cl": 1}), (1, {"Pb": 1, "S": 4})])
    first, second, third = model.reasons(odd)
    assert "2 lanthanides" in first and "stoichiometry of 0 known compounds" in first
    assert second == ""
    assert "S carries" in third


def test_keys_are_of_stoichiometries() -> None:
    rows = crystals([(1, {"Na": 2, "Cl": 2}), (1, {"Mg": 1, "O": 1}), (1, {"Mg": 1, "F": 2}), (1, {"Na": 2, "O": 1})])
    keys = stoichiometry_keys(formula_units(rows.composition)).tolist()
    assert keys[0] == keys[1] and keys[2] == keys[3] and keys[0] != keys[2]


def test_too_few_crystals_are_refused_before_the_fit(fitted) -> None:
    _, _, known, drawn = fitted
    with pytest.raises(DataError, match="20 known crystals are too few"):
        fit_plausibility(known[:20], drawn, "nowhere", progress=False)
    assert PlausibilityConfig().held == 0.1
