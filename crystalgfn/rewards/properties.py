"""Properties of crystals: exact ones, a user's own function, and fitted proxies by name or folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_method

from crystalgfn.domain.crystals import Crystals
from crystalgfn.errors import NotAvailable, RewardError
from crystalgfn.proxies.model import EnsembleProxy
from crystalgfn.rewards.base import Property, describe
from crystalgfn.typing import Floats

#: The proxies that go by a name, with what each predicts.
PROXIES = {
    "formation_energy": "formation energy, eV/atom",
    "band_gap": "PBE band gap, eV",
    "ionic_conductivity": "log10 of the Li-ion conductivity, S/cm",
    "energy_above_hull": "energy above the convex hull, eV/atom",
}


class _Exact:
    """What follows from the parameters alone, so that its spread is 0 and its bound the value."""

    name: str
    unit: str

    def __call__(self, crystals: Crystals) -> Floats:
        """The value of each crystal."""
        raise NotImplementedError

    def spread(self, crystals: Crystals) -> Floats:
        """0 for each crystal."""
        return torch.zeros_like(self(crystals))

    def bound(self, crystals: Crystals, k: float) -> Floats:
        """The value itself: nothing is uncertain."""
        return self(crystals)

    def to(self, device: torch.device | str) -> _Exact:
        """Itself: it holds no tensors and computes where the crystals are."""
        return self

    def config(self) -> dict[str, Any]:
        """What hydra rebuilds it from."""
        return {"_target_": f"crystalgfn.rewards.{type(self).__name__}"}


@dataclass(frozen=True)
class Density(_Exact):
    """Mass over volume, g/cm3."""

    name: str = "density"
    unit: str = "g/cm3"

    def __call__(self, crystals: Crystals) -> Floats:
        """Density of each crystal, g/cm3."""
        return crystals.density


@dataclass(frozen=True)
class VolumePerAtom(_Exact):
    """Volume of the cell over its atoms, Å3."""

    name: str = "volume_per_atom"
    unit: str = "Å3"

    def __call__(self, crystals: Crystals) -> Floats:
        """Volume per atom of each crystal, Å3."""
        return crystals.volume_per_atom


@dataclass(frozen=True, eq=False)
class Function(_Exact):
    """A user's function of crystals, taken as exact.

    Attributes:
        fn: crystals -> values, float [B].
        name: what it is called in tables.
        unit: its unit.
    """

    fn: Callable[[Crystals], torch.Tensor]
    name: str
    unit: str = ""

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise RewardError(f"function: a property is a function of crystals; {self.fn!r} cannot be called.")

    def __call__(self, crystals: Crystals) -> Floats:
        """The function's values."""
        return self.fn(crystals)

    def config(self) -> dict[str, Any]:
        """What hydra rebuilds it from; only for functions with such a method of their own, or a name to import.

        Raises:
            RewardError: a lambda or a function defined inside another.
        """
        fn = describe(self.fn) if hasattr(self.fn, "config") else dotted_path(self.fn, f"property {self.name}")
        return {"_target_": "crystalgfn.rewards.function", "fn": fn, "name": self.name, "unit": self.unit}


def function(fn: Callable | str, name: str, unit: str = "") -> Function:
    """A property from a function of crystals, or from the dotted path of one (as configurations give it).

    Raises:
        RewardError: a path that names no function, or what cannot be called.
    """
    return Function(imported(fn, "function"), name, unit)


def dotted_path(fn: Callable, what: str) -> str:
    """The path by which a function can be imported.

    Raises:
        RewardError: a lambda, or a function defined inside another or in the program that runs.
    """
    path = f"{getattr(fn, '__module__', '')}.{getattr(fn, '__qualname__', '')}"
    if "<" in path or path.startswith(("__main__.", ".")) or path.endswith("."):
        raise RewardError(
            f"the {what} is computed by {path.strip('.') or repr(fn)}, which cannot be imported by name; "
            "define it at the top of a module to save it with a sampler."
        )
    return path


def imported(fn: Any, where: str) -> Any:
    """A function, from its dotted path where it is given by that.

    Raises:
        RewardError: a path that names no function.
    """
    if not isinstance(fn, str):
        return fn
    try:
        return get_method(fn)
    except Exception as error:
        raise RewardError(f"{where}: {fn!r} is not the dotted path of a function: {error}") from error


def load_proxy(name: str | Path) -> Property:
    """A fitted proxy: a shipped one by name, or a user's own by its folder.

    Args:
        name: one of ``PROXIES``, or a folder with ``weights.safetensors`` and ``metrics.json``.

    Raises:
        NotAvailable: a proxy whose name is known but which is not shipped yet.
        RewardError: neither a known name nor a folder.
        CheckpointError: weights that are missing, truncated, or of another kind.
    """
    if str(name) == "energy_above_hull":  # the formation energy's proxy with a fitted hull
        from crystalgfn.rewards.hull import energy_above_hull

        return energy_above_hull()
    if str(name) in PROXIES:
        folder = Path(str(files("crystalgfn.proxies"))) / str(name)
        if not (folder / "weights.safetensors").is_file():
            raise NotAvailable(
                f"The proxy {str(name)!r} ({PROXIES[str(name)]}) is not shipped with this version. Fit one with "
                f"crystalgfn.proxies.fit.fit(train_path, val_path, property=..., out=...) and load its folder."
            )
        return EnsembleProxy.load(folder, source=str(name), property=str(name))
    if not Path(name).is_dir():
        raise RewardError(f"There is no proxy {str(name)!r}: it is neither one of {', '.join(PROXIES)} nor a folder.")
    return EnsembleProxy.load(Path(name), source=str(name))
