"""Where the time of a training step or of a sampling call goes.

Objects that the benchmark made itself get timed versions of their own methods, as attributes of the very instance and
only for as long as the watch runs; nothing in the library knows of it.
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from crystalgfn.envs.base import Environment
from crystalgfn.gfn.objectives import Objective

MASKS, ENVIRONMENT, NETWORK, REWARD, OPTIMISER, OTHER = (
    "masks",
    "environment",
    "network",
    "reward",
    "optimiser",
    "other",
)
SECTIONS = (MASKS, ENVIRONMENT, NETWORK, REWARD, OPTIMISER, OTHER)


def synchronize(device: torch.device) -> None:
    """Wait for a GPU; nothing to wait for elsewhere, or while a CUDA graph is being recorded."""
    if device.type == "cuda" and not torch.cuda.is_current_stream_capturing():
        torch.cuda.synchronize(device)


class Stopwatch:
    """Time of named sections, each without the sections inside it.

    CPU seconds of the process on a CPU; on a GPU wall-clock seconds between synchronised points.

    Attributes:
        spent: seconds by section.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.spent: dict[str, float] = defaultdict(float)
        self._open = [OTHER]
        self._since = self._now()

    @property
    def current(self) -> str:
        """The innermost open section."""
        return self._open[-1]

    def reset(self) -> None:
        """Forget what was spent."""
        self.spent.clear()
        self._since = self._now()

    def enter(self, section: str) -> None:
        """Open a section inside the current one."""
        self._charge()
        self._open[0] = OTHER
        self._open.append(section)

    def leave(self) -> None:
        """Close the innermost section."""
        self._charge()
        self._open.pop()

    def shares(self) -> dict[str, float]:
        """The share of each of `SECTIONS`; they add up to 1."""
        self._charge()
        total = sum(self.spent.values())
        return {name: self.spent[name] / total for name in SECTIONS}

    def timed(self, section: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose calls, and what it yields, count as a section; so do methods of what a network returns."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.enter(section)
            try:
                result = function(*args, **kwargs)
            finally:
                self.leave()
            if isinstance(result, Iterator):
                return self._stepped(section, result)
            if section == NETWORK and not isinstance(result, torch.Tensor) and hasattr(result, "__dict__"):
                self._method_by_method(section, result)
            return result

        return call

    def backward(self, _: torch.Tensor) -> None:
        """A hook on a loss: the backward pass that begins is the network's; from its end on the optimiser is at work.

        What lies between the two passes (clipping) is charged to the optimiser, until another section opens.
        """
        self.enter(NETWORK)
        torch.autograd.Variable._execution_engine.queue_callback(self._after_backward)

    def _after_backward(self) -> None:
        self.leave()
        self._open[0] = OPTIMISER

    def _stepped(self, section: str, iterator: Iterator) -> Iterator:
        while True:
            self.enter(section)
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.leave()
            yield item

    def _method_by_method(self, section: str, thing: Any, kept: list[tuple[Any, str]] | None = None) -> None:
        """Timed versions of the public methods that the thing's own classes define."""
        for name in _methods(type(thing)):
            label = MASKS if isinstance(thing, Environment) and name == "options" else section
            vars(thing)[name] = self.timed(label, getattr(thing, name))
            if kept is not None:
                kept.append((thing, name))

    def _optimiser(self, optimiser: torch.optim.Optimizer, kept: list[tuple[Any, str]]) -> None:
        step = self.timed(OPTIMISER, optimiser.step)

        def last(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs)
            self._charge()
            self._open[0] = OTHER
            return result

        vars(optimiser).update(step=last, zero_grad=self.timed(OPTIMISER, optimiser.zero_grad))
        kept.extend([(optimiser, "step"), (optimiser, "zero_grad")])

    @contextmanager
    def watching(self, owner: Any) -> Any:
        """Time the environments, networks and optimisers that an object holds.

        Raises:
            LookupError: it holds no environment or no network, so the shares would mean nothing.
        """
        parts = list(_parts(owner))
        for kind in (Environment, torch.nn.Module):
            if not any(isinstance(part, kind) for part in parts):
                raise LookupError(f"{type(owner).__name__} holds no {kind.__name__} to be timed")
        kept: list[tuple[Any, str]] = []
        try:
            for part in parts:
                if isinstance(part, torch.optim.Optimizer):
                    self._optimiser(part, kept)
                else:
                    self._method_by_method(ENVIRONMENT if isinstance(part, Environment) else NETWORK, part, kept)
            yield
        finally:
            for part, name in kept:
                del vars(part)[name]

    def objective(self, objective: Objective) -> Objective:
        """The same objective, whose losses tell when their backward pass begins and ends."""
        kind = type(objective)

        def call(self_: Objective, *args: Any, **kwargs: Any) -> Any:
            found = kind.__call__(self_, *args, **kwargs)
            loss = found[0] if isinstance(found, tuple) else found
            if loss.requires_grad:
                loss.register_hook(self.backward)
            return found

        twin = copy.copy(objective)
        object.__setattr__(twin, "__class__", type(kind.__name__, (kind,), {"__call__": call}))
        return twin

    def _charge(self) -> None:
        now = self._now()
        self.spent[self.current] += now - self._since
        self._since = now

    def _now(self) -> float:
        synchronize(self.device)
        return time.perf_counter() if self.device.type == "cuda" else time.process_time()


def _parts(owner: Any) -> Iterator[Any]:
    """Environments, networks and optimisers among the attributes of an object and of the parts of training it holds.

    Not in rewards, whose networks are theirs.
    """
    seen: set[int] = set()
    queue = list(vars(owner).values())
    while queue:
        one = queue.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, Environment | torch.nn.Module | torch.optim.Optimizer):
            yield one
        elif isinstance(one, dict):
            queue.extend(one.values())
        elif isinstance(one, list | tuple):
            queue.extend(one)
        elif type(one).__module__.startswith("crystalgfn.gfn.") and hasattr(one, "__dict__"):
            queue.extend(vars(one).values())


def _methods(kind: type) -> set[str]:
    """Names of the public functions that a class and its ancestors in this package define."""
    ancestors = [one for one in kind.__mro__ if one.__module__.startswith("crystalgfn.")]
    return {
        name for one in ancestors for name, member in vars(one).items()
        if not name.startswith("_") and callable(member) and not isinstance(member, type)
    }  # fmt: skip
