"""Rewards that shape a search: probability of passing a threshold, dense packing, nearness to training data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.properties.base import Property, check_number, check_property, check_space_groups, label
from crystalgfn.properties.exact import Density
from crystalgfn.properties.registry import PROXIES
from crystalgfn.properties.training_distance import NearestCentre
from crystalgfn.rewards.transforms import Transform
from crystalgfn.typing import Floats
from crystalgfn.utils.files import data_folder, path_of


@dataclass(frozen=True, eq=False)
class Probability(Transform):
    """``log R = weight * ln(max(p - n_sigma * std, smallest))``: R is the probability to the power of ``weight``.

    Attributes:
        prop: a property with values from 0 to 1.
        weight: how much it counts, > 0.
        smallest: what smaller probabilities count as, so that no crystal has none; in (0, 1].
        n_sigma: how many standard errors of pessimism, >= 0.
    """

    prop: Property
    weight: float = 1.0
    smallest: float = 1e-3
    n_sigma: float = 1.0

    def __post_init__(self) -> None:
        check_property("probability", self.prop)
        for name, limit in (("weight", math.inf), ("smallest", 1.0 + 1e-12)):
            if not 0 < getattr(self, name) < limit:
                raise RewardError(f"probability: {name} must be greater than 0 and finite, not {getattr(self, name)}.")
        check_number("probability", "n_sigma", self.n_sigma)

    def __call__(self, crystals: Crystals) -> Floats:
        """Log R of each crystal.

        Raises:
            RewardError: a value that is no probability; names the crystal.
        """
        value = self.prop(crystals)
        wrong = (~((value >= 0) & (value <= 1))).nonzero().flatten()
        if len(wrong):
            first = int(wrong[0])
            raise RewardError(
                f"probability: {self.prop.name} is {float(value[first]):g} for {label(crystals, first)}; "
                "a probability lies between 0 and 1."
            )
        return self.weight * self.prop.confidence_bound(crystals, -self.n_sigma).clamp(min=self.smallest, max=1.0).log()


probability = Probability


#: Spheres of the tabulated radii fill 0.64 to 0.71 of the densest crystals of MP-20 (Os, Ir3Os, ReIr3).
MAX_PACKING = 0.70


def packing_fraction(crystals: Crystals) -> Floats:
    """Volume of spheres of the elements' tabulated radii over the volume of the cell, [B]."""
    check_space_groups("packing fraction", crystals)
    spheres = torch.tensor(elements.SPHERE_VOLUME).to(crystals.lattice)
    filled = crystals.composition.to(spheres.dtype) @ spheres / crystals.n_atoms
    return filled / crystals.volume_per_atom


@dataclass(frozen=True, eq=False)
class Dense(Transform):
    """``log R = beta * density - max(0, (packing - max_packing) / width)² / 2``.

    The limits on volume alone allow 4 Å3 an atom to any element, 80 g/cm3 for heavy ones. The wall depends on the
    composition: where spheres of the elements' radii would fill more than ``max_packing`` of the cell, the reward falls
    as a Gaussian of ``width``.

    Attributes:
        beta: per g/cm3, > 0.
        max_packing: where the wall begins, > 0.
        width: of the wall, > 0.
    """

    beta: float
    max_packing: float = MAX_PACKING
    width: float = 0.01
    direction: ClassVar[str] = "maximise"

    def __post_init__(self) -> None:
        for name in ("beta", "max_packing", "width"):
            check_number("dense", name, getattr(self, name), positive=True)

    @property
    def prop(self) -> Density:
        """The density, for tables."""
        return Density()

    def __call__(self, crystals: Crystals) -> Floats:
        """Log R of each crystal."""
        beyond = ((packing_fraction(crystals) - self.max_packing) / self.width).clamp_min(0)
        return self.beta * crystals.density - beyond.square() / 2


dense = Dense


@dataclass(frozen=True, eq=False)
class NearData(Transform):
    """``log R = -max(0, distance - free)² / (2 width²)``: 0 near the data, a Gaussian wall further away.

    The distance is the share of the atoms that would have to be of another element for the composition to be that of
    the nearest cluster centre of the data, 0 to 1. A heuristic: near the data there are unknown materials too.

    Attributes:
        centres: cluster centres of the data.
        source: the proxy that they belong to, by name or folder.
        free: up to this distance nothing is lost, >= 0.
        width: of the wall, > 0.
    """

    centres: NearestCentre
    source: str
    free: float = 0.2
    width: float = 0.1

    def __post_init__(self) -> None:
        check_number("near_data", "free", self.free)
        check_number("near_data", "width", self.width, positive=True)

    def __call__(self, crystals: Crystals) -> Floats:
        """Log R of each crystal."""
        beyond = (self.centres.distance(crystals) - self.free).clamp_min(0)
        return -0.5 * (beyond / self.width).square()

    def config(self) -> dict[str, Any]:
        """The configuration that builds it."""
        target = "crystalgfn.rewards.near_data"
        return {"_target_": target, "source": self.source, "free": self.free, "width": self.width}


def near_data(source: str | Path, free: float = 0.2, width: float = 0.1) -> NearData:
    """Compositions near those that a proxy was fitted on; see :class:`NearData`.

    Raises:
        CheckpointError: the proxy has no centres, or they are damaged.
    """
    if str(source) in PROXIES:
        shipped = data_folder("proxies") / str(source)
        return NearData(NearestCentre.load(shipped), str(source), free, width)
    folder = path_of(source).resolve()
    return NearData(NearestCentre.load(folder), str(folder), free, width)
