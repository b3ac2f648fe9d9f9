"""One bad structure of a batch is one error in its place, and few steps of the refiner never end in an exception."""

import numpy as np
import pytest
import torch
from pymatgen.core import DummySpecies, Lattice, Structure

import crystalgfn as cg
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import InvalidCrystal, PlacementError

NAN, INF = float("nan"), float("inf")
CELL = (5.64, 5.64, 5.64, 90.0, 90.0, 90.0)
GOOD = Structure(Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def salt(second="Cl", at=0.5, edge=5.64):
    return Structure(Lattice.cubic(edge), ["Na", second], [[0, 0, 0], [at, 0.5, 0.5]])


@pytest.mark.parametrize("bad", [salt(at=NAN), salt(at=INF), salt(edge=1e160), salt(DummySpecies("X"))])
def test_numbers_that_are_not_finite_never_reach_spglib(bad):
    """Cases 02: the structure is named; in a process of its own this was a segmentation fault."""
    with pytest.raises(InvalidCrystal, match="structure 1"):
        Crystals.from_structures([GOOD, bad])


@pytest.mark.parametrize("symprec", [NAN, INF, -0.1])
def test_senseless_tolerances_are_refused(symprec):
    with pytest.raises(InvalidCrystal):
        Crystals.from_structures([GOOD], symprec=symprec)
    (result,) = cg.refine_structures([GOOD], steps=1, symprec=symprec)
    assert result.structure is None and result.error


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (salt(DummySpecies("X")), "X"),
        (salt(at=NAN), "number|finite"),
        (salt(edge=1e5), "cell|Å"),
        (salt(edge=1e-3), "cell|Å"),
        (Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}, "Cl"], [[0] * 3, [0.5] * 3]), "disordered"),
        (Structure(Lattice.cubic(4), [], []), "atoms"),
    ],
)
def test_one_bad_structure_is_one_error_of_refine_structures(bad, words):
    first, second, third = cg.refine_structures([GOOD, bad, GOOD], steps=2)
    assert first.error is None and third.error is None and first.structure is not None
    assert second.structure is None and second.candidates == [] and len(second.crystal) == 0
    assert any(word in second.error for word in words.split("|")), second.error


@pytest.mark.parametrize("refiner", [None, "default"])
@pytest.mark.parametrize(
    ("group", "lattice", "words"),
    [
        (
            225,
            (5.0, 6.0, 7.0, 90.0, 90.0, 90.0),
            "lattice 5, 6, 7, 90, 90, 90 is not one of the lattice system of space",
        ),
        (225, (NAN, 5.0, 5.0, 90.0, 90.0, 90.0), "nan, 5.0, 5.0, 90.0, 90.0, 90.0 is not a cell"),
        (225, (INF, INF, INF, 90.0, 90.0, 90.0), "is not a cell"),
        (225, (1e160, 1e160, 1e160, 90.0, 90.0, 90.0), "edges are from"),
        (225, (51234.0, 51234.0, 51234.0, 90.0, 90.0, 90.0), "edges are from"),
        (225, (-5.0, -5.0, -5.0, 90.0, 90.0, 90.0), "edges are from"),
        (1, (5.0, 5.0, 5.0, 120.0, 120.0, 120.0), "angles leave no volume"),
        (1, (5.0, 5.0, 5.0, 30.0, 90.0, 170.0), "angles leave no volume"),
        (231, CELL, "there is no space group 231"),
        (0, CELL, "there is no space group 0"),
    ],
)
def test_one_bad_lattice_is_one_error_of_build_structures(refiner, group, lattice, words):
    composition = torch.zeros(3, 118, dtype=torch.int64)
    composition[:, [10, 16]] = 1
    lattices = torch.tensor([CELL, lattice, CELL], dtype=torch.float64)
    crystals = Crystals(torch.tensor([225, group, 225]), composition, lattices)
    first, second, third = cg.build_structures(crystals, refiner=refiner, draws=2 if refiner else None, steps=1)
    assert first.error is None and third.error is None
    assert second.structure is None and words in second.error and "structure " not in second.error.split(":")[0]


