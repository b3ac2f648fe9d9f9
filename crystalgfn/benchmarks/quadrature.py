"""The mass of a sampler's lattice density by quadrature: 1, or its likelihoods are wrong."""

from __future__ import annotations

from math import log

import torch

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.lattice import in_domain
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.space.space import CrystalSpace
from crystalgfn.typing import Booleans, Lattices, Points

LOW, HIGH = log(2.5), log(9.0)
#: The space that the density is integrated in, but for its group and number of atoms.
SPACE = {"elements": ["Na", "Cl"], "n_elements": (2, 2), "lengths": (2.5, 9.0), "volume_per_atom": (12.0, 30.0)}
#: Group, atoms, free parameters, log2 of the number of points.
CASES = (
    (225, {"Na": 1, "Cl": 1}, 1, 13),
    (194, {"Na": 2, "Cl": 2}, 2, 17),
    (123, {"Na": 1, "Cl": 1}, 2, 17),
    (62, {"Na": 4, "Cl": 4}, 3, 16),
    (61, {"Na": 8, "Cl": 8}, 3, 16),
)


def mass(sampler: Sampler, number: int, counts: dict[str, int], free: int, log2_n: int) -> float:
    """The integral of q over the lattices of one group and composition, under the reference measure.

    Nothing but `Sampler.log_prob` is used. Where an interval closes (an edge of the ratios' polygon) the density has an
    integrable spike, which sets the accuracy in two and three dimensions.

    Args:
        sampler: in `space` of the same group and counts.
        number: the space group, of orthorhombic or higher symmetry.
        counts: atoms of each element in the primitive cell.
        free: free lengths of the group, 1 to 3.
        log2_n: log2 of the number of points.
    """
    points, size = _points(2**log2_n, number, counts, free)
    total = 0.0
    for part in points.split(100_000):
        found = grid_crystals(number, counts, _cell(number, part))
        inside = found[_within(found)]
        total += float(sampler.log_prob(inside).exp().sum()) * size
    return total


def space(number: int, counts: dict[str, int]) -> CrystalSpace:
    """All cells of one group and number of atoms."""
    total = sum(counts.values())
    return CrystalSpace(**SPACE, space_groups=[number], n_atoms=(total, total))


def grid_crystals(number: int, counts: dict[str, int], lattice: Lattices) -> Crystals:
    """Crystals of one group and composition with given lattices [B, 6]."""
    composition = torch.zeros(len(lattice), 118, dtype=torch.int64)
    for symbol, n in counts.items():
        composition[:, elements.NUMBER[symbol] - 1] = n
    return Crystals(torch.full((len(lattice),), number), composition, lattice)


def _points(n: int, number: int, counts: dict[str, int], free: int) -> tuple[Points, float]:
    """Low-discrepancy ln-lengths [n, free] that fill the allowed volumes, and the measure that each stands for.

    Drawn as axis ratios and ln of the cell volume, from which the ln-lengths follow linearly with Jacobian 1/3.
    """
    x = torch.quasirandom.SobolEngine(free, scramble=True, seed=0).draw(n, dtype=torch.float64)
    width = HIGH - LOW
    ratios = width * (2 * x[:, :-1] - 1)
    atoms = sum(counts.values()) * int(space_groups.CENTRING[number - 1])
    low, high = (log(v * atoms) for v in SPACE["volume_per_atom"])
    sigma = low + (high - low) * x[:, -1] - (log(0.75**0.5) if number in range(143, 195) else 0)
    if free == 1:
        lengths = sigma[:, None] / 3
    elif free == 2:  # a = b, v = ln(a / c)
        lengths = torch.stack([sigma + ratios[:, 0], sigma - 2 * ratios[:, 0]], 1) / 3
    else:
        u, v = ratios.unbind(1)
        lengths = torch.stack([sigma + 2 * u + v, sigma - u + v, sigma - u - 2 * v], 1) / 3
    return lengths, (2 * width) ** (free - 1) * (high - low) / 3 / n


def _cell(number: int, x: Points) -> Lattices:
    """Cells from ln-lengths [n, free]."""
    right = torch.full((len(x), 1), 90.0, dtype=torch.float64)
    length = x.exp()
    gamma = right + 30 if number in range(143, 195) else right
    if number >= 195:
        lengths = length.expand(-1, 3)
    elif number >= 75:
        lengths = torch.stack([length[:, 0], length[:, 0], length[:, 1]], 1)
    else:
        lengths = length
    return torch.cat([lengths, right, right, gamma], 1)


def _within(x: Crystals) -> Booleans:
    """The limits of `SPACE` without the tolerances of `contains`."""
    per_atom = x.volume_per_atom
    inside = (per_atom >= SPACE["volume_per_atom"][0]) & (per_atom <= SPACE["volume_per_atom"][1])
    inside &= (x.lattice[:, :3] >= SPACE["lengths"][0]).all(1) & (x.lattice[:, :3] <= SPACE["lengths"][1]).all(1)
    return inside & in_domain(x.space_group, x.lattice, 0.0, 1e-9)
