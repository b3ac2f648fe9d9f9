"""How scarce the elements of a crystal are in the Earth's crust."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from crystalgfn.domain.crystals import Crystals
from crystalgfn.rewards.properties import _Exact
from crystalgfn.tables.elements import NUMBER
from crystalgfn.typing import Floats

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
