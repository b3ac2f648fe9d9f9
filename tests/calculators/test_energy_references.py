import json

import numpy as np
import pytest
import torch

from crystalgfn.calculators.energy_references import References, anion, load_references, references_of
from crystalgfn.crystallography.elements import NUMBER
from crystalgfn.errors import DataError
from crystalgfn.properties.energy_scale import mp2020_corrections
from crystalgfn.properties.hull_entries import composition_of
from scripts.maintain.fit_energy_references import check_references, fit_references


def compositions(*rows):
    table = np.zeros((len(rows), 118))
    for i, row in enumerate(rows):
        for symbol, count in row.items():
            table[i, NUMBER[symbol] - 1] = count
    return table


@pytest.fixture
def made():
    """Crystals whose total energies are formation energies plus 2 per Na, 3 per Cl, 5 per O (eV/atom)."""
    rng = np.random.default_rng(0)
    rows = [{"Na": a, "Cl": b, "O": c} for a, b, c in rng.integers(1, 6, (200, 3)).tolist()]
    table = compositions(*rows)
    formation = rng.normal(-1, 0.5, 200)
    shares = table / table.sum(1, keepdims=True)
    per_atom = shares @ compositions({"Na": 2, "Cl": 3, "O": 5})[0]
    return table, formation + per_atom, formation


def test_references_of_made_energies_are_found(made):
    table, energy, formation = made
    found = fit_references(table, energy, formation, "made")
    assert [found.energies[NUMBER[s] - 1] for s in ("Na", "Cl", "O")] == pytest.approx([2, 3, 5], abs=1e-3)
    assert found.formation_energy(table, energy) == pytest.approx(formation, abs=1e-3)
    assert found.rows == 200


def test_rows_without_an_energy_are_left_out(made):
    table, energy, formation = made
    broken = energy.copy()
    broken[:10] = np.nan
    assert fit_references(table, broken, formation, "made").rows == 190
    with pytest.raises(DataError, match="there are none"):
        fit_references(table, np.full(200, np.nan), formation, "made")


def test_an_element_that_was_not_seen_has_no_formation_energy(made):
    table, energy, formation = made
    found = fit_references(table, energy, formation, "made")
    values = found.formation_energy(compositions({"Na": 1, "Cl": 1}, {"Na": 1, "F": 1}), np.array([2.0, 2.0]))
    assert np.isnan(values).tolist() == [False, True]


def test_checks_count_every_class(made):
    table, energy, formation = made
    found = fit_references(table, energy, formation, "made")
    both = np.concatenate([table, compositions({"Na": 1, "Cl": 1}), compositions({"Na": 2})])
    energies = np.concatenate([energy, [2.5 - 1 + 0.1, 2.0 - 0.3]])
    errors = check_references(found, both, energies, np.concatenate([formation, [-1.0, 0.0]]))
    assert errors["all"]["rows"] == 202 and errors["O"]["rows"] == 200
    assert errors["Cl"] == pytest.approx({"rows": 1, "mae": 0.1, "bias": 0.1}, abs=2e-3)
    assert errors["other"] == pytest.approx({"rows": 1, "mae": 0.3, "bias": -0.3}, abs=2e-3)


def test_classes_go_by_the_most_electronegative_element():
    rows = compositions({"Na": 1, "Cl": 1}, {"S": 1, "O": 4, "Ca": 1}, {"Fe": 1, "Ni": 1}, {"Ti": 1, "C": 1})
    assert [anion(row) for row in rows] == ["Cl", "O", "other", "C"]


def test_a_file_gives_back_what_was_saved(made, tmp_path):
    found = fit_references(*made, "made", "1")
    found.save(tmp_path / "references.json")
    again = load_references(tmp_path / "references.json")
    assert np.allclose(again.energies, found.energies, atol=1e-5, equal_nan=True)
    assert again.rows == found.rows and (again.calculator, again.model) == ("made", "1")


@pytest.mark.parametrize("text", [None, "", "{}", '{"energies": [1]}', '{"energies": {"Na": "x"}}'])
def test_a_file_that_holds_none_is_refused(text, tmp_path):
    path = tmp_path / "references.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match="holds no references"):
        load_references(path)


def test_the_shipped_ones_meet_what_was_asked_of_them():
    found = references_of("CHGNet")
    assert isinstance(found, References)
    assert sum(np.isfinite(found.energies)) >= 85
    checks = found.checks
    assert checks["all"]["rows"] >= 4000 - 10
    assert checks["all"]["mae"] <= 0.03 and abs(checks["all"]["bias"]) <= 0.01
    small = {name: row for name, row in checks.items() if row["rows"] >= 10}
    assert {"F", "O", "Cl", "S"} < set(small)
    assert max(row["mae"] for row in small.values()) <= 0.03
    assert json.dumps(checks)  # plain numbers only


def test_raw_energies_are_found_out_and_corrected() -> None:
    """A calculator of raw energies in compounds of one anion in several amounts, beside one that has them."""
    formulas = [
        "NaCl",
        "MgCl2",
        "AlCl3",
        "Na2O",
        "MgO",
        "Al2O3",
        "NaAl",
        "MgAl2",
        "Na3Mg",
        "NaAlO2",
        "MgAl2O4",
        "NaAlCl4",
    ]
    rows = torch.stack([composition_of(formula, 0) for formula in formulas])
    shares = (rows / rows.sum(1, keepdim=True)).numpy()
    formation = np.linspace(-3, -0.2, len(formulas))
    carried = formation + shares @ np.linspace(-1, -9, 118)
    for raw, energy in ((False, carried), (True, carried - mp2020_corrections(rows).numpy())):
        found = fit_references(rows.numpy(), energy, formation, "made")
        assert found.raw is raw
        assert found.formation_energy(rows.numpy(), energy) == pytest.approx(formation, abs=0.01)
