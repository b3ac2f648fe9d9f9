"""Where the time of a step goes, and the least that it could take."""

from __future__ import annotations

import copy
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from crystalgfn.envs.base import Environment
from crystalgfn.gfn.objectives import Objective

SECTIONS = ("masks", "environment", "network", "reward", "optimiser", "other")
MASKS, ENVIRONMENT, NETWORK, REWARD, OPTIMISER, OTHER = SECTIONS


def synchronize(device: torch.device) -> None:
    """Wait for a GPU; nothing to wait for elsewhere, or while a CUDA graph is being recorded."""
    if device.type == "cuda" and not torch.cuda.is_current_stream_capturing():
        torch.cuda.synchronize(device)


class Stopwatch:
    """Time of named sections, each without the sections inside it: seconds ``spent`` by section.

    CPU seconds of the process on a CPU; on a GPU wall-clock seconds between synchronised points.
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


#: (rows, inner, columns) of a product [rows, inner] x [inner, columns].
Shape = tuple[int, int, int]


class MatrixOperations(TorchDispatchMode):
    """Counts floating-point operations of matrix products, a multiplication and an addition as two.

    The formulas are those of `torch.utils.flop_counter`; its own counter does not tell dtypes apart. What a recorded
    CUDA graph or a compiled kernel does inside is not seen.

    ``counts`` is asked at each product whether it shall be counted. ``operations`` are by dtype, ``shapes`` the same by
    the shape of plain products.
    """

    def __init__(self, counts: Callable[[], bool] = lambda: True) -> None:
        super().__init__()
        self.counts = counts
        self.operations: dict[torch.dtype, int] = defaultdict(int)
        self.shapes: dict[Shape, int] = defaultdict(int)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Do it, and count it."""
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in flop_registry:
            with self:  # operations such as aten.linear are made of others
                result = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if result is NotImplemented else result
        result = func(*args, **kwargs)
        if self.counts():
            number = flop_registry[packet](*args, **kwargs, out_val=result)
            tensors = [one for one in args if isinstance(one, torch.Tensor)]
            self.operations[tensors[0].dtype] += number
            left, right = tensors[-2:]
            if left.ndim == right.ndim == 2:
                self.shapes[left.shape[0], left.shape[1], right.shape[1]] += number
        return result

    def main_shape(self) -> Shape:
        """The shape on which most of the operations were spent: the trunk's.

        Raises:
            LookupError: nothing was counted.
        """
        if not self.shapes:
            raise LookupError("no matrix product of the network was seen, so there is no floor to compare with")
        return max(self.shapes, key=lambda shape: self.shapes[shape])


@dataclass(frozen=True)
class Rate:
    """Of anything, per CPU second of the process and per wall-clock second."""

    per_cpu_second: float
    per_second: float

    def on(self, device: torch.device) -> float:
        """What is compared: per CPU second on a CPU, since machines are shared; per wall-clock second on a GPU."""
        return self.per_second if device.type == "cuda" else self.per_cpu_second


def rate(work: Callable[[], Any], seconds: float, device: torch.device) -> tuple[Rate, int]:
    """How often a function runs, over ``seconds`` and at least two calls; and how many calls there were."""
    synchronize(device)
    wall, cpu, calls = time.perf_counter(), time.process_time(), 0
    while calls < 2 or time.perf_counter() - wall < seconds:
        work()
        calls += 1
    synchronize(device)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Rate(calls / cpu, calls / wall), calls


def matrix_rate(shape: Shape, dtype: torch.dtype, device: torch.device, seconds: float) -> Rate:
    """Floating-point operations a second of plain products of a shape, under torch's current number of threads."""
    rows, inner, columns = shape
    generator = torch.Generator(device=device).manual_seed(0)
    left = torch.randn(rows, inner, generator=generator, device=device).to(dtype)
    right = torch.randn(inner, columns, generator=generator, device=device).to(dtype)
    out = torch.empty(rows, columns, dtype=dtype, device=device)
    operations = 2 * rows * inner * columns
    group = max(1, 10**8 // operations)  # so that the clock is read rarely

    def work() -> None:
        for _ in range(group):
            torch.mm(left, right, out=out)

    work()
    found, _ = rate(work, seconds, device)
    return Rate(found.per_cpu_second * group * operations, found.per_second * group * operations)


@contextmanager
def busy_core() -> Any:
    """A process that computes without a pause, until the end of the block or of this process; its id."""
    program = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100000))"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


@contextmanager
def set_threads(number: int) -> Any:
    """Within this context torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def forget_peak(device: torch.device) -> None:
    """Start to measure the peak of the memory anew, where that can be done."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")  # the process's high-water mark


def peak_memory(device: torch.device) -> float:
    """The most memory that was in use, MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
