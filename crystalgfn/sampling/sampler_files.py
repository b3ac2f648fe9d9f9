"""The folder of a saved sampler: ``config.json`` and ``weights.safetensors``, read without pickle and checked."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file

from crystalgfn.crystallography.elements import METAL, NUMBER
from crystalgfn.errors import (
    LONGEST_NAME,
    CheckpointError,
    ConfigurationError,
    InvalidSpace,
    NotTrusted,
    check_kind,
    sentence,
)
from crystalgfn.policy.network import PolicyConfig
from crystalgfn.rewards.base import Reward
from crystalgfn.space.space import CrystalSpace
from crystalgfn.utils import files
from crystalgfn.utils.files import path_of, write_aside
from crystalgfn.utils.instantiate import instantiate
from crystalgfn.utils.shipped_files import check_size, shipped_index
from crystalgfn.utils.weight_files import check_sizes

log = logging.getLogger(__name__)
SHIPPED = files.SHIPPED / "samplers"
CONFIG, WEIGHTS = "config.json", "weights.safetensors"
KIND = "crystalgfn sampler"
DEFAULT, ALLOYS = "stable", "stable-any"
"""Shipped samplers: of compounds that charges balance, and of all compositions."""
VERSION = 2  # 2: volumes are drawn relative to the typical one
DTYPES = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
Part = TypeVar("Part")


@dataclass(frozen=True, kw_only=True)
class SavedSampler:
    """What the folder of a sampler holds.

    Attributes:
        space: what may be sampled.
        policy: size of the network.
        omega: marginal of the number of elements, or None.
        betas: range of inverse temperatures, or None.
        reward: the configuration that builds the reward, or None.
        log_z: ln Z, see `crystalgfn.sampling.sampler.Sampler`.
        network: weights of the policy by name.
    """

    space: CrystalSpace
    policy: PolicyConfig
    omega: tuple[float, ...] | None
    betas: tuple[float, float] | None
    reward: dict[str, Any] | None
    log_z: torch.Tensor
    network: dict[str, torch.Tensor]


def default_sampler(space: CrystalSpace | Mapping[str, Any] | None) -> str:
    """The shipped sampler for a space: "stable-any" where it asks for metals alone or for alloys, else "stable".

    Example:
        >>> default_sampler({"chemsys": "Cu-Au"}), default_sampler({"chemsys": "Li-Mn-O"})
        ('stable-any', 'stable')
    """
    check_kind("space", space or {}, (CrystalSpace, Mapping), "a CrystalSpace, or constraints by name", InvalidSpace)
    asked = space.to_dict() if isinstance(space, CrystalSpace) else dict(space or {})
    text = " ".join(str(asked.get(name) or "") for name in ("elements", "chemsys", "formula", "formulas"))
    numbers = [NUMBER[symbol] for symbol in re.findall(r"[A-Z][a-z]?", text) if symbol in NUMBER]
    metals = bool(numbers) and all(bool(METAL[z - 1]) for z in numbers)
    return ALLOYS if metals or asked.get("alloys") is True else DEFAULT


def write_sampler(folder: str | Path, saved: SavedSampler) -> None:
    """Write both files (aside, then renamed).

    Raises:
        CheckpointError: they cannot be written.
    """
    folder = path_of(folder)
    tensors = {f"network.{name}": value.detach().cpu().contiguous() for name, value in saved.network.items()}
    tensors["log_z"] = saved.log_z.cpu()
    config = {
        "kind": KIND,
        "version": VERSION,
        "space": saved.space.to_dict(),
        "policy": asdict(saved.policy),
        "omega": saved.omega,
        "betas": saved.betas,
        "reward": saved.reward,
        "checksum": checksum(tensors),
    }
    write_aside(folder / WEIGHTS, lambda path: save_file(tensors, path))
    write_aside(folder / CONFIG, lambda path: path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8"))


def read_sampler(source: str | Path) -> tuple[Path, SavedSampler]:
    """A saved sampler from its folder, or a shipped one by name; the folder, and what it holds.

    Raises:
        CheckpointError: missing, damaged, foreign or of another version.
    """
    folder = find(source)
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind, version = config["kind"], config["version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not the config of a crystalgfn sampler") from error
    if kind != KIND or version != VERSION:
        raise CheckpointError(f"{folder} holds a {kind} of version {version}; this is {KIND} version {VERSION}")

    def part(name: str, read_it: Callable[[Any], Part]) -> Part:
        try:
            return read_it(config[name])
        except Exception as error:  # whatever a wrong type meets first
            what = f"has no {name!r}" if isinstance(error, KeyError) else f"has a wrong {name!r}: {sentence(error)}"
            raise CheckpointError(f"{path} {what}; copy the folder anew, or train the sampler again") from error

    config.setdefault("betas", None)
    space = part("space", lambda value: CrystalSpace(**value))
    policy = part("policy", lambda value: PolicyConfig(**value))
    omega = part("omega", _shares)
    betas = part("betas", _range)
    reward = part("reward", _mapping)
    log_z, network = _weights(folder / WEIGHTS, part("checksum", _text))
    part("policy", lambda value: check_sizes(value, network))
    if policy.conditioned != (betas is not None):
        raise CheckpointError(
            f"{path}: betas={betas} do not go with a policy of conditioned={policy.conditioned}; copy the folder anew"
        )
    strata = 1 if omega is None else space.n_elements[1] + 1
    dimensions = 2 if betas is not None and omega is not None else 1
    if log_z.dim() != dimensions or log_z.shape[-1] != strata:
        raise CheckpointError(
            f"{folder / WEIGHTS}: ln Z of shape {list(log_z.shape)} does not fit omega and betas of {CONFIG}; copy the "
            "folder anew"
        )
    return folder, SavedSampler(
        space=space, policy=policy, omega=omega, betas=betas, reward=reward, log_z=log_z, network=network
    )


def find(source: str | Path) -> Path:
    """The folder of a sampler, given by its path or the name of a shipped one.

    Raises:
        CheckpointError: there is none.
    """
    check_kind("sampler", source, (str, Path), "a folder or the name of a shipped one", CheckpointError)
    if len(path_of(source).name) > LONGEST_NAME:
        raise CheckpointError(f"there is no sampler {str(source)[:40]!r}...: no file has so long a name")
    folder = path_of(source)
    name, at, version = str(source).rpartition("@")
    if at and not (folder / CONFIG).exists() and (SHIPPED / name).is_dir():
        _check_version(name, version)
        return SHIPPED / name
    # a folder of that name that holds no sampler (a run's, say) does not hide the shipped one
    if not (folder / CONFIG).exists() and (SHIPPED / str(source)).is_dir():
        folder = SHIPPED / str(source)
    if not (folder / CONFIG).exists():
        names = ", ".join(sorted(p.name for p in SHIPPED.glob("*") if p.is_dir())) if SHIPPED.exists() else ""
        raise CheckpointError(
            f"there is no sampler {source!s}: give a folder with {CONFIG} and {WEIGHTS}"
            + (f", or a shipped name ({names})" if names else "")
        )
    return folder


def full_name(source: str | Path) -> str:
    """A shipped sampler's name with its version, which rises when its files change; the path of any other.

    Example:
        >>> full_name("stable").partition("@")[0], full_name("runs/mine")
        ('stable', 'runs/mine')
    """
    name = str(source).partition("@")[0]
    try:
        shipped = find(source) == SHIPPED / name
    except CheckpointError:
        return str(source)
    entry = _entry(name) if shipped else {}
    return f"{name}@{entry['version']}" if "version" in entry else str(source)


def _entry(name: str) -> dict[str, Any]:
    """What the index of the weights says of a shipped sampler's weights."""
    return shipped_index().get(f"weights/samplers/{name}/{WEIGHTS}", {})


