"""The model of polymorphs: probabilities over the groups and cells that can be, with templates and without."""

import numpy as np
import pytest
import torch

from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.crystallography.realizable import MAX_ATOMS, realisable
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.errors import CheckpointError
from crystalgfn.structures.ranking.polymorphs import (
    N_FEATURES,
    WEIGHTS,
    Mixture,
    Neighbours,
    PolymorphModel,
    collate_polymorphs,
    possible,
)
from scripts.maintain.fit_polymorph_prior import examples, figures, fit, loss_of, split
from scripts.maintain.fit_template_distance import unfitted

NACL, SRTIO3 = {11: 1, 17: 1}, {38: 1, 22: 1, 8: 3}


def salt(cation, anion, a=5.6):
    return OrbitStructure(225, (a, a, a, 90.0, 90.0, 90.0), (Orbit("a", cation), Orbit("b", anion)))


def caesium_chloride(cation, anion, a=4.1):
    return OrbitStructure(221, (a, a, a, 90.0, 90.0, 90.0), (Orbit("a", cation), Orbit("b", anion)))


def rutile(cation, anion, a=4.6):
    orbits = (Orbit("a", cation), Orbit("f", anion, (0.305, 0.0, 0.0)))
    return OrbitStructure(136, (a, a, 0.64 * a, 90.0, 90.0, 90.0), orbits)


@pytest.fixture(scope="module")
def index():
    salts = [salt(c, x) for c in (3, 11, 19) for x in (9, 17, 35)]
    others = [caesium_chloride(55, x) for x in (17, 35, 53)]
    return Prototypes.of([*salts, *others, *(rutile(c, 8) for c in (22, 50, 25, 14))])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return PolymorphModel().eval()


@pytest.mark.parametrize("units", [NACL, SRTIO3, {6: 1}, {3: 1, 11: 1, 19: 1, 9: 1, 17: 1, 35: 2}])
@pytest.mark.parametrize("max_atoms", [20, 7])
def test_probabilities_are_over_what_can_be_realised(model, units, max_atoms):
    chances = np.exp(model.log_chances([units], max_atoms)[0])
    assert chances.shape == (230, MAX_ATOMS)
    assert chances.sum() == pytest.approx(1, abs=1e-5)
    for group in (1, 2, 62, 136, 221, 225):
        for several in range(1, MAX_ATOMS + 1):
            counts = tuple(several * n for n in units.values())
            can = sum(counts) <= max_atoms and realisable(group, counts)
            assert (chances[group - 1, several - 1] > 0) == can


def test_the_order_of_the_elements_says_nothing(model):
    other = dict(reversed(SRTIO3.items()))
    assert np.array_equal(model.log_chances([SRTIO3]), model.log_chances([other]))


def test_what_is_too_large_for_any_cell():
    assert not possible((1, 20)).any()
    assert not possible((2, 7), max_atoms=8).any() and possible((2, 7), max_atoms=9).any()


def test_templates_of_all_groups(index):
    """KCl without its own: rock salts are nearer than caesium chloride, and other counts say nothing."""
    neighbours = Neighbours(index, unfitted())
    chances = np.exp(neighbours.log_chances({19: 1, 17: 1}, ["Cl1K1"]))
    assert chances.sum() == pytest.approx(1)
    assert chances[224, 0] > chances[220, 0] > 0 and chances[135].sum() == 0
    said = neighbours.features({19: 1, 17: 1}, ["Cl1K1"])
    assert said.shape == (230, MAX_ATOMS, N_FEATURES - 1) and np.isfinite(said).all()
    assert np.expm1(2 * said[224, 0, -1]) == pytest.approx(8)  # templates there
    assert np.expm1(2 * neighbours.features({19: 1, 17: 1})[224, 0, -1]) == pytest.approx(9)
    assert np.isneginf(neighbours.log_chances({19: 1, 17: 3})).all()
    assert np.isneginf(neighbours.log_chances({22: 1, 8: 2}, ["O2Ti1", "O2Sn1", "Mn1O2", "O2Si1"])).all()


def test_a_mixture_that_is_not_fitted_is_the_model(model, index):
    alone = model.log_chances([NACL])[0]
    mixed = Mixture().log_chances(alone, Neighbours(index, unfitted()).features(NACL))
    assert np.array_equal(np.isfinite(mixed), np.isfinite(alone))
    assert np.exp(mixed).sum() == pytest.approx(1)
    likely = alone > -13
    assert likely.any() and np.allclose(
        mixed[likely] - mixed[likely].max(), alone[likely] - alone[likely].max(), atol=1e-4
    )


def test_a_fit_lowers_the_loss(index):
    every = examples(index)
    assert len(every) == len(index)
    torch.manual_seed(0)
    untrained = PolymorphModel().eval()
    words = []
    fitted = fit(index, epochs=40, held=0.0, report=words.append)
    assert len(words) == 40 * len(fitted.members)

    def loss(model):
        with torch.no_grad():
            return float(torch.stack([loss_of(member, every).mean() for member in model.members]).mean())

    assert loss(fitted) < loss(untrained) - 0.5
    one, other = (fit(index, epochs=2, held=0.0) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_mixture_is_fitted_to_formulas_held_out(index):
    used, aside = split(examples(index).formulas, 0.25, seed=0)
    names = examples(index).formulas
    assert len(aside) == 4 and not set(names[used]) & set(names[aside])
    mixture = fit(index, epochs=2, held=0.25).mixture
    assert not torch.equal(mixture.linear.weight, Mixture().linear.weight)


def test_ranks_by_hand():
    chances = np.full((2, 230, MAX_ATOMS), -np.inf)
    chances[:, 0, 0], chances[:, 1, 0], chances[:, 1, 1] = np.log([0.4, 0.35, 0.25])[:, None]
    found = figures(chances, np.array([0, 5 * MAX_ATOMS]))
    assert (found["pair_1"], found["group_1"], found["group_5"]) == (0.5, 0.0, 0.5)  # group 2 has 0.6 in all


def test_saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "polymorphs.safetensors")
    again = PolymorphModel.load(tmp_path / "polymorphs.safetensors")
    batch = collate_polymorphs([SRTIO3])
    assert torch.nan_to_num(again(batch) - model(batch), nan=0.0).abs().max() < 0.05  # half precision
    (tmp_path / "other").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="no model of polymorphs"):
        PolymorphModel.load(tmp_path / "other")


def test_the_shipped_model_knows_common_structures():
    assert WEIGHTS.stat().st_size < 2e6
    model = PolymorphModel.shipped()
    for units, group in ((SRTIO3, 221), ({22: 1, 8: 2}, 136)):
        first = np.argsort(-model.log_chances([units])[0].ravel())[:3] // MAX_ATOMS + 1
        assert group in first
