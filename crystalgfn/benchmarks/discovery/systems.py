"""Chemical systems to discover in: their stable phases are held back, and nothing known has all of their elements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from crystalgfn.crystallography import elements
from crystalgfn.discovery.phases import KnownPhase, KnownPhases
from crystalgfn.errors import DataError

SIZES = (3, 4)
"""Elements of a system."""
ATTEMPTS = 1000
"""Orders that are tried for one with enough phases."""
STABLE = 1e-6
"""eV/atom above the hull of all phases, at most."""


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
    of_system: dict[frozenset[int], list[KnownPhase]] = defaultdict(list)
    for one in held:
        own = frozenset(z for z, _ in one.amounts)
        if len(own) in SIZES and own <= set(allowed) and one.entry is not None:
            of_system[own].append(one)
    sets = {frozenset(z for z, _ in one.amounts) for one in known}
    free = sorted((own for own in of_system if not any(own <= other for other in sets)), key=sorted)
    eligible = [one for own in free if (one := _system(own, held, known)) is not None]
    rng = np.random.default_rng(seed)
    for _ in range(ATTEMPTS):
        chosen = [eligible[i] for i in rng.permutation(len(eligible))[:n]]
        if len(chosen) == n and sum(len(one.targets) for one in chosen) >= phases:
            return chosen
    raise DataError(
        f"{len(eligible)} chemical systems can be chosen, and no {n} of them with {phases} stable phases were found; "
        "ask for fewer, or give more crystals to find"
    )


def _system(own: frozenset[int], held: Sequence[KnownPhase], known: Sequence[KnownPhase]) -> HeldBackSystem | None:
    """A system; None where none of its held phases is stable."""
    within = [one for one in (*known, *held) if {z for z, _ in one.amounts} <= own]
    shown = [one for one in within if {z for z, _ in one.amounts} != own]
    if {z for one in shown for z, _ in one.amounts} != own:
        return None
    everything = KnownPhases("all phases", within)
    targets = tuple(one for one in everything.stable if {z for z, _ in one.amounts} == own and one.entry is not None)
    if not targets:
        return None
    return HeldBackSystem(
        numbers=tuple(sorted(own)), targets=targets, known=KnownPhases("phases shown", shown), everything=everything
    )
