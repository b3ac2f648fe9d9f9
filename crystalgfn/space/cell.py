"""Which cells a space group and composition leave possible: lattice limits and volumes."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

import numpy as np
import torch

from crystalgfn.crystallography import lattice, space_groups

if TYPE_CHECKING:
    from crystalgfn.space.rules import MaskRules


MARGIN = 1e-6  # relative width below which a range of volumes counts as empty


@dataclass(frozen=True)
class CellLimits:
    """Limits on lengths (Å) and angles (degrees) of conventional cells; they hold for fixed angles too.

    Attributes:
        lengths: lowest and highest a, b, c.
        angles: lowest and highest alpha, beta, gamma.
    """

    lengths: tuple[float, float]
    angles: tuple[float, float]

    def acute(self) -> tuple[float, float]:
        """Range of cosines of Niggli cells of type I; empty where the first is not below the second."""
        low, high = max(60.0, self.angles[0]), min(90.0, self.angles[1])
        return _cos(high), _cos(low)

    def obtuse(self) -> tuple[float, float]:
        """Range of -cosines of Niggli cells of type II; empty where the first is not below the second."""
        low, high = max(90.0, self.angles[0]), min(120.0, self.angles[1])
        return -_cos(low), -_cos(high)

    def monoclinic(self, reduction: int) -> tuple[float, float]:
        """Range of k = -cos(beta) for a reduction type; the axes' ratio limits k too."""
        largest = 0.5 if reduction == 1 else 0.5**0.5
        low, high = max(90.0, self.angles[0]), self.angles[1]
        ratio = self.lengths[1] / self.lengths[0]
        return -_cos(low), min(largest, -_cos(min(high, 180.0)), ratio / 2)

    def volumes(self, space_group: int) -> tuple[float, float]:
        """Smallest and largest conventional cell volume (Å3) of a group; (inf, -inf) where there is no cell."""
        kind = lattice.KIND[space_group - 1]
        small, large = self.lengths[0] ** 3, self.lengths[1] ** 3
        low, high = self.angles
        if kind == lattice.TRICLINIC:
            factors = self._niggli_factors()
        elif not low <= 90.0 <= high or (kind == lattice.HEXAGONAL and high < 120.0):
            factors = []
        elif kind == lattice.MONOCLINIC:
            factors = self._monoclinic_factors(int(space_groups.MONOCLINIC_REDUCTION[space_group - 1]))
        else:
            factors = [(0.75**0.5,) * 2 if kind == lattice.HEXAGONAL else (1.0, 1.0)]
        if not factors:
            return np.inf, -np.inf
        return small * min(f[0] for f in factors), large * max(f[1] for f in factors)

    def _niggli_factors(self) -> list[tuple[float, float]]:
        """Ranges of V / (abc) of Niggli cells of type I and II, where there are any."""
        both = (_triclinic_factors(*self.acute(), 1), _triclinic_factors(*self.obtuse(), -1))
        return [factors for factors in both if factors is not None]

    def _monoclinic_factors(self, reduction: int) -> list[tuple[float, float]]:
        """Volumes over the cubes of the shortest and of the longest length where they may be extreme."""
        low, high = self.monoclinic(reduction)
        if high - low < MARGIN:
            return []
        return [(_compact(k), _spread(k)) for k in (low, 0.5, high) if low <= k <= high]

    def feasible(self, space_group: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Whether a cell of the group has a volume between ``low`` and ``high`` (arrays, Å3)."""
        smallest, largest = self.volumes(space_group)
        if smallest > largest:
            return np.zeros(np.shape(low), dtype=bool)
        low, high = np.maximum(low, smallest), np.minimum(high, largest)
        return high > low * (1 + MARGIN)


def _cos(angle: float) -> float:
    return (
        0.0 if angle == 90.0 else -0.5 if angle == 120.0 else 0.5 if angle == 60.0 else float(np.cos(np.radians(angle)))
    )


def _stretch(k: float) -> float:
    """ln of the ratio of the axes that beta enforces (0 up to 120 degrees)."""
    return max(0.0, log(2 * k)) if k > 0 else 0.0


def _compact(k: float) -> float:
    """Smallest volume at k over the cube of the shortest length."""
    return (1 - k * k) ** 0.5 * np.exp(_stretch(k))


def _spread(k: float) -> float:
    """Largest volume at k over the cube of the longest length."""
    return (1 - k * k) ** 0.5 * np.exp(-_stretch(k))


def _triclinic_factors(low: float, high: float, sign: int) -> tuple[float, float] | None:
    """Range of w = V / (abc) with all cosines in sign * [low, high] and, for type II, of sum at least -1."""
    if high - low < MARGIN or (sign < 0 and 3 * low >= 1 - MARGIN):
        return None

    def factor(p: float, q: float, r: float) -> float:
        return max(0.0, 1 - p * p - q * q - r * r + 2 * sign * p * q * r) ** 0.5

    if sign > 0:
        return factor(high, high, high), factor(low, low, low)
    # the factor falls with each cosine and is concave along p + q + r = 1: the smallest is at a vertex
    vertices = [(high, high, high), (high, high, 1 - 2 * high), (high, low, 1 - high - low), (low, low, 1 - 2 * low)]
    inside = [v for v in vertices if sum(v) <= 1 + 1e-12 and all(low - 1e-12 <= x <= high + 1e-12 for x in v)]
    return min(factor(*v) for v in inside), factor(low, low, low)


@dataclass(frozen=True, eq=False, kw_only=True)
class VolumeLimit:
    """Limits on the volume of a primitive cell that go with a sum S over its atoms.

    Attributes:
        weights: what an atom of each element adds to S, [118].
        low, high: lowest and highest ratio.
        dense: the ratio is S / V, as for a density; else V / S.
        scale: S is multiplied by it.
    """

    weights: np.ndarray
    low: float
    high: float
    dense: bool = False
    scale: float = 1.0

    @property
    def least(self) -> float:
        """The lowest volume over S."""
        return 1 / self.high if self.dense else self.low

    @property
    def greatest(self) -> float:
        """The highest volume over S."""
        return (1 / self.low if self.low > 0 else np.inf) if self.dense else self.high

    def volumes(self, total: torch.Tensor, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Lowest and highest volumes of so many cells with sums ``total`` of the weights each, Å3."""
        total = self.scale * total * cells
        if not self.dense:
            return self.low * total, self.high * total
        return total / self.high, total / self.low if self.low > 0 else torch.full_like(total, torch.inf)


@dataclass(frozen=True)
class SumLimits:
    """Ranges in which sums over the atoms of a primitive cell must end, so that a cell is left.

    Attributes:
        weights: what an atom of each element adds to each sum, [J, 118].
        ranges: lowest and highest sums for each group and number of atoms, [230, n_atoms + 1, J, 2].
    """

    weights: np.ndarray
    ranges: np.ndarray


def sum_limits(rules: MaskRules, cases: np.ndarray) -> SumLimits | None:
    """The sums that the limits on volumes and the rules on sums bound; None where every composition obeys.

    The volume of the primitive cell has lower and upper bounds by its atoms and lengths (`primitive_volumes`) and by
    each `VolumeLimit`, multiples of a sum S. Some volume is left iff every lower bound is below every upper one:
    conditions on each S, and on each two of them together.
    """
    low, high = primitive_volumes(rules)
    own = np.array(rules.zs) - 1
    weights, ranges = [], []

    def bound(weight: np.ndarray, least: np.ndarray | float, greatest: np.ndarray | float) -> None:
        """Keep a sum that some composition could have out of its range."""
        limits = np.stack(np.broadcast_arrays(np.full(low.shape, least), np.full(low.shape, greatest)), axis=-1)
        atoms = np.arange(low.shape[1])
        smallest, largest = atoms * weight[own].min(), atoms * weight[own].max()
        if ((limits[..., 0] > smallest) | (limits[..., 1] < largest))[cases].any():
            weights.append(weight)
            ranges.append(limits)

    widened = 1 + MARGIN
    for one in rules.volumes:
        sums = one.weights * one.scale
        bound(sums, low * widened / one.greatest, high / widened / one.least if one.least > 0 else np.inf)
        for other in rules.volumes:
            if other is not one and one.least > 0 and other.greatest < np.inf:
                ratio = other.greatest / one.least
                bound(ratio * other.scale * other.weights - widened * sums, 0.0, np.inf)
    for rule in rules.sums:
        bound(rule.weights, rule.low, rule.high)
    return SumLimits(np.stack(weights), np.stack(ranges, axis=2)) if weights else None


def primitive_volumes(rules: MaskRules) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest primitive cells by volume per atom and lengths, Å3, [230, n_atoms + 1] each."""
    atoms = np.arange(rules.n_atoms[1] + 1)
    ends = np.array([rules.cell.volumes(group + 1) for group in range(230)]) / space_groups.CENTRING[:, None]
    low = np.maximum(atoms * rules.volume_per_atom[0], ends[:, :1])
    high = np.minimum(atoms * rules.volume_per_atom[1], ends[:, 1:])
    return low, high
