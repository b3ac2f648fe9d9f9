"""A candidate structure of a crystal, with what speaks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from crystalgfn.crystallography.distances import SHORTEST, contacts_of
from crystalgfn.crystallography.orbits import OrbitStructure, wyckoff_position
from crystalgfn.structures.sources.template_distance import Fingerprint, alike, shape_vector

SAME, SAME_SHAPE = 0.12, 0.1
"""Largest difference of fingerprints (over the cube root of the volume per atom) and of cells of one structure."""
NEAR, NEAR_SHAPE = 0.15, 0.15
"""Widths of the Gaussians in the same differences, of the kernel densities."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A structure with what speaks for it.

    Attributes:
        structure: in the lattice that was asked for, if one was.
        template: the probability of its template, summed over those with this structure; 0 where none has it.
        letters: the probability of its letters, 1 where they were given.
        draw_frequency: share of the refiner's draws that came out as this structure.
        kernel_density: the same with every draw counting by how near it is, whatever its letters.
        template_density: probabilities of all templates, each counting by how near it is.
        min_contact_ratio: the smallest distance of two atoms over the sum of their radii.
        plausible: see `Plausibility`; only differences between candidates of a crystal mean something.
        fingerprint: what tells it from others.
        source: name of the source that has it, if ``template`` is above 0.
        energy: total energy of the structure as it is, eV/atom; NaN where it was not asked for or has none.
    """

    structure: OrbitStructure
    template: float
    letters: float
    draw_frequency: float
    min_contact_ratio: float
    fingerprint: Fingerprint = field(repr=False)
    kernel_density: float = 0.0
    template_density: float = 0.0
    plausible: float = 0.0
    source: str = "template"
    energy: float = float("nan")

    @property
    def origin(self) -> str:
        """Where it comes from: its source, "refiner", or "fixed" where the letters leave nothing free."""
        if not any(wyckoff_position(self.structure.space_group, o.letter).free for o in self.structure.orbits):
            return "fixed"
        return self.source if self.template > 0 else "refiner"


def candidate_of(
    structure: OrbitStructure,
    *,
    template: float = 0.0,
    letters: float = 0.0,
    draw_frequency: float = 0.0,
    source: str = "template",
) -> Candidate | None:
    """A structure as a candidate; None where two atoms are too close."""
    contacts, parameters = contacts_of(structure)
    ratio, shortest = (float(x[0]) for x in contacts.nearest(parameters))
    if not shortest >= SHORTEST:
        return None
    scale = structure.volume_per_atom ** (1 / 3)
    return Candidate(
        structure=structure,
        template=template,
        letters=letters,
        draw_frequency=draw_frequency,
        min_contact_ratio=ratio,
        fingerprint=(contacts.fingerprint(parameters[0]) / scale, shape_vector(np.array(structure.lattice))),
        source=source,
    )


def same(one: Candidate, other: Candidate) -> bool:
    """Whether two candidates are one structure."""
    return alike(one.fingerprint, other.fingerprint, SAME, SAME_SHAPE)


def nearness(one: Fingerprint, others: Sequence[Fingerprint], width: float, shape_width: float) -> np.ndarray:
    """A Gaussian in the differences of fingerprints and cells for each of the others, 1 where it is the same; [n]."""
    gaps = np.stack([distances for distances, _ in others]) - one[0]
    shapes = np.stack([shape for _, shape in others]) - one[1]
    gap = np.abs(gaps).reshape(len(others), -1).max(1) / width
    return np.exp(-0.5 * (gap**2 + (np.linalg.norm(shapes, axis=1) / shape_width) ** 2))


def density_at(one: Candidate, others: Sequence[tuple[Fingerprint, float]]) -> float:
    """Weights of fingerprints, each by how near it is."""
    if not others:
        return 0.0
    near = nearness(one.fingerprint, [fingerprint for fingerprint, _ in others], NEAR, NEAR_SHAPE)
    return float(near @ np.array([weight for _, weight in others]))


def join(found: list[Candidate], candidate: Candidate | None) -> None:
    """Count a candidate to the one that is the same, or as a new one."""
    if candidate is None:
        return
    for i, other in enumerate(found):
        if same(candidate, other):
            found[i] = replace(
                other,
                template=other.template + candidate.template,
                letters=max(other.letters, candidate.letters),
                draw_frequency=other.draw_frequency + candidate.draw_frequency,
            )
            return
    found.append(candidate)
