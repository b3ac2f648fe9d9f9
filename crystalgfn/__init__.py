"""Draws crystals with probability proportional to a reward."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from crystalgfn import rewards
from crystalgfn.domain.crystals import Crystals
from crystalgfn.domain.space import CrystalSpace
from crystalgfn.errors import CrystalGFNError, EmptySpace, InvalidSpace
from crystalgfn.gfn.diagnostics import Diagnostics
from crystalgfn.gfn.trainer import Trainer
from crystalgfn.learn import train
from crystalgfn.policy.network import PolicyConfig
from crystalgfn.rewards import Property, Reward, check_reward, load_proxy
from crystalgfn.sampler import Sampler

__version__ = "0.1.0"

#: Where what makes structures is; pymatgen is imported when it is first asked for.
_STRUCTURES = {
    "build_structures": "placement",
    "build_from_wyckoff": "placement",
    "predict": "predict",
    "refine_structures": "refine_structures",
}


def __getattr__(name: str) -> Any:
    if name in _STRUCTURES:
        return getattr(import_module(f"crystalgfn.structures.{_STRUCTURES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "CrystalGFNError",
    "CrystalSpace",
    "Crystals",
    "Diagnostics",
    "EmptySpace",
    "InvalidSpace",
    "PolicyConfig",
    "Property",
    "Reward",
    "Sampler",
    "Trainer",
    "build_from_wyckoff",
    "build_structures",
    "check_reward",
    "load_proxy",
    "predict",
    "refine_structures",
    "rewards",
    "train",
]
