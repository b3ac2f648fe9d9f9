"""Properties of crystals: exact ones, a user's own function, and fitted proxies by name or folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.elements import NUMBER
from crystalgfn.errors import ConfigurationError, NotTrusted, RewardError
from crystalgfn.properties.base import as_values, check_space_groups, describe
from crystalgfn.typing import Floats
from crystalgfn.utils.instantiate import locate


class _Exact:
    """What follows from the parameters alone, so that its standard error is 0 and its confidence bound the value."""

    name: str
    unit: str

    def __call__(self, crystals: Crystals) -> Floats:
        """The value of each crystal."""
        raise NotImplementedError

    def std(self, crystals: Crystals) -> Floats:
        """0 for each crystal."""
        return torch.zeros_like(self(crystals))

    def confidence_bound(self, crystals: Crystals, n_sigma: float) -> Floats:
        """The value itself: nothing is uncertain."""
        return self(crystals)

    def to(self, device: torch.device | str) -> _Exact:
        """Itself: it holds no tensors and computes where the crystals are."""
        return self

    def config(self) -> dict[str, Any]:
        """The configuration that builds it."""
        return {"_target_": f"crystalgfn.rewards.{type(self).__name__}"}


@dataclass(frozen=True)
class Density(_Exact):
    """Mass over volume, g/cm3."""

    name: str = "density"
    unit: str = "g/cm3"

    def __call__(self, crystals: Crystals) -> Floats:
        """Density of each crystal, g/cm3."""
        check_space_groups(self.name, crystals)
        return crystals.density


@dataclass(frozen=True)
class VolumePerAtom(_Exact):
    """Volume of the cell over its atoms, Å3."""

    name: str = "volume_per_atom"
    unit: str = "Å3"

    def __call__(self, crystals: Crystals) -> Floats:
        """Volume per atom of each crystal, Å3."""
        check_space_groups(self.name, crystals)
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
        return as_values(self.fn(crystals), crystals)

    def config(self) -> dict[str, Any]:
        """The configuration that builds it; only for functions with such a method of their own, or a name to import.

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
        NotTrusted: a path from a saved configuration that its reader has not allowed.
    """
    if not isinstance(fn, str):
        return fn
    try:
        found = locate(fn)
    except NotTrusted:
        raise
    except ConfigurationError as error:
        raise RewardError(f"{where}: {fn!r} is not the dotted path of a function: {error}") from error
    if not callable(found):
        raise RewardError(f"{where}: {fn!r} is not the dotted path of a function: it cannot be called")
    return found


#: Abundance in the continental crust, mg/kg: "Abundance of Elements in the Earth's Crust and in the Sea", CRC Handbook
#: of Chemistry and Physics, 85th ed. (2005), section 14; medians of reported values.
CRUST = {
    "H": 1.40e3, "He": 8e-3, "Li": 2.0e1, "Be": 2.8, "B": 1.0e1, "C": 2.00e2, "N": 1.9e1, "O": 4.61e5, "F": 5.85e2,
    "Ne": 5e-3, "Na": 2.36e4, "Mg": 2.33e4, "Al": 8.23e4, "Si": 2.82e5, "P": 1.05e3, "S": 3.50e2, "Cl": 1.45e2,
    "Ar": 3.5, "K": 2.09e4, "Ca": 4.15e4, "Sc": 2.2e1, "Ti": 5.65e3, "V": 1.20e2, "Cr": 1.02e2, "Mn": 9.50e2,
    "Fe": 5.63e4, "Co": 2.5e1, "Ni": 8.4e1, "Cu": 6.0e1, "Zn": 7.0e1, "Ga": 1.9e1, "Ge": 1.5, "As": 1.8, "Se": 5e-2,
    "Br": 2.4, "Kr": 1e-4, "Rb": 9.0e1, "Sr": 3.70e2, "Y": 3.3e1, "Zr": 1.65e2, "Nb": 2.0e1, "Mo": 1.2, "Ru": 1e-3,
    "Rh": 1e-3, "Pd": 1.5e-2, "Ag": 7.5e-2, "Cd": 1.5e-1, "In": 2.5e-1, "Sn": 2.3, "Sb": 2e-1, "Te": 1e-3, "I": 4.5e-1,
    "Xe": 3e-5, "Cs": 3.0, "Ba": 4.25e2, "La": 3.9e1, "Ce": 6.65e1, "Pr": 9.2, "Nd": 4.15e1, "Sm": 7.05, "Eu": 2.0,
    "Gd": 6.2, "Tb": 1.2, "Dy": 5.2, "Ho": 1.3, "Er": 3.5, "Tm": 5.2e-1, "Yb": 3.2, "Lu": 8e-1, "Hf": 3.0, "Ta": 2.0,
    "W": 1.25, "Re": 7e-4, "Os": 1.5e-3, "Ir": 1e-3, "Pt": 5e-3, "Au": 4e-3, "Hg": 8.5e-2, "Tl": 8.5e-1, "Pb": 1.4e1,
    "Bi": 8.5e-3, "Po": 2e-10, "Rn": 4e-13, "Ra": 9e-7, "Ac": 5.5e-10, "Th": 9.6, "Pa": 1.4e-6, "U": 2.7,
}  # fmt: skip


@dataclass(frozen=True)
class Scarcity(_Exact):
    """Mean over the atoms of -log10 of their element's mass fraction in the crust, in decades.

    SiO2 0.41, iron 1.2, LiCoO2 2.5, gold 8.4. Elements without a value (Tc, Pm, those beyond uranium) count as the
    scarcest of the table.
    """

    name: str = "scarcity"
    unit: str = "decades"

    def __call__(self, crystals: Crystals) -> Floats:
        """Scarcity of each crystal, decades."""
        counts = crystals.composition.to(crystals.lattice.dtype)
        return counts @ _DECADES.to(crystals.lattice) / crystals.n_atoms


def _decades() -> torch.Tensor:
    share = torch.full((118,), min(CRUST.values()), dtype=torch.float64)
    for symbol, value in CRUST.items():
        share[NUMBER[symbol] - 1] = value
    return -torch.log10(share * 1e-6)


_DECADES = _decades()
