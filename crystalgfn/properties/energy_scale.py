"""Scales of formation energies: the Materials Project's, and one whose anion corrections go with the charge.

The Materials Project corrects energies by one constant an anion atom (MP2020: S 0.50, Br 0.53, Cl 0.61 eV ...),
whatever charge the atom carries, so that crystals with more anions than their cations can charge come out up to 0.4
eV/atom too low (FeS2, NaNO3, PbS4). On the scale "charge"

    E_charge = E_mp2020 - 1/N sum_i n_i (d_i m_i + (g_i + h_i v_i) c_i) - 1/N sum_X k_X n_X q_X / 2,

where of the n_i atoms of anion i the share m_i lacks charge and c_i = (share that is an anion) - m_i carries it, v_i is
the covalent share of its bonds (1 minus Pauling's ionic character, exp(-(chi_i - chi_cation)^2 / 4)), and n_X q_X / 2
counts the oxygen atoms that a non-metal X of mean positive charge q_X holds (nitrates, sulfates, carbonates). Charges
are those of `crystalgfn.properties.oxidation`. The coefficients are fitted to measured enthalpies of formation
(``scripts/maintain/fit_energy_scale``; figures of the cross-validation in the table). The shift is one of the
composition alone: it moves crystals against the hull and never two crystals of one composition against each other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from crystalgfn.crystallography import elements
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.errors import RewardError
from crystalgfn.properties.base import Property, check_property, describe, moved
from crystalgfn.properties.hull_entries import compositions
from crystalgfn.properties.oxidation import FULL, charges
from crystalgfn.typing import Doubles, Floats, Fractions
from crystalgfn.utils import files

TABLE = files.SHIPPED / "tables" / "energy_scale.json"
SCALES = ("charge", "mp2020")
CENTRES = ("B", "C", "N", "Si", "P", "S", "Cl", "As", "Se", "Br", "Te", "I")
"""Non-metals that bind oxygen."""


MP2020 = {
    "H": -0.179, "N": -0.361, "O": -0.687, "F": -0.462, "Si": 0.071, "S": -0.503, "Cl": -0.614, "Se": -0.472,
    "Br": -0.534, "Sb": -0.192, "Te": -0.422, "I": -0.379,
}  # fmt: skip
"""The Materials Project's corrections of anions, eV an atom (Wang et al., Sci. Rep. 11, 15496 (2021))."""
PEROXIDE, SUPEROXIDE = -0.465, -0.161
MP2020_U = {
    "V": -1.7, "Cr": -1.999, "Mn": -1.668, "Fe": -2.256, "Co": -1.638, "Ni": -2.541, "Mo": -3.202, "W": -4.438
}  # fmt: skip
"""Those of metals that are computed with a U, in oxides and fluorides, eV an atom."""


def check_scale(scale: str) -> str:
    """The scale, if there is one of that name.

    Raises:
        RewardError: there is none.
    """
    if scale not in SCALES:
        raise RewardError(f"there is no energy scale {scale!r}; there are {' and '.join(SCALES)}")
    return scale


def scale_features(crystals: Crystals | Sequence[str] | Fractions) -> dict[str, torch.Tensor]:
    """What the corrections go with, an atom of the crystal: ``d_S``, ``g_S``, ``h_S``, ..., ``k_N``, ...; each [B].

    Args:
        crystals: crystals, compositions (counts or fractions, [B, 118]) or formulas.

    Raises:
        DataError: a formula that cannot be read.
        InvalidCrystal: a composition without atoms or with a negative amount.
    """
    found = charges(crystals)
    share = found.amounts / found.amounts.sum(1, keepdim=True)
    known = found.numbers.clamp_min(1) - 1
    chi = _CHI.to(share.device)[known]
    positive = share * found.positive
    # How covalent the bonds of element i are: the mean over the other elements' positive charges.
    bond = torch.exp(-(chi[:, :, None] - chi[:, None, :]).clamp_min(0).square() / 4)
    others = positive[:, None, :] * ~torch.eye(share.shape[1], dtype=torch.bool, device=share.device)
    covalent = (bond * others).sum(2) / others.sum(2).clamp_min(1e-9)
    lacking, charged = share * found.missing, share * (found.anionic - found.missing)
    oxygen = (found.numbers == elements.NUMBER["O"]).any(1)
    columns = {}
    for symbol in FULL:
        here = found.numbers == elements.NUMBER[symbol]
        columns[f"d_{symbol}"] = (lacking * here).sum(1)
        columns[f"g_{symbol}"] = (charged * here).sum(1)
        columns[f"h_{symbol}"] = (charged * covalent * here).sum(1)
    for symbol in CENTRES:
        columns[f"k_{symbol}"] = (positive * (found.numbers == elements.NUMBER[symbol])).sum(1) * oxygen / 2
    return columns


