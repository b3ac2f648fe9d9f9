"""Limits on numbers: of elements and atoms, and on the lengths, angles and volume of the conventional cell."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import InvalidSpace
from crystalgfn.space.cell import VolumeLimit
from crystalgfn.space.constraint import Check
from crystalgfn.space.constraints.parse import LARGEST, Rule, meet, real_range, whole_range
from crystalgfn.space.rules import MaskRules
from crystalgfn.typing import DENSITY_UNIT, Booleans, Floats

LENGTH_TOLERANCE = 1e-3  # relative, on lengths, volumes and densities
ANGLE_TOLERANCE = 0.01  # degrees
BAND = 5e-4  # to either side, relative: what a range of a single value stands for, within the tolerance
MOST_ATOMS = 400
"""Atoms of a primitive cell up to which spaces are made."""


def countable(crystals: Crystals) -> Booleans:
    """Whether there are as many atoms as a space may have; rules on more would not end, bool [B]."""
    counts = crystals.composition
    each = ((counts >= 0) & (counts <= MOST_ATOMS)).all(1)
    return each & (counts.clamp(0, MOST_ATOMS).sum(1) <= MOST_ATOMS)


def known_group(crystals: Crystals) -> Booleans:
    """Whether the space group is one of the 230; crystals of others are left to that rule, bool [B]."""
    return (crystals.space_group >= 1) & (crystals.space_group <= 230)


class _Counts(Rule):
    """A lowest and a highest whole number in the primitive cell, both included."""

    optional = False

    @classmethod
    def read(cls, value: Any) -> tuple[int, int]:
        """Two whole numbers from 1, or one for both."""
        low, high = whole_range(cls.name, value, 1)
        if high > MOST_ATOMS:
            raise InvalidSpace(f"{cls.name}=[{low}, {high}]: limits end at {MOST_ATOMS}")
        return low, high

    def both(self, new: tuple[int, int]) -> tuple[int, int]:
        """The range that is in both."""
        return meet(self.name, self.value, new, whole=True)

    def limit(self, tables: MaskRules) -> None:
        """Limit the patterns of counts."""
        setattr(tables, self.name, self.value)

    def check(self, crystals: Crystals) -> Check:
        """The number within the range."""
        values, (low, high) = getattr(crystals, self.name), self.value
        return Check(
            (values >= low) & (values <= high), lambda i: f"{self.name} {int(values[i])} outside [{low}, {high}]"
        )


class NumberOfElements(_Counts):
    """Different elements."""

    name = "n_elements"


class NumberOfAtoms(_Counts):
    """Atoms in the primitive cell."""

    name = "n_atoms"


class AtomsPerElement(_Counts):
    """Atoms of each element in the primitive cell."""

    name = "atoms_per_element"

    def check(self, crystals: Crystals) -> Check:
        """Atoms of every element within the range."""
        counts, (low, high) = crystals.composition, self.value
        inside = ((counts == 0) | ((counts >= low) & (counts <= high))).all(1) & (counts > 0).any(1)

        def reason(i: int) -> str:
            present = counts[i][counts[i] > 0]
            found = f"{int(present.min())} to {int(present.max())}" if len(present) else "0"
            return f"atoms_per_element {found} outside [{low}, {high}]"

        return Check(inside, reason)


class _Limits(Rule):
    """A lowest and a highest value, both included; an optional one is a volume, of crystals of a known group."""

    above_zero: ClassVar[bool] = False
    highest: ClassVar[float] = LARGEST
    relative: ClassVar[float] = LENGTH_TOLERANCE
    absolute: ClassVar[float] = 0.0

    @classmethod
    def read(cls, value: Any) -> tuple[float, float]:
        """Two numbers."""
        return real_range(cls.name, value, above_zero=cls.above_zero, highest=cls.highest)

    def both(self, new: tuple[float, float]) -> tuple[float, float]:
        """The range that is in both."""
        return meet(self.name, self.value, new, whole=False)

    def band(self) -> tuple[float, float]:
        """The limits for the moves: a single value is widened to a band that `contains` allows."""
        low, high = self.value
        return (low, high) if low < high else (low * (1 - BAND), high * (1 + BAND))

    def limit(self, tables: MaskRules) -> None:
        """Limit what is left for the values."""
        setattr(tables, self.name, self.band())

    def values(self, crystals: Crystals) -> torch.Tensor:
        """What is limited, float64 [B] or [B, n]."""
        return getattr(crystals, self.name).double()

    def check(self, crystals: Crystals) -> Check:
        """All values within the limits."""
        values, (low, high) = self.values(crystals), self.value
        least, greatest = low * (1 - self.relative) - self.absolute, high * (1 + self.relative) + self.absolute
        ok = (values >= least) & (values <= greatest)
        if ok.ndim == 1:  # a volume, which a crystal of no known group has not
            ok = ok | ~known_group(crystals)
        return Check(
            ok.reshape(len(ok), -1 if len(ok) else 1).all(1),
            lambda i: f"{self.name} {[round(float(x), 4) for x in values[i].reshape(-1)]} outside [{low}, {high}]",
        )


class Lengths(_Limits):
    """a, b, c in Å."""

    name, optional, above_zero, highest = "lengths", False, True, 1e4

    def values(self, crystals: Crystals) -> torch.Tensor:
        """All three."""
        return crystals.lattice.double()[:, :3]


class Angles(_Limits):
    """alpha, beta, gamma in degrees; fixed ones too."""

    name, optional, relative, absolute = "angles", False, 0.0, ANGLE_TOLERANCE

    @classmethod
    def read(cls, value: Any) -> tuple[float, float]:
        """Two numbers up to 180."""
        low, high = real_range("angles", value)
        if high > 180:
            raise InvalidSpace(f"angles={[low, high]}: angles end at 180 degrees")
        return low, high

    def band(self) -> tuple[float, float]:
        """The limits themselves: a single angle can be met exactly."""
        return self.value

    def values(self, crystals: Crystals) -> torch.Tensor:
        """All three."""
        return crystals.lattice.double()[:, 3:]


class VolumePerAtom(_Limits):
    """Volume of the cell over its atoms, Å3."""

    name, optional, above_zero = "volume_per_atom", False, True


class Density(_Limits):
    """Density in g/cm3."""

    name = "density"

    def limit(self, tables: MaskRules) -> None:
        """The volume lies between multiples of the mass."""
        low, high = self.band()
        tables.limit_volume(VolumeLimit(weights=elements.MASS, low=low, high=high, dense=True, scale=DENSITY_UNIT))


class RelativeVolume(_Limits):
    """Volume of the cell over what its atoms take up in known crystals."""

    name = "relative_volume"

    def limit(self, tables: MaskRules) -> None:
        """The volume lies between multiples of the atoms' typical volume."""
        low, high = self.band()
        tables.limit_volume(VolumeLimit(weights=elements.VOLUME, low=low, high=high))

    def values(self, crystals: Crystals) -> torch.Tensor:
        """Of each crystal."""
        return relative_volume(crystals).double()


def relative_volume(crystals: Crystals, volumes: np.ndarray = elements.VOLUME) -> Floats:
    """Volume of each cell over what its atoms take up in known crystals, or by other volumes of elements [118], [B]."""
    typical = torch.tensor(volumes).to(device=crystals.device, dtype=crystals.lattice.dtype)
    return crystals.volume_per_atom * crystals.n_atoms / (crystals.composition.to(typical.dtype) @ typical)
