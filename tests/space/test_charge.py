"""Charge rules against brute force over every atom's state."""

import itertools

import numpy as np
import pytest

from crystalgfn.crystallography import elements
from crystalgfn.space.charge import ChargeRule, balanced, pack
from crystalgfn.space.completions import _balanced

ICSD = elements.OXIDATION_STATES["icsd"]


def brute(counts, rule):
    """Try every assignment of states to atoms and keep those that the rule allows."""
    per_element = []
    for z, count in counts.items():
        options = set()
        for states in itertools.combinations_with_replacement(rule.states[z - 1], count):
            kinds = sorted(set(states))
            table = rule.states[z - 1]
            if len(kinds) == 1:
                options.add((sum(states), 0))
            elif rule.mixed_valence is True:
                options.add((sum(states), 0))
            elif rule.mixed_valence in ("known", "adjacent") and len(kinds) == 2 and kinds[0] * kinds[1] > 0:
                known = tuple(kinds) in elements.SPLITS[elements.SYMBOLS[z - 1]]
                if (rule.mixed_valence == "adjacent" or known) and table.index(kinds[1]) - table.index(kinds[0]) == 1:
                    options.add((sum(states), 1))
        per_element.append(options)
    return any(
        sum(q for q, _ in choice) == 0 and sum(mixed for _, mixed in choice) <= 1
        for choice in itertools.product(*per_element)
    )


@pytest.mark.parametrize("mixed_valence", [False, "known", "adjacent", True])
def test_neutral_agrees_with_brute_force(mixed_valence):
    rule = ChargeRule(ICSD, mixed_valence, alloys=False)
    rng = np.random.default_rng(0)
    symbols = ["Li", "Mn", "Fe", "O", "S", "Cl", "P", "N", "H", "Sn"]
    seen = set()
    for _ in range(150):
        chosen = rng.choice(len(symbols), size=rng.integers(2, 4), replace=False)
        counts = {elements.NUMBER[symbols[i]]: int(rng.integers(1, 5)) for i in chosen}
        expected = brute(counts, rule)
        assert rule.neutral(counts) == expected, counts
        seen.add(expected)
    assert seen == {True, False}


def test_known_compounds():
    adjacent, single = ChargeRule(ICSD, "adjacent", False), ChargeRule(ICSD, False, False)
    number = elements.NUMBER
    magnetite = {number["Fe"]: 3, number["O"]: 4}
    assert adjacent.neutral(magnetite)
    assert not single.neutral(magnetite)
    assert adjacent.neutral({number["O"]: 16})  # a pure element, not O(2-) alone
    assert not adjacent.neutral({number["Na"]: 1, number["Cl"]: 2})
    assert not adjacent.neutral({number["Li"]: 1, number["Be"]: 1})
    assert ChargeRule(ICSD, "adjacent", alloys=True).neutral({number["Li"]: 1, number["Be"]: 1})


@pytest.mark.parametrize(
    ("formula", "known"),
    [
        ("Fe3O4", True), ("Pb3O4", True), ("V4O7", True), ("Sb2O4", True), ("Ba2Bi2O6", True), ("Mn3O4", True),
        ("Na2W4O12", True), ("Ce7O12", True), ("Ba2S3", False), ("K3Te2", False), ("Ga2Cl5", False),
        ("N2Cl4", False), ("La2I5", False),
    ],
)  # fmt: skip
def test_only_elements_of_known_mixed_valence_are_split(formula, known):
    """Mixed valences of textbooks are allowed, those of anions, nonmetals and most others are not."""
    counts = elements.parse_formula(formula)
    assert ChargeRule(ICSD, "adjacent", False).neutral(counts)
    assert ChargeRule(ICSD, "known", False).neutral(counts) == known
    assert not ChargeRule(ICSD, False, False).neutral(counts)


def test_pairs_that_are_known_are_consecutive_positive_states_of_metals_and_metalloids():
    split = {symbol: pairs for symbol, pairs in elements.SPLITS.items() if pairs}
    assert len(split) == 28 and sum(map(len, split.values())) == 40
    for symbol, pairs in split.items():
        states = ICSD[elements.NUMBER[symbol] - 1]
        for low, high in pairs:
            assert 0 < low < high and states.index(high) == states.index(low) + 1
    assert not {"O", "S", "Se", "N", "P", "C", "H", "Cl", "La", "Ga"} & set(split)


@pytest.mark.parametrize("charges", [(3,), (-4, -2, 5), (7, 8, 9, 10, 12, 14, 16), (-90, -60, -30), (0,), ()])
def test_charges_are_taken_off_packed_sets_and_least_sums(charges):
    rng = np.random.default_rng(0)
    width = 150
    bits = rng.random((20, width)) < 0.2
    valid = pack(np.arange(width) < width)
    got = balanced(pack(bits).T.copy(), charges, valid)
    wanted, least = np.zeros_like(bits), np.full(bits.shape, np.inf)
    values = np.where(bits, rng.random(bits.shape), np.inf)
    for row, column in zip(*bits.nonzero(), strict=True):
        for charge in charges:
            if 0 <= column - charge < width:
                wanted[row, column - charge] = True
            if 0 <= column + charge < width:
                least[row, column + charge] = min(least[row, column + charge], values[row, column])
    assert (got.T == pack(wanted)).all()
    assert (_balanced([(values, tuple(-charge for charge in charges))]) == least).all()


def test_alloys_are_of_metals_alone() -> None:
    rule, number = ChargeRule(ICSD, "adjacent", alloys=True), elements.NUMBER
    assert rule.neutral({number["Fe"]: 1, number["Ti"]: 2})
    assert not rule.neutral({number["Na"]: 1, number["O"]: 1})  # one metal is not enough
