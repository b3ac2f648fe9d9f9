"""The floor of the time: matrix operations that were done, over the rate at which the machine multiplies matrices."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from crystalgfn.evaluation.stopwatch import synchronize

#: (rows, inner, columns) of a product [rows, inner] x [inner, columns].
Shape = tuple[int, int, int]


def short(dtype: torch.dtype) -> str:
    """torch.float32 -> "float32"."""
    return str(dtype).removeprefix("torch.")


class MatrixOperations(TorchDispatchMode):
    """Counts floating-point operations of matrix products, a multiplication and an addition as two.

    The formulas are those of `torch.utils.flop_counter`; its own counter does not tell dtypes apart. What a recorded
    CUDA graph or a compiled kernel does inside is not seen.

    Args:
        counts: asked at each product, whether it shall be counted.

    Attributes:
        operations: floating-point operations by dtype.
        shapes: the same by the shape of plain products.
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


def rate(work: Callable[[], Any], seconds: float, device: torch.device, least: int = 2) -> tuple[Rate, int]:
    """How often a function runs, over ``seconds`` and at least ``least`` calls; and how many calls there were."""
    synchronize(device)
    wall, cpu, calls = time.perf_counter(), time.process_time(), 0
    while calls < least or time.perf_counter() - wall < seconds:
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
