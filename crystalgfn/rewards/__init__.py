"""Rewards: callables from crystals to log R, and the properties that they are made of."""

from importlib import import_module
from typing import Any

from crystalgfn.properties.base import Property, describe
from crystalgfn.properties.exact import Density, Function, Scarcity, VolumePerAtom, function
from crystalgfn.properties.hull import EnergyAboveHull, energy_above_hull
from crystalgfn.properties.registry import PROXIES, load_proxy
from crystalgfn.properties.training_distance import DistanceToData, NearestCentre, load_distance
from crystalgfn.rewards.base import Reward, check_reward, evaluate
from crystalgfn.rewards.external import Slow, program, slow
from crystalgfn.rewards.registry import Configured, installed, load, shipped
from crystalgfn.rewards.shaping import Dense, NearData, Probability, dense, near_data, packing_fraction, probability
from crystalgfn.rewards.subprocess import Program
from crystalgfn.rewards.transforms import (
    Boltzmann,
    Floor,
    Stable,
    Target,
    Weighted,
    boltzmann,
    floor,
    product,
    stable,
    target,
    weighted,
)

#: What a saved reward may name without its reader's trust. Not `Program` and `program`, which run commands.
FACTORIES = (
    "Density", "Scarcity", "VolumePerAtom", "boltzmann", "dense", "energy_above_hull", "floor", "function", "load",
    "load_distance", "load_proxy", "near_data", "probability", "product", "slow", "stable", "target", "weighted",
)  # fmt: skip

__all__ = [
    "PROXIES",
    "Boltzmann",
    "Configured",
    "Dense",
    "Density",
    "DistanceToData",
    "EnergyAboveHull",
    "Floor",
    "Function",
    "NearData",
    "NearestCentre",
    "Probability",
    "Program",
    "Property",
    "Reward",
    "Scarcity",
    "Slow",
    "Stable",
    "Target",
    "VolumePerAtom",
    "Weighted",
    "boltzmann",
    "check_reward",
    "dense",
    "describe",
    "energy_above_hull",
    "evaluate",
    "floor",
    "function",
    "installed",
    "load",
    "load_distance",
    "load_proxy",
    "near_data",
    "on_structures",
    "packing_fraction",
    "probability",
    "product",
    "program",
    "shipped",
    "slow",
    "stable",
    "target",
    "weighted",
]


def __getattr__(name: str) -> Any:
    """`on_structures` belongs to a higher room, whose imports take seconds, and is offered here with the others."""
    if name == "on_structures":
        return import_module("crystalgfn.structures.reward").on_structures
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
