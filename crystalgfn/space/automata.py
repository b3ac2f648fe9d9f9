"""Rules on compositions as finite automata that read (element, atoms) in the order in which elements are drawn.

Whatever an automaton needs to remember of the elements so far becomes part of the state of a partial composition, so
that the look-ahead of the charges answers for it too: no dead end, and exact probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crystalgfn.errors import InvalidSpace

MAX_STATES = 5_000
"""States of all rules together up to which tables are built."""


@dataclass(frozen=True)
class Automaton:
    """A rule on compositions that is read element by element, the most electronegative first.

    Attributes:
        start: state before any element; any hashable value.
        step: (state, atomic number, atoms of it) -> the next state, or None where the rule is broken for good.
        accept: whether a composition that ends in a state obeys.

    Example: at most one halogen is
    ``Automaton(0, lambda seen, z, atoms: min(seen + (z in (9, 17, 35, 53)), 2), lambda seen: seen < 2)``.
    """

    start: Hashable
    step: Callable[[Any, int, int], Hashable | None]
    accept: Callable[[Any], bool]


@dataclass(frozen=True)
class StateTable:
    """Several automata as one table; state 0 is the start.

    Attributes:
        step: int64 [Q, E, C + 1], the state after so many atoms of an element; -1: the rule is broken.
        accept: bool [Q].
    """

    step: np.ndarray
    accept: np.ndarray


def state_table(automata: Sequence[Automaton], zs: Sequence[int], c_max: int) -> StateTable:
    """All states that automata can reach together on 1 to ``c_max`` atoms of each element; dead ends are refused early.

    Raises:
        InvalidSpace: too many states.
    """
    first = tuple(one.start for one in automata)
    index: dict[tuple, int] = {first: 0}
    todo = [first]
    rows: list[np.ndarray] = []
    for states in todo:  # grows while it is read
        row = np.full((len(zs), c_max + 1), -1, dtype=np.int64)
        for e, z in enumerate(zs):
            for atoms in range(1, c_max + 1):
                key = _after(automata, states, z, atoms)
                if key is None:
                    continue
                if key not in index:
                    index[key] = len(index)
                    todo.append(key)
                row[e, atoms] = index[key]
        rows.append(row)
        if len(index) > MAX_STATES:
            raise InvalidSpace(
                f"the rules on compositions need more than {MAX_STATES} states together; give fewer formulas or rules"
            )
    step = np.stack(rows)
    accept = np.array(
        [all(one.accept(state) for one, state in zip(automata, states, strict=True)) for states in todo], dtype=bool
    )
    alive, more = np.zeros_like(accept), accept
    while (more != alive).any():  # states from which some composition is accepted
        alive = more
        more = alive | (alive[step.clip(0)] & (step >= 0)).any((1, 2))
    return StateTable(np.where((step >= 0) & alive[step.clip(0)], step, -1), accept)


def _after(automata: Sequence[Automaton], states: tuple, z: int, atoms: int) -> tuple | None:
    """The states of all automata after some atoms of an element; None where one of them refuses."""
    following = []
    for one, state in zip(automata, states, strict=True):
        after = one.step(state, z, atoms)
        if after is None:
            return None
        following.append(after)
    return tuple(following)
