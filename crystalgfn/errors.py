"""The errors that a user can act on: each names the value, the rule and the remedy."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

LONGEST_NAME = 255
"""Characters of a file's name, at most, on common file systems."""


class CrystalGFNError(Exception):
    """Base of all errors that the package raises on purpose."""


class InvalidSpace(CrystalGFNError, ValueError):
    """A constraint that means nothing: an unknown element, limits the wrong way round."""


class EmptySpace(InvalidSpace):
    """Constraints that leave no crystal at all."""


class InvalidCrystal(CrystalGFNError, ValueError):
    """Tensors or structures that are not crystals."""


class RewardError(CrystalGFNError, ValueError):
    """A reward or property that breaks its contract."""


class CheckpointError(CrystalGFNError):
    """A checkpoint or weights file that is missing, truncated or of another kind."""


class ConfigurationError(CrystalGFNError, ValueError):
    """A configuration that describes no object."""


class NotTrusted(ConfigurationError):
    """A file from elsewhere that names code which its reader has not allowed."""


class DataError(CrystalGFNError, ValueError):
    """A data file that cannot be used."""


class ShardError(CrystalGFNError, ValueError):
    """Shards that are missing, damaged or of another run, or that cannot be asked for so."""


class TrainingError(CrystalGFNError):
    """Training that cannot go on."""


class CalculatorError(CrystalGFNError, ValueError):
    """A calculator that there is not, or that breaks its contract."""


class PlacementError(CrystalGFNError, ValueError):
    """Atoms that cannot be placed as asked."""


class NotAvailable(CrystalGFNError):
    """Something that this version of the package does not have."""


def check_kind(
    name: str, value: Any, kind: type | tuple[type, ...], words: str, error: type[CrystalGFNError] = ConfigurationError
) -> None:
    """Refuse an argument of another type, True and False where numbers are wanted among them.

    Raises:
        CrystalGFNError: of the class ``error``; names the argument, its type, and what to give.
    """
    numbers: dict[type, type] = {int: Integral, float: Real}  # numpy's among them
    kinds = tuple(numbers.get(one, one) for one in (kind if isinstance(kind, tuple) else (kind,)))
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise error(f"{name} is {type(value).__name__} {str(value)[:40]!r}; give {words}")


def check_seed(seed: Any, error: type[CrystalGFNError] = ConfigurationError) -> None:
    """Refuse what is no seed.

    Raises:
        CrystalGFNError: of the class ``error``.
    """
    check_kind("seed", seed, int, "a whole number", error)
    if not 0 <= seed < 2**63:
        raise error(f"seed={seed}: give a whole number from 0 to 2^63 - 1")


def sentence(error: BaseException | str) -> str:
    """An error's message in one line, without a full stop; indented lines, a list, are parted by semicolons."""
    text = str(error).strip()
    if "\n " in text:
        lines = text.splitlines()
        listed = [line.startswith(" ") for line in lines]
        text = " ".join(f"{line};" if any(listed[i : i + 2]) else line for i, line in enumerate(lines)).rstrip(";")
    return " ".join(text.split()).rstrip(".") or type(error).__name__


def unusable(error: OSError) -> str:
    """What is wrong with a file or folder, without a full stop."""
    where = f" {error.filename}" if error.filename else ""
    return f"cannot use{where}: {error.strerror or error}; choose another file or folder"