def mp2020_corrections(composition: Fractions) -> Doubles:
    """What the Materials Project adds to raw PBE and PBE+U energies, by the composition alone, eV/atom, [B].

    An element counts as an anion where it is the most electronegative one or most plausibly carries a negative charge;
    oxygen's number depends on that charge (oxide, peroxide, superoxide). In MP-20 potentials of raw energies reproduce
    the project's own formation energies with it: SevenNet-l3i5 within 0.011 eV/atom in the mean, against 0.073 without.

    Args:
        composition: counts or fractions, [B, 118].

    Raises:
        InvalidCrystal: a composition without atoms or with a negative amount.
    """
    found = charges(composition)
    share = found.amounts / found.amounts.sum(1, keepdim=True)
    here = found.numbers > 0
    chi = _CHI.to(share.device)[found.numbers.clamp_min(1) - 1].masked_fill(~here, -1)
    top = (chi == chi.amax(1, keepdim=True)) & (here.sum(1, keepdim=True) > 1)
    anion = here & (top | (found.anionic > 0.5))
    of_element = torch.zeros(119, dtype=torch.float64)
    for symbol, value in MP2020.items():
        of_element[elements.NUMBER[symbol]] = value
    each = of_element.to(share.device)[found.numbers]
    charge, oxygen = -found.mean, found.numbers == elements.NUMBER["O"]
    each = torch.where(oxygen & (charge > 0) & (charge <= 1.5), PEROXIDE, each)
    each = torch.where(oxygen & (charge > 0) & (charge <= 0.75), SUPEROXIDE, each)
    total = (each * share * anion).sum(1)
    with_u = (top & (oxygen | (found.numbers == elements.NUMBER["F"]))).any(1)
    for symbol, value in MP2020_U.items():
        total = total + value * (share * (found.numbers == elements.NUMBER[symbol])).sum(1) * with_u
    return total


def scale_shift(crystals: Crystals | Sequence[str] | Fractions, scale: str = "charge") -> Doubles:
    """By how much formation energies on ``scale`` lie above those of the Materials Project (MP2020), eV/atom, [B].

    Args:
        crystals: crystals, compositions (counts or fractions, [B, 118]) or formulas.
        scale: one of `SCALES`.

    Raises:
        RewardError: there is no such scale.
        DataError: a formula that cannot be read.
        InvalidCrystal: a composition without atoms or with a negative amount.

    Example:
        >>> [round(shift, 2) for shift in scale_shift(["FeS2", "NaNO3", "NaCl"]).tolist()]
        [0.19, 0.38, 0.02]
    """
    rows, device = compositions(crystals)
    if check_scale(scale) == "mp2020":
        return torch.zeros(len(rows), dtype=torch.float64, device=device)
    columns = scale_features(rows)
    shift = -sum(value * columns[name] for name, value in _coefficients().items())
    # An element is its own reference.
    return (shift * (rows > 0).sum(1).gt(1).to(shift)).to(device)


@lru_cache(maxsize=1)
def _coefficients() -> dict[str, float]:
    return json.loads(TABLE.read_text(encoding="utf-8"))["coefficients"]


_CHI = torch.tensor(elements.ELECTRONEGATIVITY)


@dataclass(frozen=True, eq=False, kw_only=True)
class Rescaled:
    """A formation energy of the Materials Project's scale moved to another; a `Property`.

    Attributes:
        energy: the formation energy on the scale of MP2020, eV/atom.
        scale: one of `SCALES`.
    """

    energy: Property
    scale: str = "charge"
    name: str = "formation_energy"
    unit: str = "eV/atom"

    def __post_init__(self) -> None:
        check_property("rescaled", self.energy)
        check_scale(self.scale)

    def __call__(self, crystals: Crystals) -> Floats:
        """Formation energy of each crystal on the scale, eV/atom."""
        return self._moved(crystals, self.energy(crystals))

    def moments(self, crystals: Crystals) -> tuple[Floats, Floats]:
        """Mean and standard error of each crystal, eV/atom."""
        both = getattr(self.energy, "moments", None)
        mean, std = both(crystals) if both else (self.energy(crystals), self.energy.std(crystals))
        return self._moved(crystals, mean), std

    def std(self, crystals: Crystals) -> Floats:
        """How unsure each value is, eV/atom: as unsure as on the other scale."""
        return self.energy.std(crystals)

    def confidence_bound(self, crystals: Crystals, n_sigma: float) -> Floats:
        """``mean + n_sigma * std``."""
        return self._moved(crystals, self.energy.confidence_bound(crystals, n_sigma))

    def to(self, device: torch.device | str) -> Rescaled:
        """The same property on ``device``."""
        return replace(self, energy=moved(self.energy, device))

    def config(self) -> dict[str, Any]:
        """The configuration that builds it."""
        return {
            "_target_": "crystalgfn.properties.energy_scale.Rescaled",
            "energy": describe(self.energy),
            "scale": self.scale,
        }

    def _moved(self, crystals: Crystals, values: Floats) -> Floats:
        return values + scale_shift(crystals, self.scale).to(values)
