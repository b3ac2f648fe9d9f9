"""Energy above the convex hull: by how much a crystal is less stable than the best mixture of known compounds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.properties.base import Property, check_property, describe, moved
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.properties.energy_scale import Rescaled, check_scale
from crystalgfn.properties.hull_surrogate import HullModel
from crystalgfn.properties.registry import load_proxy
from crystalgfn.typing import Floats
from crystalgfn.utils.files import data_folder

TABLES = (".parquet", ".csv")
SHIPPED = {"charge": "hull", "mp2020": "hull_mp2020"}
"""Folders of the shipped hulls, by scale."""


@dataclass(frozen=True, eq=False, kw_only=True)
class EnergyAboveHull:
    """Formation energy minus the convex hull at the composition, eV/atom, at least 0 for elements; a `Property`.

    Negative values predict a compound below the hull of what is known. The standard errors of the energy and of the
    hull are added as independent ones.

    Attributes:
        energy: the formation energy, eV/atom, on the scale of the hull's entries.
        hull: a fitted hull, or the exact one of entries.
        source: by which name or path ``config`` refers to the hull, if it can.
        scale: of the energy and the hull, see `crystalgfn.properties.energy_scale`.
    """

    energy: Property
    hull: HullModel | ExactHull
    source: str | None = None
    scale: str = "mp2020"
    name: str = "energy_above_hull"
    unit: str = "eV/atom"

    def __post_init__(self) -> None:
        check_property("energy_above_hull", self.energy)

    def moments(self, crystals: Crystals) -> tuple[Floats, Floats]:
        """Mean and standard error of each crystal, eV/atom."""
        hull, hull_std = (part.to(crystals.lattice) for part in self.hull.moments(crystals))
        # An ensemble gives both from one pass.
        both = getattr(self.energy, "moments", None)
        mean, std = both(crystals) if both else (self.energy(crystals), self.energy.std(crystals))
        return _above(crystals, mean, hull), torch.hypot(std, hull_std)

    def __call__(self, crystals: Crystals) -> Floats:
        """Energy above the hull of each crystal, eV/atom."""
        return _above(crystals, self.energy(crystals), self.hull.energy(crystals).to(crystals.lattice))

    def std(self, crystals: Crystals) -> Floats:
        """How unsure each value is, eV/atom."""
        return self.moments(crystals)[1]

    def confidence_bound(self, crystals: Crystals, n_sigma: float) -> Floats:
        """``mean + n_sigma * std``."""
        mean, std = self.moments(crystals)
        return mean + n_sigma * std

    def to(self, device: torch.device | str) -> EnergyAboveHull:
        """The same property on ``device``."""
        return replace(self, energy=moved(self.energy, device), hull=moved(self.hull, device))

    def config(self) -> dict[str, Any]:
        """The configuration that builds it.

        Raises:
            RewardError: the hull was not read from a file or folder, so nothing on disk says what it is.
        """
        if self.source is None:
            raise RewardError(
                "this energy above the hull has entries that are in no file; write them to a Parquet or CSV file "
                "(formula, formation_energy_per_atom) and pass its path as hull"
            )
        target = "crystalgfn.rewards.energy_above_hull"
        energy = self.energy.energy if isinstance(self.energy, Rescaled) else self.energy
        return {"_target_": target, "energy": describe(energy), "hull": self.source, "scale": self.scale}


def _above(crystals: Crystals, energy: Floats, hull: Floats) -> Floats:
    # An element is the reference itself: its most stable form is at 0 and nothing can lie below.
    above = energy - hull
    return torch.where(crystals.n_elements == 1, above.clamp_min(0), above)


def energy_above_hull(
    energy: Property | str | Path = "formation_energy",
    hull: HullModel | ExactHull | str | Path = "default",
    scale: str = "charge",
) -> EnergyAboveHull:
    """The property from an energy and a hull.

    Args:
        energy: the formation energy on the Materials Project's scale (MP2020), or the name or folder of its proxy.
        hull: "default", the shipped hull; a folder with one fitted on ``scale``; a Parquet or CSV file of entries
            (columns ``formula`` and ``formation_energy_per_atom``, on the Materials Project's scale; rows without an
            energy are left out), whose exact hull is taken; or the hull itself, on ``scale``.
        scale: on which both are compared, see `crystalgfn.properties.energy_scale`: "charge", whose anion corrections
            go with the charge that the anions carry, or "mp2020", that of the Materials Project.

    Raises:
        DataError: entries that cannot be read.
        CheckpointError: a fitted hull that is missing or damaged.
        RewardError: there is no such scale.
    """
    energy = load_proxy(energy) if isinstance(energy, str | Path) else energy
    if check_scale(scale) != "mp2020":
        energy = Rescaled(energy=energy, scale=scale)
    found, source = _read_hull(hull, scale) if isinstance(hull, str | Path) else (hull, None)
    return EnergyAboveHull(energy=energy, hull=found, source=source, scale=scale)


def _read_hull(hull: str | Path, scale: str) -> tuple[HullModel | ExactHull, str]:
    """A hull on a scale, and how a configuration refers to it."""
    if str(hull) == "default":
        return HullModel.load(data_folder("proxies") / SHIPPED[scale]), "default"
    path = Path(hull).resolve()
    if path.suffix.lower() in TABLES:
        return ExactHull.from_entries(path, skip=True, scale=scale), str(path)
    return HullModel.load(path), str(path)
