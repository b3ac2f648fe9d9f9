"""Rewards: callables from crystals to log R, and the properties that they are made of."""

from crystalgfn.rewards.base import Property, Reward, check_reward, describe, evaluate
from crystalgfn.rewards.packing import Dense, dense, packing_fraction
from crystalgfn.rewards.properties import PROXIES, Density, Function, VolumePerAtom, function, load_proxy
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
    "Dense",
    "Density",
    "Floor",
    "Function",
    "Property",
    "Reward",
    "Target",
    "VolumePerAtom",
    "Weighted",
    "boltzmann",
    "check_reward",
    "dense",
    "describe",
    "evaluate",
    "floor",
    "function",
    "load_proxy",
    "packing_fraction",
    "product",
    "target",
    "weighted",
]
