"""Sources of candidate structures: what they are asked, what they answer, and the check of their contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.assignments import Assignment, check_assignment
from crystalgfn.crystallography.convert import fingerprint
from crystalgfn.crystallography.crystals import Crystals, row_of_counts
from crystalgfn.crystallography.distances import fault
from crystalgfn.crystallography.enumeration import choice_of
from crystalgfn.crystallography.lattice import (
    HEXAGONAL,
    KIND,
    KINDS,
    MONOCLINIC,
    TETRAGONAL,
    TRICLINIC,
    canonical_lattice,
)
from crystalgfn.crystallography.orbit_batch import lattice_fault
from crystalgfn.crystallography.orbits import OrbitStructure, cell_matrix
from crystalgfn.crystallography.realizable import packing, realisable
from crystalgfn.data.structure_index import Key
from crystalgfn.errors import PlacementError
from crystalgfn.utils.plain import Plain

VOLUME_OF_SPHERES = 0.55
"""Share of the cell that spheres of the elements' radii fill in the median of real crystals."""


MOST_PLACED = 1000
"""Atoms of a primitive cell; whether more fit on Wyckoff positions takes too long to find."""


@dataclass(frozen=True, kw_only=True)
class PlacementRequest(Plain):
    """A crystal whose atoms are to be placed.

    Attributes:
        space_group: ITA number.
        counts: element symbol -> atoms in the primitive cell.
        lattice: conventional a, b, c in Å, alpha, beta, gamma in degrees; None where it is to be found too.
        letters: element symbol -> Wyckoff letters of its orbits; None where they are to be found too.
        stream: tells its random numbers from those of other requests under the same seed.
        excluded: pairs (reduced formula, space group) of real crystals that no structure may come from.
        known: structures that are there already; others are wanted.
    """

    space_group: int
    counts: Mapping[str, int]
    lattice: tuple[float, ...] | None = None
    letters: Mapping[str, Sequence[str]] | None = None
    stream: tuple[int, ...] = ()
    excluded: Collection[Key] = ()
    known: tuple[OrbitStructure, ...] = ()

    @property
    def name(self) -> str:
        """The space group in words."""
        return space_groups.words_for(self.space_group)

    @property
    def cell(self) -> tuple[float, ...]:
        """The lattice; a random one of about the right volume where none is given."""
        if self.lattice is not None:
            return self.lattice
        return tuple(random_cell(self.space_group, self.counts, np.random.default_rng((0, *self.stream))).tolist())

    @property
    def crystal(self) -> Crystals:
        """The crystal as a batch of one."""
        composition = row_of_counts({elements.NUMBER[symbol]: count for symbol, count in self.counts.items()})
        return Crystals.of_rows([self.space_group], [composition], [self.cell])

    def refused(self, refusals: Counter[str]) -> str:
        """Why none of the placements tried for it passed, by the number of those with each reason."""
        reasons = "; ".join(f"{reason} ({n} of them)" for reason, n in refusals.most_common(2) if n)
        return f"none of the {refusals.total()} placements tried in {self.name} passed: {reasons}"

    def assignment(self) -> Assignment | None:
        """The Wyckoff letters where they are given.

        Raises:
            PlacementError: the crystal cannot be placed whatever the coordinates, or the letters do not go with it.
        """
        held = ", ".join(f"{count} {symbol}" for symbol, count in self.counts.items())
        if self.space_group not in range(1, 231):
            raise PlacementError(f"there is no space group {self.space_group}; they are numbered 1 to 230")
        if not self.counts:
            raise PlacementError("the crystal has no atoms")
        if min(self.counts.values()) < 0:
            raise PlacementError(f"the crystal has {held}; no element can have fewer than no atoms")
        if sum(self.counts.values()) > MOST_PLACED:
            raise PlacementError(f"the crystal has {held} in its primitive cell; at most {MOST_PLACED} are placed")
        if self.lattice is not None and (wrong := lattice_fault(self.space_group, self.lattice)) is not None:
            raise PlacementError(wrong)
        counts = tuple(self.counts.values())
        if not packing(self.space_group, max(counts)).fits(np.array([counts]))[0]:
            raise PlacementError(f"the Wyckoff positions of {self.name} cannot hold {held} per primitive cell")
        if not realisable(self.space_group, counts):
            raise PlacementError(f"every placement of {held} in {self.name} has a larger group")
        if self.letters is None:
            return None
        return check_assignment(self.space_group, dict(self.counts), self.letters)


