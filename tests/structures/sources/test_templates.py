"""Templates: the nearest real crystals whose positions others may take."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from crystalgfn.crystallography.atoms import atoms_of
from crystalgfn.crystallography.convert import orbit_structure
from crystalgfn.crystallography.distances import fault
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.structures.build import build_from_wyckoff, build_structures
from crystalgfn.structures.sources.base import PlacementRequest
from crystalgfn.structures.sources.template_distance import Ranking, exchanges, told_apart
from crystalgfn.structures.sources.templates import Templates
from scripts.maintain.fit_template_distance import compare, fit, losses, save, unfitted


def crystal(number, lattice, species, points, shift=(0, 0, 0)):
    structure = Structure.from_spacegroup(number, Lattice.from_parameters(*lattice), species, points)
    structure.translate_sites(list(range(len(structure))), list(shift))
    return orbit_structure(atoms_of("here", structure))


def perovskite(a, b, x, edge, shift=(0, 0, 0)):
    return crystal(221, (edge, edge, edge, 90, 90, 90), [a, b, x], [[0] * 3, [0.5] * 3, [0.5, 0.5, 0]], shift)


@pytest.fixture(scope="module")
def index():
    return Prototypes.of(
        [
            perovskite("Ba", "Ti", "O", 4.0),
            perovskite("Ca", "Zr", "O", 4.1, shift=(0.5, 0.5, 0.5)),
            perovskite("Cs", "Pb", "Br", 5.9),
            crystal(225, (5.6, 5.6, 5.6, 90, 90, 90), ["Na", "Cl"], [[0] * 3, [0.5] * 3]),
            crystal(
                62,
                (9.0, 5.5, 6.9, 90, 90, 90),
                ["Pb", "S", "O"],
                [[0.19, 0.25, 0.17], [0.06, 0.25, 0.68], [0.1, 0.5, 0.1]],
            ),
        ]
    )


@pytest.fixture(scope="module")
def templates(index):
    return Templates(index, unfitted())


def matches(structure, truth, **tolerances):
    return StructureMatcher(scale=False, **tolerances).fit(structure.to_structure(), truth.to_structure())


def test_a_perovskite_is_found_in_its_own_cell(templates):
    """Elements with equal counts (Sr, Ti) go where similar ones are, whatever the template's origin."""
    truth = perovskite("Sr", "Ti", "O", 3.905)
    found = templates.find(221, {"O": 3, "Ti": 1, "Sr": 1}, np.array(truth.lattice), 5)
    assert matches(found[0].structure, truth, stol=0.01)
    assert found[0].structure.lattice == pytest.approx(truth.lattice)
    exchanged = perovskite("Ti", "Sr", "O", 3.905)  # the other permutation of Sr and Ti comes after it
    assert any(matches(t.structure, exchanged, stol=0.01) for t in found[1:])
    assert [t.probability for t in found] == sorted((t.probability for t in found), reverse=True)
    assert sum(t.probability for t in found) == pytest.approx(1)


def test_templates_at_another_origin_are_one_structure(templates):
    """BaTiO3 and CaZrO3 are listed with Ba on a and Ca on b; they are one structure with the votes of both."""
    found = templates.find(221, {"Sr": 1, "Zr": 1, "O": 3}, np.array([4.1, 4.1, 4.1, 90, 90, 90]), 20)
    assert len(found) == 2


def test_without_a_cell_that_of_the_template_is_scaled(templates):
    found = templates.find(225, {"K": 1, "Br": 1}, None, 1)[0]
    a = found.structure.lattice[0]
    assert found.structure.lattice == pytest.approx((a, a, a, 90, 90, 90))
    assert found.structure.wyckoff() in ({"K": ["a"], "Br": ["b"]}, {"K": ["b"], "Br": ["a"]})


