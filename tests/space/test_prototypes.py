"""NamedPrototypes by name: what they stand for, and that exactly such crystals are sampled."""

import itertools

import pytest
import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.envs.constraint_check import random_crystals, reachable
from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.errors import EmptySpace, InvalidSpace
from crystalgfn.space.constraints.prototypes import prototype_names, prototypes_of
from crystalgfn.space.space import CrystalSpace
from crystalgfn.structures.config import AFLOW

KNOWN = {  # from textbooks: space group, atoms in the primitive cell
    "rock salt": {(225, (1, 1))},
    "Zincblende": {(216, (1, 1))},
    "wurtzite": {(186, (2, 2))},
    "fluorite": {(225, (2, 1))},
    "rutile": {(136, (4, 2))},
    "anatase": {(141, (4, 2))},
    "corundum": {(167, (6, 4))},
    "ilmenite": {(148, (6, 2, 2))},
    "spinel": {(227, (8, 4, 2))},
    "cubic perovskite": {(221, (3, 1, 1))},
    "perovskite": {(221, (3, 1, 1)), (99, (3, 1, 1)), (62, (12, 4, 4))},
    "half-Heusler": {(216, (1, 1, 1))},
    "Heusler": {(225, (2, 1, 1))},
    "K2NiF4": {(139, (4, 2, 1))},
    "chalcopyrite": {(122, (4, 2, 2))},
    "Laves": {(227, (4, 2)), (194, (8, 4)), (194, (16, 8))},
    "diamond": {(227, (2,))},
    "CsCl": {(221, (1, 1))},
    "B1": {(225, (1, 1))},
    "AB3C_cP5_221_a_c_b": {(221, (3, 1, 1))},
}


@pytest.mark.parametrize("name", KNOWN)
def test_names_stand_for_what_textbooks_say(name):
    assert {(one.space_group, one.counts) for one in prototypes_of(name)} == KNOWN[name]
    assert prototypes_of(name.upper().replace(" ", "-")) == prototypes_of(name)


def test_labels_agree_with_the_structures():
    """The shipped index of the same prototypes was made from their structures, not from the labels."""
    labels = {one.label: one for name in prototype_names() for one in prototypes_of(name)}
    indexed = Prototypes.read(AFLOW).by_counts
    other = [one.label for one in labels.values() if (one.space_group, one.counts[::-1]) not in indexed]
    # within 0.1 Å, as the index was made, these have a group of higher symmetry
    higher = ["A4B_cI40_197_cde_c", "AB2_oC24_41_2a_2b", "AB4_oC20_41_a_2b", "AB_oP8_33_a_a"]
    assert sorted(other) == higher and len(labels) == 261


def test_exactly_crystals_of_the_prototypes_have_a_probability():
    """All compositions of up to six atoms in six groups: reachable, and in the space, iff group and counts fit."""
    names, groups = ["cubic perovskite", "rutile", "rock salt"], [1, 62, 136, 216, 221, 225]
    expected_cases = {(221, (3, 1, 1)), (136, (4, 2)), (225, (1, 1))}
    base = {"elements": ["Li", "Ba", "Ti", "O", "F"], "n_atoms": (1, 6), "space_groups": groups}
    wide, narrow = CrystalSpace(**base), CrystalSpace(**base, prototypes=names)
    rows, numbers = [], []
    for counts in itertools.product(range(7), repeat=5):
        if 1 <= sum(counts) <= 6:
            row = torch.zeros(118, dtype=torch.int64)
            row[[elements.NUMBER[s] - 1 for s in base["elements"]]] = torch.tensor(counts)
            rows += [row] * len(groups)
            numbers += groups
    group, composition = torch.tensor(numbers), torch.stack(rows)
    centring = torch.where(group == 216, 4, torch.where(group == 225, 4, 1))
    edge = (12.0 * composition.sum(1) * centring).double() ** (1 / 3)
    cubic = torch.stack([edge, edge, edge, *[torch.full_like(edge, 90.0)] * 3], 1)
    crystals = Crystals(group, composition, cubic)
    crystals = crystals[wide.contains(crystals)]
    fits = [
        (int(g), tuple(sorted((n for n in row if n), reverse=True))) in expected_cases
        for g, row in zip(crystals.space_group, crystals.composition.tolist(), strict=True)
    ]
    expected = torch.tensor(fits)
    assert expected.any() and not expected.all() and len(set(crystals.space_group[expected].tolist())) == 3
    assert torch.equal(narrow.contains(crystals), expected)
    assert torch.equal(reachable(CrystalEnvironment(narrow), crystals), expected)
    reasons = narrow.explain(crystals)
    assert [not own for own in reasons] == expected.tolist()
    assert all("group and counts of cubic perovskite or rutile or rock salt" in own[0] for own in reasons if own)


def test_samples_have_a_named_prototype_and_come_back_by_the_moves():
    space = CrystalSpace(n_atoms=(1, 20), prototypes=["spinel", "perovskite", "rock salt"])
    cases = KNOWN["spinel"] | KNOWN["perovskite"] | KNOWN["rock salt"]
    env = CrystalEnvironment(space)
    drawn = random_crystals(env, 300, torch.Generator().manual_seed(0))
    found = {
        (int(g), tuple(sorted((n for n in row if n), reverse=True)))
        for g, row in zip(drawn.space_group, drawn.composition.tolist(), strict=True)
    }
    assert found == cases
    assert space.contains(drawn).all() and reachable(env, drawn).all()
    assert CrystalSpace(**space.to_dict()) == space


def test_narrowing_keeps_what_is_in_both():
    space = CrystalSpace(prototypes=["perovskite", "spinel"])
    assert space.narrowed(prototypes="cubic perovskite").prototypes == ("cubic perovskite",)
    cubic = CrystalSpace(prototypes=["cubic perovskite"])
    assert cubic.narrowed(prototypes=["perovskite", "rutile"]).prototypes == ("AB3C_cP5_221_a_c_b",)
    assert space.narrowed(prototypes=None) == space
    assert CrystalSpace(prototypes=["NaCl", "rock salt"]).prototypes == ("NaCl",)
    with pytest.raises(EmptySpace, match=r"prototypes=\['rutile'\] has none"):
        space.narrowed(prototypes=["rutile"])
    with pytest.raises(EmptySpace, match="n_atoms"):
        CrystalSpace(prototypes=["spinel"], n_atoms=(1, 10))


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (["spinell"], InvalidSpace, "'spinell' is no prototype of AFLOW's list; near are Spinel"),
        (["pervskite"], InvalidSpace, "near are perovskite, antiperovskite"),
        ("garnet and friends", InvalidSpace, "space_groups and anonymous_formulas"),
        ([227], InvalidSpace, "227 is no prototype"),
        ([], EmptySpace, "leaves no crystal"),
        ({"spinel": 1}, InvalidSpace, "give a list"),
    ],
)
def test_unknown_names_are_refused_in_a_sentence(value, error, words):
    with pytest.raises(error, match=words):
        CrystalSpace(prototypes=value)
