"""Rewards on structures: atoms are placed, and a function of full structures gives log R."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.structures.build import build, requests_of
from crystalgfn.structures.config import BuildConfig
from crystalgfn.structures.sources.base import PlacementRequest
from crystalgfn.typing import Floats

DIGITS = 4
"""Decimals of Å and degrees that tell the random numbers of one crystal from those of another."""


class OnStructures:
    """A reward of the structures of crystals, see `on_structures`."""

    def __init__(self, fn: Any, failed: float, config: BuildConfig) -> None:
        if not callable(fn):
            raise RewardError(f"on_structures needs a function of structures, not {fn!r}")
        if not np.isfinite(failed):
            raise RewardError(f"failed={failed}: give a finite log R for crystals whose atoms cannot be placed")
        self.fn, self.failed, self.config = fn, float(failed), config
        self.__qualname__ = f"on_structures({getattr(fn, '__qualname__', type(fn).__name__)})"

    def __call__(self, crystals: Crystals) -> Floats:
        """Log R of each crystal.

        Raises:
            RewardError: the function does not give one number for each structure.
        """
        requests = [replace(request, stream=stream_of(request)) for request in requests_of(crystals)]
        structures = [result.structure for result in build(requests, self.config)]
        placed = [i for i, structure in enumerate(structures) if structure is not None]
        values = torch.full((len(crystals),), self.failed, dtype=torch.float64)
        if placed:
            found = torch.as_tensor(self.fn([structures[i] for i in placed]), dtype=torch.float64).detach().cpu()
            if found.shape != (len(placed),):
                raise RewardError(
                    f"{self.__qualname__}: the function gives shape {list(found.shape)} for {len(placed)} structures; "
                    f"it must give one log R a structure, shape [{len(placed)}]"
                )
            values[placed] = found
        return values.to(crystals.lattice.device)


def on_structures(fn: Any, failed: float = -30.0, **options: Any) -> OnStructures:
    """A reward that sees full structures: atoms are placed, and ``fn`` gives log R of what came out.

    The random numbers of a placement come from the crystal itself and each crystal is placed by itself, so log R of a
    crystal is the same alone, in any batch, and at every call. Placing takes some tenths of a second a crystal.

    Args:
        fn: pymatgen structures -> log R of each, as a list, an array or a tensor; it must not depend on the others.
        failed: log R of a crystal whose atoms cannot be placed.
        **options: of `crystalgfn.structures.config.BuildConfig`, such as ``refiner=None`` for the fastest placement,
            ``templates="aflow"`` or ``relax=True``.

    Raises:
        RewardError: ``fn`` is no function, ``failed`` is not finite.
        PlacementError: an option that is invalid.

    Example:
        >>> import crystalgfn as cg
        >>> fn = lambda structures: [-abs(one.density - 4) for one in structures]
        >>> reward = cg.rewards.on_structures(fn, refiner=None)
        >>> cg.check_reward(reward)
    """
    return OnStructures(fn, failed, BuildConfig(**options, part=1))


def stream_of(request: PlacementRequest) -> tuple[int, ...]:
    """Seeds that are a crystal's own: of its space group, composition and rounded lattice."""
    lattice = tuple(round(x, DIGITS) for x in request.lattice or ())
    words = repr((request.space_group, sorted(request.counts.items()), lattice))
    return tuple(np.frombuffer(hashlib.sha256(words.encode()).digest()[:8], dtype=np.uint32).tolist())
