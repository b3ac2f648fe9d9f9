"""How many elements and atoms a crystal has, in the primitive cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import InvalidSpace
from crystalgfn.space.constraint import Check
from crystalgfn.space.constraints.parse import meet, whole_range
from crystalgfn.space.rules import MaskRules

MOST_ATOMS = 400
"""Atoms of a primitive cell up to which spaces are made."""


@dataclass(frozen=True)
class Range:
    """A lowest and a highest whole number, both included."""

    name: str
    low: int
    high: int

    @classmethod
    def of(cls, name: str, value: Any) -> Range:
        """Two whole numbers from 1, or one for both.

        Raises:
            InvalidSpace: something else, or more atoms than a space can have.
        """
        low, high = whole_range(name, value, 1)
        if high > MOST_ATOMS:
            raise InvalidSpace(f"{name}=[{low}, {high}]: limits end at {MOST_ATOMS}")
        return cls(name, low, high)

    def intersect(self, other: Range) -> Range:
        """What is in both."""
        return type(self)(self.name, *meet(self.name, (self.low, self.high), (other.low, other.high), whole=True))

    def mask(self, tables: MaskRules) -> None:
        """Limit the patterns of counts."""
        setattr(tables, self.name, (self.low, self.high))

    def to_dict(self) -> dict[str, Any]:
        """Lowest and highest."""
        return {self.name: [self.low, self.high]}

    def _between(self, values: torch.Tensor) -> Check:
        return Check(
            (values >= self.low) & (values <= self.high),
            lambda i: f"{self.name} {int(values[i])} outside [{self.low}, {self.high}]",
        )


class NumberOfElements(Range):
    """Different elements."""

    @classmethod
    def parse(cls, value: Any) -> Range:
        """Two whole numbers, or one for both."""
        return cls.of("n_elements", value)

    def explain(self, crystals: Crystals) -> Check:
        """Elements within the range."""
        return self._between(crystals.n_elements)


class NumberOfAtoms(Range):
    """Atoms in the primitive cell."""

    @classmethod
    def parse(cls, value: Any) -> Range:
        """Two whole numbers, or one for both."""
        return cls.of("n_atoms", value)

    def explain(self, crystals: Crystals) -> Check:
        """Atoms within the range."""
        return self._between(crystals.n_atoms)


class AtomsPerElement(Range):
    """Atoms of each element in the primitive cell."""

    @classmethod
    def parse(cls, value: Any) -> Range:
        """Two whole numbers, or one for both."""
        return cls.of("atoms_per_element", value)

    def explain(self, crystals: Crystals) -> Check:
        """Atoms of every element within the range."""
        counts = crystals.composition
        inside = ((counts == 0) | ((counts >= self.low) & (counts <= self.high))).all(1) & (counts > 0).any(1)

        def reason(i: int) -> str:
            present = counts[i][counts[i] > 0]
            found = f"{int(present.min())} to {int(present.max())}" if len(present) else "0"
            return f"atoms_per_element {found} outside [{self.low}, {self.high}]"

        return Check(inside, reason)
