"""Chemical systems to discover in: their stable phases are held back, and nothing known has all of their elements."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.discovery.phases import KnownPhase, KnownPhases
from crystalgfn.errors import DataError

SIZES = (3, 4)
"""Elements of a system."""
SCALE = "charge"
"""Of energies above the hull (`crystalgfn.properties.energy_scale`), as `crystalgfn.discovery.discover` has it."""
ATTEMPTS = 100_000
"""Orders that are tried for one with enough phases."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldBackSystem:
    """A chemical system with what is to be found there.

    Attributes:
        numbers: its elements, ascending.
        targets: stable phases with all of its elements, which the methods do not know.
        known: all other phases of its elements: the hull that the methods see.
        everything: these and the targets' system: the hull that results are judged by.
    """

    numbers: tuple[int, ...]
    targets: tuple[KnownPhase, ...]
    known: KnownPhases
    everything: KnownPhases

    @property
    def name(self) -> str:
        """Such as Li-Mn-O."""
        return "-".join(elements.SYMBOLS[z - 1] for z in self.numbers)


def choose_systems(
    held: Sequence[KnownPhase],
    known: Sequence[KnownPhase],
    allowed: Collection[int],
    n: int = 12,
    phases: int = 15,
    seed: int = 0,
) -> list[HeldBackSystem]:
    """Chemical systems by a rule that is fixed before anything is run.

    Eligible are sets of three or four allowed elements of which a held phase with a structure has all, is stable on the
    hull of all phases, and no known phase has all. They are put into a random order of the seed; the first ``n`` are
    taken, unless they have fewer than ``phases`` stable phases together: then a new order is drawn from the same
    generator, and so on.

    Args:
        held: phases that are to be found.
        known: phases that were fitted on, are templates, or are entries of the hull.
        allowed: atomic numbers.
        n: systems.
        phases: stable held phases in them together, at least.
        seed: of the orders.

    Raises:
        DataError: there are not so many.
    """
    of_elements: dict[frozenset[int], list[KnownPhase]] = defaultdict(list)
    for phase in (*known, *held):
        of_elements[_elements(phase)].append(phase)
    free = _free(held, known, set(allowed))

    @cache
    def made(i: int) -> HeldBackSystem | None:
        return _system(free[i], of_elements)

    rng = np.random.default_rng(seed)
    for _ in range(ATTEMPTS):
        order = (made(i) for i in rng.permutation(len(free)).tolist())
        chosen = list(itertools.islice((one for one in order if one is not None), n))
        if len(chosen) < n:
            break
        if sum(len(one.targets) for one in chosen) >= phases:
            return chosen
    eligible = sum(made(i) is not None for i in range(len(free)))
    raise DataError(
        f"{eligible} chemical systems can be chosen, and no {n} of them with {phases} stable phases were found; ask "
        "for fewer, or give more crystals to find"
    )


def _elements(one: KnownPhase) -> frozenset[int]:
    return frozenset(z for z, _ in one.amounts)


def _free(held: Sequence[KnownPhase], known: Sequence[KnownPhase], allowed: set[int]) -> list[frozenset[int]]:
    """Sets of elements of held phases that no known phase has all of, in a fixed order."""
    own = {_elements(one) for one in held if one.entry is not None}
    taken = {frozenset(part) for one in {_elements(one) for one in known} for part in _parts(one, SIZES)}
    return sorted((one for one in own if len(one) in SIZES and one <= allowed and one not in taken), key=sorted)


def _parts(own: frozenset[int], sizes: Iterable[int]) -> Iterator[tuple[int, ...]]:
    """Subsets of some sizes."""
    return itertools.chain.from_iterable(itertools.combinations(sorted(own), k) for k in sizes)


def _system(own: frozenset[int], of_elements: Mapping[frozenset[int], list[KnownPhase]]) -> HeldBackSystem | None:
    """A system; None where none of its held phases is stable, or an element is in no phase that is shown."""
    parts = _parts(own, range(1, len(own) + 1))
    within = [one for part in parts for one in of_elements.get(frozenset(part), ())]
    shown = [one for one in within if _elements(one) != own]
    everything = KnownPhases("all phases", within, SCALE)
    targets = tuple(one for one in everything.stable if _elements(one) == own and one.entry is not None)
    if not targets or frozenset[int]().union(*map(_elements, shown)) != own:
        return None
    return HeldBackSystem(
        numbers=tuple(sorted(own)),
        targets=targets,
        known=KnownPhases("phases shown", shown, SCALE),
        everything=everything,
    )
