"""Works out which counts each group can realise and writes data/realisable.npz (minutes on one core).

Two facts make this quick. An exact structure stays exact when further elements are added to it, so patterns are settled
from those with fewer elements. And a structure in which every usable orbit is a species of its own is the least
symmetric one: if that has a larger group, so has every assignment.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.assignments import LetterPacking, Letters, letter_packing
from crystalgfn.crystallography.realizable import MAX_ATOMS, STATUSES, Packing, fit_patterns, patterns
from crystalgfn.crystallography.supergroups import is_exact
from crystalgfn.utils.files import save_arrays

RANDOM_TRIES = 60
TRIES_PER_STATE = 8
ENUMERATION_CAP = 20_000
UNFIT, YES, PROVEN, EXHAUSTED, NOT_FOUND = range(len(STATUSES))


def _exact(space_group: int, letters: Letters) -> bool:
    return is_exact(space_group, tuple(sorted(letters)))


def _advance(packing: Packing, states: int, count: int) -> int:
    """The bit set of states that an element with ``count`` atoms can lead to from a bit set of states."""
    reached = 0
    for s, targets in enumerate(packing.step_bits[count].tolist()):
        if states >> s & 1:
            reached |= targets
    return reached


def _least_symmetric_is_larger(space_group: int, pack: LetterPacking, counts: tuple[int, ...]) -> bool:
    """Whether even all orbits that the counts can hold, each a species of its own, have a supergroup."""
    letters = [(f,) for f, m in pack.fixed if m <= counts[0]]
    for f, m in pack.free:
        letters += [(f,)] * sum(count // m for count in counts)
    return not _exact(space_group, tuple(letters))


def _search(
    space_group: int, pack: LetterPacking, counts: tuple[int, ...], rng: np.random.Generator
) -> tuple[int, int]:
    """(status, bit set of the packing states of exact assignments that were found) of one pattern that fits."""
    general = np.array([float(p.n_free) ** 2 for p in space_groups.WYCKOFF[space_group - 1]])
    for attempt in range(RANDOM_TRIES):
        letters = pack.sample(counts, rng, weights=general if attempt % 2 else None)
        if letters is not None and _exact(space_group, letters):
            return YES, 1 << pack.state(letters)
    for tried, letters in enumerate(pack.enumerate(counts)):
        if tried == ENUMERATION_CAP:
            return NOT_FOUND, 0
        if _exact(space_group, letters):
            return YES, 1 << pack.state(letters)
    return EXHAUSTED, 0


def group_status(space_group: int) -> np.ndarray:
    """Index into ``STATUSES`` of every row of ``patterns()`` for one group: uint8 [P]."""
    rng = np.random.default_rng(space_group)
    pack = letter_packing(space_group, MAX_ATOMS)
    rows = [tuple(int(c) for c in row if c) for row in patterns()]
    fits = fit_patterns(patterns())[space_group - 1]
    answer = np.zeros(len(rows), dtype=np.uint8)
    exact: dict[tuple[int, ...], int] = {}
    for i in sorted(range(len(rows)), key=lambda i: (len(rows[i]), rows[i])):
        counts = rows[i]
        if not fits[i]:
            continue
        states = 0
        for c in set(counts):
            fewer = list(counts)
            fewer.remove(c)
            states |= _advance(pack.packing, exact.get(tuple(fewer), 0), c)
        if states:
            answer[i] = YES
        elif _least_symmetric_is_larger(space_group, pack, counts):
            answer[i] = PROVEN
        else:
            answer[i], states = _search(space_group, pack, counts, rng)
        if len(counts) <= 2 and answer[i] != PROVEN:  # more end states settle more of the longer patterns at once
            for s in range(len(pack.packing.states)):
                for _ in range(0 if states >> s & 1 else TRIES_PER_STATE):
                    letters = pack.sample(counts, rng, end=1 << s)
                    if letters is None:
                        break
                    if _exact(space_group, letters):
                        states |= 1 << s
                        break
        exact[counts] = states
    return answer


def build_realisable(folder: Path) -> None:
    """Writes ``folder / "realisable.npz"``; groups already done are kept in a partial file, so a build resumes."""
    partial = folder / "realisable.partial.npz"
    done: dict[str, np.ndarray] = {}
    if partial.exists():
        with np.load(partial) as file:
            done = {name: file[name] for name in file.files}
    for number in range(1, 231):
        if str(number) in done:
            continue
        done[str(number)] = group_status(number)
        is_exact.cache_clear()
        save_arrays(partial, done)
        names = Counter(STATUSES[s] for s in done[str(number)].tolist())
        print(f"group {number}: " + ", ".join(f"{n} {name}" for name, n in names.items()), flush=True)
    status = np.stack([done[str(number)] for number in range(1, 231)])
    save_arrays(folder / "realisable.npz", {"status": status})
    partial.unlink()
    print(", ".join(f"{n} {STATUSES[s]}" for s, n in sorted(Counter(status.ravel().tolist()).items())))
