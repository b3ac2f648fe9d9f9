"""Further instances of kinds of fault that were found once: hulls, few steps, claims in text fields, half-bonds."""

import pytest

import crystalgfn as cg
from crystalgfn.data.reader import records
from crystalgfn.errors import EmptySpace, PlacementError
from crystalgfn.evaluation.metrics.stability import relaxation_row
from crystalgfn.properties.convex_hull import ExactHull

SALT = """data_salt
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
{above}
_space_group_IT_number 225
_space_group_name_H-M_alt 'F m -3 m'
{below}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na1 Na 0 0 0
Cl1 Cl 0.5 0.5 0.5
"""


@pytest.mark.parametrize(
    ("entries", "numbers", "energy", "above"),
    [
        ({"FePb": 0.3}, [26, 82], 0.11, 0.11),  # the only compound is unstable: both elements are known all the same
        ({"Fe": 0.0, "Pb": 0.0}, [26, 82], 0.02, 0.02),  # elements alone
        ({"FeMgPb": 0.2, "MgPb2": -0.1}, [12, 26, 82], 0.05, 0.05 + 0.1 * 0.5),  # iron in an unstable ternary alone
    ],
)
def test_a_hull_knows_the_elements_of_unstable_entries(entries, numbers, energy, above):
    record = {"index": 0, "error": None, "seconds": 1.0, "formation_energy": energy, "relaxed_Z": numbers}
    row = relaxation_row(record, ExactHull.from_entries(entries))
    assert row["relax_error"] is None and row["e_above_hull"] == pytest.approx(above, abs=1e-9)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # of what else the file says
@pytest.mark.parametrize(
    ("above", "below"),
    [
        ("_publ_section_comment\n;\n_space_group_IT_number 1\n_symmetry_Int_Tables_number 2\n;", ""),
        ("", "_publ_section_title\n;\nnot _space_group_IT_number 14, as was said before\n;"),
        ("# _space_group_IT_number 62", "_exptl_special_details '_symmetry_Int_Tables_number 5'"),
    ],
)
def test_a_claim_in_a_text_field_is_no_claim(tmp_path, above, below):
    path = tmp_path / "salt.cif"
    path.write_text(SALT.format(above=above, below=below), encoding="utf-8")
    (found,) = records(path)
    assert found.space_group == 225 and len(found.known_atoms.numbers) in (2, 8)


@pytest.mark.parametrize(("formula", "way_out"), [("Na2O2", "all"), ("SrO2", "all"), ("KO2", None)])
def test_half_bonds_are_named_and_have_a_way_out(formula, way_out):
    with pytest.raises(EmptySpace, match=rf"peroxides, superoxides.*oxidation_states={way_out!r}"):
        cg.CrystalSpace(formula=formula)
    assert cg.CrystalSpace(formula=formula, oxidation_states=way_out, n_atoms=(1, 12)).formula_units


@pytest.mark.parametrize(("formula", "steps"), [("CsPbI3", 1), ("Mg2SiO4", 2), ("KNaSO4", 1)])
def test_few_steps_of_the_refiner_end_in_structures_or_a_sentence(formula, steps):
    try:
        found = cg.predict(formula, n=2, steps=steps, draws=2)
    except PlacementError as error:
        assert "\n" not in str(error)
    else:
        assert found and all(one.structure.volume > 0 for one in found)
