"""The space: validation, emptiness, narrowing, membership, and the real crystals in it."""

import numpy as np
import pandas as pd
import pytest
import torch
from pymatgen.core import Lattice, Structure

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import EmptySpace, InvalidSpace
from crystalgfn.policy.network import PolicyConfig
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.space.space import CrystalSpace


@pytest.mark.parametrize(
    ("constraints", "error", "words"),
    [
        ({"elements": ["Xx"]}, InvalidSpace, "'Xx' is not an element"),
        ({"elements": ["He"]}, EmptySpace, "He has no non-zero oxidation state"),
        ({"elements": ["Pt"]}, EmptySpace, "tables that have it: common, all"),
        ({"space_groups": [230], "n_atoms": [1, 4]}, EmptySpace, "space_groups|n_atoms"),
        ({"space_groups": [231]}, InvalidSpace, "231 is not an ITA number"),
        ({"formula": "NaCl2"}, EmptySpace, "formula"),
        ({"formula": "Na0Cl"}, InvalidSpace, "no atoms"),
        ({"formula": "LiFePO4", "excluded_elements": ["Fe"]}, EmptySpace, "rules out"),
        ({"lengths": [10, 5]}, InvalidSpace, "first limit must be below the second"),
        ({"volume_per_atom": [20, 10]}, InvalidSpace, "below the second"),
        ({"n_atoms": [5, 2]}, InvalidSpace, "below the second"),
        ({"n_atoms": [0, 2]}, InvalidSpace, "limits start at 1"),
        ({"crystal_systems": ["cubical"]}, InvalidSpace, "'cubical' is not one of"),
        ({"point_symmetries": ["chiral"]}, InvalidSpace, "'chiral' is not one of"),
        ({"oxidation_states": "mine"}, InvalidSpace, "choose one of icsd"),
        ({"oxidation_states": {"Fe": [0]}}, InvalidSpace, "must be whole numbers"),
        ({"oxidation_states": {"Fe": 9}}, InvalidSpace, "from -8 to 8"),
        ({"elements": [["Li"]]}, InvalidSpace, "is not an element"),
        ({"mixed_valence": "some"}, InvalidSpace, "choose False, .known"),
        ({"lengths": [30, 40]}, EmptySpace, "lengths"),
        ({"required_elements": ["Li", "Na", "K"], "n_elements": [1, 2]}, EmptySpace, "do not fit"),
        ({"elements": ["Li", "Na"], "n_elements": [2, 2]}, EmptySpace, "leaves no crystal"),
        ({"density": [90, 100]}, EmptySpace, "density"),
    ],
)
def test_impossible_constraints_are_refused_in_words(constraints, error, words):
    with pytest.raises(error, match=words):
        CrystalSpace(**constraints)


def test_default_space_has_the_elements_of_the_icsd_table():
    space = CrystalSpace()
    assert len(space.element_numbers) == 73
    assert not {2, 10, 18, 36, 43, 54, 61, 78, 79} & set(space.element_numbers)


def test_narrowed_is_the_intersection():
    space = CrystalSpace(elements=["Li", "Mn", "O", "Fe"], n_atoms=(2, 16), lengths=(3, 20))
    narrow = space.narrowed(elements=["Li", "O", "Na"], n_atoms=(4, 30), lengths=(2, 10), required_elements=["O"])
    assert narrow.elements == ("Li", "O")
    assert narrow.n_atoms == (4, 16)
    assert narrow.lengths == (3.0, 10.0)
    assert narrow.required_elements == ("O",)
    for impossible in (
        {"elements": ["Na"]},
        {"n_atoms": (17, 20)},
        {"lengths": (20, 40)},
        {"elements": ["Li"], "required_elements": ["O"]},
    ):
        with pytest.raises(EmptySpace):
            space.narrowed(**impossible)
    with pytest.raises(InvalidSpace, match="unknown constraint"):
        space.narrowed(element=["Li"])


def test_a_space_survives_json():
    space = CrystalSpace(elements=["Li", "Fe", "O"], oxidation_states={"Li": [1], "Fe": [2, 3], "O": [-2]})
    assert CrystalSpace(**space.to_dict()) == space


def structure(space_group, lattice, species, coordinates):
    return Structure.from_spacegroup(space_group, lattice, species, coordinates)


