"""What a benchmark leaves behind: Markdown tables, and figures with everything that is needed to measure them again."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from crystalgfn.utils.files import path_of, write_aside


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; numbers right."""
    cells = [[_cell(value) for value in row] for row in rows]
    numbers = [all(not isinstance(row[i], str) for row in rows) for i in range(len(columns))]
    lines = [list(columns), ["---:" if number else "---" for number in numbers], *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    if value == 0 or 0.001 <= abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1e}"


LIBRARIES = ("pymatgen", "spglib", "pyxtal", "chgnet", "sevenn", "plotly")
"""Whose versions are kept besides those of Python and PyTorch."""


def machine() -> dict[str, Any]:
    """Processor, cores, GPU, and the versions that figures depend on."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "crystalgfn": version("crystalgfn"),
        **libraries(),
        "threads_of_environment": os.environ.get("OMP_NUM_THREADS"),
    }


def libraries() -> dict[str, str | None]:
    """Versions of the other libraries; None where one is not installed."""
    return {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str | None:
    """None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def heading(machine: dict[str, Any], command: str) -> str:
    """The command and the machine in two lines of Markdown."""
    names = ("cpu", "gpu", "python", "torch", "crystalgfn", *LIBRARIES)
    parts = [f"{name} {machine[name]}" for name in names if machine[name] is not None]
    return f"`{command}`\n\n{machine['cores']} cores; {'; '.join(parts)}"


def _processor() -> str:
    """The model's name; Python's own knows only the architecture on Linux."""
    information = Path("/proc/cpuinfo")
    if sys.platform == "linux" and information.exists():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write_report(folder: Path, name: str, report: str, figures: dict[str, Any]) -> None:
    """``<name>.md`` and ``<name>.json`` in a folder, each whole or not there.

    Raises:
        CheckpointError: they cannot be written.
    """
    write_aside(
        folder / f"{name}.json", lambda path: path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    )
    write_aside(folder / f"{name}.md", lambda path: path.write_text(report + "\n", encoding="utf-8"))


def json_safe(content: Any) -> Any:
    """The same with None in place of numbers that JSON does not have, such as NaN."""
    if isinstance(content, Mapping):
        return {str(key): json_safe(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [json_safe(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


METRICS = "metrics.json"


def versions() -> dict[str, str]:
    """With what something was fitted."""
    return {"crystalgfn": version("crystalgfn"), "torch": torch.__version__, "python": platform.python_version()}


def write_metrics(folder: str | Path, metrics: dict[str, Any]) -> None:
    """Write ``metrics.json`` into a folder, aside and then renamed."""
    text = json.dumps(metrics, indent=2) + "\n"
    write_aside(path_of(folder) / METRICS, lambda aside: aside.write_text(text, encoding="utf-8"))
