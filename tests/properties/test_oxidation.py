"""Charges of compositions against enumeration, and what they must obey."""

import itertools

import numpy as np
import pytest
import torch

from crystalgfn.crystallography.elements import NUMBER, SYMBOLS
from crystalgfn.errors import DataError, InvalidCrystal
from crystalgfn.properties.oxidation import FULL, charges, total_charges

FORMULAS = ["FeS2", "K2SO4", "NaNO3", "Fe3O4", "PbS4", "LuP2Se15I2", "LiFePO4", "Cs2AgBiBr6", "NCl2"]


def enumerated(formula: str) -> tuple[float, dict[str, tuple[float, float, float, float]]]:
    """Evidence, and of each element mean charge, positive part, chance to be no cation, missing charge: by all sums."""
    from pymatgen.core import Composition

    counts = {NUMBER[s]: int(n) for s, n in Composition(formula).get_el_amt_dict().items()}
    priors = [total_charges(z, n) for z, n in counts.items()]
    total, sums = 0.0, np.zeros((len(counts), 4))
    *first, (last_at, last_p) = priors
    for chosen in itertools.product(*(range(len(at)) for at, _ in first)):
        charge = -sum(int(first[i][0][j]) for i, j in enumerate(chosen))
        if not last_at[0] <= charge <= last_at[-1]:
            continue
        places = [*chosen, charge - int(last_at[0])]
        p = float(np.prod([priors[i][1][j] for i, j in enumerate(places)]))
        total += p
        for i, (z, n) in enumerate(counts.items()):
            x = priors[i][0][places[i]] / n
            full = FULL.get(SYMBOLS[z - 1], 0)
            lacking = min(max(1 + x / full, 0), 1) if full and x <= 0 else 0
            sums[i] += p * np.array([x, max(x, 0), x <= 0, lacking])
    return np.log(total), {SYMBOLS[z - 1]: tuple(row / total) for z, row in zip(counts, sums, strict=True)}


@pytest.mark.parametrize("formula", ["FeS2", "K2SO4", "Fe3O4", "LiFePO4", "NCl2"])
def test_means_are_those_of_all_assignments(formula: str) -> None:
    found = charges([formula])
    evidence, wanted = enumerated(formula)
    assert float(found.evidence[0]) == pytest.approx(evidence, abs=1e-6)
    for i, z in enumerate(found.numbers[0].tolist()):
        got = [float(getattr(found, name)[0, i]) for name in ("mean", "positive", "anionic", "missing")]
        assert got == pytest.approx(wanted[SYMBOLS[z - 1]], abs=1e-6)


def test_crystals_are_neutral_and_multiples_the_same() -> None:
    found = charges(FORMULAS)
    assert (found.amounts * found.mean).sum(1).abs().max() < 1e-6
    rows = torch.zeros(1, 118)
    rows[0, [NUMBER["Fe"] - 1, NUMBER["S"] - 1]] = torch.tensor([3.0, 6.0])
    assert torch.allclose(charges(rows).mean, charges(["FeS2"]).mean)
    one, many = charges(["FeS2"]), charges([*FORMULAS, "Mg17Al12", "Ca10P6O26H2"])
    assert torch.allclose(one.mean[0], many.mean[0, :2]) and (many.numbers[0, 2:] == 0).all()


def test_textbook_charges() -> None:
    expected = {
        "NaCl": {"Na": 1, "Cl": -1},
        "MgO": {"Mg": 2, "O": -2},
        "LiH": {"H": -1},
        "Li2O2": {"O": -1},
        "KO2": {"O": -0.5},
    }
    for formula, wanted in expected.items():
        found = charges([formula])
        mean = {SYMBOLS[z - 1]: float(q) for z, q in zip(found.numbers[0], found.mean[0], strict=True)}
        assert {s: round(mean[s], 1) for s in wanted} == wanted
    sulfur = charges(["K2SO4"])
    assert float(sulfur.mean[0, sulfur.numbers[0] == 16]) > 5
    half = charges(["Li0.5CoO2"])
    assert float(half.mean[0, half.numbers[0] == 3]) == pytest.approx(1)


def test_metals_alone_have_no_charges() -> None:
    found = charges(["FeTi", "MgZn2"])
    assert torch.isinf(found.evidence).all() and not found.mean.any() and not found.missing.any()
    assert len(charges(torch.zeros(0, 118)).evidence) == 0


def test_bad_input_is_named() -> None:
    with pytest.raises(DataError, match="Xy2"):
        charges(["Xy2"])
    with pytest.raises(InvalidCrystal, match="no atoms"):
        charges(torch.zeros(1, 118))
