"""The likeliest candidates of crystals: by the choice alone, or with energies of the first of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from crystalgfn.structures.candidate import Candidate
from crystalgfn.structures.choice import Choice
from crystalgfn.structures.relax_orbits import orbit_energies

WEIGHED = 20
"""Candidates of a crystal that get energies, where so many were found."""
PER_ENERGY = 0.05
"""eV/atom by which a candidate is higher than another for odds of 1 to e: about what is wrong with energies of
structures that nobody relaxed, so far more than any thermal energy."""

Ranked = list[tuple[Candidate, float]]
"""Candidates of one crystal with their probabilities, the likeliest first."""


def likeliest(found: Sequence[Sequence[Candidate]], choice: Choice, n: int, energies: bool = False) -> list[Ranked]:
    """At most ``n`` candidates of each crystal, with their probabilities among all of its own.

    Args:
        found: the candidates of each crystal.
        choice: says how likely they are.
        n: how many, at most.
        energies: of more than ``n`` where there are (`WEIGHED`), those come first that are likely and low in CHGNet's
            energy; needs the extra ``[relax]``.

    Raises:
        NotAvailable: ``energies`` without CHGNet.
    """
    if not energies:
        return [choice.ranked(own, n) for own in found]
    ranked = [choice.ranked(own, max(n, WEIGHED)) for own in found]
    energy = iter(orbit_energies([candidate.structure for own in ranked for candidate, _ in own]).tolist())
    return [weighed([(replace(c, energy=next(energy)), p) for c, p in own])[:n] for own in ranked]


def weighed(ranked: Ranked) -> Ranked:
    """The same, with probabilities times exp(-energy / `PER_ENERGY`), together what they were before.

    A candidate without an energy counts as high as the highest: CHGNet has none where an atom has no neighbour.
    """
    energy = np.array([candidate.energy for candidate, _ in ranked])
    known = np.isfinite(energy)
    if not known.any():
        return ranked
    above = np.where(known, energy - energy[known].min(), np.ptp(energy[known]))
    before = np.array([probability for _, probability in ranked])
    after = before * np.exp(-above / PER_ENERGY)
    after *= before.sum() / after.sum()
    return [(ranked[i][0], float(after[i])) for i in np.argsort(-after, kind="stable")]