@dataclass(frozen=True)
class Proposals:
    """What a source answers to one request.

    Attributes:
        structures: different ones, best first, each of exactly the space group, the composition and, where they are
            given, the lattice and the letters that are asked for.
        probabilities: of each, in all at most 1; empty where the source knows none.
        error: why there is none, in a sentence; None where there are some.
    """

    structures: tuple[OrbitStructure, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str | None = None

    def weighted(self) -> list[tuple[OrbitStructure, float]]:
        """The structures with their probabilities, equal ones where the source knows none."""
        n = len(self.structures)
        return list(zip(self.structures, self.probabilities or [1 / n] * n if n else (), strict=True))


@runtime_checkable
class CandidateSource(Protocol):
    """Proposes structures of crystals.

    Attributes:
        name: of the source, as `BuildResult.origins` gives it.
    """

    name: str

    def propose(self, requests: Sequence[PlacementRequest], n: int, seed: int = 0) -> list[Proposals]:
        """At most ``n`` structures for each request.

        What it answers to a request depends on this, ``n`` and ``seed`` alone, not on the other requests; the seed with
        the request's ``stream`` seeds all random numbers. A request that cannot be met is an error in its place.
        """
        ...


def random_cell(space_group: int, counts: Mapping[str, int], rng: np.random.Generator) -> np.ndarray:
    """A random conventional cell of about the right volume, in the group's domain, [6]."""
    kind = KIND[space_group - 1]
    volume = sum(elements.SPHERE_VOLUME[elements.NUMBER[s] - 1] * n for s, n in counts.items()) / VOLUME_OF_SPHERES
    lengths = np.exp(rng.uniform(-0.5, 0.5, 3))
    angles = np.full(3, 90.0)
    if kind == TRICLINIC:
        angles = rng.uniform(65, 90, 3)
    elif kind == MONOCLINIC:
        angles[1] = rng.uniform(90, 120)
    elif kind == HEXAGONAL:
        angles[2] = 120.0
    if kind in (TETRAGONAL, HEXAGONAL):
        lengths[1] = lengths[0]
    elif kind == KINDS.index("cubic"):
        lengths[:] = 1.0
    unit = abs(np.linalg.det(cell_matrix([*lengths, *angles])))
    lengths *= (volume * int(space_groups.CENTRING[space_group - 1]) / unit) ** (1 / 3)
    return canonical_lattice(space_group, np.concatenate([lengths, angles]))


REPEATED = 1e-2
"""Å, between mean neighbour distances of one structure."""
ASKED = 3
"""Structures that are asked for of each request."""
LATTICE = 1e-4
"""Å and degrees, to which a lattice that is given must be kept."""
PARAMETERS = 1e-3
"""Of a cell, to which coordinates must not depend on the other requests of a call."""


def example_requests() -> list[PlacementRequest]:
    """Rock salt, rutile in four ways, quartz, and one that nothing can meet."""
    rutile = PlacementRequest(
        space_group=136, counts={"Ti": 2, "O": 4}, lattice=(4.6, 4.6, 2.96, 90.0, 90.0, 90.0), stream=(1,)
    )
    salt = replace(rutile, space_group=225, counts={"Na": 1, "Cl": 1}, lattice=(5.64,) * 3 + (90.0,) * 3, stream=(0,))
    quartz = replace(
        rutile, space_group=154, counts={"Si": 3, "O": 6}, lattice=(4.92, 4.92, 5.41, 90.0, 90.0, 120.0), stream=(2,)
    )
    return [
        salt,
        rutile,
        replace(rutile, letters={"Ti": ["a"], "O": ["f"]}, stream=(3,)),
        replace(rutile, lattice=None, stream=(4,)),
        quartz,
        replace(salt, counts={"Na": 1, "Cl": 1, "O": 1}, stream=(5,)),
    ]


def check_candidate_source(source: Any, requests: Sequence[PlacementRequest] | None = None) -> None:
    """Hold a source to the contract of `CandidateSource` and `Proposals`; no atoms may be closer than 0.5 Å.

    Args:
        source: to check.
        requests: to check it on, one of which it must be able to meet; None: rock salt, rutile, quartz.

    Raises:
        PlacementError: one sentence for each clause that is broken.
    """
    name = getattr(source, "name", None)
    if not isinstance(source, CandidateSource) or not isinstance(name, str) or not name:
        raise PlacementError(
            f"{type(source).__name__} is no source of candidates: it needs a name (text) and propose(requests, n, seed)"
        )
    requests = example_requests() if requests is None else list(requests)
    found = _proposed(source, requests)
    broken = [words for request, one in zip(requests, found, strict=True) for words in _wrong(request, one)]
    if not any(one.structures for one in found):
        broken.append(f"proposes nothing for {len(requests)} requests; give some that it can meet")
    if not broken:
        broken += _unsteady(source, requests, found)
        broken += _repeated(source, requests, found)
    if broken:
        raise PlacementError("\n".join(f"The source {name} {sentence}." for sentence in dict.fromkeys(broken)))


def _proposed(source: CandidateSource, requests: Sequence[PlacementRequest]) -> list[Proposals]:
    found = source.propose(requests, ASKED, 0)
    if not isinstance(found, list) or [type(one) for one in found] != [Proposals] * len(requests):
        raise PlacementError(
            f"The source {source.name} returns {type(found).__name__} for {len(requests)} requests; it must return a "
            "list of Proposals, one for each."
        )
    return found


def _wrong(request: PlacementRequest, found: Proposals) -> Iterator[str]:
    """What is wrong with the answer to one request."""
    n = len(found.structures)
    if n > ASKED:
        yield f"proposes {n} structures where {ASKED} are asked for"
    if bool(n) == (found.error is not None) or found.error == "":
        yield "must give either structures or the reason why there is none"
    if found.probabilities and (len(found.probabilities) != n or not all(0 <= p <= 1 for p in found.probabilities)):
        yield f"gives the probabilities {list(found.probabilities)} to {n} structures; give one from 0 to 1 for each"
    for structure in found.structures:
        yield from _not_as_asked(request, structure)


def _not_as_asked(request: PlacementRequest, structure: OrbitStructure) -> Iterator[str]:
    if structure.space_group != request.space_group:
        yield f"proposes a structure of space group {structure.space_group} where {request.space_group} is asked for"
        return
    if structure.counts != {symbol: n for symbol, n in request.counts.items() if n}:
        yield f"proposes {structure.counts} where {dict(request.counts)} are asked for"
        return
    if request.lattice is not None and np.abs(np.subtract(structure.lattice, request.lattice)).max() > LATTICE:
        yield f"proposes the lattice {structure.lattice} where {request.lattice} is asked for"
    if request.letters is not None:
        asked = check_assignment(request.space_group, dict(request.counts), request.letters)
        own = structure.wyckoff()
        if choice_of(request.space_group, own) != choice_of(request.space_group, asked):
            yield f"proposes the Wyckoff letters {own} where {dict(request.letters)} are asked for"
    if (wrong := fault(structure)) is not None:
        yield f"proposes a structure of {structure.counts} that does not pass: {wrong}"


def _unsteady(
    source: CandidateSource, requests: Sequence[PlacementRequest], found: Sequence[Proposals]
) -> Iterator[str]:
    """Answers that change from one call to the next, or with the other requests."""
    if not all(_alike(one, other) for one, other in zip(found, _proposed(source, requests), strict=True)):
        yield "gives another answer when it is asked again with the same seed; seed all random numbers"
    alone = [_proposed(source, [request])[0] for request in requests]
    if not all(_alike(one, other) for one, other in zip(found, alone, strict=True)):
        yield "gives another answer to a request alone than among others"


def _alike(one: Proposals, other: Proposals) -> bool:
    return len(one.structures) == len(other.structures) and all(
        left.wyckoff() == right.wyckoff()
        and np.allclose(left.lattice, right.lattice, rtol=LATTICE)
        and _gap(left, right) < PARAMETERS
        for left, right in zip(one.structures, other.structures, strict=True)
    )


def _gap(one: OrbitStructure, other: OrbitStructure) -> float:
    gaps = one.sites()[0] - other.sites()[0]
    return float(np.abs(gaps - np.rint(gaps)).max())


def _repeated(
    source: CandidateSource, requests: Sequence[PlacementRequest], found: Sequence[Proposals]
) -> Iterator[str]:
    """Structures that are proposed although they are known."""
    known = [replace(request, known=one.structures[:1]) for request, one in zip(requests, found, strict=True)]
    for request, one in zip(known, _proposed(source, known), strict=True):
        old = [fingerprint(structure) for structure in request.known]
        new = [fingerprint(structure) for structure in one.structures]
        if any(np.abs(a - b).max() < REPEATED for a in old for b in new):
            yield f"proposes a structure again that is known ({request.name}); leave out what is in request.known"
