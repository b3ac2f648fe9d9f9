"""The shipped synthesizability tells crystals that were made from others that it has not seen."""

import pandas as pd
import pytest
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.elements import NUMBER
from crystalgfn.fitting.plausibility import area_under_roc
from crystalgfn.properties.registry import load_proxy


def crystals(formulas, groups) -> Crystals:
    from pymatgen.core import Composition

    rows = torch.zeros(len(formulas), 118, dtype=torch.int64)
    for row, formula in zip(rows, formulas, strict=True):
        for symbol, n in Composition(formula).get_el_amt_dict().items():
            row[NUMBER[symbol] - 1] = round(n)
    return Crystals(torch.tensor(groups), rows, torch.full((len(rows), 6), torch.nan))


def test_salts_and_what_nobody_would_make():
    made = crystals(["NaCl", "SrTiO3", "MgAl2O4", "CaF2"], [225, 221, 227, 225])
    odd = crystals(["Ce3PSe16", "BaMnI6", "PbS4", "LuP2Se15I2"], [1, 14, 2, 1])
    model = load_proxy("synthesizability")
    assert model.name == "synthesizability" and float(model(made).min()) > 0.7 > 0.2 > float(model(odd).max())


@pytest.mark.filterwarnings("ignore:No Pauling electronegativity")  # of noble gases, while formulas are reduced
def test_formulas_of_val_that_are_in_cod(shared_data):
    """Nothing of val was fitted on; the card's 0.752 is of all pairs of formula and group."""
    from pymatgen.core import Composition

    val = pd.read_parquet(shared_data / "mp20" / "val.parquet", columns=["formula", "spacegroup"]).sample(
        2000, random_state=0
    )
    cod = pd.read_parquet(shared_data / "disorder" / "cod_index_formula_group.parquet", columns=["formula"]).formula
    names = {Composition(one).reduced_formula for one in cod.unique() if "." not in one}
    made = torch.tensor([Composition(one).reduced_formula in names for one in val.formula])
    p = load_proxy("synthesizability")(crystals(val.formula.tolist(), val.spacegroup.tolist()))
    assert int(made.sum()) > 100 and area_under_roc(p.double(), made) > 0.7
