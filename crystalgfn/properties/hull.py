"""Energy above the convex hull: by how much a crystal is less stable than the best mixture of known compounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.properties.base import Property, check_property, describe, moved
from crystalgfn.properties.convex_hull import ExactHull
from crystalgfn.properties.energy_scale import Rescaled, check_scale
from crystalgfn.properties.features import chemistry_table, element_statistics
from crystalgfn.properties.hull_entries import compositions
from crystalgfn.properties.registry import load_proxy
from crystalgfn.typing import FeatureRows, Floats, Fractions, MemberValues, Values
from crystalgfn.utils.files import data_folder, path_of
from crystalgfn.utils.weight_files import WeightFiles

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


FILES = WeightFiles(
    what="fitted hull",
    format="crystalgfn-hull",
    version=1,
    remedy="fit it again with crystalgfn.fitting.hull.fit_hull, or copy it again",
)

WEIGHTS = "weights.safetensors"

CHUNK = 16384  # compositions at a time


class HullModel(nn.Module):
    """Formation energy of the most stable mixture at a composition, eV/atom, as an ensemble of small networks says it.

    At most 0, and 0 for an element. The networks are piecewise linear (ReLU), like a hull. The standard error is the
    members' deviation times a factor, fitted so that 68 % of the errors at held-out compositions lie within.

    Args:
        members: networks in the ensemble.
        width: units in each of the two hidden layers.
    """

    element_table: torch.Tensor
    shift: torch.Tensor
    scale: torch.Tensor
    spread_factor: torch.Tensor

    def __init__(self, members: int = 3, width: int = 256) -> None:
        super().__init__()
        self.shape = {"members": members, "width": width}
        self.register_buffer("element_table", chemistry_table())
        size = self.features(torch.eye(118)[:1]).shape[1]
        self.first = nn.Parameter(torch.randn(size, members * width) * (2 / size) ** 0.5)
        self.offset = nn.Parameter(torch.zeros(members * width))
        self.second = nn.Parameter(torch.randn(members, width, width) * (2 / width) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(members, 1, width))
        self.last = nn.Parameter(torch.randn(members, width, 1) * (1 / width) ** 0.5)
        self.level = nn.Parameter(torch.zeros(members, 1, 1))
        self.register_buffer("shift", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.register_buffer("spread_factor", torch.ones(()))

    def features(self, fractions: Fractions) -> FeatureRows:
        """What the networks see: fractions; statistics of the elements; how evenly they share the atoms."""
        n = max(5, int((fractions > 0).sum(1).max())) if len(fractions) else 5
        shares, which = fractions.topk(n, dim=1)
        statistics = element_statistics(shares, self.element_table[which])
        norms = [shares.pow(p).sum(1, keepdim=True).pow(1 / p) for p in (2, 3, 5)]
        return torch.cat([fractions, statistics, *norms, shares[:, :5]], 1)

    def network(self, features: FeatureRows) -> MemberValues:
        """What each member says, eV/atom: what fitting trains."""
        x = (features - self.shift) * self.scale
        first = torch.addmm(self.offset, x, self.first).relu()
        hidden = first.view(len(x), self.shape["members"], self.shape["width"]).transpose(0, 1)
        hidden = torch.baddbmm(self.bias, hidden, self.second).relu()
        return torch.baddbmm(self.level, hidden, self.last)[:, :, 0]

    def moments(self, crystals: Crystals | Sequence[str] | Fractions) -> tuple[Values, Values]:
        """Mean and standard error at each composition, eV/atom, float64 [B].

        Args:
            crystals: crystals, compositions (counts or fractions, [B, 118]) or formulas.

        Raises:
            DataError: a formula that cannot be read.
            InvalidCrystal: a composition without atoms or with a negative amount.
        """
        composition, _ = compositions(crystals)
        device = self.shift.device
        fractions = (composition / composition.sum(1, keepdim=True)).to(device)
        with torch.no_grad():
            parts = [
                self.network(self.features(part))
                for part in fractions.float().split(CHUNK)  # an empty batch has one empty part
            ]
        members = torch.cat(parts, 1).double()
        compound = (fractions > 0).sum(1) > 1
        mean = members.mean(0)
        std = ((members - mean).square().sum(0) / (len(members) - 1)).sqrt() * self.spread_factor.double()
        return mean.clamp_max(0) * compound, std * compound

    def energy(self, crystals: Crystals | Sequence[str] | Fractions) -> Floats:
        """Energy of the hull at each composition, eV/atom, float64 [B]; arguments and errors as for `moments`."""
        return self.moments(crystals)[0]

    def std(self, crystals: Crystals | Sequence[str] | Fractions) -> Floats:
        """How unsure each energy is, eV/atom, float64 [B]; arguments and errors as for `moments`."""
        return self.moments(crystals)[1]

    forward = energy

    def save(self, folder: str | Path) -> Path:
        """Write ``weights.safetensors`` into a folder, aside and then renamed; returns the file."""
        shape = json.dumps(self.shape)
        return FILES.write(path_of(folder) / WEIGHTS, self.state_dict(), unit="eV/atom", shape=shape)

    @classmethod
    def load(cls, folder: str | Path) -> HullModel:
        """Read a fitted hull from a folder with ``weights.safetensors``.

        Raises:
            CheckpointError: no such file, truncated, of another format, version or shape.
        """
        return FILES.load(path_of(folder) / WEIGHTS, lambda header: cls(**json.loads(header["shape"])))
