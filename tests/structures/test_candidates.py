"""Structures made with a refiner: what every one of them has, where they come from, and how they are chosen."""

import math
from dataclasses import replace

import numpy as np
import pytest

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.distances import SHORTEST, group_fault, shortest_distance
from crystalgfn.crystallography.enumeration import representative
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure
from crystalgfn.data.structure_index import Prototypes
from crystalgfn.structures import candidate_pool
from crystalgfn.structures.build import build, build_from_wyckoff, build_structures, requests_of
from crystalgfn.structures.candidate import Candidate
from crystalgfn.structures.candidate_pool import candidates as candidates_of
from crystalgfn.structures.config import BuildConfig, PoolConfig
from crystalgfn.structures.ranking.reranker import (
    N_FEATURES,
    CandidateRanker,
    features,
    reweight_by_energy,
)
from crystalgfn.structures.refiner.refiner import DiffusionRefiner
from crystalgfn.structures.sources.base import PlacementRequest
from crystalgfn.structures.sources.templates import Templates
from scripts.maintain.fit_reranker import fit_reranker

ROCK_SALT = (225, {"Na": 1, "Cl": 1}, (5.64, 5.64, 5.64, 90.0, 90.0, 90.0))
RUTILE = (136, {"Ti": 2, "O": 4}, (4.6, 4.6, 2.96, 90.0, 90.0, 90.0))
OLIVINE = (62, {"Li": 4, "Fe": 4, "P": 4, "O": 16}, (10.33, 6.01, 4.69, 90.0, 90.0, 90.0))
REAL_RUTILE = OrbitStructure(136, RUTILE[2], (Orbit("a", 22), Orbit("f", 8, (0.305, 0.305, 0.0))))


@pytest.fixture(scope="module")
def untrained(small_refiner):
    return small_refiner()


def request(row, letters=None, stream=0, **options):
    return PlacementRequest(
        space_group=row[0], counts=row[1], lattice=row[2], letters=letters, stream=(stream,), **options
    )


def candidates(requests, refiner, draws, templates=None, **options):
    return candidates_of(requests, BuildConfig(refiner=refiner, draws=draws, templates=templates, **options))


def check(structure, row):
    assert structure.space_group == row[0]
    assert {elements.SYMBOLS[z - 1]: n for z, n in structure.composition.items()} == row[1]
    assert group_fault(structure) is None and shortest_distance(structure) >= SHORTEST


@pytest.mark.parametrize("lattice", ["keep", "refine", "generate"])
def test_every_candidate_is_what_was_asked_for(untrained, lattice):
    rows = [ROCK_SALT, RUTILE, OLIVINE]
    asked = [request(row) if lattice != "generate" else replace(request(row), lattice=None) for row in rows]
    found = candidates(asked, untrained, 16, lattice=lattice, steps=3)
    for row, (own, reason) in zip(rows, found, strict=True):
        assert own and reason is None
        for candidate in own:
            check(candidate.structure, row)
            assert (candidate.structure.lattice == row[2]) == (lattice == "keep")
        assert sum(c.draw_frequency for c in own) <= 1 + 1e-9


def test_candidates_of_a_crystal_do_not_depend_on_the_others(untrained):
    alone = candidates([request(RUTILE, stream=7)], untrained, 8, steps=3)[0][0]
    among = candidates([request(ROCK_SALT), request(RUTILE, stream=7), request(OLIVINE)], untrained, 8, steps=3)[1][0]
    assert len(alone) == len(among)
    for one, other in zip(alone, among, strict=True):
        assert [o.letter for o in one.structure.orbits] == [o.letter for o in other.structure.orbits]
        gap = np.array([o.parameters for o in one.structure.orbits]) - [o.parameters for o in other.structure.orbits]
        assert np.abs(gap - np.rint(gap)).max() < 1e-3


def test_given_letters_are_kept(untrained):
    letters = {"Ti": ["a"], "O": ["f"]}
    for candidate in candidates([request(RUTILE, letters)], untrained, 8, steps=3)[0][0]:
        assert candidate.structure.wyckoff() == letters and candidate.letters == 1.0


def test_letters_are_shared_out_by_probability():
    a, b, c, d = ("a",), ("b",), ("c",), ("d",)
    shares = candidate_pool.shared_out({a: 0.5, b: 0.3, c: 0.14, d: 0.06}, 10)
    assert shares == {a: 5, b: 3, c: 1, d: 1}  # 1.4 has less of a remainder to lose than 0.6
    assert candidate_pool.shared_out({a: 0.6, b: 0.4}, 1) == {a: 1}


