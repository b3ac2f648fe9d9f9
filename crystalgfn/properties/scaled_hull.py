"""ScaledHull: a hull on another energy scale for crystals whose energies are on the Materials Project's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Self

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.properties.energy_scale import scale_shift
from crystalgfn.typing import Floats, Fractions, RowFractions, RowValues


class ScaledHull(ExactHull):
    """An exact hull on a scale; the energies that it takes and gives are on the Materials Project's (MP2020).

    Args:
        composition: as of `ExactHull`.
        energies: on the Materials Project's scale, eV/atom, [E].
        identifiers: as of `ExactHull`.
        scale: on which crystals are compared with the entries, see `crystalgfn.properties.energy_scale`.

    Raises:
        DataError: as of `ExactHull`.
        RewardError: there is no such scale.

    Example:
        >>> hull = ScaledHull.from_entries({"FeS": -0.5, "S": 0.0}, scale="charge")
        >>> round(float(hull.energy(["FeS2"])), 2), round(float(hull.published.energy(["FeS2"])), 2)
        (-0.45, -0.33)
    """

    def __init__(
        self,
        composition: RowFractions,
        energies: RowValues,
        identifiers: Sequence[str] | None = None,
        scale: str = "charge",
    ) -> None:
        super().__init__(composition, energies + scale_shift(composition, scale), identifiers)
        self.scale = scale
        self._given = composition, energies, identifiers

    @classmethod
    def _on_scale(cls, composition: RowFractions, energies: RowValues, names: Sequence[str] | None, scale: str) -> Self:
        return cls(composition, energies, names, scale)

    @cached_property
    def published(self) -> ExactHull:
        """The hull of the same entries on the Materials Project's scale."""
        return ExactHull(*self._given)

    def energy(self, crystals: Crystals | Sequence[str] | Fractions) -> Floats:
        """Formation energy at which a crystal lies on the hull, on the Materials Project's scale, eV/atom, [B]."""
        return super().energy(crystals) - scale_shift(crystals, self.scale)

    __call__ = energy
