"""Sources of candidates and refiners keep their contracts: those of the package, and those that the docs add."""

import importlib.metadata
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.errors import CheckpointError, DataError, PlacementError
from crystalgfn.structures.build import build, build_structures
from crystalgfn.structures.config import AFLOW, BuildConfig, refiner_of, templates_of
from crystalgfn.structures.refiner.base import check_refiner
from crystalgfn.structures.refiner.refiner import DiffusionRefiner
from crystalgfn.structures.sources.base import PlacementRequest, Proposals, check_candidate_source, example_requests
from crystalgfn.structures.sources.random import RandomPlacement
from crystalgfn.structures.sources.templates import Templates
from tests.contracts.candidate_source import CandidateSourceContract
from tests.contracts.refiner import RefinerContract

PAGES = Path(__file__).resolve().parents[2] / "docs" / "how-to"


def of_the_page(page, name):
    """The class that a page of the docs adds, from a module of its name as in the reader's folder."""
    text = (PAGES / page).read_text(encoding="utf-8")
    module, source = re.search(r"<!-- test: file (\w+)\.py -->\n```python\n(.*?)```", text, re.DOTALL).groups()
    made = sys.modules.setdefault(module, type(sys)(module))
    exec(source, made.__dict__)
    return getattr(made, name)


RockSalt = of_the_page("add-a-candidate-source.md", "RockSalt")
Spheres = of_the_page("add-a-refiner.md", "Spheres")


class TestTemplates(CandidateSourceContract):
    source = Templates(Prototypes.read(AFLOW))


class TestRandomPlacement(CandidateSourceContract):
    source = RandomPlacement()


class TestLearnedPlacement(CandidateSourceContract):
    source = RandomPlacement(learned=True)


class TestRockSalt(CandidateSourceContract):
    source = RockSalt()


class TestSpheres(RefinerContract):
    refiner = Spheres()


class TestShippedRefiner(RefinerContract):
    refiner = DiffusionRefiner.load("default")


def test_a_source_of_ones_own_goes_before_random_placement_and_before_the_refiner(make_crystals):
    rows = [(225, {"K": 1, "Br": 1}, (6.6, 6.6, 6.6, 90.0, 90.0, 90.0))]
    rows.append((136, {"Ti": 2, "O": 4}, (4.6, 4.6, 2.96, 90.0, 90.0, 90.0)))
    alone = build_structures(make_crystals(*rows), templates=RockSalt(), refiner=None)
    assert [one.origins for one in alone] == [["rock salt"], ["random"]]
    salt, rutile = build_structures(make_crystals(*rows), templates=RockSalt(), refiner=Spheres(), draws=4)
    assert salt.origins == ["fixed"] and rutile.error is None and rutile.origins == ["refiner"]


def test_by_entry_point_and_by_module(monkeypatch):
    points = [
        importlib.metadata.EntryPoint("rock-salt", "salts:RockSalt", "crystalgfn.candidate_sources"),
        importlib.metadata.EntryPoint("spheres", "spheres:Spheres", "crystalgfn.refiners"),
        importlib.metadata.EntryPoint("broken", "spheres:Missing", "crystalgfn.refiners"),
    ]
    find = lambda group: [point for point in points if point.group == group]  # noqa: E731
    monkeypatch.setattr("crystalgfn.utils.instantiate.entry_points", find)
    for spec in ("rock-salt", "salts:RockSalt"):
        assert type(templates_of(spec)).__name__ == "RockSalt"
    for spec in ("spheres", "spheres:Spheres"):
        assert type(refiner_of(spec)).__name__ == "Spheres"
    with pytest.raises(CheckpointError, match="broken: AttributeError"):
        refiner_of("broken")
    with pytest.raises(CheckpointError, match="math:sqrt is a|math:sqrt: TypeError"):
        refiner_of("math:sqrt")
    with pytest.raises(CheckpointError, match="no refiner 'nobody'"):
        refiner_of("nobody")
    with pytest.raises(DataError):
        templates_of("nobody:Nothing")
    with pytest.raises(PlacementError, match="is no refiner"):
        BuildConfig(refiner=3)