def test_the_order_of_elements_does_not_matter(templates):
    cell = np.array([3.9, 3.9, 3.9, 90, 90, 90])
    one = templates.find(221, {"O": 3, "Ti": 1, "Sr": 1}, cell, 5)
    other = templates.find(221, {"Sr": 1, "O": 3, "Ti": 1}, cell, 5)
    assert [(t.structure, t.row) for t in one] == [(t.structure, t.row) for t in other]


def test_axes_of_a_template_are_exchanged_to_suit_the_cell(index):
    """In Pmmm axes are ordered by length, so a slightly different cell is described with other axes."""
    lattice = (4.0, 4.2, 7.0, 90, 90, 90)
    source = crystal(47, lattice, ["Y", "Cu", "O"], [[0.5, 0.5, 0.5], [0, 0, 0], [0, 0.5, 0]])
    alone = Templates(Prototypes.of([source]), unfitted())
    wanted = crystal(47, (4.25, 4.05, 7.0, 90, 90, 90), ["Y", "Cu", "O"], [[0.5, 0.5, 0.5], [0, 0, 0], [0, 0.5, 0]])
    found = alone.find(47, {"Y": 1, "Cu": 1, "O": 1}, np.array(wanted.lattice), 12)
    assert wanted.lattice[:2] == pytest.approx((4.05, 4.25))
    assert any(matches(t.structure, wanted, stol=0.005, ltol=0.005) for t in found)
    assert len(found) > 1 and any(not matches(t.structure, wanted, stol=0.005, ltol=0.005) for t in found)


def test_what_is_found_passes_the_checks(templates):
    for t in templates.find(62, {"Ba": 4, "S": 4, "Se": 8}, np.array([9.2, 5.9, 7.5, 90, 90, 90]), 5):
        assert fault(t.structure) is None
    # in a flat cell anions come closer than 0.5 Å, so nothing is offered
    assert templates.find(221, {"Sr": 1, "Ti": 1, "O": 3}, np.array([0.6, 0.6, 0.6, 90, 90, 90]), 5) == []


def test_no_template(templates):
    assert templates.find(221, {"Sr": 1, "Ti": 2}, np.array([4, 4, 4, 90, 90, 90.0])) == []
    only = templates.find(225, {"Na": 1, "Cl": 1}, without=[("Cl1Na1", 225)])
    assert only == []


def test_letters_restrict_templates(templates):
    cell = np.array([3.9, 3.9, 3.9, 90, 90, 90])
    found = templates.find(221, {"Sr": 1, "Ti": 1, "O": 3}, cell, 5, letters={"Sr": ["b"], "Ti": ["a"], "O": ["d"]})
    assert len(found) == 1 and matches(found[0].structure, perovskite("Sr", "Ti", "O", 3.9), stol=0.01)
    assert templates.find(221, {"Sr": 1, "Ti": 1, "O": 3}, cell, 5, letters={"Sr": ["a"], "Ti": ["b"], "O": ["d"]})


def test_probabilities_of_clusters_sum_to_one(templates):
    members = templates.family(221, (1, 1, 3))
    scores = templates.scores(members, np.array([22, 38, 8]), 221, None)
    assert scores.shape == (3, 2)
    assert sum(c.weight for cluster in told_apart(members, scores) for c in cluster) == pytest.approx(1)


def test_permutations_keep_counts():
    assert exchanges((1, 2, 2)).tolist() == [[0, 1, 2], [0, 2, 1]]
    assert len(exchanges((1, 1, 1, 4))) == 6


def test_build_structures_takes_templates_first(templates, make_crystals):
    crystals = make_crystals(
        (221, {"Sr": 1, "Ti": 1, "O": 3}, (3.905, 3.905, 3.905, 90.0, 90.0, 90.0)),
        (136, {"Ti": 2, "O": 4}, (4.59, 4.59, 2.96, 90.0, 90.0, 90.0)),
    )
    first, second = build_structures(crystals, refiner=None, n_candidates=3, templates=templates)
    assert matches_structure(first.structure, perovskite("Sr", "Ti", "O", 3.905))
    assert second.structure is not None and second.error is None  # no template: placed
    matcher = StructureMatcher(scale=False, stol=0.01)
    for i, one in enumerate(first.candidates):
        assert not any(matcher.fit(one, other) for other in first.candidates[:i])
    letters = [{"Sr": ["a"], "Ti": ["b"], "O": ["c"]}, {"Ti": ["a"], "O": ["f"]}]
    given = build_from_wyckoff(crystals, letters, refiner=None, templates=templates)
    assert matches_structure(given[0].structure, perovskite("Sr", "Ti", "O", 3.905))
    assert given[1].wyckoff == letters[1]


