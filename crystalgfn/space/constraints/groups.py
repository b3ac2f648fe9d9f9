"""Which space groups a crystal has, and what every crystal obeys: Wyckoff positions and cell of its group."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.lattice import in_domain
from crystalgfn.errors import EmptySpace, InvalidSpace
from crystalgfn.space.constraint import Check
from crystalgfn.space.constraints.limits import ANGLE_TOLERANCE, LENGTH_TOLERANCE, known_group
from crystalgfn.space.constraints.parse import Rule, sequence
from crystalgfn.space.patterns import realisable_compositions, realisable_patterns
from crystalgfn.space.rules import MaskRules

TRIGONAL = ("trigonal-rhombohedral", "trigonal-hexagonal")


class SpaceGroups(Rule):
    """Some of the 230 space groups, by ITA number."""

    name = "space_groups"

    @classmethod
    def read(cls, value: Any) -> tuple[int, ...]:
        """Numbers and Hermann-Mauguin symbols in any setting."""
        numbers = []
        for one in sequence("space_groups", value):
            if isinstance(one, str):
                try:
                    one = space_groups.number_of(one)
                except ValueError as error:
                    raise InvalidSpace(f"space_groups: {error}") from None
            if isinstance(one, bool) or not isinstance(one, (int, np.integer)) or not 1 <= one <= 230:
                raise InvalidSpace(f"space_groups: {one!r} is not an ITA number from 1 to 230")
            numbers.append(int(one))
        if not numbers:
            raise EmptySpace("space_groups=[] leaves no group; give ITA numbers, or null for all 230")
        return tuple(sorted(set(numbers)))

    def limit(self, tables: MaskRules) -> None:
        """Other groups cannot be chosen."""
        tables.only_groups(self.allowed())

    def allowed(self) -> np.ndarray:
        """Whether each group is among them, bool [230]."""
        return np.ones(230, dtype=bool) if self.value is None else np.isin(np.arange(1, 231), self.value)

    def explain(self, crystals: Crystals) -> Check:
        """The group is one of them, and one of the 230 at all."""
        number = crystals.space_group
        allowed = torch.as_tensor(self.allowed(), device=number.device)[(number - 1).clamp(0, 229)]
        return Check(allowed & known_group(crystals), lambda i: f"space group {int(number[i])} is not in the space")


class CrystalSystems(SpaceGroups):
    """Groups by crystal-lattice system; "trigonal" stands for both of its lattices."""

    name = "crystal_systems"
    names: ClassVar[tuple[str, ...]] = space_groups.CRYSTAL_LATTICE_SYSTEMS
    column: ClassVar[np.ndarray] = space_groups.CRYSTAL_LATTICE_SYSTEM

    @classmethod
    def read(cls, value: Any) -> tuple[str, ...]:
        """Names."""
        found: list[str] = []
        for name in sequence(cls.name, value):
            for one in TRIGONAL if name == "trigonal" and cls.name == "crystal_systems" else (name,):
                if one not in cls.names:
                    raise InvalidSpace(f"{cls.name}: {one!r} is not one of {', '.join(cls.names)}")
                found.append(one)
        if not found:
            raise EmptySpace(f"{cls.name}=[] leaves nothing; give names, or null for all")
        return tuple(name for name in cls.names if name in found)

    def allowed(self) -> np.ndarray:
        """Whether each group is among them, bool [230]."""
        if self.value is None:
            return np.ones(230, dtype=bool)
        return np.isin(self.column, [self.names.index(one) for one in self.value])


class PointSymmetries(CrystalSystems):
    """Groups by point symmetry."""

    name, names, column = "point_symmetries", space_groups.POINT_SYMMETRIES, space_groups.POINT_SYMMETRY


class _Always(Rule):
    """What holds of every crystal: it has no argument."""

    def intersect(self, other: Rule) -> Rule:
        """The same rule."""
        return self

    def mask(self, tables: MaskRules) -> None:
        """Nothing, where the moves make nothing else anyhow."""

    def explain(self, crystals: Crystals) -> Check:
        """Which crystals obey, and why the others do not."""
        return self.check(crystals)

    def to_dict(self) -> dict[str, Any]:
        """It has no arguments."""
        return {}


class WyckoffPositions(_Always):
    """The atoms can be laid on Wyckoff positions of the space group, and the crystal has no larger group."""

    def mask(self, tables: MaskRules) -> None:
        """Keep the count patterns that each group can hold."""
        tables.keep_patterns(realisable_patterns)

    def check(self, crystals: Crystals) -> Check:
        """The counts fit; crystals of no known space group are left to that rule."""
        index = (crystals.space_group - 1).clamp(0, 229)
        fits = realisable_compositions(index.cpu().numpy(), crystals.composition.cpu().numpy())

        def reason(i: int) -> str:
            row = crystals.composition[i]
            counts = "+".join(str(int(c)) for c in row[row > 0].sort(descending=True).values) or "0"
            symbol = space_groups.SYMBOL[int(index[i])]
            return f"{counts} atoms cannot be laid on Wyckoff positions of {symbol} with exactly that group"

        return Check(torch.from_numpy(fits).to(crystals.device) | ~known_group(crystals), reason)


class ConventionalCell(_Always):
    """The cell is the one of the fundamental domain of its group (`crystalgfn.crystallography.lattice`)."""

    def check(self, crystals: Crystals) -> Check:
        """The cell is reduced and has the shape of its lattice system."""
        number, lattice = crystals.space_group.clamp(1, 230), crystals.lattice.double()
        return Check(
            in_domain(number, lattice, LENGTH_TOLERANCE, ANGLE_TOLERANCE) | ~known_group(crystals),
            lambda i: (
                f"the cell {[round(float(x), 4) for x in lattice[i]]} is not the reduced conventional cell of "
                f"{space_groups.SYMBOL[int(number[i]) - 1]}"
            ),
        )
