"""Samples inorganic crystals with probability proportional to a reward, under hard physical constraints."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if "torch" not in sys.modules:
    # Read when torch is loaded: OpenMP threads sleep while they wait. Threads that spin take the time of whoever else
    # runs on the machine, and of each other: beside other work training was 10 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:
    from crystalgfn import rewards as rewards
    from crystalgfn.calculators.base import Calculator as Calculator
    from crystalgfn.calculators.contract import check_calculator as check_calculator
    from crystalgfn.calculators.registry import load_calculator as load_calculator
    from crystalgfn.crystallography.crystals import Crystals as Crystals
    from crystalgfn.discovery.discover import discover as discover
    from crystalgfn.envs.constraint_check import check_constraint as check_constraint
    from crystalgfn.errors import CrystalGFNError as CrystalGFNError
    from crystalgfn.errors import EmptySpace as EmptySpace
    from crystalgfn.errors import InvalidSpace as InvalidSpace
    from crystalgfn.evaluation.metrics.registry import check_metric as check_metric
    from crystalgfn.gfn.config import TrainerConfig as TrainerConfig

    Trainer = TrainerConfig
    from crystalgfn.gfn.diagnostics import Diagnostics as Diagnostics
    from crystalgfn.policy.network import PolicyConfig as PolicyConfig
    from crystalgfn.properties.base import Property as Property
    from crystalgfn.properties.registry import load_proxy as load_proxy
    from crystalgfn.rewards.base import Reward as Reward
    from crystalgfn.rewards.base import check_reward as check_reward
    from crystalgfn.sampling.sampler import Sampler as Sampler
    from crystalgfn.sampling.train import train as train
    from crystalgfn.space.space import CrystalSpace as CrystalSpace
    from crystalgfn.structures.build import build_from_wyckoff as build_from_wyckoff
    from crystalgfn.structures.build import build_structures as build_structures
    from crystalgfn.structures.build import refine_structures as refine_structures
    from crystalgfn.structures.predict import predict as predict
    from crystalgfn.structures.refiner.base import check_refiner as check_refiner
    from crystalgfn.structures.sources.base import check_candidate_source as check_candidate_source

__version__ = "0.1.0"

#: Public name -> the module that defines it; imported when it is first asked for (PEP 562).
_MODULES = {
    "Calculator": "calculators.base",
    "CrystalGFNError": "errors",
    "CrystalSpace": "space.space",
    "Crystals": "crystallography.crystals",
    "Diagnostics": "gfn.diagnostics",
    "EmptySpace": "errors",
    "InvalidSpace": "errors",
    "PolicyConfig": "policy.network",
    "Property": "properties.base",
    "Reward": "rewards.base",
    "Sampler": "sampling.sampler",
    "Trainer": "gfn.config",
    "TrainerConfig": "gfn.config",
    "build_from_wyckoff": "structures.build",
    "build_structures": "structures.build",
    "check_constraint": "envs.constraint_check",
    "check_metric": "evaluation.metrics.registry",
    "check_candidate_source": "structures.sources.base",
    "check_refiner": "structures.refiner.base",
    "check_calculator": "calculators.contract",
    "check_reward": "rewards.base",
    "discover": "discovery.discover",
    "load_calculator": "calculators.registry",
    "load_proxy": "properties.registry",
    "predict": "structures.predict",
    "refine_structures": "structures.build",
    "train": "sampling.train",
}

__all__ = [*_MODULES, "rewards"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name == "rewards":
        return import_module("crystalgfn.rewards")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"crystalgfn.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
