"""The same and not the same: duplicates, turned and enlarged copies, polymorphs, exchanged elements, disorder."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.atoms import record_of
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.evaluation.metrics import novelty
from crystalgfn.evaluation.metrics.compositions import amounts
from crystalgfn.evaluation.metrics.novelty import anonymous_key, comparison_tasks, formula_key, gather_matches
from crystalgfn.evaluation.reference import Entry


def crystal(group, cell, **letters) -> Structure:
    """Atoms on Wyckoff positions: letter -> (symbol, free parameters)."""
    orbits = [Orbit(k, elements.NUMBER[v[0]], v[1] if len(v) > 1 else (0.0, 0.0, 0.0)) for k, v in letters.items()]
    return OrbitStructure(group, cell, tuple(orbits)).to_structure()


def cubic(group, edge, **letters) -> Structure:
    return crystal(group, (edge, edge, edge, 90.0, 90.0, 90.0), **letters)


def salt(a=5.64, one="Na", other="Cl"):
    return cubic(225, a, a=(one,), b=(other,))


def turned(structure):
    """In another primitive cell, rotated in space, its origin moved."""
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    cell = np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]]) @ structure.lattice.matrix
    points = structure.cart_coords + [0.3, 1.1, -0.4]
    return Structure(Lattice(cell @ turn), structure.species, points @ turn, coords_are_cartesian=True)


CAESIUM = cubic(221, 3.4, a=("Na",), b=("Cl",))
MIXED = salt(4.16, "Li", "O")
MIXED.replace_species({"Li": {"Li": 0.5, "Fe": 0.5}})
HEXAGONAL = (90.0, 90.0, 120.0)
# The same rock salt with lithium and iron in turns.
LAYERED = crystal(166, (2.942, 2.942, 14.41, *HEXAGONAL), a=("Li",), b=("Fe",), c=("O", (0.0, 0.0, 0.25)))


def entry(structure, where="", group=0) -> Entry:
    return Entry(
        where=where,
        amounts=tuple(amounts(structure).items()),
        ordered=structure.is_ordered,
        group=group,
        origin=record_of(where, structure),
    )


def matches(samples, known=(), swap=False):
    others = [entry(s, f"known {i}") for i, s in enumerate(known)]
    found = comparison_tasks({i: entry(s) for i, s in enumerate(samples)}, others, swap)
    return gather_matches([task.run() for task in found])


def test_duplicates_and_polymorphs():
    samples = [salt(), CAESIUM, turned(salt()), salt() * [2, 1, 1], turned(CAESIUM * [1, 1, 2]), salt(4.2, "Mg", "O")]
    assert matches(samples).duplicate_of == {2: 0, 3: 0, 4: 1}


def test_known_and_new():
    found = matches([turned(salt(5.7)), CAESIUM, salt(4.2, "Mg", "O")], [salt(4.2, "Mg", "O"), salt() * 2])
    assert found.known_as == {0: "known 1", 2: "known 0"} and not found.duplicate_of


def test_a_stretched_copy_is_another_crystal():
    stretched = salt()
    stretched.apply_strain([0.0, 0.0, 0.5])
    assert not matches([salt(), stretched]).duplicate_of


def test_exchanged_elements():
    samples = [salt(), salt(4.2, "Mg", "O"), CAESIUM, turned(salt())]
    plain, swapped = matches(samples), matches(samples, [salt(6.3, "K", "F")], swap=True)
    assert plain.duplicate_of == {3: 0} and plain.known_as == {}
    assert swapped.duplicate_of == {3: 0} and swapped.swap_duplicate_of == {1: 0, 3: 0}
    assert swapped.swap_known_as == {0: "known 0", 1: "known 0", 3: "known 0"} and not swapped.known_as


def test_an_ordered_version_of_a_disordered_crystal_is_known():
    found = matches([LAYERED, turned(LAYERED), MIXED], [MIXED])
    assert found.known_as == {0: "known 0", 1: "known 0", 2: "known 0"}
    assert found.duplicate_of == {1: 0, 2: 0}  # the mixed one is an average of the first
    other = LAYERED.copy()
    other.replace_species({"Fe": "Co"})
    blende = cubic(216, 4.5, a=("Li",), c=("O",))
    blende.replace_species({"Li": {"Li": 0.5, "Fe": 0.5}})
    assert not matches([other], [MIXED]).known_as and not matches([LAYERED], [blende]).known_as


def test_a_vacancy_is_a_partially_occupied_site():
    full = crystal(166, (2.82, 2.82, 14.1, *HEXAGONAL), a=("Li",), b=("Co",), c=("O", (0.0, 0.0, 0.25)))
    half = full.copy()
    half.replace_species({"Li": {"Li": 0.5}})
    ordered = full.get_primitive_structure() * [2, 1, 1]
    ordered.remove_sites([next(i for i, site in enumerate(ordered) if site.specie.symbol == "Li")])
    assert ordered.composition.reduced_formula == "Li(CoO2)2"
    assert matches([ordered], [half]).known_as == {0: "known 0"}
    assert not matches([full], [half]).known_as  # another composition


def test_structures_are_built_only_where_a_bucket_is_shared(monkeypatch):
    built = []

    class Counted(Entry):
        def structure(self):
            built.append(self.where)
            return super().structure()

    same = record_of("", salt())
    known = [
        Counted(where=f"known {i}", amounts=((11, 4.0), (z, 4.0)), ordered=True, group=0, origin=same)
        for i, z in enumerate([17, 9, 35] * 100)
    ]
    found = comparison_tasks({0: entry(salt())}, known)
    assert [len(task.known) for task in found] == [100]
    assert gather_matches([task.run() for task in found]).known_as == {0: "known 0"}
    assert built == ["known 0"]  # and no further than the first that matches


def test_the_likeliest_come_first():
    known = [entry(CAESIUM, "other", 221), entry(salt(), "same", 225)]
    (task,) = comparison_tasks({0: entry(salt(), group=225)}, known)
    assert task.run()["matches"] == [[0, "same"]]


def test_large_buckets_are_shared_out(monkeypatch):
    monkeypatch.setattr(novelty, "CHUNK", 2)
    found = comparison_tasks({i: entry(salt()) for i in range(5)}, [entry(salt(), "known")])
    assert [task.indices for task in found if task.known] == [(0, 1), (2, 3), (4,)]
    assert len({task.name for task in found}) == len(found) == 4


@pytest.mark.parametrize(("pairs", "formula", "anonymous"), [
    (((8, 4.0), (26, 2.0), (3, 2.0)), "Fe1Li1O2", "1-1-2"),
    (((11, 4.0),), "Na1", "1"),
    (((1, 6.0), (6, 2.0)), "C1H3", "1-3"),
])  # fmt: skip
def test_keys(pairs, formula, anonymous):
    assert formula_key(pairs) == formula and anonymous_key(pairs) == anonymous
