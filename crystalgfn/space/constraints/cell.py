"""Limits on the lengths, angles and volume of the conventional cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import InvalidSpace
from crystalgfn.space.cell import VolumeLimit
from crystalgfn.space.constraint import Check
from crystalgfn.space.constraints.parse import meet, plain, real_range
from crystalgfn.space.rules import MaskRules
from crystalgfn.typing import DENSITY_UNIT, Floats

LENGTH_TOLERANCE = 1e-3  # relative, on lengths, volumes and densities
ANGLE_TOLERANCE = 0.01  # degrees
BAND = 5e-4  # to either side, relative: what a range of a single value stands for, within the tolerance


@dataclass(frozen=True)
class _Limits:
    """A lowest and a highest value, both included; None: no limit."""

    name: str
    value: tuple[float, float] | None

    def intersect(self, other: _Limits) -> _Limits:
        """What is in both."""
        if self.value is None or other.value is None:
            return self if other.value is None else other
        return type(self)(self.name, meet(self.name, self.value, other.value, whole=False))

    def to_dict(self) -> dict[str, Any]:
        """Lowest and highest."""
        return {self.name: plain(self.value)}

    def band(self) -> tuple[float, float]:
        """The limits for the moves: a single value is widened to a band that `contains` allows."""
        low, high = self.value or (0.0, np.inf)
        return (low, high) if low < high else (low * (1 - BAND), high * (1 + BAND))

    def _between(self, values: torch.Tensor, relative: float, absolute: float) -> Check:
        low, high = self.value or (-np.inf, np.inf)
        ok = (values >= low * (1 - relative) - absolute) & (values <= high * (1 + relative) + absolute)
        return Check(
            ok.reshape(len(values), values[0].numel() if len(values) else 1).all(1),
            lambda i: f"{self.name} {[round(float(x), 4) for x in values[i].reshape(-1)]} outside [{low}, {high}]",
        )


class Lengths(_Limits):
    """a, b, c in Å."""

    @classmethod
    def parse(cls, value: Any) -> _Limits:
        """Two numbers."""
        return cls("lengths", real_range("lengths", value, above_zero=True, highest=1e4))

    def mask(self, tables: MaskRules) -> None:
        """Limit what is left for the lengths."""
        tables.lengths = self.band()

    def explain(self, crystals: Crystals) -> Check:
        """All three within the limits."""
        return self._between(crystals.lattice.double()[:, :3], LENGTH_TOLERANCE, 0.0)


class Angles(_Limits):
    """alpha, beta, gamma in degrees; fixed ones too."""

    @classmethod
    def parse(cls, value: Any) -> _Limits:
        """Two numbers up to 180."""
        low, high = real_range("angles", value)
        if high > 180:
            raise InvalidSpace(f"angles={[low, high]}: angles end at 180 degrees")
        return cls("angles", (low, high))

    def mask(self, tables: MaskRules) -> None:
        """Limit what is left for the angles."""
        assert self.value is not None
        tables.angles = self.value

    def explain(self, crystals: Crystals) -> Check:
        """All three within the limits."""
        return self._between(crystals.lattice.double()[:, 3:], 0.0, ANGLE_TOLERANCE)


class VolumePerAtom(_Limits):
    """Volume of the cell over its atoms, Å3."""

    @classmethod
    def parse(cls, value: Any) -> _Limits:
        """Two numbers."""
        return cls("volume_per_atom", real_range("volume_per_atom", value, above_zero=True))

    def mask(self, tables: MaskRules) -> None:
        """Limit what is left for the volume."""
        tables.volume_per_atom = self.band()

    def explain(self, crystals: Crystals) -> Check:
        """Within the limits; crystals of no known space group are left to that rule."""
        values = crystals.volume_per_atom.double()
        return _known(crystals, self._between(values, LENGTH_TOLERANCE, 0.0))


class Density(_Limits):
    """Density in g/cm3."""

    @classmethod
    def parse(cls, value: Any) -> _Limits:
        """Two numbers, or None."""
        return cls("density", None if value is None else real_range("density", value))

    def mask(self, tables: MaskRules) -> None:
        """The volume lies between multiples of the mass."""
        if self.value is not None:
            low, high = self.band()
            tables.limit_volume(VolumeLimit(weights=elements.MASS, low=low, high=high, dense=True, scale=DENSITY_UNIT))

    def explain(self, crystals: Crystals) -> Check:
        """Within the limits."""
        return _known(crystals, self._between(crystals.density.double(), LENGTH_TOLERANCE, 0.0))


class RelativeVolume(_Limits):
    """Volume of the cell over what its atoms take up in known crystals."""

    @classmethod
    def parse(cls, value: Any) -> _Limits:
        """Two numbers, or None."""
        return cls("relative_volume", None if value is None else real_range("relative_volume", value))

    def mask(self, tables: MaskRules) -> None:
        """The volume lies between multiples of the atoms' typical volume."""
        if self.value is not None:
            low, high = self.band()
            tables.limit_volume(VolumeLimit(weights=elements.VOLUME, low=low, high=high))

    def explain(self, crystals: Crystals) -> Check:
        """Within the limits."""
        return _known(crystals, self._between(relative_volume(crystals).double(), LENGTH_TOLERANCE, 0.0))


def relative_volume(crystals: Crystals, volumes: np.ndarray = elements.VOLUME) -> Floats:
    """Volume of each cell over what its atoms take up in known crystals, or by other volumes of elements [118], [B]."""
    typical = torch.tensor(volumes).to(device=crystals.device, dtype=crystals.lattice.dtype)
    return crystals.volume_per_atom * crystals.n_atoms / (crystals.composition.to(typical.dtype) @ typical)


def _known(crystals: Crystals, check: Check) -> Check:
    number = crystals.space_group
    return Check(check.ok | (number < 1) | (number > 230), check.reason)
