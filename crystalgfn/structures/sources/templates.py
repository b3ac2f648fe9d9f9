"""Real crystals whose positions others may take: same group, same counts, elements and cells as near as can be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from crystalgfn.crystallography import elements, normalizer
from crystalgfn.crystallography.convert import fingerprint
from crystalgfn.crystallography.distances import fault
from crystalgfn.crystallography.enumeration import Choice, choice_of
from crystalgfn.crystallography.orbits import OrbitStructure, primitive_volume
from crystalgfn.data.structure_index import Key, Prototypes
from crystalgfn.errors import PlacementError
from crystalgfn.structures.sources.base import PlacementRequest, Proposals
from crystalgfn.structures.sources.template_distance import (
    SAME_SHAPE,
    Family,
    Fingerprint,
    Ranking,
    TemplateMatch,
    alike,
    family,
    shape_vector,
    told_apart,
)

DISTINCT = 0.03
"""Largest difference of fingerprints of two candidates of which one is left out."""
SETTINGS_OF = 100
"""Of the templates, so many of the best are compared with the cell in every setting."""
NEAR = 0.1
"""Settings whose cells are so much farther than the nearest make candidates of their own."""
FARTHEST = 0.5
"""Difference of shapes above which a template's setting is not tried."""


@dataclass(frozen=True)
class Template:
    """A crystal's atoms on the positions of a real one.

    Attributes:
        structure: the crystal's elements in the crystal's cell, or in the template's own, scaled, where none is known.
        probability: of this structure among those that the templates offer: of all templates that have it, or, for
            those that only offer other coordinates for it, of the one.
        row: of the template in the index.
    """

    structure: OrbitStructure
    probability: float
    row: int


class Templates:
    """Ranks the crystals of an index as templates for others; a source of candidates."""

    name = "template"

    def __init__(self, index: Prototypes, ranking: Ranking | None = None) -> None:
        """Templates of an index; ``ranking`` None: the weights that come with the package."""
        self.index = index
        self.ranking = Ranking.shipped() if ranking is None else ranking
        self._families: dict[tuple[int, tuple[int, ...]], Family | None] = {}

    def family(self, space_group: int, counts: tuple[int, ...]) -> Family | None:
        """The crystals with this group and these ascending counts (kept)."""
        key = (space_group, counts)
        if key not in self._families:
            self._families[key] = family(self.index, *key)
        return self._families[key]

    def propose(self, requests: Sequence[PlacementRequest], n: int, seed: int = 0) -> list[Proposals]:
        """See `CandidateSource`; nothing here is random, so ``seed`` does not matter."""
        return [self._proposals(request, n) for request in requests]

    def _proposals(self, request: PlacementRequest, n: int) -> Proposals:
        try:
            letters = request.assignment()
        except PlacementError as error:
            return Proposals(error=str(error))
        known = [_mark(structure) for structure in request.known]
        found = self.find(
            request.space_group, request.counts, request.lattice, n + len(known), request.excluded, letters
        )
        new = [one for one in found if not _is_among(_mark(one.structure), known)][:n]
        if not new:
            return Proposals(error=f"no real crystal in {request.name} has these counts of atoms")
        return Proposals(tuple(one.structure for one in new), tuple(one.probability for one in new))

    def find(
        self,
        space_group: int,
        counts: Mapping[str, int],
        lattice: Sequence[float] | np.ndarray | None = None,
        n: int = 1,
        without: Collection[Key] = (),
        letters: Mapping[str, Sequence[str]] | None = None,
    ) -> list[Template]:
        """At most ``n`` different structures, the most probable first; none where no real crystal has these counts.

        Where there are fewer than ``n``, further templates of the same structures follow. Each has exactly the group at
        symprec 0.01 and no atoms closer than 0.5 Å.

        Args:
            space_group: 1-230.
            counts: element symbol -> atoms per primitive cell.
            lattice: the conventional cell [6] to use; None: that of each template, with the volume scaled.
            n: how many.
            without: pairs (reduced formula, group) that no template may have.
            letters: element symbol -> letters of its orbits, where they are known; equivalent choices count as these.
        """
        pairs = sorted((count, elements.NUMBER[symbol]) for symbol, count in counts.items() if count)
        target = np.array([z for _, z in pairs])
        members = self.family(space_group, tuple(count for count, _ in pairs))
        if members is None:
            return []
        cell = None if lattice is None else np.asarray(lattice, dtype=np.float64)
        scores = self.scores(members, target, space_group, cell)
        if without:
            scores[[bool(self._keys[i] & set(without)) for i in members.rows.tolist()]] = -np.inf
        if not np.isfinite(scores).any():
            return []
        place = partial(self._placed, members, target, cell)
        asked = None if letters is None else choice_of(space_group, letters)
        return _different(told_apart(members, scores), place, n, asked)

    def scores(self, members: Family, target: np.ndarray, space_group: int, lattice: np.ndarray | None) -> np.ndarray:
        """Scores [R, P] of the templates of a family with each exchange of elements with equal counts.

        ``target`` are atomic numbers [S] by ascending count, ``lattice`` is the cell [6], or None.
        """
        scores = self.ranking.elements(members.species, members.counts, target, lattice is not None)
        if lattice is None:
            return scores
        gaps = np.linalg.norm(members.shapes - shape_vector(lattice), axis=-1)
        if len(normalizer.changed_lattices(space_group, lattice)) > 1:
            best = np.argsort(-scores.max(axis=1), kind="stable")[:SETTINGS_OF]
            for i in best[gaps[best] > 0.02].tolist():
                gaps[i] = _setting_gaps(space_group, members.lattices[i], lattice).min()
        surplus = np.log(primitive_volume(space_group, lattice.tolist()) / sum(members.counts))
        surplus -= np.log(self.index.volumes[target - 1] @ (np.array(members.counts) / sum(members.counts)))
        return scores + self.ranking.cells(gaps, members.surplus - surplus)[:, None]

    def _placed(
        self, members: Family, target: np.ndarray, lattice: np.ndarray | None, choice: TemplateMatch, probability: float
    ) -> list[Template]:
        """A template with the target's elements in each setting that suits the cell, where that passes the checks."""
        row = int(members.rows[choice.at])
        old = members.species[choice.at][members.permutations[choice.permutation]]
        change = dict(zip(old.tolist(), target.tolist(), strict=True))
        source = self.index[row]
        mapped = replace(source, orbits=tuple(replace(orbit, species=change[orbit.species]) for orbit in source.orbits))
        if lattice is None:
            expected = self.index.volumes[target - 1] @ np.array(members.counts) / sum(members.counts)
            factor = (expected * np.exp(members.surplus[choice.at]) / self.index.volume_per_atom[row]) ** (1 / 3)
            cell = np.array(source.lattice) * ([factor] * 3 + [1.0] * 3)
            placed = [(replace(mapped, lattice=tuple(cell.tolist())), 1.0)]
        else:
            placed = self._settings(mapped, lattice, members.space_group)
        return [Template(s, probability * share, row) for s, share in placed if fault(s) is None]

    def _settings(
        self, structure: OrbitStructure, lattice: np.ndarray, space_group: int
    ) -> list[tuple[OrbitStructure, float]]:
        """The structure in the cell, described in each setting whose own cell is near it, and the share of each."""
        gaps = _setting_gaps(space_group, np.array(structure.lattice), lattice)
        limit = min(gaps.min() + NEAR, max(FARTHEST, gaps.min()))
        moved = np.round(normalizer.changed_lattices(space_group, np.array(structure.lattice)), 4)
        chosen: dict[bytes, int] = {}
        for i in np.argsort(gaps, kind="stable")[:24].tolist():
            if gaps[i] <= limit:
                chosen.setdefault(moved[i].tobytes(), i)
        indices = list(chosen.values())[:4]
        weights = np.exp(self.ranking.cells(gaps[indices], np.zeros(len(indices))))
        return [
            (normalizer.apply(normalizer.setting(space_group, i), structure, lattice), float(w))
            for i, w in zip(indices, weights / weights.sum(), strict=True)
        ]

    @cached_property
    def _keys(self) -> list[frozenset[Key]]:
        return self.index.keys()


