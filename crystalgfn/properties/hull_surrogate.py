"""A fitted hull: the energy of the convex hull as a function of the composition, without its entries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.properties.features import element_statistics
from crystalgfn.properties.hull_entries import compositions
from crystalgfn.typing import ElementTable, FeatureRows, Floats, Fractions, MemberValues, Values
from crystalgfn.utils.files import path_of
from crystalgfn.utils.weight_files import WeightFiles

FILES = WeightFiles(
    what="fitted hull",
    format="crystalgfn-hull",
    version=1,
    remedy="fit it again with crystalgfn.fitting.hull.fit_hull, or copy it again",
)
WEIGHTS = "weights.safetensors"
CHUNK = 16384  # compositions at a time
STATES = "common"  # the table of oxidation states that the features know


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


def chemistry_table() -> ElementTable:
    """Electronegativity, ln radius, row, group, lowest and highest common oxidation state of each element."""
    states = [some or (0,) for some in elements.OXIDATION_STATES[STATES]]
    columns = [
        torch.tensor(elements.ELECTRONEGATIVITY),
        torch.tensor(elements.RADIUS).log(),
        torch.tensor(elements.ROW),
        torch.tensor(elements.GROUP),
        torch.tensor([float(min(some)) for some in states]),
        torch.tensor([float(max(some)) for some in states]),
    ]
    return torch.stack([column.float() for column in columns], 1)