def _check_version(name: str, version: str) -> None:
    entry = _entry(name)
    if version != str(entry.get("version")):
        raise CheckpointError(
            f"{name}@{version} is not here: this installation has {name}@{entry.get('version')} (weights with SHA-256 "
            f"{str(entry.get('sha256'))[:12]}...); say sampler={name}@{entry.get('version')}, or install the version "
            "of crystalgfn that has the other one"
        )


def built_reward(config: dict[str, Any], folder: Path, trust: Sequence[str] | None) -> Reward:
    """The reward that a saved sampler describes; its code is the package's, an entry point's or trusted.

    Raises:
        NotTrusted: any other code.
        CheckpointError: a configuration that describes no reward.
    """
    try:
        reward: Any = instantiate(config, trust)
    except NotTrusted as error:
        raise NotTrusted(f"the reward of the sampler {folder} is not loaded: {error}") from error
    except ConfigurationError as error:
        raise CheckpointError(
            f"the reward of the sampler {folder} cannot be built: {sentence(error)}; give one, reward=..."
        ) from error
    if not isinstance(reward, Reward):
        raise CheckpointError(f"the reward of the sampler {folder} is {reward!r}, which cannot be called with crystals")
    return reward


def checksum(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of names, shapes and values of tensors, whatever their order."""
    digest = hashlib.sha256()
    add_tensors(digest, tensors)
    return digest.hexdigest()


def add_tensors(digest: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Take names, shapes and values of tensors into a hash, in the order of their names."""
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


def _weights(path: Path, expected: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    check_size(path)
    log.debug("read %s", path)
    try:
        tensors = load_file(path)
        if checksum(tensors) != expected:
            raise ValueError("another checksum")
        if not {tensor.dtype for tensor in tensors.values()} <= DTYPES:
            raise ValueError("numbers of another kind")
        log_z = tensors.pop("log_z").double()
    except Exception as error:
        raise CheckpointError(
            f"{path} is missing, truncated, damaged or of another sampler; copy the folder anew"
        ) from error
    for name, value in {**tensors, "ln Z": log_z.clamp_min(-1e300)}.items():  # -inf: no crystals
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{path} holds a number that is not finite ({name}); train the sampler again")
    return log_z, {name.removeprefix("network."): value for name, value in tensors.items()}


def _shares(value: Any) -> tuple[float, ...] | None:
    if value is None:
        return None
    shares = tuple(float(share) for share in value)
    if not shares or any(not share >= 0 for share in shares):
        raise ValueError(f"{list(shares)} are no shares of at least 0")
    return shares


def _range(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    low, high = (float(beta) for beta in value)
    if not 0 <= low < high < math.inf:
        raise ValueError(f"{[low, high]} are not two rising numbers from 0")
    return low, high


def _text(value: Any) -> str:
    check_kind("checksum", value, str, "the text that was written")
    return value


def _mapping(value: Any) -> dict[str, Any] | None:
    if value is not None and not (isinstance(value, dict) and "_target_" in value):
        raise ValueError(f"{value!r} is not a dictionary with _target_")
    return value
