"""Which Wyckoff letters the elements take."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from crystalgfn.errors import PlacementError
from crystalgfn.structures.orbits import check_letters, wyckoff_position
from crystalgfn.tables import groups
from crystalgfn.tables.exactness import is_exact
from crystalgfn.tables.letters import letter_packing

TRIES = 40
"""Random assignments drawn for each one that is asked for; about two in three are exact."""

ENUMERATION_CAP = 2000
"""Assignments looked at one by one where no random one is exact."""

Assignment = dict[str, tuple[str, ...]]
"""Element symbol -> letters of its orbits."""


def exact(space_group: int, assignment: Mapping[str, Sequence[str]]) -> bool:
    """Whether these letters give exactly this group at generic coordinates and no supergroup (cached)."""
    return is_exact(space_group, tuple(sorted(tuple(letters) for letters in assignment.values())))


def sample_assignments(
    space_group: int, counts_by_element: Mapping[str, int], n: int, rng: np.random.Generator
) -> list[Assignment]:
    """At most ``n`` different random assignments that hold the counts exactly and give exactly the group.

    Args:
        space_group: ITA number 1-230.
        counts_by_element: element symbol -> atoms per primitive cell.
        n: how many to look for; fewer come back where there are fewer or where they are hard to hit at random.
        rng: the source of randomness.
    """
    symbols = [symbol for symbol, count in counts_by_element.items() if count]
    counts = tuple(int(counts_by_element[symbol]) for symbol in symbols)
    pack = letter_packing(space_group, max(counts))
    # every other draw prefers positions with more free parameters, which more often break the supergroups
    general = np.array([(1.0 + p.n_free) ** 2 for p in groups.WYCKOFF[space_group - 1]])
    found: dict[tuple[tuple[str, ...], ...], None] = {}
    for attempt in range(TRIES * n):
        if len(found) == n or (found and attempt >= 4 * n):
            break
        letters = pack.sample(counts, rng, weights=general if attempt % 2 else None)
        if letters is None:
            break
        if letters not in found and is_exact(space_group, tuple(sorted(letters))):
            found[letters] = None
    if not found:  # the rare exact ones among many; the table of realisable counts was made the same way
        for letters in itertools.islice(pack.enumerate(counts), ENUMERATION_CAP):
            if is_exact(space_group, tuple(sorted(letters))):
                found[letters] = None
                break
    return [dict(zip(symbols, letters, strict=True)) for letters in found]


def check_assignment(
    space_group: int, counts_by_element: Mapping[str, int], letters: Mapping[str, Sequence[str]]
) -> Assignment:
    """The letters as an assignment that holds the counts and gives exactly the group.

    Raises:
        PlacementError: other elements than the crystal's, unknown letters, a position without a free parameter used
            twice, letters that hold another number of atoms, or an assignment that has a supergroup whatever the
            coordinates.
    """
    name = f"space group {space_group} ({groups.SYMBOL[space_group - 1]})"
    if set(letters) != set(counts_by_element):
        raise PlacementError(
            f"letters are given for {', '.join(sorted(letters)) or 'no element'}, but the crystal has "
            f"{', '.join(sorted(counts_by_element))}"
        )
    check_letters(space_group, [letter for element in letters.values() for letter in element])
    for symbol, count in counts_by_element.items():
        held = sum(wyckoff_position(space_group, letter).primitive_multiplicity for letter in letters[symbol])
        if held != count:
            raise PlacementError(
                f"the letters {', '.join(letters[symbol]) or 'none'} of {symbol} hold {held} atoms per primitive cell "
                f"of {name}, but the crystal has {count}"
            )
    assignment = {symbol: tuple(letters[symbol]) for symbol in counts_by_element}
    if not exact(space_group, assignment):
        raise PlacementError(
            f"atoms on these letters alone have a larger group than {name}, whatever their coordinates; use letters "
            "with more free parameters"
        )
    return assignment
