"""Rewards: callables from crystals to log R, and the properties that they are made of."""

from crystalgfn.rewards.base import Property, Reward, check_reward, describe, evaluate
from crystalgfn.rewards.chance import Probability, probability
from crystalgfn.rewards.configured import Configured
from crystalgfn.rewards.distance import DistanceToData, load_distance
from crystalgfn.rewards.external import Slow, program, slow
from crystalgfn.rewards.hull import EnergyAboveHull, Stable, energy_above_hull, stable
from crystalgfn.rewards.near_data import NearData, near_data
from crystalgfn.rewards.packing import Dense, dense, packing_fraction
from crystalgfn.rewards.process import Program
from crystalgfn.rewards.properties import PROXIES, Density, Function, VolumePerAtom, function, load_proxy
from crystalgfn.rewards.registry import installed, load, shipped
from crystalgfn.rewards.scarcity import Scarcity
from crystalgfn.rewards.transforms import (
    Boltzmann,
    Floor,
    Target,
    Weighted,
    boltzmann,
    floor,
    product,
    target,
    weighted,
)

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
