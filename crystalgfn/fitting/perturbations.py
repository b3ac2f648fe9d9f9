"""Strained copies of real crystals, labelled by a documented prior for what a strain costs.

Databases hold crystals at equilibrium only, so nothing in them says that a cell 40 % too large or sheared by 15 % costs
energy. The prior does, roughly:

* volume: second-order Birch-Murnaghan (third order with B' = 4), E = 9/8 B V0 ((V0/V)^(2/3) - 1)²;
* shape at that volume: G V0 e':e' with the traceless part e' of the logarithmic strain and G = B / 2;
* bulk modulus: B = 144 eV Å3 / V0², V0 the volume per atom, and B V0 held to 1.5-20 eV. It is a rule of thumb (the
  trend of B V0 over diamond, MgO, Cu, Si, NaCl, CsCl, K), good to about a factor of two, and uses no data of the
  crystal;
* the sum levels off at 2 eV/atom, beyond which a crystal is bad enough.

These labels are a prior, not data: they place a minimum near every real cell and say little about its curvature.
"""

from __future__ import annotations

from math import log

import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.lattice import (
    CUBIC,
    KIND,
    cell_volume,
    cosine_of,
    deform,
    metric,
    volume_factor,
)
from crystalgfn.typing import Floats, Integers, Lattices, Vectors

VOLUME_RANGE = (0.6, 1.6)

MODULUS = 144.0  # eV Å3

STIFFNESS_RANGE = (1.5, 20.0)  # B V0, eV

SHEAR_RATIO = 0.5

CEILING = 2.0  # eV/atom

MAX_STRETCH, MAX_TURN = 0.4, 0.12  # standard deviations of ln(length) and of angles (radians), at most


def strain_energy(before: Lattices, after: Lattices, volume_per_atom: Floats) -> Floats:
    """The prior's energy of straining cells [B, 6] with the same axes, eV/atom [B].

    ``volume_per_atom`` is that of the equilibrium cells, Å3 [B].
    """
    factor = torch.linalg.cholesky(metric(before))
    left = torch.linalg.solve_triangular(factor, metric(after), upper=False)
    relative = torch.linalg.solve_triangular(factor, left.mT, upper=False)
    strain = 0.5 * torch.linalg.eigvalsh((relative + relative.mT) / 2).clamp_min(1e-9).log()  # principal log strains
    change = strain.sum(1)  # ln V/V0
    shape = (strain - change[:, None] / 3).square().sum(1)
    energy = stiffness(volume_per_atom) * (9 / 8 * torch.expm1(-2 / 3 * change).square() + SHEAR_RATIO * shape)
    return CEILING * -torch.expm1(-energy / CEILING)


def stiffness(volume_per_atom: Floats) -> Floats:
    """B V0 of the prior, eV, from the volume per atom in Å3."""
    return (MODULUS / volume_per_atom).clamp(*STIFFNESS_RANGE)


def strained(crystals: Crystals, generator: torch.Generator) -> tuple[Crystals, Floats]:
    """A strained copy of each crystal, and the prior's energy of the strain in eV/atom.

    The volume changes by a factor log-uniform in 0.6-1.6, for half of the copies in 0.87-1.15; free ratios of lengths
    mostly by a few per cent and up to about a factor of two, free angles by a few degrees; what the group fixes stays
    fixed.
    """
    n, lattice = len(crystals), crystals.lattice

    def normal() -> torch.Tensor:
        return torch.randn(n, 3, generator=generator, dtype=lattice.dtype)

    def size(most: float) -> torch.Tensor:
        return most * torch.rand(n, 1, generator=generator, dtype=lattice.dtype).square()

    stretch, turn = normal() * size(MAX_STRETCH), torch.rad2deg(normal() * size(MAX_TURN))
    low, high = (log(x) for x in VOLUME_RANGE)
    change = low + (high - low) * torch.rand(n, generator=generator, dtype=lattice.dtype)
    near = torch.rand(n, generator=generator) < 0.5
    change = torch.where(near, change * 0.3, change)
    copies = reshaped(crystals, stretch, turn, change)
    return copies, strain_energy(lattice, copies.lattice, crystals.volume_per_atom)


def jittered(crystals: Crystals, deviation: float, generator: torch.Generator) -> Crystals:
    """Copies whose ln lengths, angles in radians and ln volume are moved by ``deviation`` (a standard deviation)."""
    n, dtype = len(crystals), crystals.lattice.dtype
    moves = torch.randn(n, 7, generator=generator, dtype=dtype) * deviation
    return reshaped(crystals, moves[:, :3], torch.rad2deg(moves[:, 3:6]), moves[:, 6])


def reshaped(crystals: Crystals, stretch: Vectors, turn: Vectors, change: Floats) -> Crystals:
    """Crystals with other cells of their lattice systems; what the group fixes stays fixed.

    Args:
        crystals: [B].
        stretch: of the lengths, ln [B, 3]; their mean counts for nothing, as the volume is given.
        turn: of the angles, degrees [B, 3]; one that would flatten the cell is not made.
        change: of the volume, ln [B].
    """
    lattice = reshaped_lattice(crystals.space_group, crystals.lattice, stretch, turn, change)
    return Crystals(crystals.space_group, crystals.composition, lattice)


def reshaped_lattice(
    space_group: Integers, lattice: Lattices, stretch: Vectors, turn: Vectors, change: Floats
) -> Lattices:
    """The cells of `reshaped`, [B, 6]."""
    cubic = torch.as_tensor(KIND)[space_group - 1] == CUBIC
    wanted = deform(space_group, lattice, torch.where(cubic[:, None], 0.0, stretch), turn)
    flat = volume_factor(cosine_of(wanted[:, 3:])) < 0.5 * volume_factor(cosine_of(lattice[:, 3:]))
    wanted = torch.cat([wanted[:, :3], torch.where(flat[:, None], lattice[:, 3:], wanted[:, 3:])], 1)
    scale = (change.exp() * cell_volume(lattice) / cell_volume(wanted)).pow(1 / 3)
    return torch.cat([wanted[:, :3] * scale[:, None], wanted[:, 3:]], 1)
