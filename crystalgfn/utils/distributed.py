"""The processes of one command that torchrun started: one group, one configuration, one voice."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from crystalgfn.errors import ConfigurationError, sentence

_FAILED = "crystalgfn/failed"
_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_stores: list[Any] = []


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return all(name in os.environ for name in _NEEDED) and int(os.environ["WORLD_SIZE"]) > 1


def first() -> bool:
    """Whether this process speaks and writes for all: the only one, or number 0."""
    return not launched() or int(os.environ["RANK"]) == 0


def own_device(device: str) -> str:
    """The device of this process: of several, each has the GPU of its number on its machine."""
    if launched() and torch.device(device).type == "cuda":
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return device


def usable_device(name: Any) -> Any:
    """A device, or its name, that can be used.

    Raises:
        ConfigurationError: it cannot.
    """
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ConfigurationError(f"device={name} cannot be used here: {sentence(error).split('. ')[0]}") from error
    return name


class Group:
    """Within this context the processes are one group of torch.distributed: gloo on CPUs, NCCL on GPUs.

    Nothing where there is one process.
    """

    def __enter__(self) -> Group:
        if launched():
            gpus = torch.cuda.is_available() and distributed.is_nccl_available()
            store, rank, size = next(iter(rendezvous("env://")))
            own = PrefixStore("crystalgfn", store)
            backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
            distributed.init_process_group(backend, store=own, rank=rank, world_size=size)
            if gpus:
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
            _stores.append(store)
        return self

    def __exit__(self, *_: object) -> None:
        if launched():
            _stores.pop()
            distributed.destroy_process_group()


def of_first(get: Callable[[], Any]) -> Any:
    """What the first process gets, in every process; only there is it asked for."""
    if not launched():
        return get()
    things = [get() if first() else None]
    distributed.broadcast_object_list(things, 0)
    return things[0]


def fails_first() -> bool:
    """Whether no other process has failed before; to be asked once, by a process that fails."""
    if not _stores:
        return first()
    try:
        return _stores[-1].add(_FAILED, 1) == 1
    except RuntimeError:  # whoever held the store is gone, and has said why
        return False


def cut_off(error: BaseException) -> bool:
    """Whether an error only says that another process has ended."""
    return launched() and (isinstance(error, distributed.DistError) or "gloo" in str(error).lower())


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
