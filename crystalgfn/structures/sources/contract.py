"""`check_candidate_source`: whether a source keeps the contract of `crystalgfn.structures.sources.base`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.assignments import check_assignment
from crystalgfn.crystallography.convert import fingerprint
from crystalgfn.crystallography.distances import fault
from crystalgfn.crystallography.enumeration import representative
from crystalgfn.crystallography.orbits import OrbitStructure
from crystalgfn.errors import PlacementError
from crystalgfn.structures.sources.base import CandidateSource, PlacementRequest, Proposals

REPEATED = 1e-2
"""Å, between mean neighbour distances of one structure."""
N = 3
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
    """Hold a source to its contract.

    It answers every request in its place with at most as many structures as are asked for, or says why there is none;
    each structure has exactly the space group, the composition and, where given, the lattice and the letters of the
    request, and no atoms closer than 0.5 Å; structures that are known are not proposed again; the same seed gives the
    same answer, alone as among others.

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
    found = source.propose(requests, N, 0)
    if not isinstance(found, list) or [type(one) for one in found] != [Proposals] * len(requests):
        raise PlacementError(
            f"The source {source.name} returns {type(found).__name__} for {len(requests)} requests; it must return a "
            "list of Proposals, one for each."
        )
    return found


def _wrong(request: PlacementRequest, found: Proposals) -> Iterator[str]:
    """What is wrong with the answer to one request."""
    n = len(found.structures)
    if n > N:
        yield f"proposes {n} structures where {N} are asked for"
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
        if _choice(request.space_group, own) != _choice(request.space_group, asked):
            yield f"proposes the Wyckoff letters {own} where {dict(request.letters)} are asked for"
    if (wrong := fault(structure)) is not None:
        yield f"proposes a structure of {structure.counts} that does not pass: {wrong}"


def _choice(space_group: int, letters: dict) -> tuple:
    symbols = sorted(letters, key=lambda symbol: elements.NUMBER[symbol])
    return tuple(symbols), representative(space_group, [letters[symbol] for symbol in symbols])


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
