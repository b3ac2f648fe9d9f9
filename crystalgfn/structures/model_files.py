"""Files of the small models that ship with the package: safetensors without a header."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from safetensors.torch import load_file, save_file
from torch import nn

from crystalgfn.errors import CheckpointError
from crystalgfn.files import write_aside

Model = TypeVar("Model", bound=nn.Module)


def save_model(model: nn.Module, path: str | Path, half: bool = True) -> None:
    """Write the weights, in half precision unless told otherwise, aside and then renamed.

    Raises:
        CheckpointError: they cannot be written.
    """
    weights = {name: (value.half() if half else value).contiguous() for name, value in model.state_dict().items()}
    write_aside(Path(path), lambda aside: save_file(weights, aside))


def load_model(model: Model, path: str | Path, reason: str) -> Model:
    """A new model with the weights in a file of `save_model`, in evaluation mode.

    Args:
        model: of the right shape.
        path: the file.
        reason: what to say of a file that holds something else, after its name.

    Raises:
        CheckpointError: the file is missing or of another kind.
    """
    from safetensors import SafetensorError

    try:
        model.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{path} {reason}") from error
    return model.eval()