def test_a_lattice_that_is_not_used_is_not_judged():
    composition = torch.zeros(1, 118, dtype=torch.int64)
    composition[0, [10, 16]] = 1
    wrong = torch.tensor([[NAN, 6.0, 7.0, 90.0, 90.0, 90.0]])
    (result,) = cg.build_structures(Crystals(torch.tensor([225]), composition, wrong), lattice="generate", draws=4)
    assert result.error is None and torch.isfinite(result.crystal.lattice).all()


@pytest.mark.parametrize(("formula", "steps"), [("H2", 2), ("H2", 1), ("LiH", 2)])
def test_few_steps_give_structures_or_say_why(formula, steps):
    """Case 34: draws whose cells ran away are left out."""
    try:
        found = cg.predict(formula, n=3, steps=steps, draws=4)
    except PlacementError as error:
        assert "the refiner gave no structure with a possible cell" in str(error)
    else:
        assert all(np.isfinite(one.structure.lattice.matrix).all() for one in found)


def test_the_process_survives_structures_that_are_not_finite(forks):
    program = """
import numpy as np, crystalgfn as cg
from pymatgen.core import Lattice, Structure
bad = Structure(Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [np.nan, 0.5, 0.5]])
try:
    cg.Crystals.from_structures([bad])
except cg.CrystalGFNError as error:
    print("refused:", error)
"""
    assert forks.run(program).startswith("refused: structure 0")


# ---- further instances: objects of another type, and numbers of atoms that no cell holds ----------------------------

SLAB = Structure(Lattice.cubic(5.64, pbc=(True, True, False)), ["Na"], [[0, 0, 0]])


@pytest.mark.parametrize("bad", [None, "Na1 Cl1", 3, SLAB, Structure(Lattice.cubic(5), ["Na"] * 2, [[0] * 3] * 2)])
def test_objects_that_are_no_crystals_are_one_error(bad):
    first, second, third = cg.refine_structures([GOOD, bad, GOOD], steps=1)
    assert first.error is None and third.error is None and second.structure is None and second.error
    with pytest.raises(InvalidCrystal, match="structure 1"):
        Crystals.from_structures([GOOD, bad])


def test_a_structure_that_is_no_list_is_refused():
    with pytest.raises(PlacementError, match="no list of structures"):
        cg.refine_structures(GOOD)
    with pytest.raises(InvalidCrystal, match="no list of structures"):
        Crystals.from_structures(GOOD)


@pytest.mark.parametrize("number", [10**9, 2**62, -1])
def test_numbers_of_atoms_that_no_cell_holds_end_at_once(number):
    composition = torch.zeros(2, 118, dtype=torch.int64)
    composition[:, [10, 16]] = torch.tensor([[1, 1], [number, number]])
    crystals = Crystals(torch.tensor([225, 225]), composition, torch.tensor([CELL, CELL], dtype=torch.float64))
    space = cg.CrystalSpace(elements=["Na", "Cl"], n_atoms=(2, 2))
    assert space.contains(crystals).tolist() == [True, False]
    (inside, outside) = space.explain(crystals)
    assert inside == [] and "number of atoms from 0 to 400" in outside[0]
    first, second = cg.build_structures(crystals, refiner=None)
    assert first.error is None and ("at most 1000 are placed" in second.error or "fewer than no atoms" in second.error)


@pytest.mark.parametrize(
    "given", [([225], [[1] * 118], [CELL]), (np.array([225]), np.ones((1, 118)), np.array([CELL]))]
)
def test_what_is_no_tensor_is_named(given):
    with pytest.raises(InvalidCrystal, match="made of tensors"):
        Crystals(*given)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"relax": "x"}, "relax is str 'x'; give True or False"),
        ({"seed": -2}, "seed=-2"),
        ({"templates": 3}, "templates is int '3'"),
        ({"n_candidates": 0}, "n_candidates=0"),
    ],
)
def test_options_of_another_type_are_named(options, words):
    composition = torch.zeros(1, 118, dtype=torch.int64)
    composition[0, [10, 16]] = 1
    crystals = Crystals(torch.tensor([225]), composition, torch.tensor([CELL]))
    with pytest.raises(PlacementError, match=words):
        cg.build_structures(crystals, refiner=None, **options)
