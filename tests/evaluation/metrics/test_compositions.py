"""The rule of CDVAE's and DiffCSP's evaluation, against their own code and SMACT, on ordered and mixed crystals."""

import inspect
import itertools
import sys
from fractions import Fraction
from math import lcm

import numpy as np
import pytest
from pymatgen.core import Composition, Lattice, Structure

from crystalgfn.evaluation.metrics import compositions
from crystalgfn.evaluation.metrics.compositions import amounts, rules, smact_valid, valid_composition, whole
from crystalgfn.evaluation.metrics.validity import validity

PAIRS = (("Fe", "Ni"), ("Na", "K"), ("Li", "Mg"), ("Mg", "Al"), ("Cu", "Zn"), ("Ti", "Nb"), ("Li", "Co"))
SHARES = tuple(Fraction(*one) for one in ((1, 2), (1, 3), (3, 4), (2, 5), (1, 6)))
ANIONS = ("O", "Cl")
#: A site of two metals, or of one and a vacancy (None), beside one anion: 7 x 5 x 2 + 3 x 5 x 2 compositions.
MIXES = [(one, other, share, anion) for (one, other), share, anion in itertools.product(PAIRS, SHARES, ANIONS)]
PARTS = (Fraction(3, 5), *SHARES[1:])
MIXES += [(one, None, share, anion) for one, share, anion in itertools.product(("Na", "Mg", "Al"), PARTS, ANIONS)]


def mixed(one: str, other: str | None, share: Fraction, anion: str) -> Structure:
    """Rock salt, its cations mixed."""
    site = {one: float(share)} | ({other: float(1 - share)} if other else {})
    return Structure(Lattice.cubic(4.2), [site, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


def formula(one: str, other: str | None, share: Fraction, anion: str) -> dict[str, int]:
    parts = {one: share, anion: Fraction(1)} | ({other: 1 - share} if other else {})
    units = lcm(*(part.denominator for part in parts.values()))
    return {symbol: int(part * units) for symbol, part in parts.items()}


def of_cdvae(counts: dict[str, int]) -> bool:
    """``smact_validity`` of CDVAE's ``eval_utils.py``, with the states that SMACT had then."""
    import smact
    from smact.screening import pauling_test

    found = [smact.Element(symbol) for symbol in counts]
    if len(counts) == 1 or all(symbol in smact.metals for symbol in counts):
        return True
    ratios = [(n,) for n in (np.array(list(counts.values())) // np.gcd.reduce(list(counts.values()))).tolist()]
    for states in itertools.product(*(one.oxidation_states_smact14 or [] for one in found)):
        if smact.neutral_ratios(states, stoichs=ratios, threshold=max(max(ratios))):
            try:
                good = pauling_test(states, [one.pauling_eneg for one in found])
            except TypeError:
                good = True
            if good:
                return True
    return False


def ours(structure: Structure) -> bool:
    return valid_composition(whole(amounts(structure)))


def test_mixed_crystals_are_judged_as_cdvae_and_smact_judge_them():
    pytest.importorskip("smact")
    from smact.screening import smact_validity

    assert len(MIXES) == 100
    found = [ours(mixed(*mix)) for mix in MIXES]
    assert found == [of_cdvae(formula(*mix)) for mix in MIXES]
    names = ["".join(f"{symbol}{n}" for symbol, n in formula(*mix).items()) for mix in MIXES]
    by_name = [smact_validity(name, oxidation_states_set="smact14") for name in names]
    assert found == by_name and 60 < sum(found) < 90


@pytest.mark.parametrize("installed", [True, False])
def test_occupancies_are_not_rounded(installed, monkeypatch):
    if installed:
        pytest.importorskip("smact")
    else:
        without_smact(monkeypatch)
    assert ours(mixed("Fe", "Ni", Fraction(1, 2), "O"))
    assert not ours(mixed("Na", None, Fraction(3, 5), "Cl"))


def without_smact(monkeypatch):
    monkeypatch.setitem(sys.modules, "smact.screening", None)
    for name in ("smact_installed", "_smact_validity", "smact_valid"):
        plain = inspect.unwrap(getattr(compositions, name))  # nothing remembered
        monkeypatch.setattr(compositions, name, plain)
    monkeypatch.setattr("crystalgfn.evaluation.metrics.validity.smact_valid", compositions.smact_valid)


def test_without_smact_it_says_nothing(monkeypatch):
    without_smact(monkeypatch)
    salt = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert validity(salt).smact is None and not compositions.smact_installed() and validity(salt).valid_composition
    assert set(rules()) == {"valid_composition"} and "SMACT is not installed" in rules()["valid_composition"]


def test_the_rule_names_the_library_and_its_states():
    pytest.importorskip("smact")
    assert set(rules()) == {"valid_composition", "smact"}
    assert "SMACT 4" in rules()["valid_composition"] and "2014" in rules()["valid_composition"]


@pytest.mark.parametrize(
    ("formula", "said"),
    [("NaCl", True), ("NaCl2", False), ("Fe", True), ("FeNi", True), ("LiMn2O4", False)],
)
def test_smact(formula, said):
    """Metals are valid; one oxidation state an element, so spinel's Mn3+ and Mn4+ are not."""
    pytest.importorskip("smact")
    atoms = Composition(formula)
    symbols = [element.symbol for element, n in atoms.items() for _ in range(int(n))]
    points = np.random.default_rng(0).random((len(symbols), 3))
    assert validity(Structure(Lattice.cubic(9), symbols, points)).smact is said


def test_smact_has_no_data_beyond_lawrencium():
    pytest.importorskip("smact")
    assert smact_valid(((8, 2), (104, 1))) is None and not valid_composition(((8, 2), (104, 1)))
