"""Plausibility: of a structure as such, whatever its description; learned from draws; kept in a file."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from crystalgfn.crystallography.orbit_batch import OrbitBatch, bucket_by_size
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.errors import CheckpointError
from crystalgfn.structures.ranking.reranker import Plausibility
from crystalgfn.structures.refiner.network import ScoreNetwork
from crystalgfn.structures.sources.templates import Templates
from scripts.maintain import fit_plausibility

RUTILE = OrbitStructure(136, (4.6, 4.6, 2.96, 90.0, 90.0, 90.0), (Orbit("a", 22), Orbit("f", 8, (0.305, 0.305, 0.0))))
SALT = OrbitStructure(225, (5.64, 5.64, 5.64, 90.0, 90.0, 90.0), (Orbit("a", 11), Orbit("b", 17)))


@pytest.fixture
def model():
    torch.manual_seed(3)
    return Plausibility(ScoreNetwork(16, 2, 6, 2, 4.0)).eval()


def test_it_does_not_depend_on_what_else_is_in_the_batch(model, random_orbits):
    together = model.of(random_orbits[:40])
    alone = torch.cat([model.of([structure]) for structure in random_orbits[:40]])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert together.std() > 1e-4


def test_another_origin_is_the_same_structure(model):
    moved = replace(RUTILE, orbits=(Orbit("b", 22), Orbit("f", 8, (0.195, 0.195, 0.0))))  # by half of c
    other = replace(RUTILE, orbits=(Orbit("a", 22), Orbit("f", 8, (0.12, 0.12, 0.0))))
    one, same, different = model.of([RUTILE, moved, other]).tolist()
    assert abs(one - same) < 0.01 * abs(one - different)


def test_what_is_right_is_learned():
    """Salts whose anion is where it should be, beside those with the elements of two others exchanged."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    data = []
    for a in rng.uniform(4.0, 7.0, 60).tolist():
        cell = (4.6, 4.6, a * 0.6, 90.0, 90.0, 90.0)
        drawn = [replace(RUTILE, lattice=cell, orbits=(Orbit("a", 22), Orbit("f", 8, (x, x, 0.0)))) for x in (0.3, 0.2)]
        data.append(fit_plausibility.Example(drawn, np.array([1.0, 0.003])))
    fitted = fit_plausibility.fit(data, Plausibility(ScoreNetwork(16, 2, 6, 2, 4.0)), epochs=12, lr=3e-3)
    scores = fitted.of([s for example in data for s in example.structures]).reshape(-1, 2)
    assert (scores[:, 0] > scores[:, 1]).all() and not any(p.requires_grad for p in fitted.parameters())


def test_draws_are_of_the_crystal_and_the_right_ones_are_known(small_refiner):
    crystals = [RUTILE, SALT]
    for lattice in ("keep", "generate"):
        for crystal, example in zip(
            crystals,
            fit_plausibility.examples(crystals, small_refiner(None if lattice == "keep" else 4.0), lattice),
            strict=True,
        ):
            assert len(example.structures) == len(example.right) >= 2
            for structure in example.structures:
                assert structure.space_group == crystal.space_group and structure.composition == crystal.composition
                assert (structure.lattice == crystal.lattice) == (lattice == "keep")
            right = example.right.tolist()
            exact = [r for s, r in zip(example.structures, right, strict=True) if s == crystal]
            assert exact == [1.0] * len(exact) and all(0 < r <= 1 for r in right)
    salt = fit_plausibility.examples([SALT], small_refiner(), "keep")[0]
    assert salt.structures.count(SALT) == fit_plausibility.OWN


def test_all_candidates_where_no_cell_is_known(small_refiner):
    """Templates are among them, but none of the crystal's own formula and group."""
    tin = replace(RUTILE, lattice=(4.74, 4.74, 3.19, 90.0, 90.0, 90.0), orbits=(Orbit("a", 50), *RUTILE.orbits[1:]))
    templates = Templates(Prototypes.of([RUTILE, tin]))
    (example,) = fit_plausibility.among_candidates([RUTILE], small_refiner(), templates, draws=6)
    assert len(example.structures) == len(example.right) >= 2 and all(0 < r <= 1 for r in example.right)
    assert all(s.space_group == 136 and s.composition == RUTILE.composition for s in example.structures)
    near = [s for s in example.structures if abs(s.lattice[2] / s.lattice[0] - 3.19 / 4.74) < 0.1]
    assert near and all(s.lattice != RUTILE.lattice for s in example.structures)
    (alone,) = fit_plausibility.among_candidates([RUTILE], small_refiner(), Templates(Prototypes.of([RUTILE])), draws=6)
    assert len(alone.structures) <= 6  # its own entry is no template


def test_an_example_teaches_if_there_is_right_and_wrong():
    assert fit_plausibility.Example([RUTILE, SALT], np.array([0.9, 0.1])).teaches
    assert not fit_plausibility.Example([RUTILE, SALT], np.array([0.9, 0.8])).teaches
    assert not fit_plausibility.Example([], np.array([])).teaches


def test_weights_are_saved_and_read(model, tmp_path):
    file = model.save(tmp_path / "plausibility.safetensors")
    torch.testing.assert_close(Plausibility.load(file).of([RUTILE]), model.of([RUTILE]), rtol=1e-2, atol=1e-2)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="damaged"):
        Plausibility.load(file)


def test_the_shipped_weights_prefer_real_structures():
    wrong = replace(RUTILE, orbits=(Orbit("a", 8), Orbit("f", 22, (0.305, 0.305, 0.0))))  # O Ti2
    real, other = Plausibility.shipped().of(
        [RUTILE, replace(RUTILE, orbits=(Orbit("a", 22), Orbit("g", 8, (0.2, 0.8, 0.0))))]
    )
    assert real != other and torch.isfinite(Plausibility.shipped().of([wrong])).all()
    crowded = replace(RUTILE, orbits=(Orbit("a", 22), Orbit("f", 8, (0.15, 0.15, 0.0))))
    assert Plausibility.shipped().of([RUTILE])[0] > Plausibility.shipped().of([crowded])[0] + 1


def test_gradients_reach_the_body(model, random_orbits):
    model.train()(OrbitBatch.of(random_orbits[:8])).sum().backward()
    assert all(layer.target.weight.grad.abs().sum() > 0 for layer in model.body.layers)


def test_parts_hold_every_structure_once(random_orbits):
    parts = list(bucket_by_size(random_orbits, range(50), "cpu"))
    assert sorted(row for part in parts for row in part) == list(range(50))