SALT, RUTILE = example_requests()[:2]
NAN = float("nan")
GOOD = OrbitStructure(225, SALT.lattice, (Orbit("a", 11), Orbit("b", 17)))


def answering(**answers):
    """A source that answers to rock salt with what is given, to the rest with an error."""

    class Wrong:
        name = "wrong"

        def propose(self, requests, n, seed=0):
            return [self.answer(request) for request in requests]

        def answer(self, request):
            if request.space_group != 225 or len(request.counts) != 2 or GOOD in request.known:
                return Proposals(error="no")
            return Proposals(**({"structures": (GOOD,)} | answers))

    return Wrong()


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({}, None),
        ({"structures": (replace(GOOD, space_group=221),)}, "space group 221 where 225"),
        ({"structures": (replace(GOOD, orbits=(Orbit("a", 11), Orbit("b", 9))),)}, "'F': 1.* are asked for"),
        ({"structures": (replace(GOOD, lattice=(6.0, 6.0, 6.0, 90.0, 90.0, 90.0)),)}, "the lattice .* is asked for"),
        ({"structures": (GOOD,) * 4}, "4 structures where 3"),
        ({"probabilities": (0.5, 0.5)}, "the probabilities"),
        ({"probabilities": (1.5,)}, "the probabilities"),
        ({"error": "but no"}, "either structures or the reason"),
        ({"structures": ()}, "either structures or the reason"),
        ({"structures": (), "error": "no"}, "proposes nothing for 6 requests"),
    ],
)
def test_a_broken_source_is_told_what_it_breaks(answers, words):
    if words is None:
        check_candidate_source(answering())
    else:
        with pytest.raises(PlacementError, match=words):
            check_candidate_source(answering(**answers))


def test_a_source_that_forgets_its_seed_or_what_is_known():
    class Forgetful(RandomPlacement):
        calls = 0

        def propose(self, requests, n, seed=0):
            type(self).calls += 1
            return super().propose(requests, n, seed + self.calls)

    with pytest.raises(PlacementError, match="asked again with the same seed"):
        check_candidate_source(Forgetful(), [RUTILE])

    class Again(RandomPlacement):
        def propose(self, requests, n, seed=0):
            return super().propose([replace(request, known=()) for request in requests], n, seed)

    with pytest.raises(PlacementError, match="that is known"):
        check_candidate_source(Again(), [RUTILE])
    with pytest.raises(PlacementError, match="is no source of candidates"):
        check_candidate_source(Spheres())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: replace(s, orbits=s.orbits[::-1]), "changes the space group, letters or species"),
        (lambda s: replace(s, lattice=tuple(x * 1.001 for x in s.lattice)), "although lattice='keep'|cannot be"),
        (
            lambda s: replace(s, orbits=tuple(replace(o, parameters=(float("nan"),) * 3) for o in s.orbits)),
            "not finite",
        ),
        (lambda s: None, "no structure at all"),
    ],
)
def test_a_broken_refiner_is_told_what_it_breaks(change, words):
    class Wrong(Spheres):
        def refine(self, structures, *args, **options):
            return [change(one) for one in super().refine(structures, *args, **options)]

    with pytest.raises(PlacementError, match=words):
        check_refiner(Wrong())
    with pytest.raises(PlacementError, match="is no refiner"):
        check_refiner(RockSalt())


def test_structures_that_a_refiner_does_not_give_are_left_out():
    class Half(Spheres):
        def refine(self, structures, *args, **options):
            made = super().refine(structures, *args, **options)
            return [one if i % 2 else None for i, one in enumerate(made)]

    request = PlacementRequest(space_group=136, counts={"Ti": 2, "O": 4}, lattice=RUTILE.lattice)
    (result,) = build([request], BuildConfig(refiner=Half(), draws=6, retry=False))
    assert result.error is None
    nothing = type("Nothing", (), {"refine": lambda self, structures, *_, **__: [None] * len(structures)})()
    (result,) = build([request], BuildConfig(refiner=nothing, draws=6, retry=False))
    assert result.error.endswith("passed: the refiner gave no structure with a possible cell (6 of them)")
