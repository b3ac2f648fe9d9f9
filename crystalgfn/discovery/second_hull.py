"""A second opinion on the hull of a reference, which lacks known phases where the shipped one lies far below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.discovery.phases import KnownPhases
from crystalgfn.properties.energy_scale import scale_shift
from crystalgfn.properties.hull import SHIPPED
from crystalgfn.properties.hull_surrogate import HullModel
from crystalgfn.typing import Floats, Fractions
from crystalgfn.utils.files import data_folder

if TYPE_CHECKING:
    import pandas as pd

MARGIN = 0.1
"""eV/atom that the shipped hull must lie below that of the reference, to be believed instead."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedHull:
    """The hull of known phases, but the shipped one where it lies more than 0.1 eV/atom below.

    By it candidates are chosen, so that a campaign does not go where the reference has a hole. What is reported is
    measured against the reference alone, and says where this one differs.

    Attributes:
        phases: of the reference.
        model: the shipped hull, on the scale of the phases.
    """

    phases: KnownPhases
    model: HullModel

    @classmethod
    def of(cls, phases: KnownPhases) -> CheckedHull:
        """With the shipped hull on the scale of the phases."""
        return cls(phases=phases, model=HullModel.load(data_folder("proxies") / SHIPPED[phases.scale]))

    def energy(self, crystals: Crystals | Sequence[str] | Fractions) -> Floats:
        """Formation energy on the Materials Project's scale at which a crystal lies on the hull, eV/atom, [B]."""
        own, gap = self.phases.energy(crystals), self.gap(crystals)
        return torch.where(gap > MARGIN, own - gap, own)

    def gap(self, crystals: Crystals | Sequence[str] | Fractions) -> Floats:
        """How far the shipped hull, less its standard error, lies below that of the reference, eV/atom, [B]."""
        mean, std = self.model.moments(crystals)
        shipped = (mean + std).cpu().double() - scale_shift(crystals, self.phases.scale)
        return self.phases.energy(crystals) - shipped

    def with_gaps(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table of relaxed crystals with the column ``hull_gap``, eV/atom."""
        formulas = table["formula"].tolist()
        return table.assign(hull_gap=self.gap(formulas).tolist() if formulas else [])


def doubts(table: pd.DataFrame) -> str:
    """What is to be said of ranked crystals in holes of the reference; empty where there are none."""
    ranked = table.loc[table["rank"].notna()]
    n = int((ranked["hull_gap"] > MARGIN).sum()) if "hull_gap" in ranked else 0
    if not n:
        return ""
    return (
        f"At {n} of {len(ranked)} ranked compositions the shipped hull of known compounds lies more than {MARGIN:g} "
        "eV/atom below that of the reference, which lacks phases there: their energies above the hull mean little "
        "(column hull_gap). Give a larger reference."
    )