KNOWN = {
    "NaCl": structure("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "SrTiO3": structure("Pm-3m", Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0]]),
    "Fe2O3": structure("R-3c", Lattice.hexagonal(5.035, 13.747), ["Fe", "O"], [[0, 0, 0.3553], [0.3059, 0, 0.25]]),
    "TiO2": structure("P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_crystals_are_in_the_space(name):
    crystal = Crystals.from_structures([KNOWN[name], KNOWN[name] * (2, 1, 1)])
    assert crystal.formulas() == [name, name]
    assert int(crystal.n_atoms[0]) == {"NaCl": 2, "SrTiO3": 5, "Fe2O3": 10, "TiO2": 6}[name]
    torch.testing.assert_close(crystal.lattice[0], crystal.lattice[1], rtol=1e-4, atol=1e-4)
    assert CrystalSpace().contains(crystal).all()


def test_every_reason_is_named():
    crystal = Crystals.from_structures([KNOWN["SrTiO3"]])
    cases = {
        "element Sr is not in the space": {"excluded_elements": ["Sr"]},
        "required element Li is missing": {"required_elements": ["Li"]},
        "n_elements 3": {"n_elements": (1, 2)},
        "n_atoms 5": {"n_atoms": (6, 20)},
        "atoms_per_element 1 to 3": {"atoms_per_element": (1, 2)},
        "is not LiFePO4": {"formula": "LiFePO4"},
        "space group 221": {"crystal_systems": ["trigonal"]},
        "not neutral": {"oxidation_states": {"Sr": [2], "Ti": [3], "O": [-2]}},
        "lengths": {"lengths": (4, 10)},
        "angles": {"angles": (95, 120)},
        "volume_per_atom": {"volume_per_atom": (13, 20)},
        "density": {"density": (1, 4)},
    }
    for words, constraints in cases.items():
        few = ["Sr", "Ti", "O"] if "oxidation_states" in constraints else ["Sr", "Ti", "O", "Li", "Fe", "P"]
        space = CrystalSpace(elements=few, **constraints)
        assert not space.contains(crystal).any(), constraints
        assert any(words in reason for reason in space.explain(crystal)[0]), (words, space.explain(crystal))
    charged = Crystals(torch.tensor([195]), crystal.composition, crystal.lattice)  # P23 with fixed positions only
    assert any("Wyckoff" in reason for reason in CrystalSpace().explain(charged)[0])


def test_tolerances():
    crystal = Crystals.from_structures([KNOWN["NaCl"]])
    low = float(crystal.lattice[0, 0])
    assert CrystalSpace(lengths=(low * 1.0009, 10)).contains(crystal).all()
    assert not CrystalSpace(lengths=(low * 1.0011, 10)).contains(crystal).any()
    tilted = Crystals(crystal.space_group, crystal.composition, crystal.lattice + torch.tensor([0, 0, 0, 0, 0, 0.02]))
    assert not CrystalSpace().contains(tilted).any()


def mp20_val(folder, n):
    table = pd.read_parquet(folder / "mp20" / "val.parquet")
    table = table.sample(n, random_state=0) if n else table
    structures = [
        Structure(
            Lattice.from_parameters(row.prim_a, row.prim_b, row.prim_c, row.prim_alpha, row.prim_beta, row.prim_gamma),
            [int(z) for z in row.Z],
            np.array(row.frac).reshape(-1, 3),
        )
        for row in table.itertuples()
    ]
    return Crystals.from_structures(structures)


LIMITS = ("element ", "n_elements", "n_atoms", "atoms_per_element", "lengths", "angles", "volume_per_atom")


def check_real_crystals(crystals):
    space = CrystalSpace()
    reasons = space.explain(crystals)
    inside = space.contains(crystals)
    assert [not r for r in reasons] == inside.tolist()
    within = [not any(x.startswith(LIMITS) or "not neutral" in x for x in r) for r in reasons]
    share = sum(not r for r in reasons) / sum(within)
    assert share >= 0.99
    return inside


def test_real_crystals_within_the_limits_are_in_the_space(shared_data):
    check_real_crystals(mp20_val(shared_data, 300))


@pytest.mark.slow
def test_all_real_crystals(shared_data):
    """The shares that the README states, of all of MP-20 val."""
    crystals = mp20_val(shared_data, None)
    check_real_crystals(crystals)
    shares = {
        "default": CrystalSpace().contains(crystals).double().mean(),
        "all": CrystalSpace(oxidation_states="all").contains(crystals).double().mean(),
        "alloys": CrystalSpace(alloys=True).contains(crystals).double().mean(),
        "all, alloys": CrystalSpace(oxidation_states="all", alloys=True).contains(crystals).double().mean(),
        "no charge rule": CrystalSpace(oxidation_states=None).contains(crystals).double().mean(),
    }
    print({name: round(float(share), 4) for name, share in shares.items()})
    assert shares["default"] < shares["alloys"] < shares["no charge rule"]


def test_limits_that_just_meet_leave_a_crystal() -> None:
    """As many atoms as the elements can have, and a required element that is the only one."""
    four = CrystalSpace(elements=["Fe"], n_elements=(1, 1), atoms_per_element=(1, 4), n_atoms=(4, 20))
    counts = torch.zeros(2, 118, dtype=torch.int64)
    counts[:, 25] = torch.tensor([4, 5])
    crystals = Crystals(torch.tensor([221, 221]), counts, torch.tensor([[3.6, 3.6, 3.6, 90.0, 90.0, 90.0]] * 2))
    assert four.contains(crystals).tolist() == [True, False]
    pure = CrystalSpace(elements=["Fe", "O"], required_elements=["Fe"], n_elements=(1, 1), n_atoms=(1, 4))
    assert bool(pure.contains(crystals)[0])
    drawn = Sampler.untrained(pure).sample(5)
    assert (drawn.composition[:, 25] > 0).all() and (drawn.n_elements == 1).all()


def test_no_step_leaves_out_one_of_several_required_elements():
    """In the order of the draws O comes before S and Li before Na, so that every way past S is a way without it."""
    space = CrystalSpace(elements=["O", "S", "Li", "Na"], required_elements=["S", "Na"], n_atoms=(2, 8))
    crystals = Sampler.untrained(space, policy=PolicyConfig(width=16, blocks=1, components=2)).sample(200, seed=0)
    symbols = [set(crystals.counts(i)) for i in range(200)]
    assert all({"S", "Na"} <= own for own in symbols)
    assert any("O" in own for own in symbols) and any("Li" in own for own in symbols)


def test_more_elements_than_atoms_are_no_more_columns():
    """Tables are as wide as crystals can be; 200 columns took 1.4 GB."""
    space = CrystalSpace(elements=["Li", "O", "F"], n_atoms=(1, 4), n_elements=(1, 200))
    assert space.n_elements == (1, 4)
    assert space == CrystalSpace(elements=["Li", "O", "F"], n_atoms=(1, 4), n_elements=(1, 4))
    assert space.tables.composition.pattern_low.shape[1] == 5
