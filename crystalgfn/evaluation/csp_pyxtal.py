"""The baseline of structure prediction that others have: random crystals of pyxtal, as they come."""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalgfn.domain.lattice import KIND, KINDS
from crystalgfn.evaluation.csp import Given
from crystalgfn.evaluation.csp_methods import most_probable
from crystalgfn.structures.orbits import wyckoff_position
from crystalgfn.tables import groups

if TYPE_CHECKING:
    from pymatgen.core import Structure

TRIES, SECONDS = 10, 20.0
"""For one structure, as many as pyxtal's own; of CPU for all of a crystal, since it tries for minutes without room."""


@dataclass(frozen=True)
class Pyxtal:
    """``pyxtal.from_random``: random letters (unless given), random coordinates, pyxtal's own distances and volumes.

    Where no group is given, the most probable ones get one structure each.
    """

    def __call__(self, what: Given, k: int, seed: int) -> list[Structure]:
        """At most ``k`` structures, in the order in which they came."""
        end = time.process_time() + SECONDS
        asked = [what] * k if what.space_group is not None else most_probable(what, k)
        found: list[Structure] = []
        for i, one in enumerate(asked):
            for number in range(TRIES):
                if time.process_time() > end:
                    return found
                structure = from_random(one, int(np.random.default_rng((seed, i, number)).integers(2**31)))
                if structure is not None:
                    found.append(structure)
                    break
        return found


def from_random(what: Given, seed: int) -> Structure | None:
    """One try of pyxtal; None where it finds no crystal, for whatever reason."""
    from pyxtal import pyxtal
    from pyxtal.lattice import Lattice

    group = what.space_group
    options: dict[str, Any] = {}
    if what.lattice is not None:
        cell = Lattice.from_para(*map(float, what.lattice), ltype=KINDS[KIND[group - 1]])
        cell.random_state = np.random.default_rng(seed)  # coordinates are drawn from a given cell's own generator
        options["lattice"] = cell
    if what.letters is not None:
        options["sites"] = _sites(group, what.letters)
    counts = [n * int(groups.CENTRING[group - 1]) for n in what.counts.values()]
    crystal = pyxtal()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            crystal.from_random(3, group, list(what.counts), counts, random_state=seed, max_count=1, **options)
        except Exception:  # whatever pyxtal stumbles over is a crystal that it does not find
            return None
        return crystal.to_pymatgen() if crystal.valid else None


def _sites(group: int, letters: Mapping[str, Sequence[str]]) -> list[list[str]]:
    return [[f"{wyckoff_position(group, f).multiplicity}{f}" for f in own] for own in letters.values()]
