"""Assignments of Wyckoff letters to the elements of a crystal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import numpy as np

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.orbits import check_letters, wyckoff_position
from crystalgfn.crystallography.realizable import packing
from crystalgfn.crystallography.supergroups import is_exact
from crystalgfn.errors import PlacementError

Letters = tuple[tuple[str, ...], ...]
"""The letters of each element, one an orbit, in the order of ``groups.WYCKOFF``."""


class LetterPacking:
    """The assignments of Wyckoff letters to elements that hold counts of atoms per primitive cell exactly.

    Positions without a free parameter are used at most once over all elements.
    """

    def __init__(self, space_group: int, max_count: int) -> None:
        self.packing = packing(space_group, max_count)
        positions = space_groups.WYCKOFF[space_group - 1]
        self.rank = {p.letter: i for i, p in enumerate(positions)}
        self.fixed = [(p.letter, p.primitive_multiplicity) for p in positions if not p.free]
        self.free = [(p.letter, p.primitive_multiplicity) for p in positions if p.free]
        self.multiplicity = {p.letter: p.primitive_multiplicity for p in positions}
        self._slot = {int(m): i for i, m in enumerate(self.packing.multiplicities)}
        self._index = {tuple(s): i for i, s in enumerate(self.packing.states.tolist())}

    def state(self, letters: Letters) -> int:
        """The packing state after these letters: the index in ``packing.states`` of the fixed positions in use."""
        used = [0] * len(self._slot)
        fixed = dict(self.fixed)
        for letter in (letter for element in letters for letter in element):
            if letter in fixed:
                used[self._slot[fixed[letter]]] += 1
        return self._index[tuple(used)]

    def sample(
        self, counts: tuple[int, ...], rng: np.random.Generator, end: int = -1, weights: np.ndarray | None = None
    ) -> Letters | None:
        """One random assignment of counts per primitive cell, None where they do not fit.

        ``end`` are the packing states to end in as a bit set, -1 for any; ``weights`` [positions] those of the group's
        free letters relative to each other, in the order of ``space_groups.WYCKOFF``.
        """
        open_states = self._open_states(counts, end)
        if not open_states[0] & 1:
            return None
        state, unused, answer = 0, {m: [f for f, n in self.fixed if n == m] for m in self._slot}, []
        for count, still_open in zip(counts, open_states[1:], strict=True):
            reachable = int(self.packing.step_bits[count, state]) & still_open
            choices = [s for s in range(len(self.packing.states)) if reachable >> s & 1]
            target = choices[rng.integers(len(choices))]
            chosen: list[str] = []
            for m, slot in self._slot.items():
                for _ in range(self.packing.states[target, slot] - self.packing.states[state, slot]):
                    chosen.append(unused[m].pop(rng.integers(len(unused[m]))))
            chosen += self._free_letters(count - sum(self.multiplicity[f] for f in chosen), rng, weights)
            state = target
            answer.append(tuple(sorted(chosen, key=self.rank.__getitem__)))
        return tuple(answer)

    def _open_states(self, counts: tuple[int, ...], end: int) -> list[int]:
        """Before each element and after the last the states, as a bit set, from which one of the end can be reached."""
        states = [end]
        for count in reversed(counts):
            targets = self.packing.step_bits[count].tolist()
            states.append(sum(1 << s for s, bits in enumerate(targets) if bits & states[-1]))
        return states[::-1]

    def _free_letters(self, count: int, rng: np.random.Generator, weights: np.ndarray | None) -> list[str]:
        """Random letters with a free parameter that hold so many atoms."""
        chosen: list[str] = []
        while count:
            possible = [f for f, m in self.free if m <= count and self.packing.filled[count - m]]
            if weights is None:
                letter = possible[rng.integers(len(possible))]
            else:
                p = weights[[self.rank[f] for f in possible]]
                letter = possible[rng.choice(len(possible), p=p / p.sum())]
            chosen.append(letter)
            count -= self.multiplicity[letter]
        return chosen

    def enumerate(self, counts: tuple[int, ...]) -> Iterator[Letters]:
        """Every assignment, once up to exchange of neighbouring elements with equal counts."""
        yield from self._elements(counts, (), frozenset())

    def _elements(self, counts: tuple[int, ...], done: Letters, used: frozenset[str]) -> Iterator[Letters]:
        if len(done) == len(counts):
            yield done
            return
        at = len(done)
        floor = done[-1] if at and counts[at] == counts[at - 1] else ()
        for letters in self.of_element(counts[at], used):
            if [self.rank[f] for f in letters] >= [self.rank[f] for f in floor]:
                yield from self._elements(counts, (*done, letters), used | set(letters))

    def of_element(self, count: int, used: frozenset[str]) -> Iterator[tuple[str, ...]]:
        """Every way to lay one element while these fixed positions are used by others."""
        positions = sorted(
            [(self.rank[f], f, m, False) for f, m in self.fixed if f not in used]
            + [(self.rank[f], f, m, True) for f, m in self.free]
        )

        def extend(at: int, left: int, chosen: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
            if left == 0:
                yield chosen
                return
            for i in range(at, len(positions)):
                _, letter, m, free = positions[i]
                if m <= left:
                    yield from extend(i if free else i + 1, left - m, (*chosen, letter))

        yield from extend(0, count, ())


@cache
def letter_packing(space_group: int, max_count: int) -> LetterPacking:
    """The shared ``LetterPacking`` of a group for counts up to ``max_count``."""
    return LetterPacking(space_group, max_count)


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
    """At most ``n`` different random assignments that hold the counts per primitive cell and give exactly the group.

    Fewer come back where there are fewer or where they are hard to hit at random.
    """
    symbols = [symbol for symbol, count in counts_by_element.items() if count]
    counts = tuple(int(counts_by_element[symbol]) for symbol in symbols)
    pack = letter_packing(space_group, max(counts))
    found = _random_exact(space_group, pack, counts, n, rng)
    if not found:  # the rare exact ones among many; the table of realisable counts was made the same way
        every = itertools.islice(pack.enumerate(counts), ENUMERATION_CAP)
        found = list(itertools.islice((one for one in every if is_exact(space_group, tuple(sorted(one)))), 1))
    return [dict(zip(symbols, letters, strict=True)) for letters in found]


def _random_exact(
    space_group: int, pack: LetterPacking, counts: tuple[int, ...], n: int, rng: np.random.Generator
) -> list[Letters]:
    """At most ``n`` different random assignments that give exactly the group; few tries follow once there is one."""
    # every other draw prefers positions with more free parameters, which more often break the supergroups
    general = np.array([(1.0 + p.n_free) ** 2 for p in space_groups.WYCKOFF[space_group - 1]])
    found: dict[Letters, None] = {}
    for attempt in range(TRIES * n):
        if len(found) == n or (found and attempt >= 4 * n):
            break
        letters = pack.sample(counts, rng, weights=general if attempt % 2 else None)
        if letters is None:
            break
        if letters not in found and is_exact(space_group, tuple(sorted(letters))):
            found[letters] = None
    return list(found)


def check_assignment(
    space_group: int, counts_by_element: Mapping[str, int], letters: Mapping[str, Sequence[str]]
) -> Assignment:
    """The letters as an assignment that holds the counts and gives exactly the group.

    Raises:
        PlacementError: other elements than the crystal's, unknown letters, a position without a free parameter used
            twice, letters that hold another number of atoms, or an assignment that has a supergroup whatever the
            coordinates.
    """
    name = space_groups.words_for(space_group)
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
