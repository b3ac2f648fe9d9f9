"""From a formula to ranked structures."""

import numpy as np
import pytest
import torch

import crystalgfn as cg
import crystalgfn.structures.predict as search
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.crystallography.symmetry import symmetry
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.errors import InvalidSpace, PlacementError
from crystalgfn.structures.config import BuildConfig
from crystalgfn.structures.predict import Pair, energies_of, formula_units_of, polymorphs, probable
from crystalgfn.structures.ranking.polymorphs import PolymorphModel
from crystalgfn.structures.ranking.reranker import CandidateRanker
from crystalgfn.structures.sources.templates import Templates
from scripts.maintain.fit_template_distance import unfitted


def salt(cation, anion, a):
    return OrbitStructure(225, (a, a, a, 90.0, 90.0, 90.0), (Orbit("a", cation), Orbit("b", anion)))


def caesium_chloride(cation, anion, a):
    return OrbitStructure(221, (a, a, a, 90.0, 90.0, 90.0), (Orbit("a", cation), Orbit("b", anion)))


SALTS = [salt(11, 17, 5.64), salt(19, 17, 6.29), salt(11, 35, 5.97), caesium_chloride(55, 17, 4.12)]


@pytest.fixture(scope="module")
def templates():
    return Templates(Prototypes.of(SALTS), unfitted())


@pytest.fixture(scope="module")
def refiner(small_refiner):
    return small_refiner(volume=0.9)


@pytest.fixture(autouse=True)
def choice(monkeypatch):
    """An unfitted choice, so that these tests do not depend on its weights."""
    torch.manual_seed(0)
    unlearned = CandidateRanker().eval()
    monkeypatch.setattr(CandidateRanker, "shipped", staticmethod(lambda _: unlearned))


def check(found, composition):
    """Composition and group of every structure, and the order."""
    for one in found:
        assert one.structure.composition.reduced_formula == composition
        cell = (one.structure.lattice.matrix, one.structure.frac_coords, np.array(one.structure.atomic_numbers))
        assert symmetry(cell, 0.01).number == one.space_group
        assert set(one.wyckoff) == {s.symbol for s in one.structure.composition}
        assert one.energy is None or np.isfinite(one.energy)
    chances = [one.probability for one in found]
    assert chances == sorted(chances, reverse=True) and 0 < sum(chances) <= 1 + 1e-6


def test_templates_alone(templates):
    found = cg.predict("KBr", n=5, refiner=None, templates=templates)
    check(found, "KBr")
    assert {one.space_group for one in found} == {225, 221} and {one.origin for one in found} == {"template"}
    salts = [one for one in found if one.space_group == 225]
    assert salts[0].structure.lattice.a == pytest.approx(6.6, rel=0.15)
    assert salts[0].energy < -1.0


def test_with_a_refiner(templates, refiner):
    options = {"n": 4, "refiner": refiner, "draws": 2, "steps": 1, "max_atoms": 8}
    alone = cg.predict("TiO2", **options, seed=1)
    check(alone, "TiO2")
    assert len(alone) > 1 and {one.origin for one in alone} <= {"refiner", "fixed"}
    again = cg.predict("Ti2O4", **options, seed=1)
    assert [one.structure for one in alone] == [one.structure for one in again]
    assert [one.probability for one in alone] == [one.probability for one in again]
    both = cg.predict("KBr", **options, templates=templates)
    check(both, "KBr")


def test_a_group_that_is_given(refiner):
    found = cg.predict("TiO2", space_group=136, n=3, refiner=refiner, draws=4, steps=2, max_atoms=6)
    check(found, "TiO2")
    assert found and {one.space_group for one in found} == {136}
    assert {len(one.structure) for one in found} == {6}


def test_pairs_add_up_to_one(templates):
    units = formula_units_of("KBr")
    for options in ({}, {"templates": templates}, {"templates": templates, "model": False}):
        pairs = probable(units, **options)
        assert sum(pair.probability for pair in pairs) == pytest.approx(1)
    assert {pair.space_group for pair in pairs} == {225, 221}  # the last are those of templates alone
    assert {pair.space_group for pair in probable(units, space_group=225)} == {225}


def test_the_likeliest_of_all_pairs_come_first(templates, monkeypatch):
    """Two structures in two groups: the second of a probable group stands before the first of an improbable one."""
    pairs = [Pair(225, 1, 0.9), Pair(221, 1, 0.1)]
    monkeypatch.setattr(search, "probable", lambda *_, **__: pairs)
    found = polymorphs({19: 1, 35: 1}, BuildConfig(n_candidates=5, refiner=None, templates=templates))
    assert found[0].space_group == 225 and found[0].probability > 0.45
    assert found[-1].space_group == 221 and found[-1].probability == pytest.approx(0.1)


def test_templates_of_its_own_formula_can_be_left_out(templates):
    units = formula_units_of("CsCl")
    config = BuildConfig(n_candidates=5, refiner=None, templates=templates)
    fair = polymorphs(units, config, model=False, excluded={"Cl1Cs1"})
    assert {one.space_group for one in fair} == {225}
    knowing = polymorphs(units, config, model=False)
    assert {one.space_group for one in knowing} == {225, 221}


def test_energies_are_none_where_nothing_was_learned():
    energies = energies_of([SALTS[0], salt(11, 17, 20.0), salt(110, 111, 5.6)])
    assert energies[0] == pytest.approx(-2.1, abs=0.2) and energies[1:] == [None, None]
    assert energies_of([]) == []


@pytest.mark.parametrize(
    ("formula", "options", "error", "words"),
    [
        ("salt", {}, InvalidSpace, "formula='salt': write symbols and whole numbers"),
        ("Xx2O", {}, InvalidSpace, "'Xx' is not an element"),
        ("NaCl", {"space_group": 231}, PlacementError, "space_group=231: space groups are numbered 1 to 230"),
        ("NaCl", {"space_group": 207}, PlacementError, r"space group 207 \(P432\) cannot hold .* at most 20 atoms"),
        ("TiO2", {"space_group": 136, "max_atoms": 5}, PlacementError, "cannot hold .* at most 5 atoms"),
        ("Na20Cl", {}, PlacementError, "no space group holds Na20Cl with at most 20 atoms"),
        ("NaCl", {"max_atoms": 1}, PlacementError, "no space group holds .* at most 1 atoms"),
        ("NaCl", {"n": 0}, PlacementError, "n=0"),
        ("NaCl", {"draws": 0}, PlacementError, "draws=0"),
        ("NaCl", {"max_atoms": 40}, PlacementError, "max_atoms=40: the primitive cell may have 1 to 20"),
        ("K2O", {}, PlacementError, "no template has the counts of K2O|no template"),
    ],
)
def test_what_cannot_be_predicted(templates, formula, options, error, words):
    with pytest.raises(error, match=words):
        cg.predict(formula, refiner=None, templates=templates, **options)


def test_something_must_make_structures():
    with pytest.raises(PlacementError, match="refiner=None and templates=None"):
        cg.predict("NaCl", refiner=None)


def test_the_shipped_model_is_used():
    pairs = probable(formula_units_of("NaCl"))
    chances = PolymorphModel.shipped().log_chances([formula_units_of("NaCl")])[0]
    assert np.log(pairs[0].probability) == pytest.approx(chances.max(), abs=1e-4)
