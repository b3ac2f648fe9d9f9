"""The figures that stand beside fitted weights."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from crystalgfn.files import write_aside

METRICS = "metrics.json"


def versions() -> dict[str, str]:
    """With what something was fitted."""
    return {"crystalgfn": version("crystalgfn"), "torch": torch.__version__, "python": platform.python_version()}


def write_metrics(folder: str | Path, metrics: dict[str, Any]) -> None:
    """Write ``metrics.json`` into a folder, aside and then renamed."""
    text = json.dumps(metrics, indent=2) + "\n"
    write_aside(Path(folder) / METRICS, lambda aside: aside.write_text(text, encoding="utf-8"))
