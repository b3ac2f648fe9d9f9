"""What a proxy sees of a crystal: numbers from group, composition and lattice, for whole batches at once."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.crystallography.lattice import cosine_of
from crystalgfn.crystallography.lattice_vectors import successive_minima
from crystalgfn.typing import (
    ElementComponents,
    ElementShares,
    ElementTable,
    FeatureRows,
    FeatureValues,
    Values,
)

#: Atoms of one element in the primitive cell up to which its Wyckoff positions are counted; of more as of so many.
LARGEST = 96


class Features(nn.Module):
    """Crystals -> float32 features ``[B, n]``, for all 118 elements and 230 groups.

    Composition: element fractions; mean, standard deviation, smallest and largest of electronegativity, radius, row,
    group, ln mass; differences between pairs; how evenly the elements share the atoms; numbers of elements and atoms.
    Lattice: ln volume per atom; ln packing fraction with spheres of the tabulated radii; ln lengths, absolute, over the
    cube root of the volume, and sorted; cosines of the angles. Group: lattice system, point symmetry, order of the
    point group, centring, Wyckoff positions. (Which group it is reaches the network as an embedding, apart from this.)
    With ``translations`` also the three successive minima of the primitive lattice, ln against the cube root of its
    volume and of the volume per atom, and against the largest and the mean diameter of its atoms: how near atoms are to
    their own images, which the lengths of a centred or skew conventional cell do not say.

    With ``wyckoff`` also what each element may do in the group, see `wyckoff_table`: sums over the elements of the
    largest and the smallest number of free coordinates and of the smallest number of orbits, a share of the atoms; the
    smallest of the largest numbers a share of the element's atoms; the mean ln number of ways.

    The tables are buffers, saved with the weights: a later change of a table leaves a fitted proxy as it was.
    """

    element_table: torch.Tensor
    sphere_volume: torch.Tensor
    group_table: torch.Tensor
    wyckoff_table: torch.Tensor

    def __init__(self, translations: bool = False, wyckoff: bool = False) -> None:
        super().__init__()
        self.translations, self.wyckoff = translations, wyckoff
        self.register_buffer("element_table", torch.from_numpy(element_table()))
        self.register_buffer("sphere_volume", torch.from_numpy(sphere_volumes()))
        self.register_buffer("group_table", torch.from_numpy(group_table()))
        if wyckoff:
            self.register_buffer("wyckoff_table", torch.from_numpy(wyckoff_table()))
        self.size = self(Crystals(torch.ones(1).long(), torch.eye(118)[:1].long(), torch.full((1, 6), 90.0))).shape[1]

    def forward(self, crystals: Crystals) -> FeatureRows:
        """The features of each crystal."""
        counts = crystals.composition.float()
        n_atoms = counts.sum(1, keepdim=True)
        fractions = counts / n_atoms
        # Shares of the elements that are there, largest first, and which they are: all that statistics need.
        largest = max(5, int((counts > 0).sum(1).max())) if len(counts) else 5
        shares, which = fractions.topk(largest, dim=1)
        every = [
            fractions,
            element_statistics(shares, self.element_table[which]),
            _stoichiometry(shares, n_atoms),
            self._lattice(crystals, fractions),
            self.group_table[crystals.space_group - 1],
            (n_atoms * crystals.centring[:, None]).log(),
        ]
        if self.wyckoff:
            every.append(self._wyckoff(crystals.space_group, crystals.composition.gather(1, which), shares))
        return torch.cat(every, 1)

    def _wyckoff(self, space_group: Values, counts: ElementShares, shares: torch.Tensor) -> FeatureRows:
        of_element = self.wyckoff_table[space_group[:, None] - 1, counts.clamp_max(LARGEST)]  # a share of its atoms
        most, least, orbits, ways = of_element.unbind(-1)
        sums = [(shares * value).sum(1) for value in (most, least, orbits)]
        tightest = torch.where(shares > 0, most, 3.0).amin(1)
        return torch.stack([*sums, tightest, (shares * ways).sum(1)], 1)

    def _lattice(self, crystals: Crystals, fractions: torch.Tensor) -> torch.Tensor:
        lattice = crystals.lattice.float()
        volume = crystals.volume_per_atom.float()[:, None].clamp_min(1e-3)
        ln_volume, ln_lengths = volume.log(), lattice[:, :3].log()
        packing = (fractions @ self.sphere_volume)[:, None].log() - ln_volume
        shape = ln_lengths - ln_lengths.mean(1, keepdim=True)
        shortest_first = shape.sort(1).values
        every = [ln_volume, packing, ln_lengths, shape, shortest_first, cosine_of(lattice[:, 3:])]
        if self.translations:
            minima = successive_minima(crystals.space_group, lattice).clamp_min(1e-2).log()
            radius = self.element_table[:, 1]
            largest = (radius * (fractions > 0)).amax(1, keepdim=True)
            sizes = [ln_volume / 3, (2 * largest).log(), (2 * fractions @ radius[:, None]).log()]
            cell = ln_volume / 3 + crystals.n_atoms.float()[:, None].log() / 3
            every += [minima - size for size in (cell, *sizes)]
        return torch.cat(every, 1)


def wyckoff_table() -> np.ndarray:
    """What n atoms of one element may do in each group were they alone, float32 [230, LARGEST + 1, 4].

    The largest and the smallest number of free coordinates and the smallest number of orbits, each over n, and the ln
    of one more than the number of ways to choose positions. A position without free coordinates holds one orbit. Where
    n atoms cannot be had: 0, 0, 2 and -1. No atoms: zeros.
    """
    table = np.zeros((230, LARGEST + 1, 4))
    for i, positions in enumerate(space_groups.WYCKOFF):
        none = [math.inf] * LARGEST  # lists: much faster than arrays, one number at a time
        most, least, orbits = [0.0, *(-one for one in none)], [0.0, *none], [0.0, *none]
        ways = [1.0, *[0.0] * LARGEST]
        for position in positions:
            size, free = position.primitive_multiplicity, position.n_free
            counts = range(size, LARGEST + 1)
            for n in counts if free else reversed(counts):  # upwards a position is taken again and again
                most[n] = max(most[n], most[n - size] + free)
                least[n] = min(least[n], least[n - size] + free)
                orbits[n] = min(orbits[n], orbits[n - size] + 1)
                ways[n] += ways[n - size]
        n, of = np.arange(1, LARGEST + 1), np.array(ways[1:])
        shares = np.stack([np.array(value[1:]) / n for value in (most, least, orbits)] + [np.log1p(of)], 1)
        table[i, 1:] = np.where(of[:, None] > 0, shares, [0, 0, 2, -1])
    return table.astype(np.float32)


def element_statistics(shares: ElementShares, values: ElementComponents) -> FeatureRows:
    """Mean, deviation, smallest, largest of values [B, k, p], and mean differences over pairs of the first two p."""
    mean = (shares[:, :, None] * values).sum(1)
    std = (shares[:, :, None] * (values - mean[:, None]).square()).sum(1).sqrt()
    absent = (shares == 0)[:, :, None] * 1e6
    low, high = (values + absent).amin(1), (values - absent).amax(1)
    apart = (values[:, :, None, :2] - values[:, None, :, :2]).abs()
    pairs = (apart * (shares[:, :, None] * shares[:, None, :])[..., None]).sum((1, 2))
    return torch.cat([mean, std, low, high, pairs], 1)


def _stoichiometry(shares: torch.Tensor, n_atoms: torch.Tensor) -> torch.Tensor:
    present = (shares > 0).sum(1, keepdim=True).float()
    norms = [shares.pow(p).sum(1, keepdim=True).pow(1 / p) for p in (2, 3, 5)]
    return torch.cat([present, n_atoms.log(), 1 / n_atoms, *norms, shares[:, :5]], 1)


def scales(features: FeatureRows) -> tuple[FeatureValues, FeatureValues]:
    """Shift and scale that standardise features whose first 118 are element fractions.

    Fractions of rare elements are not blown up to unit variance; constant features are taken out.
    """
    deviation = features.std(0)
    deviation[:118] = deviation[:118].clamp_min(0.05)
    return features.mean(0), torch.where(deviation > 1e-4, 1 / deviation.clamp_min(1e-4), 0.0)


def element_table() -> np.ndarray:
    """Electronegativity, radius (Å), row, group, ln mass of each element, float32 [118, 5]; medians where unknown."""
    columns = [
        elements.ELECTRONEGATIVITY,
        elements.RADIUS,
        elements.ROW,
        elements.GROUP,
        np.log(np.asarray(elements.MASS, dtype=np.float64)),
    ]
    table = np.stack([np.asarray(column, dtype=np.float64) for column in columns], 1)
    return np.where(np.isfinite(table), table, np.nanmedian(table, axis=0)).astype(np.float32)


def sphere_volumes() -> np.ndarray:
    """Volume of an atom's sphere, Å3, float32 [118]."""
    return (4 / 3 * np.pi * element_table()[:, 1] ** 3).astype(np.float32)


