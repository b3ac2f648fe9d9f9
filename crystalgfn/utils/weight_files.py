"""Files of weights: safetensors under a header that says what they are, written aside, read without pickle."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import nn

from crystalgfn.errors import CheckpointError
from crystalgfn.utils.files import path_of, write_aside
from crystalgfn.utils.shipped_files import check_size

log = logging.getLogger(__name__)
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class WeightFiles:
    """Files of one kind of model.

    Attributes:
        what: what such a file holds, in words.
        format: the header's name of it.
        version: of the format that is written and read.
        remedy: what to do about a file that cannot be read.
        unset: tensors without a finite number as long as nothing was fitted.
    """

    what: str
    format: str
    version: int
    remedy: str
    unset: tuple[str, ...] = ()

    def write(self, path: Path, tensors: Mapping[str, torch.Tensor], **metadata: str) -> Path:
        """Write tensors under a header; returns the path."""
        header = {"format": self.format, "version": str(self.version), **metadata}
        content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, header)
        write_aside(path, lambda aside: aside.write_bytes(content))
        return path

    def read(self, path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Tensors and header of a file.

        Raises:
            CheckpointError: no such file, truncated, of another format or version.
        """
        if not path.is_file():
            raise CheckpointError(f"there is no {self.what} at {path.parent}: {path.name} is missing")
        check_size(path)
        tensors, header = read_tensors(path, self.what, self.remedy, self.unset)
        if header.get("format") != self.format:
            raise CheckpointError(f"{path} holds no {self.what} (format {header.get('format')!r}, not {self.format!r})")
        if header.get("version") != str(self.version):
            raise CheckpointError(
                f"{path} has version {header.get('version')!r} of the format, this package reads {self.version}; "
                f"{self.remedy}"
            )
        return tensors, header

    def load(self, path: Path, make: Callable[[dict[str, str]], Model]) -> Model:
        """A model with the weights of a file, ready to use.

        Raises:
            CheckpointError: as `read`, or the weights do not fit the model.
        """
        tensors, header = self.read(path)
        try:
            check_sizes(json.loads(header.get("shape", "{}")), tensors)
            model = make(header)
            model.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:  # RecursionError is one of the last
            raise CheckpointError(f"{path} does not fit this package's model ({error}); {self.remedy}") from error
        return model.eval().requires_grad_(False)


def read_tensors(
    path: Path, what: str, remedy: str, unset: Collection[str] = ()
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file.

    Args:
        path: of the file.
        what: it holds, in words.
        remedy: what to do about one that cannot be used.
        unset: tensors without a finite number as long as nothing was fitted.

    Raises:
        CheckpointError: damaged, no such file, or a number that is not finite.
    """
    log.debug("read %s", path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} holds no {what}: it is damaged or no safetensors file ({error}); {remedy}"
        ) from error
    for name, tensor in tensors.items():
        finite = torch.isfinite(tensor)
        if not bool(finite.all()) and (name not in unset or bool(finite.any())):
            raise CheckpointError(f"{path} holds a number that is not finite ({name}); {remedy}")
    return tensors, header


def check_sizes(shape: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse the arguments of a model that would be larger than its weights, before it takes the memory.

    Raises:
        ValueError: a whole number above every dimension of the weights, and above how many tensors they are.
    """
    largest = max([len(tensors), *(length for tensor in tensors.values() for length in tensor.shape)])
    for name, value in shape.items():
        if isinstance(value, int) and value > largest:
            raise ValueError(f"{name}={value}, and no dimension of the weights is above {largest}")


def save_model(model: nn.Module, path: str | Path, half: bool = True) -> None:
    """Write the weights, in half precision unless told otherwise, aside and then renamed.

    Raises:
        CheckpointError: they cannot be written.
    """
    weights = {name: (value.half() if half else value).contiguous() for name, value in model.state_dict().items()}
    write_aside(path_of(path), lambda aside: save_file(weights, aside))


class StoredModel(nn.Module):
    """A model of one shape whose weights are one file of `save_model`.

    Attributes:
        what: what such a file holds, in words.
        half_precision: whether it is written in half precision.
    """

    what = "model"
    half_precision = True

    def save(self, path: str | Path) -> None:
        """Write the weights as safetensors, aside and then renamed.

        Raises:
            CheckpointError: they cannot be written.
        """
        save_model(self, path, self.half_precision)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The model in a file of `save`, ready to use.

        Raises:
            CheckpointError: the file is missing or of another kind.
        """
        check_size(path_of(path))
        model, remedy = cls(), "fit one, or use the shipped"
        try:
            tensors, _ = read_tensors(path_of(path), cls.what, remedy)
            model.load_state_dict({name: value.float() for name, value in tensors.items()})
        except RuntimeError as error:
            raise CheckpointError(f"{path} holds no {cls.what}; {remedy}") from error
        return model.eval().requires_grad_(False)