def test_a_template_and_a_draw_that_agree_are_one(untrained):
    """A refiner whose draws are the template itself: one candidate with all of the votes."""

    class Knows(DiffusionRefiner):
        def refine(self, structures, lattice="keep", **_):
            known = representative(136, [["a"], ["f"]])
            right = [representative(136, [s.wyckoff()["Ti"], s.wyckoff()["O"]]) == known for s in structures]
            return [REAL_RUTILE if r else s for r, s in zip(right, structures, strict=True)]

    knows = Knows(untrained.network)
    templates = Templates(Prototypes.of([REAL_RUTILE]))
    own, _ = candidates([request(RUTILE)], knows, 8, templates)[0]
    best = max(own, key=lambda c: c.template)
    assert best.template == pytest.approx(1.0) and best.draw_frequency >= 0.5 and best.origin == "template"
    assert sum(c.template > 0 for c in own) == 1
    without = candidates([request(RUTILE, excluded={("O2Ti1", 136)})], knows, 8, templates)[0][0]
    assert all(c.template == 0 for c in without)


def test_large_cells_get_fewer_draws(untrained, monkeypatch):
    drawn = []
    refine = DiffusionRefiner.refine
    monkeypatch.setattr(
        DiffusionRefiner, "refine", lambda self, s, *args, **kw: drawn.append(len(s)) or refine(self, s, *args, **kw)
    )
    few = PoolConfig(pairs=200)
    candidates([request(OLIVINE)], untrained, 16, steps=1, pool=few)
    candidates([request(ROCK_SALT)], untrained, 16, steps=1, pool=few)
    assert drawn[0] < 16 and drawn[1] == 16


def test_what_cannot_be_says_why(untrained):
    (own, reason), (good, _) = candidates(
        [request((225, {"Na": 1, "Cl": 1, "O": 1}, ROCK_SALT[2])), request(ROCK_SALT)], untrained, 2, steps=1
    )
    assert own == [] and "cannot hold" in reason and good
    ((own, reason),) = candidates(
        [request((225, ROCK_SALT[1], (0.6, 0.6, 0.6, 90.0, 90.0, 90.0)))], untrained, 2, steps=1
    )
    assert own == [] and "closer than 0.5" in reason


def test_build_structures_with_an_untrained_refiner(untrained, make_crystals):
    crystals = make_crystals(ROCK_SALT, RUTILE, (225, {"Na": 1, "Cl": 1, "O": 1}, ROCK_SALT[2]))
    salt, rutile, bad = build_structures(crystals, n_candidates=3, refiner=untrained, steps=3, seed=1)
    assert salt.origins == ["fixed"] * len(salt.candidates) and "cannot hold" in bad.error and bad.structure is None
    for result in (salt, rutile):
        assert len(result.candidates) == len(result.origins) == len(result.probabilities) <= 3
        assert result.probabilities == sorted(result.probabilities, reverse=True)
        assert 0 < sum(result.probabilities) <= 1 + 1e-9
    again = build_structures(crystals, n_candidates=3, refiner=untrained, steps=3, seed=1)
    assert [r.candidates for r in again] == [salt.candidates, rutile.candidates, []]


def test_where_no_draw_passes_atoms_are_placed_at_random_and_it_is_said(untrained, make_crystals, monkeypatch):
    crowd = lambda self, structures, *_, **__: [  # noqa: E731
        OrbitStructure(s.space_group, s.lattice, tuple(Orbit(o.letter, o.species) for o in s.orbits))
        for s in structures
    ]
    monkeypatch.setattr(DiffusionRefiner, "refine", crowd)  # all parameters zero: atoms on top of each other
    result = build_from_wyckoff(make_crystals(RUTILE), [{"Ti": ["a"], "O": ["f"]}], refiner=untrained)[0]
    assert result.error is None and result.origins == ["random"] and result.wyckoff == {"Ti": ["a"], "O": ["f"]}
    monkeypatch.undo()
    drawn = build_from_wyckoff(make_crystals(RUTILE), [{"Ti": ["a"], "O": ["f"]}], refiner=untrained, steps=3)[0]
    assert drawn.origins == ["refiner"]


def candidate(template=0.0, letters=0.0, frequency=0.0, contact=1.0, density=0.0, at=0.0):
    return Candidate(
        structure=REAL_RUTILE,
        template=template,
        letters=letters,
        draw_frequency=frequency,
        min_contact_ratio=contact,
        fingerprint=(np.full(1, at), np.zeros(1)),
        kernel_density=density,
        template_density=template,
    )


def test_choice_learns_what_speaks_for_the_right_one():
    """Right is the one with the most votes, whatever the rest says."""
    rng = np.random.default_rng(0)
    examples, chosen = [], 0
    for _ in range(300):
        own = [candidate(rng.random(), rng.random(), rng.random(), rng.random()) for _ in range(6)]
        right = np.zeros(6, dtype=bool)
        right[int(np.argmax([c.draw_frequency for c in own]))] = True
        examples.append((own, right))
    model = fit_reranker([(features(own), right) for own, right in examples[:200]], decay=1e-4)
    for own, right in examples[200:]:
        chosen += right[own.index(model.ranked(own)[0][0])]
    assert chosen >= 90


