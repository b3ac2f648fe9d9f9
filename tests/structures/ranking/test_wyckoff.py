"""The model of Wyckoff assignments: probabilities over all realisable ones."""

import numpy as np
import pytest
import torch

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.enumeration import assignments, representative
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.errors import CheckpointError
from crystalgfn.structures.ranking.wyckoff import WyckoffModel, WyckoffSite, site_symmetry
from scripts.maintain.fit_wyckoff_prior import Example, cross_entropy, examples, fit, join, real_assignment

PEROVSKITE = np.array([3.905, 3.905, 3.905, 90, 90, 90])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return WyckoffModel().eval()


@pytest.mark.parametrize("lattice", [None, PEROVSKITE])
def test_probabilities_are_over_all_assignments(model, lattice):
    counts = {"Sr": 1, "Ti": 1, "O": 3}
    ranked = model.rank(221, counts, lattice, n=10_000)
    found, whole = assignments(221, (1, 1, 3))
    assert whole and len(ranked) == len(found)
    assert {tuple(a[s] for s in ("Ti", "Sr", "O")) for a, _ in ranked} == set(found)
    assert sum(p for _, p in ranked) == pytest.approx(1)
    assert [p for _, p in ranked] == sorted((p for _, p in ranked), reverse=True)
    assert model.rank(221, counts, lattice, n=2) == ranked[:2]


def test_elements_with_equal_counts_are_exchanged_with_their_order(model):
    """The order in which elements are given says nothing."""
    one = model.rank(221, {"Sr": 1, "Ti": 1, "O": 3}, PEROVSKITE)
    other = model.rank(221, {"O": 3, "Ti": 1, "Sr": 1}, PEROVSKITE)

    def by_choice(ranked):
        symbols = ("Sr", "Ti", "O")
        return {representative(221, [a[s] for s in symbols]): round(p, 6) for a, p in ranked}

    assert by_choice(one) == by_choice(other)


def test_no_assignment(model):
    assert model.rank(225, {"Na": 1, "Cl": 1, "O": 1}) == []


def test_site_symmetries_have_the_order_of_their_positions():
    for number in range(1, 231):
        for position, types in zip(space_groups.WYCKOFF[number - 1], site_symmetry(number), strict=True):
            assert types.sum() * position.primitive_multiplicity == space_groups.POINT_GROUP_ORDER[number - 1]
            assert types[0] == 1


def test_room_on_fixed_positions_is_by_hand():
    site = WyckoffSite(221, (38, 22, 8), (1, 1, 3), PEROVSKITE)
    room = site.room
    from crystalgfn.crystallography.elements import RADIUS

    smallest, like, unlike = room.assignment((("a",), ("b",), ("c",)))
    ti_o = 3.905 / 2 / (RADIUS[21] + RADIUS[7])
    sr_ti = 3.905 * 3**0.5 / 2 / (RADIUS[37] + RADIUS[21])
    assert smallest == pytest.approx(min(ti_o, sr_ti)) and unlike == pytest.approx(ti_o)
    assert like == pytest.approx(min(sr_ti, 3.905 / 2**0.5 / (2 * RADIUS[7]), 3.905 / (2 * RADIUS[37])))
    assert room.own(0, "a") == pytest.approx(3.905 / (2 * RADIUS[37]))


def perovskite(a, b, x, edge):
    orbits = (Orbit("a", a), Orbit("b", b), Orbit("c", x))
    return OrbitStructure(221, (edge, edge, edge, 90.0, 90.0, 90.0), orbits)


def test_fitting_finds_which_element_goes_where():
    """Alkaline earths on the corner, transition metals in the middle of the octahedron."""
    pairs = [(a, b) for a in (20, 38, 56, 12) for b in (22, 40, 72, 50, 23, 41)]
    parts = examples([perovskite(a, b, 8, 3.9 + 0.01 * (a + b) % 0.3) for a, b in pairs if (a, b) != (38, 22)])
    assert all(len(p.batch.owner) >= 2 for p in parts)
    model = fit(parts * 12, epochs=8, held=0.0)
    chosen, chance = model.rank(221, {"Ti": 1, "O": 3, "Sr": 1}, PEROVSKITE, n=1)[0]
    symbols = ("Sr", "Ti", "O")
    assert representative(221, [chosen[s] for s in symbols]) == representative(221, [["a"], ["b"], ["c"]])
    assert chance > 0.5


