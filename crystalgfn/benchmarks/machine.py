"""The machine under a measurement: a competing load, threads, peak memory."""

from __future__ import annotations

import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


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
