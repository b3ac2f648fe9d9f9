"""The processes of a training started with torchrun; one process where there is no process group."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed


def active() -> bool:
    """Whether several processes train together."""
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """The number of this process."""
    return distributed.get_rank() if active() else 0


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if active() else 1


def from_first(values: torch.Tensor) -> torch.Tensor:
    """The first process's values, in every process."""
    if active():
        values = values.contiguous()
        distributed.broadcast(values, 0)
    return values


def mean(values: torch.Tensor) -> torch.Tensor:
    """The mean over the processes."""
    if active():
        values = values.contiguous()
        distributed.all_reduce(values)
        values = values / world_size()
    return values


def gathered(thing: Any) -> list[Any]:
    """What every process has, in order of the processes; in every process."""
    if not active():
        return [thing]
    things: list[Any] = [None] * world_size()
    distributed.all_gather_object(things, thing)
    return things
