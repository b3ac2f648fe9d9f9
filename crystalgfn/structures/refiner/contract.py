"""`check_refiner`: whether a refiner keeps the contract of `crystalgfn.structures.refiner.base.Refiner`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from crystalgfn.crystallography.orbit_batch import lattice_fault
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure, cell_matrix
from crystalgfn.errors import PlacementError
from crystalgfn.structures.refiner.base import Refiner

STEPS, MAX_STRAIN, SLACK = 2, 0.05, 1.1
"""Of the sampler; strain that is allowed, and times as much that is let pass."""
DIFFERENT = 1e-3
"""Of a cell and of an edge, to which a structure must not depend on the others of a call."""


def example_structures() -> list[OrbitStructure]:
    """Rock salt, rutile, quartz, and a triclinic structure."""
    return [
        OrbitStructure(225, (5.64, 5.64, 5.64, 90.0, 90.0, 90.0), (Orbit("a", 11), Orbit("b", 17))),
        OrbitStructure(136, (4.6, 4.6, 2.96, 90.0, 90.0, 90.0), (Orbit("a", 22), Orbit("f", 8, (0.3, 0.3, 0.0)))),
        OrbitStructure(
            154,
            (4.92, 4.92, 5.41, 90.0, 90.0, 120.0),
            (Orbit("a", 14, (0.47, 0.0, 2 / 3)), Orbit("c", 8, (0.41, 0.27, 0.78))),
        ),
        OrbitStructure(
            2,
            (5.2, 5.6, 6.1, 82.0, 77.0, 71.0),
            (Orbit("i", 20, (0.1, 0.2, 0.3)), Orbit("i", 8, (0.6, 0.7, 0.2)), Orbit("a", 12)),
        ),
    ]


def check_refiner(refiner: Any, structures: Sequence[OrbitStructure] | None = None) -> None:
    """Hold a refiner to its contract.

    It gives a structure or None for each one given, with the same space group, letters and species, and with
    ``lattice="keep"`` the same lattice; a strained lattice stays within ``max_strain`` and in the lattice system; the
    same seeds give the same structures, and what is made of one does not depend on the others.

    Args:
        refiner: to check.
        structures: to check it on, one of which it must be able to refine; None: rock salt, rutile, quartz and a
            triclinic structure.

    Raises:
        PlacementError: one sentence for each clause that is broken.
    """
    name = type(refiner).__name__
    if not isinstance(refiner, Refiner):
        raise PlacementError(f"{name} is no refiner: it needs refine(structures, lattice, start, steps, seeds)")
    given = example_structures() if structures is None else list(structures)
    broken: list[str] = []
    for lattice, start in (("keep", "noise"), ("keep", "given"), ("refine", "given"), ("generate", "noise")):
        made = _made(refiner, given, lattice, start)
        for before, after in zip(given, made, strict=True):
            if after is not None:
                broken += _changed(before, after, lattice)
        if all(after is None for after in made):
            broken.append(f"gives no structure at all with lattice={lattice!r}; give some that it can refine")
        if not broken:
            broken += _unsteady(refiner, given, made, lattice, start)
    if broken:
        raise PlacementError("\n".join(f"The refiner {name} {sentence}." for sentence in dict.fromkeys(broken)))


def _made(
    refiner: Refiner, given: Sequence[OrbitStructure], lattice: str, start: str, first: int = 0
) -> list[OrbitStructure | None]:
    seeds = [(7, i) for i in range(first, first + len(given))]
    made = refiner.refine(given, lattice, start, STEPS, seeds, noise=0.3, max_strain=MAX_STRAIN)
    if len(made) != len(given) or not all(one is None or isinstance(one, OrbitStructure) for one in made):
        raise PlacementError(
            f"The refiner {type(refiner).__name__} must return an OrbitStructure or None for each of {len(given)}."
        )
    return made


def _changed(before: OrbitStructure, after: OrbitStructure, lattice: str) -> Iterator[str]:
    """What it changed that it must keep."""
    kept = [[(orbit.letter, orbit.species, orbit.occupancy) for orbit in one.orbits] for one in (before, after)]
    if after.space_group != before.space_group or kept[0] != kept[1]:
        yield f"changes the space group, letters or species of {before.counts}; it may move coordinates and cells alone"
        return
    if not np.isfinite([x for orbit in after.orbits for x in orbit.parameters]).all():
        yield "gives coordinates that are not finite; give None in place of such a structure"
    if lattice == "keep" and after.lattice != before.lattice:
        yield f"changes the lattice of {before.counts} although lattice='keep'"
    if (wrong := lattice_fault(after.space_group, after.lattice)) is not None:
        yield f"gives a cell that cannot be ({wrong}); give None in place of such a structure"
    elif lattice == "refine":
        change = np.linalg.inv(cell_matrix(before.lattice)) @ cell_matrix(after.lattice)
        strain = float(np.abs(np.log(np.linalg.svd(change)[1])).max())
        if strain > SLACK * MAX_STRAIN:
            yield f"strains the lattice of {before.counts} by {strain:.3f} where max_strain={MAX_STRAIN}"


def _unsteady(
    refiner: Refiner, given: Sequence[OrbitStructure], made: Sequence[OrbitStructure | None], lattice: str, start: str
) -> Iterator[str]:
    """Structures that change from one call to the next, or with the others."""
    again = _made(refiner, given, lattice, start)
    if any(_differ(one, other) for one, other in zip(made, again, strict=True)):
        yield "gives other structures when it is called again with the same seeds"
    alone = [_made(refiner, [one], lattice, start, first=i)[0] for i, one in enumerate(given)]
    if any(_differ(one, other) for one, other in zip(made, alone, strict=True)):
        yield "makes something else of a structure alone than among others"


def _differ(one: OrbitStructure | None, other: OrbitStructure | None) -> bool:
    if one is None or other is None:
        return (one is None) != (other is None)
    gaps = one.sites()[0] - other.sites()[0]
    lattices = np.abs(np.divide(one.lattice, other.lattice) - 1).max()
    return bool(np.abs(gaps - np.rint(gaps)).max() > DIFFERENT or lattices > DIFFERENT)