def matches_structure(structure, truth):
    return StructureMatcher(scale=False, stol=0.01).fit(structure, truth.to_structure())


def test_shipped_prototypes_of_aflow(make_crystals):
    """Half-Heusler and spinel are among AFLOW's prototypes, so they are right at the first try."""
    crystals = make_crystals((227, {"Mg": 2, "Al": 4, "O": 8}, (8.08, 8.08, 8.08, 90.0, 90.0, 90.0)))
    found = build_structures(crystals, refiner=None, templates="aflow")[0].structure
    spinel = Structure.from_spacegroup(
        227, Lattice.cubic(8.08), ["Mg", "Al", "O"], [[0] * 3, [5 / 8] * 3, [0.3874] * 3]
    )
    assert StructureMatcher(scale=False, stol=0.1).fit(found, spinel)


def test_fitting_raises_the_probability_of_the_right_templates():
    """Which of two elements is in the middle is decided here by arbitrary sets of elements; fitting finds them out."""
    middle, corner = ("Li", "Sc", "Ga", "Ba", "Pb", "Y"), ("K", "Ti", "In", "Ca", "Sn", "La")
    rows = [perovskite(a, b, "O", 4.0) for a in corner for b in middle]
    pairs = compare(Prototypes.of(rows), 100)
    start = Templates(Prototypes.of(rows), unfitted())
    fitted = Templates(start.index, fit(pairs, epochs=30, held=0.0))
    chances = []
    for templates in (start, fitted):
        found = templates.find(221, {"Sc": 1, "Sn": 1, "O": 3}, None, 2, without=[("O3Sc1Sn1", 221)])
        right = [
            t for t in found if matches(t.structure, perovskite("Sn", "Sc", "O", t.structure.lattice[0]), stol=0.01)
        ]
        chances.append(sum(t.probability for t in right))
    assert chances[1] > chances[0] + 0.1


def test_losses_by_hand():
    from scripts.maintain.fit_template_distance import Comparisons

    owner, same = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([True, False, False, True, True])
    none = torch.zeros(5, 8)
    batch = Comparisons(owner, none.long(), none.long(), none, none, torch.zeros(5), torch.zeros(5), same)
    loss, hit = losses(torch.tensor([1.0, 0.0, 2.0, 0.0, 1.0]), batch)
    e = np.exp
    assert loss.tolist() == pytest.approx([-np.log(e(1) / (e(1) + 1)), -np.log((1 + e(1)) / (e(2) + 1 + e(1)))])
    assert hit.tolist() == [True, False]


def test_weights_survive_their_file(tmp_path):
    ranking = unfitted()
    save(ranking, tmp_path / "weights.safetensors")
    again = Ranking.load(tmp_path / "weights.safetensors")
    assert np.allclose(again.distance, ranking.distance, atol=1e-5)
    assert Ranking.shipped().embedding.shape[0] == 118


def test_what_is_known_is_not_proposed_again(templates):
    truth = perovskite("Sr", "Ti", "O", 3.905)
    request = PlacementRequest(space_group=221, counts={"O": 3, "Ti": 1, "Sr": 1}, lattice=truth.lattice)
    (first,) = templates.propose([request], 1)
    (second,) = templates.propose([replace(request, known=first.structures)], 5)
    assert len(first.structures) == 1 and second.structures
    assert not any(matches(one, first.structures[0], stol=0.01) for one in second.structures)