def test_a_real_assignment_is_among_those_enumerated():
    site, letters = real_assignment(perovskite(38, 22, 8, 3.9))
    assert site.counts == (1, 1, 3) and letters in assignments(221, site.counts)[0]


def test_hidden_lattices_leave_no_trace():
    """Without their lattices, two crystals that differ only in these look the same."""
    one, other = (examples([perovskite(38, 22, 8, edge)])[0] for edge in (3.9, 4.4))
    hidden = [join([part], torch.tensor([True]))[0] for part in (one, other)]
    for name in ("orbit_features", "assignment_features", "crystal_features"):
        assert torch.equal(getattr(hidden[0], name), getattr(hidden[1], name))
    shown = [join([part], torch.tensor([False]))[0] for part in (one, other)]
    assert not torch.equal(shown[0].crystal_features, shown[1].crystal_features)


def test_hidden_is_the_same_as_unknown(model):
    from crystalgfn.structures.ranking.wyckoff import collate_assignments

    site, truth = real_assignment(perovskite(38, 22, 8, 3.9))
    unknown = WyckoffSite(site.space_group, site.species, site.counts, None)
    found = assignments(221, site.counts)[0]
    hidden = join([Example(collate_assignments([(site, found)]), 0)], torch.tensor([True]))[0]
    plain = collate_assignments([(unknown, found)])
    assert torch.allclose(model(hidden)[0], model(plain)[0])


def test_cross_entropy_by_hand():
    scores, owner = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0, 0, 1])
    loss = cross_entropy(scores, owner, torch.tensor([1, 2]))
    assert loss.tolist() == pytest.approx([np.log(1 + np.e), 0.0], abs=1e-6)


def test_weights_survive_their_file(model, tmp_path):
    model.save(tmp_path / "weights.safetensors")
    again = WyckoffModel.load(tmp_path / "weights.safetensors")
    one, other = (m.rank(221, {"Sr": 1, "Ti": 1, "O": 3}, PEROVSKITE) for m in (model, again))
    assert [p for _, p in one] == pytest.approx([p for _, p in other], abs=1e-3)
    (tmp_path / "bad.safetensors").write_text("x")
    with pytest.raises(CheckpointError, match="holds no model of Wyckoff letters"):
        WyckoffModel.load(tmp_path / "bad.safetensors")


def test_learned_letters_are_placed_in_their_order(model, monkeypatch, make_crystals):
    """With more candidates than the most probable assignment has structures, the next ones follow."""
    from crystalgfn.structures.build import build_structures

    monkeypatch.setattr(WyckoffModel, "shipped", staticmethod(lambda: model))
    lattice = tuple(PEROVSKITE.tolist())
    crystals = make_crystals((221, {"Sr": 1, "Ti": 1, "O": 3}, lattice))
    ranked = model.rank(221, {"Sr": 1, "Ti": 1, "O": 3}, PEROVSKITE)
    result = build_structures(crystals, refiner=None, n_candidates=2, assignment="learned")[0]
    symbols = ("Sr", "Ti", "O")

    def choice(letters):
        return representative(221, [letters[s] for s in symbols])

    assert len(result.candidates) == 2
    assert choice(result.wyckoff) in {choice(a) for a, _ in ranked}


def test_unknown_ways_to_choose_letters_are_refused(make_crystals):
    from crystalgfn.errors import PlacementError
    from crystalgfn.structures.build import build_structures

    crystals = make_crystals((225, {"Na": 1, "Cl": 1}, (5.64, 5.64, 5.64, 90.0, 90.0, 90.0)))
    with pytest.raises(PlacementError, match="invalid assignment='clever'; expected one of random, learned"):
        build_structures(crystals, refiner=None, assignment="clever")
