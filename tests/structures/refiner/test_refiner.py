"""The refiner as its users see it: what it keeps, what it moves, what it refuses."""

import numpy as np
import pytest

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure, cell_matrix
from crystalgfn.crystallography.standardize import conventional
from crystalgfn.crystallography.supergroups import count_operations, holohedry
from crystalgfn.errors import CheckpointError, PlacementError
from crystalgfn.structures.refiner.diffusion import Diffusion
from crystalgfn.structures.refiner.refiner import DiffusionRefiner

ROCK_SALT = OrbitStructure(225, (5.64, 5.64, 5.64, 90.0, 90.0, 90.0), (Orbit("a", 11), Orbit("b", 17)))
RUTILE = OrbitStructure(136, (4.6, 4.6, 2.96, 90.0, 90.0, 90.0), (Orbit("a", 22), Orbit("f", 8, (0.3, 0.0, 0.0))))


@pytest.fixture(scope="module")
def refiner(small_refiner):
    return small_refiner(volume=0.3)


def parameters(structure):
    return np.array([orbit.parameters for orbit in structure.orbits])


@pytest.mark.parametrize("lattice", ["keep", "refine", "generate"])
def test_letters_composition_and_group_are_kept(refiner, random_orbits, lattice):
    made = refiner.refine(random_orbits, lattice=lattice, steps=2)
    for before, after in zip(random_orbits, made, strict=True):
        assert after.space_group == before.space_group
        assert [(o.letter, o.species) for o in after.orbits] == [(o.letter, o.species) for o in before.orbits]
        assert (after.lattice == before.lattice) == (lattice == "keep")


def test_the_group_survives_exactly(refiner, random_orbits):
    """Counted on the atoms: a multiple of the group's operations, at a tolerance of 1e-7 of the cell."""
    made, exact = refiner.refine(random_orbits, steps=3), 0
    for structure in made:
        points, species = structure.sites()
        cell = conventional(structure.space_group, np.array(structure.lattice), points, species)
        if cell is None:
            continue
        found = count_operations(holohedry(structure.space_group), cell.points, cell.numbers)
        order = int(space_groups.POINT_GROUP_ORDER[structure.space_group - 1])
        assert found % order == 0 and found > 0  # more where the letters allow nothing less
        exact += 1
    assert exact > 220


def test_what_is_made_does_not_depend_on_the_others(refiner, random_orbits):
    together = refiner.refine(random_orbits[:40], steps=2, seeds=[(3, i) for i in range(40)])
    first = refiner.refine(random_orbits[:3], steps=2, seeds=[(3, i) for i in range(3)])
    for one, other in zip(first, together, strict=False):
        gaps = parameters(one) - parameters(other)
        assert np.abs(gaps - np.rint(gaps)).max() < 1e-4
    assert refiner.refine([RUTILE], steps=2, seeds=[(4,)]) != refiner.refine([RUTILE], steps=2, seeds=[(5,)])
    assert refiner.refine([RUTILE], steps=2, seeds=[(4,)]) == refiner.refine([RUTILE], steps=2, seeds=[(4,)])


def test_several_of_each(refiner):
    made = refiner.refine([ROCK_SALT] * 3 + [RUTILE] * 3, steps=2)
    assert [s.space_group for s in made] == [225] * 3 + [136] * 3
    assert made[:3] == [ROCK_SALT] * 3  # nothing is free
    assert len({s.orbits for s in made[3:]}) == 3


def test_no_noise_and_one_step_stay_near_the_start(refiner):
    made = refiner.refine([RUTILE], start="given", noise=0.0, steps=1)[0]
    assert made.orbits[1].parameters[0] == pytest.approx(0.3, abs=0.05)
    assert abs(made.orbits[1].parameters[0] - 0.3) > 0


def test_strain_is_bounded(refiner, random_orbits):
    made = refiner.refine(random_orbits[::4], lattice="refine", max_strain=0.03, steps=2)
    for before, after in zip(random_orbits[::4], made, strict=True):
        change = np.linalg.inv(cell_matrix(before.lattice)) @ cell_matrix(after.lattice)
        stretches = np.linalg.svd(change)[1]
        assert np.abs(np.log(stretches)).max() < 0.035  # logarithms of metrics and metrics of logarithms differ


def test_generated_lattices_do_not_depend_on_those_given(refiner):
    large = OrbitStructure(136, (9.0, 9.0, 7.0, 90.0, 90.0, 90.0), RUTILE.orbits)
    one, other = (refiner.refine([s], lattice="generate", steps=3)[0] for s in (RUTILE, large))
    assert one.lattice == pytest.approx(other.lattice, rel=1e-4)


def test_saved_and_loaded(refiner, tmp_path):
    refiner.save(tmp_path)
    again = DiffusionRefiner.load(tmp_path)
    assert again.diffusion == Diffusion()
    assert again.refine([RUTILE], steps=2) == refiner.refine([RUTILE], steps=2)


def test_no_such_refiner(tmp_path):
    with pytest.raises(CheckpointError, match="no refiner 'nowhere'"):
        DiffusionRefiner.load("nowhere")
    (tmp_path / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="damaged"):
        DiffusionRefiner.load(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lattice": "fix"}, "lattice='fix'.*keep, refine, generate"),
        ({"start": "here"}, "start='here'.*noise, given"),
        ({"start": "given", "lattice": "generate"}, "needs the lattice of the start"),
        ({"steps": 0}, "at least one step"),
        ({"seeds": []}, "0 seeds are given for 1 structures"),
        ({"noise": 2.0}, "noise=2.0"),
        ({"max_strain": 0.0}, "max_strain=0.0"),
        ({"max_strain": float("nan")}, "max_strain=nan"),
    ],
)
def test_choices_that_mean_nothing(refiner, options, words):
    with pytest.raises(PlacementError, match=words):
        refiner.refine([RUTILE], **options)


def test_structures_that_cannot_be(refiner):
    wrong = OrbitStructure(136, (4.6, 4.0, 2.96, 90.0, 90.0, 90.0), RUTILE.orbits)
    with pytest.raises(PlacementError, match="structure 1: the lattice 4.6, 4, 2.96"):
        refiner.refine([RUTILE, wrong])
    assert refiner.refine([]) == []
