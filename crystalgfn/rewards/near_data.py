"""Staying near the compositions that a proxy was fitted on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from crystalgfn.domain.crystals import Crystals
from crystalgfn.proxies.distance import NearestCentre
from crystalgfn.rewards.properties import PROXIES
from crystalgfn.rewards.transforms import _check_number
from crystalgfn.typing import Floats


@dataclass(frozen=True, eq=False)
class NearData:
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
        _check_number("near_data", "free", self.free)
        _check_number("near_data", "width", self.width, positive=True)

    def __call__(self, crystals: Crystals) -> Floats:
        """Log R of each crystal."""
        beyond = (self.centres.distance(crystals) - self.free).clamp_min(0)
        return -0.5 * (beyond / self.width).square()

    def to(self, device: torch.device | str) -> NearData:
        """The same reward on ``device``."""
        return replace(self, centres=self.centres.to(device))

    def config(self) -> dict[str, Any]:
        """What hydra rebuilds it from."""
        return {
            "_target_": "crystalgfn.rewards.near_data",
            "source": self.source,
            "free": self.free,
            "width": self.width,
        }


def near_data(source: str | Path, free: float = 0.2, width: float = 0.1) -> NearData:
    """Compositions near those that a proxy was fitted on; see :class:`NearData`.

    Args:
        source: a shipped proxy with centres ("ionic_conductivity"), or a folder with ``centres.safetensors``.
        free: up to this distance nothing is lost.
        width: of the wall.

    Raises:
        CheckpointError: the proxy has no centres, or they are damaged.
    """
    if str(source) in PROXIES:
        shipped = Path(str(files("crystalgfn.proxies"))) / str(source)
        return NearData(NearestCentre.load(shipped), str(source), free, width)
    folder = Path(source).resolve()
    return NearData(NearestCentre.load(folder), str(folder), free, width)
