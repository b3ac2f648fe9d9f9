"""Rewards: callables from crystals to log R, and the properties that they are made of."""

from crystalgfn.rewards.base import Property, Reward, check_reward, describe, evaluate
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
    "describe",
    "evaluate",
    "floor",
    "function",
    "load_proxy",
    "product",
    "target",
    "weighted",
]
