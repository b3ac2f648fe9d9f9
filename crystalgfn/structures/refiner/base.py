"""What a refiner is, and the check of its contract: free coordinates of orbits, and where asked for the lattice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from crystalgfn.crystallography.orbit_batch import lattice_fault
from crystalgfn.crystallography.orbits import Orbit, OrbitStructure, cell_matrix
from crystalgfn.errors import PlacementError

LATTICES = ("keep", "refine", "generate")
"""What a refiner may do with lattices: nothing, strain them a little, make them."""
STARTS = ("noise", "given")
"""Where the coordinates start: from noise, or from those of the structures under some noise."""
STEPS = 5
"""Of the shipped refiner's sampler; more do not find more crystals: 9 evaluations of the network."""
NOISE, MAX_STRAIN = 0.4, 0.05
"""How much of a start is forgotten, and the largest principal logarithmic strain, where nothing else is said."""
Seed = tuple[int, ...]


@runtime_checkable
class Refiner(Protocol):
    """Makes structures of orbits; one of your own needs this method alone (docs/how-to/add-a-refiner.md).

    The space group, the letters and the species of what comes out are exactly those of what goes in, and with
    ``lattice="keep"`` the lattice too. What is made of a structure depends on it, on its seed and on the options, not
    on the other structures.
    """

    def refine(
        self,
        structures: Sequence[OrbitStructure],
        lattice: str = "keep",
        start: str = "noise",
        steps: int = STEPS,
        seeds: Sequence[Seed] | None = None,
        *,
        noise: float = NOISE,
        max_strain: float = MAX_STRAIN,
        progress: bool = False,
    ) -> list[OrbitStructure | None]:
        """A structure for each of those given; None where none came out.

        Args:
            structures: of any sizes; letters and species, coordinates where ``start="given"``, and lattices unless they
                are generated.
            lattice: one of `LATTICES`: "keep"; "refine": may be strained by ``max_strain``; "generate": the one given
                is not used.
            start: one of `STARTS`: "noise"; "given": the coordinates of the structures under some noise.
            steps: of the sampler.
            seeds: of the random numbers of each structure; None: (0, place in the list).
            noise: for ``start="given"``, from 0 (nothing of the start is forgotten) to 1 (everything is).
            max_strain: largest principal logarithmic strain.
            progress: shows a bar.

        Raises:
            PlacementError: an option that is invalid, or a structure that cannot be; a pipeline passes none of these.
        """
        ...


CHECK_STEPS, SLACK = 2, 1.1
"""Of the sampler while a refiner is checked; times the strain that is allowed which are let pass."""
DIFFERENT = 1e-3
"""Of a cell and of an edge, to which a structure must not depend on the others of a call."""


def check_option(name: str, value: str, options: Sequence[str]) -> None:
    """PlacementError where a value is none of the options."""
    if value not in options:
        raise PlacementError(f"invalid {name}={value!r}; expected one of {', '.join(options)}")


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
    """Hold a refiner to the contract of `Refiner`; a strained lattice must stay in its system and in ``max_strain``.

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
    made = refiner.refine(given, lattice, start, CHECK_STEPS, seeds, noise=0.3)
    if len(made) != len(given) or not all(one is None or isinstance(one, OrbitStructure) for one in made):
        raise PlacementError(
            f"The refiner {type(refiner).__name__} must return an OrbitStructure or None for each of {len(given)}."
        )
    return made


def _changed(before: OrbitStructure, after: OrbitStructure, lattice: str) -> Iterator[str]:
    """What it changed that it must keep."""
    if after.space_group != before.space_group or _occupied(after) != _occupied(before):
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


def _occupied(structure: OrbitStructure) -> list[tuple[str, int, float]]:
    return [(orbit.letter, orbit.species, orbit.occupancy) for orbit in structure.orbits]


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
