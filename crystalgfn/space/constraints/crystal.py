"""What holds of every crystal: atoms on Wyckoff positions of exactly its group, in the reduced conventional cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.lattice import in_domain
from crystalgfn.space.constraint import Check
from crystalgfn.space.constraints.cell import ANGLE_TOLERANCE, LENGTH_TOLERANCE
from crystalgfn.space.patterns import realisable_compositions, realisable_patterns
from crystalgfn.space.rules import MaskRules


def _known(crystals: Crystals) -> torch.Tensor:
    return (crystals.space_group >= 1) & (crystals.space_group <= 230)


@dataclass(frozen=True)
class WyckoffPositions:
    """The atoms can be laid on Wyckoff positions of the space group, and the crystal has no larger group."""

    def intersect(self, other: WyckoffPositions) -> WyckoffPositions:
        """The same rule."""
        return self

    def mask(self, tables: MaskRules) -> None:
        """Keep the count patterns that each group can hold."""
        tables.keep_patterns(realisable_patterns)

    def explain(self, crystals: Crystals) -> Check:
        """The counts fit; crystals of no known space group are left to that rule."""
        known = _known(crystals)
        index = (crystals.space_group - 1).clamp(0, 229)
        fits = realisable_compositions(index.cpu().numpy(), crystals.composition.cpu().numpy())

        def reason(i: int) -> str:
            row = crystals.composition[i]
            counts = "+".join(str(int(c)) for c in row[row > 0].sort(descending=True).values) or "0"
            symbol = space_groups.SYMBOL[int(index[i])]
            return f"{counts} atoms cannot be laid on Wyckoff positions of {symbol} with exactly that group"

        return Check(torch.from_numpy(fits).to(crystals.device) | ~known, reason)

    def to_dict(self) -> dict[str, Any]:
        """It has no arguments."""
        return {}


@dataclass(frozen=True)
class ConventionalCell:
    """The cell is the one of the fundamental domain of its group (`crystalgfn.crystallography.lattice`)."""

    def intersect(self, other: ConventionalCell) -> ConventionalCell:
        """The same rule."""
        return self

    def mask(self, tables: MaskRules) -> None:
        """Nothing: the moves of the lattice make no other cells."""

    def explain(self, crystals: Crystals) -> Check:
        """The cell is reduced and has the shape of its lattice system."""
        number, lattice = crystals.space_group.clamp(1, 230), crystals.lattice.double()
        return Check(
            in_domain(number, lattice, LENGTH_TOLERANCE, ANGLE_TOLERANCE) | ~_known(crystals),
            lambda i: (
                f"the cell {[round(float(x), 4) for x in lattice[i]]} is not the reduced conventional cell of "
                f"{space_groups.SYMBOL[int(number[i]) - 1]}"
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """It has no arguments."""
        return {}
