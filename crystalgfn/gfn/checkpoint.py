"""Checkpoints: nested dictionaries of tensors and plain values, and what of a training goes into one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from crystalgfn.errors import CheckpointError
from crystalgfn.utils import distributed
from crystalgfn.utils.files import write_aside

if TYPE_CHECKING:
    from crystalgfn.gfn.training import TrainingRun

#: Settings that may change when a training goes on.
FREE = ("progress", "device")


def save_tensors(path: Path, kind: str, state: dict[str, Any]) -> None:
    """Write a nested dictionary of tensors and plain values, aside and then renamed.

    Raises:
        CheckpointError: it cannot be written.
    """
    write_aside(path, lambda aside: torch.save({"kind": kind, **state}, aside))


def load_tensors(path: Path, kind: str) -> dict[str, Any]:
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


def training_state(run: TrainingRun, sources: list[dict[str, Any]]) -> dict[str, Any]:
    """All that a training needs to go on as if it had never stopped."""
    return {
        "trainer": {key: value for key, value in asdict(run.trainer).items() if key not in FREE},
        "scorer": run.scorer.state_dict(),
        "optimizers": run.optimizers.state_dict(),
        "sources": sources,
        "step": run.step,
        "elapsed": run.elapsed,
        "best": {} if run.best is None else run.best.state_dict(),
    }


def restore(run: TrainingRun, state: dict[str, Any], path: Path) -> None:
    """Put a training where a checkpoint was written.

    Raises:
        CheckpointError: a damaged state, or one of another network or number of processes.
    """
    parts = len(run.sources) * distributed.world_size()
    first = distributed.rank() * len(run.sources)

    def network() -> None:
        own = run.scorer.state_dict()
        if any(own[name].shape != value.shape for name, value in state["scorer"].items()):
            raise ValueError("weights of other shapes")  # some would load, but the optimisers' state would not fit
        run.scorer.load_state_dict(state["scorer"])
        run.optimizers.load_state_dict(state["optimizers"])

    def streams() -> None:
        for source, own in zip(run.sources, state["sources"][first:], strict=False):
            source.load_state_dict(own)
        run.step, run.elapsed = int(state["step"]), float(state["elapsed"])
        if run.best is not None:
            run.best.load_state_dict(state.get("best", {}))

    other = "is of another space, policy or version; resume with the settings of that run, or start in another folder"
    _attempt(network, path, other)
    found = len(state.get("sources", ()))
    if found != parts:
        raise CheckpointError(
            f"checkpoint {path} is of {found} streams (processes times trainer.accumulate), not {parts}; resume with "
            "as many"
        )
    _attempt(streams, path, "is damaged; remove it and start anew")


def _attempt(work: Callable[[], None], path: Path, words: str) -> None:
    try:
        work()
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {path} {words}") from error
