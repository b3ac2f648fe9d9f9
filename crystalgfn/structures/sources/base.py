"""Sources of candidate structures: what they are asked, what they answer, and what holds one of a user's own to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.assignments import Assignment, check_assignment
from crystalgfn.crystallography.crystals import Crystals
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

VOLUME_OF_SPHERES = 0.55
"""Share of the cell that spheres of the elements' radii fill in the median of real crystals."""


@dataclass(frozen=True, kw_only=True)
class PlacementRequest:
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
        return f"space group {self.space_group} ({space_groups.SYMBOL[self.space_group - 1]})"

    @property
    def cell(self) -> tuple[float, ...]:
        """The lattice; a random one of about the right volume where none is given."""
        if self.lattice is not None:
            return self.lattice
        return tuple(random_cell(self.space_group, self.counts, np.random.default_rng((0, *self.stream))).tolist())

    @property
    def crystal(self) -> Crystals:
        """The crystal as a batch of one."""
        composition = torch.zeros(1, 118, dtype=torch.int64)
        for symbol, count in self.counts.items():
            composition[0, elements.NUMBER[symbol] - 1] = count
        return Crystals(torch.tensor([self.space_group]), composition, torch.tensor([self.cell], dtype=torch.float64))

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

        What it answers to a request depends on this, ``n`` and ``seed`` alone, not on the other requests. A request
        that cannot be met is an error in its place.

        Args:
            requests: the crystals.
            n: structures of each, at most.
            seed: with the request's ``stream`` it seeds all random numbers.
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