def test_choice_of_nothing_and_of_one():
    model = CandidateRanker()
    assert model.ranked([]) == [] and features([]).shape == (0, N_FEATURES)
    ((_, probability),) = model.ranked([candidate()])
    assert probability == pytest.approx(1.0)


def test_of_few_candidates_those_that_differ():
    """What is nearly the same as a likelier one makes room for what is not."""
    own = [candidate(frequency=v, density=v, at=x) for v, x in ((0.5, 0.0), (0.45, 0.05), (0.4, 0.02), (0.1, 2.0))]
    model = CandidateRanker.shipped(False)
    every = [c for c, _ in model.ranked(own)]
    assert every == own and [c for c, _ in model.ranked(own, 4)] == own
    assert [c for c, _ in model.ranked(own, 2)] == [own[0], own[3]]
    assert dict(model.ranked(own, 2)) == {c: p for c, p in model.ranked(own) if c in (own[0], own[3])}
    assert len(model.ranked(own, 9)) == 4


def test_lower_energies_are_likelier():
    """By exp(-E / 0.05 eV); without an energy as the highest; where there is none at all nothing changes."""
    nan = float("nan")

    def chances(*energies):
        before = [(replace(candidate(), energy=e), p) for e, p in zip(energies, (0.4, 0.3, 0.1), strict=True)]
        after = reweight_by_energy(before)
        assert [p for _, p in after] == sorted((p for _, p in after), reverse=True)
        assert sum(p for _, p in after) == pytest.approx(0.8)
        return [dict(after)[c] for c, _ in before]

    assert chances(nan, nan, nan) == [0.4, 0.3, 0.1]
    first, second, third = chances(-5.0, -5.1, nan)
    assert second / first == pytest.approx(0.75 * math.exp(2.0)) and third / first == pytest.approx(0.25)
    assert chances(-5.0, -500.0, -5.5) == pytest.approx([0.0, 0.8, 0.0])


def test_choices_ship():
    own = [
        candidate(frequency=0.9, density=0.9, letters=0.5),
        candidate(frequency=0.02, density=0.02, letters=0.5, contact=0.4),
    ]
    for templates in (True, False):
        assert CandidateRanker.shipped(templates).ranked(own)[0][0] is own[0]


def test_choice_is_saved_and_read(tmp_path):
    model = CandidateRanker()
    model.save(tmp_path / "choice.safetensors")
    other = CandidateRanker.load(tmp_path / "choice.safetensors")
    own = [candidate(0.1 * i, 0.2, 0.3, 0.1 * i) for i in range(4)]
    assert [p for _, p in model.ranked(own)] == [p for _, p in other.ranked(own)]
    from crystalgfn.errors import CheckpointError

    with pytest.raises(CheckpointError, match="holds no"):
        CandidateRanker.load(tmp_path / "none.safetensors")


def test_templates_are_adapted_in_their_place_or_beside_it(untrained, monkeypatch):
    """Where the refiner moves a template a little it is still that one, far away it is another candidate."""
    templates = Templates(Prototypes.of([REAL_RUTILE]))
    refine = DiffusionRefiner.refine
    for x, n_templates, n_near in ((0.303, 1, 1), (0.2, 1, 2)):
        moved = OrbitStructure(136, RUTILE[2], (Orbit("a", 22), Orbit("f", 8, (x, x, 0.0))))

        def adapt(self, structures, *args, moved=moved, **options):
            given = options.get("start") == "given"
            return [moved] * len(structures) if given else refine(self, structures, *args, **options)

        monkeypatch.setattr(DiffusionRefiner, "refine", adapt)
        own, _ = candidates([request(RUTILE)], untrained, 1, templates)[0]
        real = [c for c in own if c.template > 0]
        assert len(real) == n_templates and real[0].template == pytest.approx(1.0)
        assert (real[0].structure == moved) == (n_near == 1)
        assert sum(c.structure in (moved, real[0].structure) for c in own) == n_near


def test_parts_do_not_matter(untrained, make_crystals):
    """Structures of a crystal are its own, whatever else is made with it."""
    crystals = make_crystals(*[RUTILE, ROCK_SALT] * 4)
    options = {"refiner": untrained, "steps": 2, "n_candidates": 3}
    whole = build_structures(crystals, **options)
    parts = build(requests_of(crystals), BuildConfig(part=3, **options))
    assert [[s.frac_coords.round(3).tolist() for s in r.candidates] for r in whole] == [
        [s.frac_coords.round(3).tolist() for s in r.candidates] for r in parts
    ]
