"""What an environment is: states that grow move by move, with masks that leave only moves that can be finished.

An environment knows nothing of policies or rewards. It says in which order the moves come (`turns`), what may be done
(`options`), what a policy sees (`observe`), and what a move does (`apply`). Trajectories in both directions come
from one function, `crystalgfn.gfn.rollout.unroll`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from crystalgfn.typing import FeatureIndex, FeatureWeight, Followers, Mask, Pairs, Pieces, RowIndex

State = TypeVar("State")
Objects = TypeVar("Objects")


@dataclass(frozen=True)
class Lookahead:
    """What may follow some of the actions of a choice.

    Attributes:
        row: int64 [pairs] and
        action: int64 [pairs], the actions looked at.
        may: bool [pairs, elements], who may take the last count after each.
    """

    row: Pairs
    action: Pairs
    may: Followers

    def select(self, keep: torch.Tensor, n: int) -> Lookahead:
        """What belongs to some of ``n`` rows: a mask, or positions without repeats."""
        index = keep.nonzero().flatten() if keep.dtype == torch.bool else keep
        place = torch.full((n,), -1, device=index.device)
        place[index] = torch.arange(len(index), device=index.device)
        row = place[self.row]
        here = row >= 0
        return Lookahead(row[here], self.action[here], self.may[here])


@dataclass(frozen=True)
class Discrete:
    """A choice among actions.

    Attributes:
        mask: bool [rows, actions], True where the action may be taken.
        counts: int64 [rows, slots] for the choice of (count, element): actions are slots x elements.
        last: what may take the last count after each pair, for that choice where two counts are left.
    """

    mask: Mask
    counts: torch.Tensor | None = None
    last: Lookahead | None = None

    def select(self, keep: torch.Tensor) -> Discrete:
        """The options of some of the rows."""
        return Discrete(
            self.mask[keep],
            None if self.counts is None else self.counts[keep],
            None if self.last is None else self.last.select(keep, len(self.mask)),
        )


@dataclass(frozen=True)
class Continuous:
    """A draw of a number from a union of disjoint intervals.

    Attributes:
        pieces: float64 [rows, pieces, 2], ends of the intervals; the second below the first: no interval.
    """

    pieces: Pieces

    def select(self, keep: torch.Tensor) -> Continuous:
        """The options of some of the rows."""
        return Continuous(self.pieces[keep])


Options = Discrete | Continuous


@dataclass(frozen=True)
class Observation:
    """What a policy sees: sparse vectors, as weights at indices of the environment's vocabulary.

    Attributes:
        index, weight: the distinct vectors, [distinct, fields].
        inverse: which of them each row of the batch sees, int64 [rows]; None: each its own.
        condition: what a conditioned policy is asked for, [distinct] (`under`); None: nothing.
    """

    index: FeatureIndex
    weight: FeatureWeight
    inverse: RowIndex | None = None
    condition: torch.Tensor | None = None

    def under(self, condition: torch.Tensor) -> Observation:
        """The same under conditions [rows], one a row; no two rows are then held to be alike."""
        at = slice(None) if self.inverse is None else self.inverse
        return Observation(self.index[at], self.weight[at], None, condition)


@dataclass(frozen=True, kw_only=True)
class Head:
    """One kind of decision that a policy has to make.

    Attributes:
        name: what is decided.
        size: number of actions; 0 for a continuous draw.
        centre, width: typical values of a continuous draw.
        elements: atomic numbers of the columns, for the choice of (count, element).
        slack: how far outside its set a given value of a continuous draw may lie and still count as on its edge.
    """

    name: str
    size: int
    centre: float = 0.0
    width: float = 1.0
    elements: tuple[int, ...] = ()
    slack: float = 0.0


class Environment(ABC, Generic[State, Objects]):
    """States, moves and masks; see the module's description.

    Attributes:
        heads: the decisions, by name.
        vocabulary: number of different features that `observe` may name.
        device: where the states live.
        object_type: class of the objects, with `cat`, `state_dict` and `from_state_dict`, where they can be kept for
            replay; None: they cannot.
    """

    heads: dict[str, Head]
    vocabulary: int
    device: torch.device
    object_type: type | None = None

    @abstractmethod
    def initial(self, n: int) -> State:
        """``n`` trajectories before their first move."""

    @abstractmethod
    def turns(self, state: State) -> Iterator[tuple[str, RowIndex]]:
        """The moves to come: (name of the head, rows that make it), until all trajectories are finished.

        ``state`` is updated in place by `apply` between two turns.
        """

    @abstractmethod
    def options(self, state: State, head: str, rows: RowIndex) -> Options:
        """What the rows may do; never nothing."""

    @abstractmethod
    def observe(self, state: State, head: str, rows: RowIndex) -> Observation:
        """What a policy sees of the rows."""

    @abstractmethod
    def apply(self, state: State, head: str, rows: RowIndex, action: torch.Tensor) -> None:
        """Make a move in place."""

    @abstractmethod
    def objects(self, state: State) -> Objects:
        """What finished trajectories have built."""

    @abstractmethod
    def replay(self, objects: Objects) -> Any:
        """What `forced` needs to lead trajectories to given objects."""

    @abstractmethod
    def forced(self, plan: Any, state: State, head: str, rows: RowIndex) -> torch.Tensor:
        """The action that leads to the planned objects; for paths that merge, one drawn from P_B's path."""

    def log_backward(self, state: State) -> torch.Tensor:
        """log P_B of the walked trajectories given their ends, [B]; 0 where every object has one path."""
        raise NotImplementedError