class _Different:
    """Templates that are different structures, with equivalent letters to those that are asked for, if any are."""

    def __init__(self, letters: Choice | None) -> None:
        self.letters = letters
        self.found: list[Template] = []
        self._marks: list[Fingerprint] = []

    def take(self, templates: list[Template]) -> bool:
        """Keep those that are asked for and not there yet; whether there were any."""
        for template in templates:
            structure = template.structure
            if self.letters is not None and choice_of(structure.space_group, structure.wyckoff()) != self.letters:
                continue
            mark = _mark(structure)
            if not _is_among(mark, self._marks):
                self._marks.append(mark)
                self.found.append(template)
        return bool(templates)


def _different(
    clusters: Sequence[Sequence[TemplateMatch]],
    place: Callable[[TemplateMatch, float], list[Template]],
    n: int,
    letters: Choice | None,
) -> list[Template]:
    """At most ``n`` templates, one of each cluster of equal structures before those with other coordinates for it."""
    kept = _Different(letters)
    others: list[TemplateMatch] = []
    for choices in clusters:
        if len(kept.found) >= n:
            break
        probability = sum(choice.weight for choice in choices)
        used = next((i for i, choice in enumerate(choices[:3]) if kept.take(place(choice, probability))), 2)
        others += choices[used + 1 :]
    kept.found.sort(key=lambda template: -template.probability)
    for choice in sorted(others, key=lambda c: -c.weight)[: 2 * n]:
        if len(kept.found) >= n:
            break
        kept.take(place(choice, choice.weight))
    return kept.found[:n]


def _setting_gaps(space_group: int, lattice: np.ndarray, target: np.ndarray) -> np.ndarray:
    """How far the shape of a cell is from the target in every setting, [n]."""
    moved = normalizer.changed_lattices(space_group, lattice)
    return np.linalg.norm(shape_vector(moved) - shape_vector(target), axis=-1)


def _is_among(mark: Fingerprint, others: Sequence[Fingerprint]) -> bool:
    """Whether one of the others is the same structure, whatever its letters."""
    return any(alike(mark, other, DISTINCT, SAME_SHAPE) for other in others)


def _mark(structure: OrbitStructure) -> Fingerprint:
    return fingerprint(structure) / structure.volume_per_atom ** (1 / 3), shape_vector(np.array(structure.lattice))