def group_table() -> np.ndarray:
    """What all groups have, float32 [230, 21]: lattice system (8), point symmetry (5), and eight numbers of their kind.

    The eight: ln order of the point group; ln centring; ln smallest primitive multiplicity of a position without and of
    one with free parameters (order of the point group where there is none); numbers of positions without, with one, two
    and three free parameters.
    """
    rows = []
    for i in range(230):
        positions = space_groups.WYCKOFF[i]
        order = int(space_groups.POINT_GROUP_ORDER[i])
        fixed = [p.primitive_multiplicity for p in positions if p.n_free == 0]
        free = [p.primitive_multiplicity for p in positions if p.n_free > 0]
        kinds = [sum(p.n_free == n for p in positions) for n in range(4)]
        system = np.eye(8)[int(space_groups.CRYSTAL_LATTICE_SYSTEM[i])]
        symmetry = np.eye(5)[int(space_groups.POINT_SYMMETRY[i])]
        sizes = np.log([order, int(space_groups.CENTRING[i]), min(fixed, default=order), min(free, default=order)])
        rows.append(np.concatenate([system, symmetry, sizes, kinds]))
    return np.array(rows, dtype=np.float32)


STATES = "common"  # the table of oxidation states that the features know


def chemistry_table() -> ElementTable:
    """Electronegativity, ln radius, row, group, lowest and highest common oxidation state of each element."""
    states = [some or (0,) for some in elements.OXIDATION_STATES[STATES]]
    columns = [
        torch.tensor(elements.ELECTRONEGATIVITY),
        torch.tensor(elements.RADIUS).log(),
        torch.tensor(elements.ROW),
        torch.tensor(elements.GROUP),
        torch.tensor([float(min(some)) for some in states]),
        torch.tensor([float(max(some)) for some in states]),
    ]
    return torch.stack([column.float() for column in columns], 1)
