"""The constraints of questions: exactly what obeys can be sampled, by enumeration; and what users write is read."""

import itertools

import pytest
import torch

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.envs.constraint_check import random_crystals, reachable
from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.errors import EmptySpace, InvalidSpace
from crystalgfn.space.space import READERS, CrystalSpace

BASE = {"elements": ["Li", "Cs", "Sn", "Ge", "O", "F", "I"], "space_groups": [1, 221], "n_atoms": (1, 5)}


def reduced(composition):
    divisor = max(d for d in range(1, 6) if all(n % d == 0 for n in composition.values()))
    return {symbol: n // divisor for symbol, n in composition.items()}


RULES = {
    "any of": ({"any_of": ["F", "I"]}, lambda c: {"F", "I"} & set(c)),
    "any of twice": (
        {"any_of": [["F", "I"], ["Li", "Cs", "F"]]}, lambda c: {"F", "I"} & set(c) and {"Li", "Cs", "F"} & set(c),
    ),
    "chemical system": ({"chemsys": "Li-Sn-O"}, lambda c: set(c) == {"Li", "Sn", "O"}),
    "formulas": (
        {"formulas": ["CsSnI3", "CsGeI3", "LiF", "SnO2"]},
        lambda c: reduced(c) in (
            {"Cs": 1, "Sn": 1, "I": 3}, {"Cs": 1, "Ge": 1, "I": 3}, {"Li": 1, "F": 1}, {"Sn": 1, "O": 2},
        ),
    ),
    "formula": ({"formula": "LiF"}, lambda c: reduced(c) == {"Li": 1, "F": 1}),
    "form": ({"anonymous_formulas": ["ABX3", "AB"]}, lambda c: sorted(reduced(c).values()) in ([1, 1, 3], [1, 1])),
    "all together": (
        {"any_of": ["F", "I"], "anonymous_formulas": ["ABX3"], "required_elements": ["Cs"], "density": (3, 6)},
        lambda c: {"F", "I"} & set(c) and "Cs" in c and sorted(reduced(c).values()) == [1, 1, 3],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_exactly_what_obeys_has_a_probability(name):
    """All compositions of up to five atoms in two groups: reachable by the moves, and in the space, iff they obey."""
    constraints, rule = RULES[name]
    wide = CrystalSpace(**BASE)
    narrow = CrystalSpace(**{**BASE, **constraints})
    symbols = BASE["elements"]
    rows, groups = [], []
    for counts in itertools.product(range(6), repeat=len(symbols)):
        if 1 <= sum(counts) <= 5:
            row = torch.zeros(118, dtype=torch.int64)
            row[[elements.NUMBER[s] - 1 for s in symbols]] = torch.tensor(counts)
            rows += [row, row]
            groups += [1, 221]
    composition, group = torch.stack(rows), torch.tensor(groups)
    volume = 15.0 * composition.sum(1)
    length = volume.double() ** (1 / 3)
    cubic = torch.stack([length, length, length, *([torch.full_like(length, 90.0)] * 3)], 1)
    skew = cubic * torch.tensor([0.98, 1.0, 1.02, 94 / 90, 95 / 90, 96 / 90])
    crystals = Crystals(group, composition, torch.where((group == 221)[:, None], cubic, skew).double())
    inside = wide.contains(crystals)
    crystals = crystals[inside]
    assert len(crystals) > 100
    expected = torch.tensor([bool(rule(crystals.counts(i))) for i in range(len(crystals))])
    if "density" in constraints:
        low, high = constraints["density"]
        expected &= (crystals.density >= low) & (crystals.density <= high)
    assert expected.any()
    assert torch.equal(narrow.contains(crystals), expected)
    assert torch.equal(reachable(CrystalEnvironment(narrow), crystals), expected)
    assert [not reasons for reasons in narrow.explain(crystals)] == expected.tolist()
    drawn = random_crystals(CrystalEnvironment(narrow), 200, torch.Generator().manual_seed(0))
    assert narrow.contains(drawn).all()
    assert wide.narrowed(**constraints).contains(drawn).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("any_of", ["F", "Cl"]), ("chemsys", "Li-Fe-O"), ("formulas", ["Li2O", "FeF2"]),
        ("anonymous_formulas", ["AB2"]), ("required_elements", ["Li"]), ("space_groups", ["Fm-3m", 1]),
        ("crystal_systems", "cubic"), ("atoms_per_element", [1, 2]), ("density", [2, 4]), ("lengths", [4, 6]),
        ("volume_per_atom", [10, 12]), ("prototypes", ["rock salt", "Rutile", "CdI2"]),
    ],
)  # fmt: skip
def test_the_built_in_constraints_agree_with_their_masks(name, value):
    """Where a rule of the space is one of a user, its masks and words agree too."""
    part = READERS[name](value)
    space = CrystalSpace(elements=["Li", "Fe", "O", "F", "Cl"], n_atoms=(1, 6), n_elements=(1, 3))
    drawn = random_crystals(CrystalEnvironment(space), 200, torch.Generator().manual_seed(1))
    narrow = space.narrowed(**{name: value})
    assert torch.equal(part.explain(drawn).ok, narrow.contains(drawn))
    assert READERS[name](part.to_dict()[name]) == part


def test_ranges_hold_their_ends():
    for name, value in (("lengths", 5.0), ("density", 4.0), ("volume_per_atom", 12.0), ("relative_volume", 1.0)):
        space = CrystalSpace(elements=["Na", "Mg", "O", "Cl"], n_atoms=(1, 4), **{name: (value, value)})
        assert getattr(space, name) == (value, value)
        drawn = random_crystals(CrystalEnvironment(space), 50, torch.Generator().manual_seed(0))
        assert space.contains(drawn).all()
    right = CrystalSpace(elements=["Na", "Cl"], n_atoms=(1, 4), angles=(90, 90))
    drawn = random_crystals(CrystalEnvironment(right), 50, torch.Generator().manual_seed(0))
    assert (drawn.lattice[:, 3:] == 90).all()


def salt(*groups):
    composition = torch.zeros(len(groups), 118, dtype=torch.int64)
    composition[:, [10, 16]] = 1
    lattice = torch.tensor([[5.64, 5.64, 5.64, 90.0, 90.0, 90.0]] * len(groups)).reshape(-1, 6)
    return Crystals(torch.tensor(groups, dtype=torch.int64), composition, lattice)


def test_foreign_space_groups_are_outside():
    space = CrystalSpace(elements=["Na", "Cl"], relative_volume=(0.1, 10), density=(0.1, 20))
    crystals = salt(225, 231, 0, -1)
    assert space.contains(crystals).tolist() == [True, False, False, False]
    assert space.explain(crystals) == [[], *([f"space group {n} is not in the space"] for n in (231, 0, -1))]
    assert reachable(CrystalEnvironment(space), crystals).tolist() == [True, False, False, False]
    assert crystals.density.isnan().tolist() == [False, True, True, True]
    assert crystals.to_pandas()["symbol"].tolist()[:1] == ["Fm-3m"]


def test_of_nothing_there_is_nothing_to_say():
    none = salt(225)[salt(225).density > 100]
    everything = dict(
        any_of=["F"], formulas=["LiF"], anonymous_formulas=["AB"], density=(1, 5), relative_volume=(0.5, 3)
    )
    for space in (CrystalSpace(elements=["Na", "Cl"]), CrystalSpace(**everything), CrystalSpace(chemsys="Li-F")):
        assert space.contains(none).shape == (0,) and space.explain(none) == []
        assert reachable(CrystalEnvironment(space), none).shape == (0,)
    assert none.formulas() == [] and len(none.to_pandas()) == 0
    assert none.volume.shape == none.density.shape == none.volume_per_atom.shape == (0,)


@pytest.mark.parametrize(
    ("constraints", "error", "words"),
    [
        ({"alloys": "xyz"}, InvalidSpace, "alloys='xyz'"),
        ({"alloys": 1}, InvalidSpace, "alloys=1"),
        ({"mixed_valence": 0}, InvalidSpace, "mixed_valence=0"),
        ({"density": [1, float("inf")]}, InvalidSpace, "density"),
        ({"lengths": [2, float("nan")]}, InvalidSpace, "lengths"),
        ({"lengths": [2, 1e9]}, InvalidSpace, "limits end at"),
        ({"n_atoms": [1, 10**9]}, InvalidSpace, "limits end at 400"),
        ({"n_atoms": "many"}, InvalidSpace, "two whole numbers"),
        ({"n_atoms": True}, InvalidSpace, "give a list"),
        ({"lengths": {"a": 1}}, InvalidSpace, "give a list"),
        ({"elements": 3}, InvalidSpace, "3 is not an element"),
        ({"oxidation_states": {"Fe": [True]}}, InvalidSpace, "must be whole numbers"),
        ({"oxidation_states": [1, 2]}, InvalidSpace, "oxidation_states"),
        ({"space_groups": ["Fm3"]}, InvalidSpace, "'Fm3' is no symbol"),
        ({"space_groups": ["0"]}, InvalidSpace, "'0' is not an ITA number"),
        ({"chemsys": "Li-Mn-"}, InvalidSpace, "chemsys: '' is not an element"),
        ({"anonymous_formulas": ["abx3"]}, InvalidSpace, "'abx3' is no form"),
        ({"formula": "Ca(OH"}, InvalidSpace, "brackets"),
        ({"any_of": ["F"], "excluded_elements": ["F"]}, EmptySpace, "any_of"),
        ({"chemsys": "Li-O", "elements": ["Li"]}, EmptySpace, "needs O, which elements=..Li.. rules out"),
        ({"n_atoms": [80, 80], "elements": ["Li", "Fe", "O"]}, EmptySpace, "atoms_per_element"),
        ({"formula": "Li2O2"}, EmptySpace, "oxidation_states='all'"),
        ({"formula": "BaO2"}, EmptySpace, "oxidation_states='all'"),
    ],
)
def test_what_means_nothing_is_refused_by_its_name(constraints, error, words):
    with pytest.raises(error, match=words):
        CrystalSpace(**constraints)


def test_narrowing_checks_what_it_is_given():
    space = CrystalSpace(elements=["Li", "O", "F"], n_atoms=(1, 6))
    with pytest.raises(InvalidSpace, match="alloys"):
        space.narrowed(alloys="xyz")
    with pytest.raises(InvalidSpace, match="mixed_valence"):
        space.narrowed(mixed_valence="xyz")
    with pytest.raises(EmptySpace, match="differs"):
        CrystalSpace(formula="LiF").narrowed(formula="Li2O")
    assert space.narrowed(any_of=["O"]).narrowed(any_of=["Li", "F"]).any_of == (("O",), ("F", "Li"))
    assert space.narrowed(lengths=None, density=None) == space


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("Ca(OH)2", {"Ca": 1, "O": 2, "H": 2}),
        ("InF", {"In": 1, "F": 1}),
        ("NaN", {"Na": 1, "N": 1}),
        ("Mg3(Al(OH)2)2", {"Mg": 3, "Al": 2, "O": 4, "H": 4}),
        ("K4[Fe(CN)6]", {"K": 4, "Fe": 1, "C": 6, "N": 6}),
    ],
)
def test_formulas_are_read(text, counts):
    assert elements.parse_formula(text) == {elements.NUMBER[symbol]: n for symbol, n in counts.items()}


@pytest.mark.parametrize("text", ["", "Ca(OH", "CaOH)2", "Ca()2", "lif", "Li0", "Li(O)0", "Li-F", None, 3])
def test_what_is_no_formula_is_refused(text):
    with pytest.raises(ValueError, match="write symbols|brackets|no atoms"):
        elements.parse_formula(text)


def test_symbols_of_space_groups_in_any_setting():
    """The short symbol of each group and all full ones, by spglib; those of other settings as they are written."""
    import spglib

    kinds = [spglib.get_spacegroup_type(hall_number) for hall_number in range(1, 531)]
    for kind in kinds:
        assert space_groups.number_of(kind.international_short) == kind.number
        assert space_groups.number_of(kind.international_full) == kind.number
    given = {"P 21/n": 14, "P2_1/a": 14, "P 1 21/c 1": 14, "R -3 m :R": 166, "F d -3 m :2": 227, "Pbnm": 62, "I2/a": 15,
             "F 4/m -3 2/m": 225, "Cmca": 64, "225": 225, "fm-3m": 225, "P32": 145, "P 3 2 1": 150}  # fmt: skip
    assert {symbol: space_groups.number_of(symbol) for symbol in given} == given
