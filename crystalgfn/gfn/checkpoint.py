"""Checkpoints: nested dictionaries of tensors and plain values."""

from __future__ import annotations

from pathlib import Path

import torch

from crystalgfn.errors import CheckpointError
from crystalgfn.utils.files import write_aside


def save_tensors(path: Path, state: dict) -> None:
    """A nested dictionary of tensors and plain values."""
    write_aside(path, lambda aside: torch.save(state, aside))


def load_tensors(path: Path, kind: str) -> dict:
    """What `save_tensors` wrote, without pickle.

    Raises:
        CheckpointError: missing, truncated, or another kind of file than ``kind``.
    """
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}; start without resume, or give the folder of a run")
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise CheckpointError(
            f"checkpoint {path} is truncated or not a checkpoint; remove it and start anew"
        ) from error
    if not isinstance(state, dict) or state.get("kind") != kind:
        raise CheckpointError(f"{path} is not a {kind} checkpoint of crystalgfn; give the folder of a run")
    return state
