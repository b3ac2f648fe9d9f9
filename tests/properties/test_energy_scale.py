"""The energy scale "charge": what it must leave alone, what it mends, and what its table says of itself."""

import json
import warnings

import pytest
import torch

from crystalgfn.errors import RewardError
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.properties.energy_scale import TABLE, Rescaled, mp2020_corrections, scale_features, scale_shift
from crystalgfn.properties.hull_entries import composition_of
from crystalgfn.rewards import energy_above_hull, load_proxy
from crystalgfn.rewards.base import example_crystals
from crystalgfn.utils.instantiate import instantiate

ENTRIES = {"FeS2": -0.7, "FeS": -0.6, "NaCl": -2.1, "Na2S": -1.2, "NaNO3": -1.2}


def test_elements_and_alloys_stay() -> None:
    assert not scale_shift(["O2", "S", "Cl2", "Fe", "FeTi", "Mg17Al12"]).any()
    assert not scale_shift(list(ENTRIES), "mp2020").any()
    assert len(scale_shift(torch.zeros(0, 118))) == 0


def test_anions_without_their_charge_lose_their_correction() -> None:
    shift = dict(zip(ENTRIES, scale_shift(list(ENTRIES)).tolist(), strict=True))
    assert shift["FeS2"] > shift["FeS"] > shift["Na2S"] and abs(shift["NaCl"]) < 0.05
    # More of it than the cation can charge: the errors that the sampler lived on.
    rich = scale_shift(["PbS4", "InSe3", "SbSe4", "Mo2Se11", "NaCl7"])
    assert (rich > 0.3).all()
    assert shift["NaNO3"] == pytest.approx(0.39, abs=0.05)


def test_the_shift_is_linear_in_its_features_and_the_same_for_multiples() -> None:
    coefficients = json.loads(TABLE.read_text())["coefficients"]
    columns = scale_features(list(ENTRIES))
    assert torch.allclose(scale_shift(list(ENTRIES)), -sum(columns[k] * v for k, v in coefficients.items()))
    rows = torch.zeros(2, 118)
    rows[:, [25, 15]] = torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    one, other = scale_shift(rows).tolist()
    assert one == pytest.approx(other)


def test_the_table_keeps_its_promises() -> None:
    """Measured compounds in five folds by chemical system: centred, and nothing worse than the published constants."""
    checks = json.loads(TABLE.read_text())["cross_validation"]
    assert checks["all"]["compounds"] > 1200
    for name, one in checks.items():
        old, new = one["mp2020"], one["charge"]
        assert new["mae"] <= old["mae"] + 0.005, name
        assert abs(new["median"]) <= max(0.05, abs(old["median"])), name
    assert abs(checks["nitrates"]["charge"]["median"]) < 0.05 < abs(checks["nitrates"]["mp2020"]["median"])


def test_a_property_and_its_hull_move_together() -> None:
    crystals = example_crystals()
    energy = load_proxy("formation_energy")
    there = Rescaled(energy=energy)
    shift = scale_shift(crystals).to(crystals.lattice)
    assert torch.allclose(there(crystals), energy(crystals) + shift)
    assert torch.allclose(there.confidence_bound(crystals, 2.0), energy.confidence_bound(crystals, 2.0) + shift)
    mean, std = there.moments(crystals)
    assert torch.equal(mean, there(crystals)) and torch.equal(std, there.std(crystals))
    hull = ExactHull.from_entries(ENTRIES, scale="charge")
    prop = energy_above_hull(energy, hull, scale="charge")
    assert torch.allclose(prop(crystals), (there(crystals) - hull.energy(crystals).to(crystals.lattice)).clamp_min(-9))
    assert ExactHull.from_entries(ENTRIES).energy(["FeS2"]) < hull.energy(["FeS2"])


def test_a_file_of_entries_goes_to_the_scale_and_into_the_configuration(tmp_path) -> None:
    import pandas as pd

    path = tmp_path / "entries.csv"
    pd.DataFrame({"formula": list(ENTRIES), "formation_energy_per_atom": list(ENTRIES.values())}).to_csv(path)
    crystals = example_crystals()
    for scale in ("charge", "mp2020"):
        prop = energy_above_hull(hull=path, scale=scale)
        again = instantiate(prop.config())
        assert again.scale == scale and torch.equal(again(crystals), prop(crystals))


def test_an_unknown_scale_is_named() -> None:
    with pytest.raises(RewardError, match="no energy scale 'dft'; there are charge and mp2020"):
        scale_shift(["NaCl"], "dft")


def test_the_projects_corrections_are_those_of_pymatgen() -> None:
    """Against MP2020Compatibility on entries of the composition alone (its own rule for anions: electronegativity)."""
    from pymatgen.core import Composition
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedEntry

    formulas = [
        "Fe2O3",
        "NaCl",
        "CoO",
        "MgS",
        "LiF",
        "NiF2",
        "Si3N4",
        "CuI",
        "ZnSe",
        "CdTe",
        "MoO3",
        "LiH",
        "KBr",
        "FeS",
        "FeTi",
    ]
    hubbard = {"Fe": 5.3, "Co": 3.32, "Ni": 6.2, "Mo": 4.38}
    scheme = MaterialsProject2020Compatibility(check_potcar=False)
    wanted = []
    for formula in formulas:
        composition = Composition(formula)
        ionic = any(e.symbol in "OF" for e in composition)
        of = {e.symbol: hubbard.get(e.symbol, 0) for e in composition} if ionic else {}
        run = "GGA+U" if any(of.values()) else "GGA"
        entry = ComputedEntry(
            composition, -1.0,
            parameters={"run_type": run, "hubbards": of if run == "GGA+U" else {}, "software": "vasp"},
            data={"oxide_type": "oxide" if "O" in formula else "None", "oxidation_states": {}},
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells of its rule
            found = scheme.get_adjustments(entry)
        wanted.append(sum(one.value for one in found) / composition.num_atoms)
    rows = torch.stack([composition_of(formula, 0) for formula in formulas])
    assert mp2020_corrections(rows).tolist() == pytest.approx(wanted, abs=2e-3)
    peroxide, superoxide = mp2020_corrections(torch.stack([composition_of(f, 0) for f in ("Li2O2", "KO2")])).tolist()
    assert peroxide == pytest.approx(-0.465 / 2, abs=1e-6) and superoxide == pytest.approx(-0.161 * 2 / 3, abs=1e-6)
