"""Which compounds need an element in two oxidation states."""

from crystalgfn.crystallography import elements
from scripts.maintain.build_mixed_valence import splits, tally


def test_splits_of_compounds():
    assert splits(elements.parse_formula("Fe3O4")) == {(26, 2, 3)}
    assert splits(elements.parse_formula("Ba2Bi2O6")) == {(83, 3, 5)}
    assert splits(elements.parse_formula("NaCl2")) == set()
    assert splits(elements.parse_formula("Fe2CoO4")) >= {(26, 2, 3)}  # or Co, beside Fe3+


def test_compounds_are_counted_where_one_split_alone_will_do():
    needed, neutral = tally(["Fe3O4", "BaBiO3", "NaCl", "FeO", "Fe2CoO4", "FeMn2O4", "CH4", "O2", "FeS", "HeO"])
    assert needed == {(26, 2, 3): 1, (83, 3, 5): 1}
    assert neutral == {11: 1, 17: 1, 26: 3, 8: 3, 27: 1, 25: 1}
