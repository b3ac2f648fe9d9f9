"""What a refiner is: it makes the free coordinates of orbits, and where asked for the lattice, probable ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from crystalgfn.crystallography.orbits import OrbitStructure

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
